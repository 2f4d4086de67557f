"""Measures native replication and writes ``benchmarks/results/native.json`` and ``docs/benchmarks-native.md``.

::

    python -m benchmarks.native                      # everything, in about fifteen minutes on two processors
    python -m benchmarks.native --quick              # to see that it runs
    python -m benchmarks.native --only writes,reads  # the other cases keep what they had
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.command import Command
from benchmarks.failover import failover
from benchmarks.measure import Section
from benchmarks.overhead import delayed, reading, replicated, writing
from benchmarks.plan import Plan

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "native.json"
DOCUMENT = ROOT / "docs" / "benchmarks-native.md"
HEAD = """# Measurements of native replication

Made by `make bench-native`, from `benchmarks/results/native.json`; don't edit.

All of a section's variants ran in turns in one run, and ratios are formed within a turn. A value is the median, in brackets the quartiles of all rounds.
Two PostgreSQL servers of one cluster on this machine, with `fsync`; the standby streams, and `wal_retrieve_retry_interval` is 100 ms there.
"""

CASES: dict[str, Callable[[Plan], Section | list[Section]]] = {
    "writes": writing,
    "reads": reading,
    "delayed": delayed,
    "replicated": replicated,
    "failover": failover,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    command = Command("benchmarks.native", "Measures native replication.", "a few rounds, within two minutes or so", list(CASES), RESULTS, DOCUMENT)
    command.parser.add_argument("--faults", type=int, default=30, metavar="N", help="how often each fault is made (default: 30)")
    options = command.parse(arguments)
    plan = Plan(quick=options.quick, faults=3 if options.quick else options.faults)
    command.measure(options, {name: partial(case, plan) for name, case in CASES.items()}, HEAD)


if __name__ == "__main__":
    main()
