"""Measures journal replication and writes ``benchmarks/results/journal.json`` and ``docs/benchmarks.md``.

::

    python -m benchmarks.journal                    # everything, in about six minutes on two processors
    python -m benchmarks.journal --quick            # to see that it runs
    python -m benchmarks.journal --only lag,reads   # the other cases keep what they had
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.bulk import capture, memory, shipping, shipping_sqlite
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
    parser = argparse.ArgumentParser(prog="benchmarks.journal", description="Measures journal replication.")
    parser.add_argument("--quick", action="store_true", help="a few rounds, within a minute or so; its figures aren't to be quoted")
    parser.add_argument("--large", action="store_true", help="memory with 5 million rows")
    parser.add_argument("--only", metavar="CASE", help=f"some cases, with commas between: {', '.join(CASES)}")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE", help="the JSON file")
    parser.add_argument("--document", type=Path, default=DOCUMENT, metavar="FILE", help="the Markdown file")
    options = parser.parse_args(arguments)
    chosen = options.only.split(",") if options.only else list(CASES)
    if unknown := set(chosen) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    plan = Plan(quick=options.quick, large=options.large)
    for case in chosen:
        began, load = time.monotonic(), os.getloadavg()[0]
        found = CASES[case](plan)
        sections = found if isinstance(found, list) else [found]
        report.write(options.results, report.machine([load, os.getloadavg()[0]], plan.quick), {case: sections})
        options.document.write_text(report.document(options.results, list(CASES)))
        print(f"{report.summary(sections)}\n  ({case}: {time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
