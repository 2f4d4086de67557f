"""What a check has found so far, kept in a file: one that broke off goes on where it was.

Each part of it was compared at its own time, which the report says.  The file goes when the check is done, so that nothing old is taken for new.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from replstore.errors import ConfigError
from replstore.reconcile.keymap import KeyMap
from replstore.reconcile.origin import Origin
from replstore.reconcile.report import Difference, TableReport
from replstore.reconcile.schema import Definitions

VERSION = 3


class Log:
    """The file, or none.

    Args:
        path: of the file; empty: nothing is kept.
        of: what the check is of; another one's file is refused.

    Raises:
        ConfigError: the file can't be used.
    """

    def __init__(self, path: str, of: dict[str, Any]) -> None:
        self._path = path
        self._found: dict[str, TableReport] = {}
        self._from: dict[str, str] = {}
        self._taken: list[str] = []
        head = {"replstore check": VERSION, **of}
        if path:
            try:
                if not self._read(head):
                    self._write(head, "x")
            except OSError as error:
                raise ConfigError(f"{path} can't keep what the check finds: {error.strerror}") from error

    def _read(self, head: dict[str, Any]) -> bool:
        if not os.path.exists(self._path):
            return False
        lines: list[dict[str, Any]] = []
        with open(self._path, encoding="utf-8") as file, suppress(ValueError):  # the last line may have broken off
            lines += map(json.loads, file)
        if not lines or lines[0] != json.loads(json.dumps(head)):
            raise ConfigError(f"{self._path} is of another check, or none: give another file, or remove it")
        for line in lines[1:]:
            self._found[line["part"]] = _report(line["report"])
            self._from[line["part"]] = line["at"]
        return True

    def _write(self, line: dict[str, Any], mode: str = "a") -> None:
        with open(self._path, mode, encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def part(self, tables: Definitions, name: str, part: str, compare: Callable[[], TableReport]) -> TableReport:
        """A part of a table: as it was found earlier, or as it is now.

        Args:
            tables: the definitions; one that has changed is compared again.
            part: which part it is; empty: the whole table.
            compare: does it.
        """
        if not self._path:
            return compare()
        definitions = tables.primary[name].to_json() + tables.standby[name].to_json()
        what = f"{name} {sha256(definitions.encode()).hexdigest()[:16]} {part}".rstrip()
        if what not in self._found:
            self._found[what] = compare()
            self._write({"part": what, "at": datetime.now(UTC).isoformat(timespec="seconds"), "report": asdict(self._found[what])})
        elif what in self._from:
            self._taken.append(self._from[what])
        return self._found[what]

    def notes(self) -> Iterator[str]:
        """What was taken over, in a sentence."""
        if self._taken:
            parts = "1 part was" if len(self._taken) == 1 else f"{len(self._taken)} parts were"
            yield f"{parts} taken over from {self._path}, compared from {min(self._taken)} on"

    @contextmanager
    def done(self) -> Iterator[Log]:
        """Removes the file, unless the check broke off."""
        yield self
        if self._path:
            os.unlink(self._path)


def _report(kept: dict[str, Any]) -> TableReport:
    differences = tuple(
        Difference(**{**each, "columns": tuple(each["columns"]), "origin": Origin.of(each["origin"])}) for each in kept["differences"]
    )
    return TableReport(**{**kept, "differences": differences, "map": kept["map"] and KeyMap(**_tuples(kept["map"]))})


def _tuples(kept: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(map(tuple, value)) if isinstance(value, list) else value for name, value in kept.items()}
