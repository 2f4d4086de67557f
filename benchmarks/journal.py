"""Measures journal replication and writes ``benchmarks/results/journal.json`` and ``docs/benchmarks.md``.

::

    python -m benchmarks.journal                    # everything, in about six minutes on two processors
    python -m benchmarks.journal --quick            # to see that it runs
    python -m benchmarks.journal --only lag,reads   # the other cases keep what they had
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.bulk import capture, memory, shipping, shipping_sqlite
from benchmarks.command import Command
from benchmarks.lag import lag
from benchmarks.measure import Section
from benchmarks.plan import Plan
from benchmarks.processes import processes
from benchmarks.single import reading, writing

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "journal.json"
DOCUMENT = ROOT / "docs" / "benchmarks.md"

CASES: dict[str, Callable[[Plan], Section | list[Section]]] = {
    "writes-postgresql": lambda plan: writing("postgresql", plan),
    "writes-sqlite": lambda plan: writing("sqlite", plan),
    "processes": processes,
    "capture-postgresql": lambda plan: capture("postgresql", plan),
    "capture-sqlite": lambda plan: capture("sqlite", plan),
    "shipping-postgresql": shipping,
    "shipping-sqlite": shipping_sqlite,
    "memory": memory,
    "lag": lag,
    "reads": lambda plan: [reading("postgresql", plan), reading("sqlite", plan)],
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    command = Command("benchmarks.journal", "Measures journal replication.", "a few rounds, within a minute or so", list(CASES), RESULTS, DOCUMENT)
    command.parser.add_argument("--large", action="store_true", help="memory with 5 million rows")
    options = command.parse(arguments)
    plan = Plan(quick=options.quick, large=options.large)
    command.measure(options, {name: partial(case, plan) for name, case in CASES.items()})


if __name__ == "__main__":
    main()
