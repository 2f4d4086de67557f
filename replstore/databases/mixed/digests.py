"""Digests that a SQLite file and a PostgreSQL server have alike: MD5 of the values' texts, each behind its length; see ``replstore.databases.digests``.

The server computes its own; those of the file are computed here, by the process that has it open.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from hashlib import md5
from typing import Any

from sqlalchemy import Connection

from replstore.databases.catalog import Table, quote
from replstore.databases.dialect import raw
from replstore.databases.digests import WHOLE, Cut, Forms, Piece, Recipe, Row
from replstore.databases.mixed import reading_postgresql, reading_sqlite
from replstore.databases.mixed.keys import key_of_sqlite, natives, odd, postgresql_key
from replstore.databases.mixed.kinds import CannotCross, Integer, Kind
from replstore.databases.mixed.reading_postgresql import FETCH
from replstore.databases.mixed.reading_sqlite import canonical
from replstore.databases.mixed.types import kind_of
from replstore.databases.postgresql.digests import PostgreSQLDigests
from replstore.databases.sqlite.digests import SQLiteDigests, Values, is_rowid

#: What stands for NULL; every other text begins with a digit.
NULL = "N"


def postgresql_forms(table: Table) -> Forms:
    """See ``Database.forms``."""
    of = {name: kind_of(table.column(name).type) for name in (*table.data_columns, *table.key)}
    numbered = len(table.key) == 1 and isinstance(of[table.key[0]], Integer)
    return Forms({name: kind.type for name, kind in of.items() if kind is not None}, numbered)


def sqlite_forms(connection: Connection, table: Table, here: Table) -> Forms:
    """See ``Database.forms``.

    Args:
        here: the table as SQLite has it.
    """
    forms = postgresql_forms(table)
    return Forms(forms.columns, forms.numbered and is_rowid(raw(connection.connection), here))


def _kinds(table: Table, columns: Sequence[str]) -> list[Kind]:
    found = [kind_of(table.column(name).type) for name in columns]
    return [kind for kind in found if kind is not None]


class MixedSQLiteDigests(SQLiteDigests):
    """See :class:`replstore.databases.digests.Digests`.

    Args:
        table: with PostgreSQL's names and types.
        here: as SQLite has it.
    """

    def __init__(self, connection: Connection, table: Table, here: Table, recipe: Recipe) -> None:
        super().__init__(connection, here, recipe)
        self._shared = table
        self._of, self._of_key = _kinds(table, self._columns), _kinds(table, recipe.key)

    def digest(self, values: Values) -> int:
        return _digest(_text(value, kind) for value, kind in zip(values, self._of, strict=True))

    def place(self, key: Values) -> int:
        return _digest(_text(value, kind) for value, kind in zip(key, self._of_key or self._of, strict=True))

    def json(self, key: Sequence[Any]) -> str:
        return key_of_sqlite(key, self._of_key)

    def whole(self, values: Values) -> str:
        return _row(self._columns, [canonical(value, kind) for value, kind in zip(values, self._of, strict=True)])

    def values(self, keys: Collection[str]) -> list[tuple[str, str]]:
        return reading_sqlite.rows(self._connection, self._shared, self._table, [key for key in keys if is_known(key, self._of_key)])


def is_known(key: str, of: Sequence[Kind]) -> bool:
    """Whether a key has values of its columns' types, by which it can be looked up."""
    try:
        natives(key, of)
    except ValueError:
        return False
    return True


def _text(value: Any, kind: Kind) -> str:
    if value is None:
        return NULL
    try:
        text = kind.digest(kind.from_sqlite(value))
    except CannotCross:
        text = odd(value)
    return f"{len(text)}:{text}"


def _digest(texts: Iterator[str]) -> int:
    return int.from_bytes(md5("".join(texts).encode(), usedforsecurity=False).digest()[:8], "big", signed=True)


def _row(columns: Sequence[str], texts: Sequence[str | None]) -> str:
    return json.dumps(dict(zip(columns, texts, strict=True)), ensure_ascii=False)


class MixedPostgreSQLDigests(PostgreSQLDigests):
    """See :class:`replstore.databases.digests.Digests`."""

    def _hash(self, columns: Sequence[str]) -> str:
        texts = [kind.digested(f"t.{quote(name)}") for name, kind in zip(columns, _kinds(self._table, columns), strict=True)]
        whole = " || ".join(f"coalesce(length({text}) || ':' || {text}, '{NULL}')" for text in texts)
        return f"('x' || substr(md5({whole}), 1, 16))::bit(64)::bigint"

    def _key(self) -> str:
        return f"{postgresql_key(self._table, 't')}::text"

    def values(self, keys: Collection[str]) -> list[tuple[str, str]]:
        return reading_postgresql.rows(self._connection, self._table, keys)

    def listed(self, cut: Cut, piece: Piece) -> list[Row]:
        return super().listed(cut, piece) if self._recipe.key else list(self._whole(cut, piece))

    def rows(self, cut: Cut) -> Iterator[Row]:
        yield from super().rows(cut) if self._recipe.key else self._whole(cut, WHOLE)

    def _whole(self, cut: Cut, piece: Piece) -> Iterator[Row]:
        """The rows of a table without a key."""
        columns = list(self._recipe.columns)
        of = _kinds(self._table, columns)
        out = ", ".join(f"{kind.out(f't.{quote(name)}')} AS c{number}" for number, (name, kind) in enumerate(zip(columns, of, strict=True)))
        condition = self._where(*self._within(cut, piece))
        with self._driver.cursor("replstore_rows") as cursor:
            cursor.itersize = FETCH
            cursor.execute(f"SELECT p, s.* FROM (SELECT {self._digest()} AS p, {out} FROM {self._source(cut)}{condition} OFFSET 0) s ORDER BY 1")
            for position, _, *values in cursor:
                texts = [None if value is None else kind.canonical(value) for value, kind in zip(values, of, strict=True)]
                yield Row(position, _row(columns, texts), position, 1)
