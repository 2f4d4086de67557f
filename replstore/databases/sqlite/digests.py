"""Digests of a SQLite table's rows; see ``replstore.databases.digests``.

The file is opened by this very process, so a row needs no hash function of SQLite's (there is none, and one that Python registers costs more than the row
itself): rows are read as the driver gives them and are hashed here.  ``marshal`` writes a value with its storage class, so that 1, 1.0, '1' and x'31' are
four values, and 0.0 and -0.0 two.
"""

from __future__ import annotations

import marshal
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any
from zlib import crc32

from sqlalchemy import Connection

from replstore.databases.catalog import Table, quote
from replstore.databases.dialect import raw
from replstore.databases.digests import BITS, Bucket, Buckets, Cut, Digests, Forms, Piece, Recipe, Row, Told
from replstore.databases.sqlite.reading_rows import key_of, row_of, rows

#: Rows between two words of progress.
STEP = 20_000
#: marshal's format with binary floats and without references, in which equal values always have equal bytes.
FORMAT = 2
Values = tuple[Any, ...]


def forms(connection: Connection, table: Table) -> Forms:
    """See ``Database.forms``."""
    return Forms(dict.fromkeys((*table.data_columns, *table.key), "value"), is_rowid(raw(connection.connection), table))


def is_rowid(driver: sqlite3.Connection, table: Table) -> bool:
    """Whether the table's key is another name for its rowid: always a whole number, and what rows are sorted by."""
    if len(table.key) != 1 or table.column(table.key[0]).type != "INTEGER" or "without_rowid" in table.options:
        return False
    return not any(row[3] == "pk" for row in driver.execute(f"PRAGMA index_list({quote(table.name)})"))


class SQLiteDigests(Digests):
    """See :class:`replstore.databases.digests.Digests`."""

    def __init__(self, connection: Connection, table: Table, recipe: Recipe) -> None:
        self._driver: sqlite3.Connection = raw(connection.connection)
        self._connection, self._table, self._recipe = connection, table, recipe
        self._name = quote(table.name)
        self._columns = list(recipe.columns)
        self._key = [self._columns.index(name) for name in recipe.key]

    # -- what a pair of another kind does otherwise

    def digest(self, values: Values) -> int:
        """The digest of a row's values, in the order of the recipe's columns; 64 bits with a sign."""
        return hash(marshal.dumps(values, FORMAT))

    def place(self, key: Values) -> int:
        """The position of a key that isn't its own; the same in every process, so that two reports have one order."""
        return (crc32(marshal.dumps(key, FORMAT)) << 32) - (1 << BITS - 1)

    def json(self, key: Sequence[Any]) -> str:
        """A key as ``Database.rows`` has it."""
        return key_of(key)

    def whole(self, values: Values) -> str:
        """A row of a table without a key, as ``Database.rows`` has it."""
        return row_of(self._columns, values)

    # -- reading

    def bounds(self) -> tuple[int, int] | None:
        key = quote(self._recipe.key[0])
        low, high = (self._driver.execute(f"SELECT {end}({key}) FROM {self._name} AS t{self._where()}").fetchone()[0] for end in ("min", "max"))
        return None if low is None else (low, high)

    def estimate(self) -> int:
        return int(self._driver.execute(f"SELECT count(*) FROM {self._name}").fetchone()[0])

    def buckets(self, cut: Cut, piece: Piece, told: Told) -> Buckets:
        odd, self._driver.text_factory = self._driver.text_factory, str  # the driver's own way takes half of the time
        told_of = 0

        def count(rows: int) -> None:
            nonlocal told_of
            told_of += rows
            told(rows)

        try:
            return self._buckets(cut, count)
        except sqlite3.OperationalError as error:
            if "decode" not in str(error):
                raise
        finally:
            self._driver.text_factory = odd
        told(-told_of)
        return self._buckets(cut, told)  # text that is no UTF-8

    def _buckets(self, cut: Cut, told: Told) -> Buckets:
        found: dict[int, list[int]] = {}
        position, digest, shift, keyed = self._position(), self.digest, cut.shift, self._is_keyed()
        within, numbers = cut.within or (0, None)
        rows = self._read(cut)
        while block := list(islice(rows, STEP)):
            for values in block:
                place = position(values)
                if numbers is not None and place >> within not in numbers:
                    continue
                number, of = place >> shift, digest(values)
                bucket = found.get(number)
                if bucket is None:
                    bucket = found[number] = [0, 0, 0]
                bucket[0] += 1
                bucket[2] ^= of
                if not keyed(values):
                    bucket[1] += of
            told(len(block))
        return {number: Bucket(*bucket) for number, bucket in found.items()}

    def _is_keyed(self) -> Callable[[Values], bool]:
        """Whether no other row has a row's key: SQLite takes NULL in most keys, as often as one likes."""
        key = self._key
        if self._recipe.numbered:
            return lambda values: True
        return lambda values: bool(key) and all(values[n] is not None for n in key)

    def rows(self, cut: Cut) -> Iterator[Row]:
        key = self._key
        if self._recipe.numbered:
            for values in self._read(cut, f" ORDER BY {quote(self._recipe.key[0])}"):
                yield Row(values[key[0]], self.json((values[key[0]],)), self.digest(values), 1)
            return
        within, numbers = cut.within or (0, None)
        position = self._position()

        def found() -> Iterator[tuple[int, bytes, int]]:
            for values in self._read(cut):
                place = position(values)
                if numbers is None or place >> within in numbers:
                    name = self.json(tuple(values[n] for n in key)) if key else self.whole(values)
                    yield place, name.encode("utf-8", "surrogatepass"), self.digest(values)

        # SQLite sorts them, in a temporary file where memory doesn't do; a function of ours couldn't take text that is no UTF-8
        with closing(sqlite3.connect("", check_same_thread=False)) as spool:
            spool.execute("CREATE TABLE found (position INTEGER, key BLOB, digest INTEGER)")
            spool.executemany("INSERT INTO found VALUES (?, ?, ?)", found())
            # a key that holds NULL may be there more than once
            for place, name, digest, times in spool.execute("SELECT position, key, digest, count(*) FROM found GROUP BY 1, 2, 3 ORDER BY 1"):
                yield Row(place, name.decode("utf-8", "surrogatepass"), digest, times)

    def values(self, keys: Collection[str]) -> list[tuple[str, str]]:
        return rows(self._connection, self._table, keys)

    def _position(self) -> Callable[[Values], int]:
        key = self._key
        if self._recipe.numbered:
            (only,) = key
            return lambda values: values[only]
        place = self.place
        if not key:
            return place
        if len(key) == 1:
            (only,) = key
            return lambda values: place((values[only],))
        return lambda values: place(tuple(values[n] for n in key))

    def _read(self, cut: Cut, rest: str = "") -> Iterator[Values]:
        columns = ", ".join(map(quote, self._columns))
        select = f"SELECT {columns} FROM {self._name} AS t"
        if cut.within is None or not self._recipe.numbered:
            yield from self._driver.execute(f"{select}{self._where()}{rest}")
            return
        key = quote(self._recipe.key[0])
        for low, high in cut.ranges():
            yield from self._driver.execute(f"{select}{self._where(f'{key} BETWEEN {low} AND {high}')}{rest}")

    def _where(self, *conditions: str) -> str:
        given = [*conditions, *([f"({self._recipe.where})"] if self._recipe.where else [])]
        return f" WHERE {' AND '.join(given)}" if given else ""
