"""What was found on a former writer, laid down in a temporary file of this program's own and read back table by table and key by key.

It may be as large as the largest transaction that somebody has run, so it is never held in memory.  The file has no name and goes with this program.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Self

from replstore.databases.base import Entry

#: Rows in one fetch.
FETCH = 1000
ENTRY = "tx, at, durability, outcome, marker_key, place"
TABLES = f"""
CREATE TABLE entry (number INTEGER PRIMARY KEY, tbl INTEGER NOT NULL, key BLOB, {ENTRY});
CREATE TABLE marker (number INTEGER PRIMARY KEY, {ENTRY});
CREATE TABLE difference (tbl INTEGER NOT NULL, key BLOB NOT NULL, former_row BLOB NOT NULL);
"""
INDEXES = """
CREATE INDEX entry_key ON entry (tbl, key, number);
CREATE INDEX entry_tx ON entry (tx);
CREATE INDEX difference_key ON difference (tbl, key);
"""


@dataclass(frozen=True)
class Found:
    """One row of a former writer that gets a record, or a table as a whole.

    Attributes:
        table: the table's id.
        key: the row's key as JSON; None: the table as a whole.
        entries: what its journal says of it, in order; of a table as a whole: of each transaction, what it says last of the table.
        row: the row, where it is known already.
    """

    table: str
    key: str | None
    entries: tuple[Entry, ...]
    row: str | None = None

    @property
    def last(self) -> Entry:
        """The entry that names it last."""
        named = (entry for entry in reversed(self.entries) if entry.key == self.key)
        return next(named, Entry(self.table, self.key, None, None))


class Spool:
    """See the module; a context manager."""

    def __init__(self) -> None:
        self._file = sqlite3.connect("", isolation_level=None)  # a temporary database on the disk, as SQLite does it for an empty name
        self._file.executescript(TABLES)
        self._numbers: dict[str, int] = {}
        self._whole: set[str] = set()
        self._indexed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    # -- laying down

    def add(self, entries: Iterable[Entry]) -> None:
        """Lays down a former writer's journal entries and markers, in order."""
        places = ", ".join("?" * 6)
        self._file.execute("BEGIN")
        for entry in entries:
            facts = (entry.tx, entry.at, entry.durability, entry.outcome, _bytes(entry.marker_key), entry.place)
            if entry.table is None:
                self._file.execute(f"INSERT INTO marker ({ENTRY}) VALUES ({places})", facts)
                continue
            if entry.key is None:
                self._whole.add(entry.table)
            values = (self._number(entry.table), _bytes(entry.key), *facts)
            self._file.execute(f"INSERT INTO entry (tbl, key, {ENTRY}) VALUES (?, ?, {places})", values)
        self._file.execute("COMMIT")

    def add_differences(self, table: str, rows: Iterable[tuple[str, str]]) -> None:
        """Lays down rows that the former writer has and the writer hasn't, or has otherwise, as (key, row)."""
        self._file.execute("BEGIN")
        for key, row in rows:
            self._file.execute("INSERT INTO difference VALUES (?, ?, ?)", (self._number(table), _bytes(key), _bytes(row)))
        self._file.execute("COMMIT")

    def _number(self, table: str) -> int:
        return self._numbers.setdefault(table, len(self._numbers))

    # -- reading

    @property
    def tables(self) -> tuple[str, ...]:
        """Ids of the tables of which there is something."""
        return tuple(self._numbers)

    def is_whole(self, table: str) -> bool:
        """Whether the table as a whole was changed."""
        return table in self._whole

    def keys(self, table: str) -> Iterator[str]:
        """The keys that the journal names, in order."""
        select = "SELECT DISTINCT key FROM entry WHERE tbl = ? AND key IS NOT NULL ORDER BY key"
        return (_text(row[0]) for row in self._rows(select, self._number(table)))

    def found(self, table: str) -> Iterator[Found]:
        """The table as a whole, if it was changed; then each of its rows, in the order of their keys."""
        number = self._number(table)
        if self.is_whole(table):
            last = "SELECT max(number) FROM entry WHERE tbl = ?"
            numbers = f"{last} GROUP BY place, tx UNION {last} AND key IS NULL"
            rows = self._rows(f"SELECT key, {ENTRY} FROM entry WHERE number IN ({numbers}) ORDER BY number", number, number)
            yield Found(table, None, tuple(_entry(table, row[0], row[1:]) for row in rows))
        nothing = ", ".join(["NULL"] * 6)
        rows = self._rows(
            f"SELECT key, number, {ENTRY}, NULL FROM entry WHERE tbl = ? AND key IS NOT NULL UNION ALL "
            f"SELECT key, NULL, {nothing}, former_row FROM difference WHERE tbl = ? ORDER BY 1, 2",
            number,
            number,
        )
        for key, group in groupby(rows, key=lambda row: row[0]):
            of_key = list(group)
            row = next((_text(each[-1]) for each in of_key if each[-1] is not None), None)
            entries = tuple(_entry(table, key, each[2:-1]) for each in of_key if each[1] is not None)
            yield Found(table, _text(key), entries, row)

    def markers(self) -> Iterator[str]:
        """Ids of the transactions and tombstones, as often as they are named."""
        return (row[0] for row in self._rows("SELECT tx FROM marker WHERE tx IS NOT NULL ORDER BY number"))

    def tombstones(self) -> Iterator[Entry]:
        """The tombstones whose transaction has changed nothing."""
        without_rows = "NOT EXISTS (SELECT 1 FROM entry e WHERE e.tx = m.tx)"
        for row in self._rows(f"SELECT {ENTRY} FROM marker m WHERE outcome = 'lost' AND tx IS NOT NULL AND {without_rows} ORDER BY number"):
            yield _entry(None, None, row)

    def _rows(self, statement: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        if not self._indexed:
            self._file.executescript(INDEXES)
            self._indexed = True
        found = self._file.execute(statement, values)
        while rows := found.fetchmany(FETCH):
            yield from rows


def _entry(table: str | None, key: bytes | None, facts: tuple[Any, ...]) -> Entry:
    tx, at, durability, outcome, marker_key, place = facts
    return Entry(table, _text(key), tx, at, durability, outcome, _text(marker_key), place)


def _bytes(text: str | None) -> bytes | None:
    """Text that is no Unicode can only be kept as bytes."""
    return None if text is None else text.encode("utf-8", "surrogatepass")


def _text(kept: bytes | None) -> Any:
    return None if kept is None else kept.decode("utf-8", "surrogatepass")
