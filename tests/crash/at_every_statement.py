"""Runs one of replstore's operations on two SQLite files again and again, and kills the process at one SQL statement after the other.

``python at_every_statement.py OPERATION DIRECTORY [--all]`` prints one JSON object per statement: its number, its text, and what was wrong
afterwards, if anything.  Every run begins from the same bytes in the same files (the same inodes, which are their identity).  The operation and
what recovers from its death run in forked processes; this one never opens a database while it forks.

What a process leaves behind in a SQLite file changes with its COMMITs only.  So by default the process is killed where that can make a
difference: right before each COMMIT, which is after the last one as well, and right before each statement that is a transaction by itself.
``--all`` kills it at the others as well.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import sqlite3
import sys
import traceback
import weakref
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import copies
import decisions
import operations
from operations import Operation, Place
from sqlalchemy import event
from sqlalchemy.pool import Pool

from replstore.databases.sqlite.dialect import StoreConnection

KILLED = 9
#: What a Store imports when it needs it; here once instead of in every process.
LATER = ("replstore.databases.sqlite.database", "replstore.migrate", "replstore.reconcile", "alembic.ddl.sqlite", "sqlalchemy.dialects.sqlite")
OPERATIONS = {**operations.OPERATIONS, **copies.OPERATIONS, **decisions.OPERATIONS}


class Trace:
    """Counts statements over all connections of this process, and ends the process at one of them.

    Args:
        at: the number of that statement; what only reads doesn't count.
        all: count also what is inside a transaction.
        note: where to write down what it was.
    """

    def __init__(self, at: int, *, all: bool, note: Path) -> None:
        self.at, self.all, self.note, self.seen = at, all, note, 0

    def __call__(self, connection: sqlite3.Connection, statement: str) -> None:
        kind = statement.lstrip()[:6].upper()
        if kind in ("SELECT", "PRAGMA", "ATTACH") or " TEMP" in statement or "temp." in statement[:30]:
            return
        if not self.all and kind != "COMMIT" and (connection.in_transaction or kind.startswith("BEGIN")):
            return
        self.seen += 1
        if self.seen == self.at:
            self.note.write_text(" ".join(statement.split())[:100])
            os._exit(KILLED)


def trace_connections(trace: Trace) -> None:
    """Every connection that replstore opens from now on is traced."""
    made = sqlite3.Connection.__init__

    def init(self: Any, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        connection = weakref.proxy(self)
        self.set_trace_callback(lambda statement: trace(connection, statement))

    def witness(connection: sqlite3.Connection, _: Any) -> None:
        if not isinstance(connection, StoreConnection):
            connection.set_trace_callback(lambda statement: trace(connection, statement))

    StoreConnection.__init__ = init  # type: ignore[method-assign]
    event.listen(Pool, "connect", witness)


def forked(function: Callable[[], Any]) -> tuple[int, str]:
    """Runs a function in a process of its own: its exit code, and what it said if it failed."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        code = 0
        try:
            function()
        except BaseException:
            code = 1
            os.write(write, traceback.format_exc()[-4000:].encode())
        os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as said:
        text = said.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


class Saved:
    """The bytes of every file in a directory, put back into the same inodes."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._names = {path: (path.stat().st_ino, path.read_bytes()) for path in self._files()}

    def _files(self) -> list[Path]:
        return [path for path in self._place.directory.rglob("*") if path.is_file()]

    def restore(self) -> None:
        """Moves each file back to its name, with its content, and removes all others."""
        kept = {inode for inode, _ in self._names.values()}
        there = {}
        for path in self._files():
            inode = path.stat().st_ino
            if inode in kept:
                there[inode] = path
            else:
                path.unlink()
        for path, (inode, content) in self._names.items():
            path.parent.mkdir(exist_ok=True)
            if inode in there:
                there[inode].rename(path)
            path.write_bytes(content)  # a log that was removed meanwhile has no identity to keep


def run(operation: Operation, place: Place, *, all: bool) -> None:
    """Kills the operation at its first statement, its second, …, until it comes to its end."""
    place.settings = operation.everywhere(place)
    code, said = forked(lambda: operation.prepare(place))
    assert code == 0, said
    for name in LATER:
        import_module(name)
    gc.freeze()  # a collection in a forked process would copy every page
    saved, note = Saved(place), place.directory.parent / "statement"
    for at in itertools.count(1):
        saved.restore()

        def operate(at: int = at) -> None:
            trace_connections(Trace(at, all=all, note=note))
            operation.operate(place)

        code, said = forked(operate)
        if code not in (0, KILLED):
            print(json.dumps({"at": at, "statement": "", "wrong": "the operation failed: " + said}), flush=True)
            return
        statement = note.read_text() if code == KILLED else "the end"
        recovered, wrong = forked(lambda: operation.recover(place))
        print(json.dumps({"at": at, "statement": statement, "wrong": wrong if recovered else ""}), flush=True)
        if code == 0:
            return


if __name__ == "__main__":
    run(OPERATIONS[sys.argv[1]](), Place(Path(sys.argv[2])), all="--all" in sys.argv)
