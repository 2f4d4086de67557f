"""What the benchmarks' commands have in common: their options, and measuring the chosen cases one after the other."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.measure import Section


class Command:
    """A command that measures cases and writes a JSON file and a Markdown file.

    Args:
        prog, description, quick: what its help says.
        cases: names of the cases.
        results, document: where the files are, unless an option says otherwise.
        apart: cases that are measured only if they are named.
    """

    def __init__(
        self, prog: str, description: str, quick: str, cases: Sequence[str], results: Path, document: Path, *, apart: Sequence[str] = ()
    ) -> None:
        self._cases, self._apart = cases, apart
        self.parser = argparse.ArgumentParser(prog=prog, description=description)
        self.parser.add_argument("--quick", action="store_true", help=f"{quick}; its figures aren't to be quoted")
        self.parser.add_argument("--only", metavar="CASE", help=f"some cases, with commas between: {', '.join(cases)}")
        self.parser.add_argument("--results", type=Path, default=results, metavar="FILE", help="the JSON file")
        self.parser.add_argument("--document", type=Path, default=document, metavar="FILE", help="the Markdown file")

    def parse(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """The options; ``chosen`` are the cases."""
        options = self.parser.parse_args(arguments)
        options.chosen = options.only.split(",") if options.only else [case for case in self._cases if case not in self._apart]
        if unknown := set(options.chosen) - set(self._cases):
            self.parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(self._cases)}")
        return options

    def measure(self, options: argparse.Namespace, cases: Mapping[str, Callable[[], Section | list[Section]]], *head: str) -> None:
        """Measures what was chosen, and writes after each case.

        Args:
            options: as ``parse`` gave them.
            cases: by name, what measures each.
            head: what the document begins with, if not as usual.
        """
        for case in options.chosen:
            began, load = time.monotonic(), os.getloadavg()[0]
            found = cases[case]()
            sections = found if isinstance(found, list) else [found]
            report.write(options.results, report.machine([load, os.getloadavg()[0]], options.quick), {case: sections})
            options.document.write_text(report.document(options.results, list(self._cases), *head))
            print(f"{report.summary(sections)}\n  ({case}: {time.monotonic() - began:.0f} s)", flush=True)
