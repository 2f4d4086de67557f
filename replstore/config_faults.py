"""What is wrong with settings, in plain words: one sentence a fault, with the place where the value came from and never with a password."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic_core import ErrorDetails

from replstore.errors import ConfigError

PREFIX = "REPLSTORE_"
#: The settings that may hold a password.
URLS = ("primary", "standby", "witness")


def refuse_unknown(given: Mapping[str, Any], names: Collection[str], source: str) -> None:
    """Refuses names that are no settings.

    Args:
        given: what was given, by name; the values are never shown.
        names: the settings.
        source: the file; empty: keywords.

    Raises:
        ConfigError: names each, and the nearest setting.
    """
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ConfigError("; ".join(f"{source + ': ' if source else ''}{name!r} isn't a setting{_nearest(name, names)}" for name in unknown))


def _nearest(name: str, names: Collection[str]) -> str:
    near = get_close_matches(name.lower().replace("-", "_"), names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names)}"


def refuse_misspelt(environment: Mapping[str, str], names: Collection[str]) -> None:
    """Refuses a variable that is surely a misspelt setting; others that begin alike may belong to somebody else."""
    for variable in environment:
        name = variable.removeprefix(PREFIX).lower()
        if variable.startswith(PREFIX) and name not in names and (near := get_close_matches(name, names, n=1, cutoff=0.85)):
            raise ConfigError(f"the environment variable {variable} isn't a setting; did you mean {PREFIX}{near[0].upper()}?")


def sentence(fault: ErrorDetails, sources: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """One of pydantic's faults in plain words, with the place where the value came from; never with a value that may hold a password."""
    if not fault["loc"]:
        return str(fault["ctx"]["error"])
    name = str(fault["loc"][0])
    source = next((source for source, values in sources if name in values), "")
    where = f"{PREFIX}{name.upper()}" if source == PREFIX else f"{source}: {name}" if source else name
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "missing":
        return f'{name} isn\'t set: give --{name}, {PREFIX}{name.upper()}, or {name} = "…" in replstore.toml (`replstore init` writes one)'
    if kind == "value_error":
        return f"{where}: {context['error']}"
    got = "" if name in URLS else _harmless(fault["input"])
    texts = {
        "literal_error": "must be {expected}",
        "greater_than": "must be more than {gt:g}",
        "greater_than_equal": "must be at least {ge:g}",
        "less_than_equal": "must be at most {le:g}",
        "bool_parsing": "must be true or false",
        "bool_type": "must be true or false",
        "int_parsing": "must be a whole number",
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "string_type": "must be a text",
    }
    return f"{where} {texts.get(kind, 'must be a number').format(**context)}{got}"


def _harmless(value: Any) -> str:
    """What was given, if it is short and can hold no URL."""
    if isinstance(value, str):
        return f", it is {value!r}" if re.fullmatch(r"[\w .-]{1,20}", value) else ""
    return f", it is {str(value).lower()}" if isinstance(value, int | float) else ""
