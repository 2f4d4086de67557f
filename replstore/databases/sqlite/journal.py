"""Whose the entries of a file's journal are.

A Store's transaction names its marker in the journal twice: with its first statement, and with its last if it has changed anything (``dialect.py``; a call
under a key has its result written then).  Transactions don't overlap on SQLite, so what stands in between is its own, and what stands outside of any was
written by a program without a Store, whose transactions can't be told from one another.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from replstore.databases.sqlite.capture import MARKER


@dataclass(frozen=True)
class Line:
    """One entry of the journal.

    Attributes:
        table: the table's name, MARKER for a marker.
        values: the key's columns and those that are not used; a marker's id is the first.
        tx: id of the marker of the transaction that wrote it; None: it was written without a Store.
        place: number of the first entry of that transaction, or of what was written without a Store between two of them.
    """

    table: str
    values: Sequence[Any]
    tx: str | None
    place: int

    @property
    def is_marker(self) -> bool:
        """Whether it names a marker."""
        return self.table == MARKER


def lines(connection: sqlite3.Connection, since: int) -> Iterator[Line]:
    """The journal's entries after a position, in order."""
    ends = dict(connection.execute(f"SELECT k1, max(seq) FROM replstore_journal WHERE seq > ? AND tbl = '{MARKER}' GROUP BY k1", (since,)).fetchall())
    tx: str | None = None
    end = place = -1
    for seq, table, *values in connection.execute("SELECT * FROM replstore_journal WHERE seq > ? ORDER BY seq", (since,)):
        if table == MARKER:
            if seq > end:
                end = ends[values[0]]
                place = seq
            tx = values[0]  # a replay's transaction has the markers of those that it brings back besides its own
        elif seq > end and (tx is not None or place < 0):
            tx, place = None, seq
        yield Line(table, values, tx, place)
