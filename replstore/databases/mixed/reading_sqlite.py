"""Rows and journal of the SQLite node of a mixed pair, under the keys and texts that PostgreSQL's node has for the same values."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection

from replstore.databases.base import Entry
from replstore.databases.catalog import Table
from replstore.databases.dialect import raw
from replstore.databases.mixed.keys import key_of_sqlite, kinds, natives, odd
from replstore.databases.mixed.kinds import CannotCross, Kind
from replstore.databases.sqlite.capture import quote
from replstore.databases.sqlite.journal import lines
from replstore.databases.sqlite.reading_rows import markers

Values = tuple[str | None, ...]


def unshipped_keys(connection: Connection, known: Mapping[str, Table], since: str, most: int | None) -> dict[str, set[str] | None]:
    """See ``Database.unshipped_keys``.

    Args:
        known: the tables by the names that the journal has for them.
    """
    keys: dict[str, set[str] | None] = {}
    for _, name, values in _journal(connection, since):
        table = known.get(name)
        if table is None:
            continue
        found = keys.setdefault(table.id, set())
        if values[0] is None:
            keys[table.id] = None
        elif found is not None:
            found.add(_key(table, values))
            if most is not None and len(found) > most:
                keys[table.id] = None
    return keys


def entries(connection: Connection, known: Mapping[str, Table], since: str) -> Iterator[Entry]:
    """See ``Database.entries``."""
    driver = raw(connection.connection)
    facts = markers(driver)
    for line in lines(driver, int(since)):
        table = known.get(line.table)
        if line.is_marker or table is not None:
            key = None if table is None or line.values[0] is None else _key(table, line.values)
            yield Entry(table.id if table else None, key, line.tx, *facts(line.tx), line.place)


def _journal(connection: Connection, since: str) -> Iterator[tuple[int, str, Sequence[Any]]]:
    for row in raw(connection.connection).execute("SELECT * FROM replstore_journal WHERE seq > ? ORDER BY seq", (int(since),)):
        yield row[0], row[1], row[2:]


def _key(table: Table, values: Sequence[Any]) -> str:
    return key_of_sqlite(values[: len(table.key)], kinds(table, table.key))


def rows(connection: Connection, table: Table, here: Table, keys: Collection[str] | None = None) -> list[tuple[str, str]]:
    """See ``Database.rows``.

    Args:
        here: the table as SQLite has it.
    """
    if keys is None:
        found = _select(connection, table, here, "")
    else:
        of = kinds(table, table.key)
        where = "WHERE " + " AND ".join(f"{quote(column)} = ?" for column in table.key)
        found = (row for key in keys for row in _select(connection, table, here, where, natives(key, of)))
    return [(key, json.dumps(dict(zip(table.data_columns, values, strict=True)), ensure_ascii=False)) for key, values in found]


def stream(connection: Connection, table: Table, here: Table) -> Iterator[tuple[bytes, str, Values]]:
    """See ``Database.stream``; in the order of a digest of the key, as on PostgreSQL."""
    driver = raw(connection.connection)
    of = kinds(table, table.key)
    driver.create_function("replstore_digest", len(of), lambda *values: _digest(key_of_sqlite(values, of)), deterministic=True)
    order = f"ORDER BY replstore_digest({', '.join(quote(column) for column in table.key)})"
    for key, values in _select(connection, table, here, order):
        yield _digest(key), key, values


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


def _select(connection: Connection, table: Table, here: Table, rest: str, values: Sequence[Any] = ()) -> Iterator[tuple[str, Values]]:
    columns = ", ".join(quote(column) for column in (*table.key, *table.data_columns))
    of_key, of_data = kinds(table, table.key), kinds(table, table.data_columns)
    width = len(of_key)
    for row in raw(connection.connection).execute(f"SELECT {columns} FROM {quote(here.name)} {rest}", values):
        yield key_of_sqlite(row[:width], of_key), tuple(canonical(value, kind) for value, kind in zip(row[width:], of_data, strict=True))


def canonical(value: Any, kind: Kind) -> str | None:
    """The canonical text of what a file holds; None for NULL."""
    if value is None:
        return None
    try:
        return kind.canonical(kind.from_sqlite(value))
    except CannotCross:
        return odd(value)


def highest(connection: Connection, here: Table, counters: Mapping[str, int | None]) -> int | None:
    """The highest key that a table has given, as far as it can be known."""
    largest = raw(connection.connection).execute(f"SELECT max({quote(here.key[0])}) FROM {quote(here.name)}").fetchone()[0]
    known = [value for value in (largest, counters.get(here.name)) if isinstance(value, int)]
    return max(known, default=None)
