"""What every command shares: its common options, and how it prints facts."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from replstore.config import Settings

COMMON = "Settings and output"


def _option(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=COMMON, **more)


@dataclass(frozen=True)
class Options:
    """The options of every command.

    A command that takes ``options: Options`` gets them; each field becomes one option.
    """

    config: Annotated[str | None, _option("--config", help="Settings file. [default: replstore.toml or pyproject.toml here]", metavar="FILE")] = None
    primary: Annotated[
        str | None, _option("--primary", help="URL of the primary; or REPLSTORE_PRIMARY, which no list of processes shows.", metavar="URL")
    ] = None
    standby: Annotated[str | None, _option("--standby", help="URL of the standby; or REPLSTORE_STANDBY.", metavar="URL")] = None
    replication: Annotated[
        Literal["journal", "native"] | None,
        _option("--replication", help="journal: replstore copies the changes itself; native: PostgreSQL does.", metavar="HOW"),
    ] = None
    durability: Annotated[
        Literal["replicated", "async", "server"] | None,
        _option(
            "--durability",
            help="replicated: a commit counts when it is on both nodes; async: on the writer; server (native): as its server says.",
            metavar="WHEN",
        ),
    ] = None
    format: Annotated[Literal["table", "json"], _option("--format", help="Print facts as a table or as json.", metavar="FORM")] = "table"

    @property
    def overrides(self) -> dict[str, Any]:
        """The settings that were given as options: ``Store(options.config, **options.overrides)``."""
        given = {name: getattr(self, name) for name in ("primary", "standby", "replication", "durability")}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def json(self) -> bool:
        """Whether facts are printed as JSON."""
        return self.format == "json"

    def settings(self, **more: Any) -> Settings:
        """The settings: options first, then the environment, then the settings file.

        Args:
            more: further settings that the command line gives, by name; None means not given.

        Raises:
            ConfigError: they can't be used.
        """
        from replstore.config import Settings

        return Settings.load(self.config, **self.overrides, **more)


def with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Replaces a parameter ``options: Options`` by the options themselves, as typer wants them; a function without it stays as it is."""
    hints = get_type_hints(function, include_extras=True)
    place = next((name for name, hint in hints.items() if hint is Options), None)
    if place is None:
        return function
    common = get_type_hints(Options, include_extras=True)
    own = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(function).parameters.items()
        if name != place
    ]
    taken = {parameter.name for parameter in own}  # an option that means something else here
    shared = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=common[field.name])
        for field in fields(Options)
        if field.name not in taken
    ]

    def command(**given: Any) -> Any:
        options = Options(**{parameter.name: given.pop(parameter.name) for parameter in shared})
        return function(**{place: options}, **given)

    command.__name__, command.__doc__, command.__module__ = function.__name__, function.__doc__, function.__module__
    parameters = own + shared
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def console(*, stderr: bool = False) -> Console:
    """Where a command prints for people: as wide as the terminal, colours only where there is one; what goes elsewhere is broken by nobody."""
    from rich.console import Console

    elsewhere = not (sys.stderr if stderr else sys.stdout).isatty() and "COLUMNS" not in os.environ
    return Console(stderr=stderr, highlight=False, soft_wrap=elsewhere)


def print_json(facts: Any) -> None:
    """Prints facts for programs: one JSON document on stdout."""
    print(json.dumps(facts, indent=2, ensure_ascii=False, default=str))
