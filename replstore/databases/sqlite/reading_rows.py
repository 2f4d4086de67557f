"""Reading rows and journal of one SQLite file in one snapshot, for the check and for rejoin.

Values are compared as SQL literals, so that 1, 1.0, '1' and x'31' are four values, as they are to SQLite.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from replstore.databases.base import Entry
from replstore.databases.catalog import Table
from replstore.databases.dialect import raw
from replstore.databases.sqlite.capture import MARKER, quote, text
from replstore.databases.sqlite.carrier import to_json
from replstore.databases.sqlite.journal import lines

#: What is known of a marker that is gone, or of none.
UNKNOWN = (None, None, None, None)


def begin_snapshot(connection: Connection) -> None:
    """See ``Database.begin_snapshot``."""
    connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")  # the first read opens the snapshot


def unshipped_keys(connection: Connection, since: str, most: int | None = None) -> Mapping[str, set[str] | None]:
    """See ``Database.unshipped_keys``."""
    widths = _key_widths(connection)
    keys: dict[str, set[str] | None] = {}
    rows = raw(connection.connection).execute(f"SELECT * FROM replstore_journal WHERE seq > ? AND tbl <> '{MARKER}'", (int(since),))
    for row in rows:
        known = keys.setdefault(row[1], set())
        if row[2] is None:
            keys[row[1]] = None
        elif known is not None:
            known.add(key_of(row[2 : 2 + widths.get(row[1], 1)]))
            if most is not None and len(known) > most:
                keys[row[1]] = None
    return keys


def same_keys(connection: Connection, table: Table, keys: Collection[str]) -> dict[str, str]:
    """See ``Database.same_keys``."""
    here = ", ".join(quote(column) for column in table.key)
    driver = raw(connection.connection)
    same = {key: key for key in keys}
    for key in keys:
        where, values = _where(table, key)
        for row in driver.execute(f"SELECT {here} FROM {quote(table.name)} WHERE {where}", values):
            same[key_of(row)] = key
    return same


def entries(connection: Connection, since: str) -> Iterator[Entry]:
    """See ``Database.entries``."""
    driver = raw(connection.connection)
    facts = markers(driver)
    widths = _key_widths(connection)
    for line in lines(driver, int(since)):
        key = None if line.is_marker or line.values[0] is None else key_of(line.values[: widths.get(line.table, 1)])
        yield Entry(None if line.is_marker else line.table, key, line.tx, *facts(line.tx), line.place)


def markers(connection: sqlite3.Connection) -> Callable[[str | None], tuple[Any, Any, Any, Any]]:
    """What gives of a marker, by id: when, durability, outcome, key.  Entries of one transaction come one after the other: the last is remembered."""
    select = "SELECT at, durability, outcome, key FROM replstore_marker WHERE id = ?"

    @lru_cache(1)
    def facts(id: str | None) -> tuple[Any, Any, Any, Any]:
        return connection.execute(select, (id,)).fetchone() or UNKNOWN

    return facts


def journaled(connection: Connection) -> set[str]:
    """See ``Database.journaled``."""
    return set(connection.exec_driver_sql("SELECT DISTINCT tbl FROM replstore_journal").scalars())


def rows(connection: Connection, table: Table, keys: Collection[str] | None = None) -> list[tuple[str, str]]:
    """See ``Database.rows``."""
    found = _select(connection, table, keys)
    return [(key, _json(table.data_columns, values)) for _, key, values in found]


def stream(connection: Connection, table: Table) -> Iterator[tuple[Any, str, tuple[str | None, ...]]]:
    """See ``Database.stream``."""
    return _select(connection, table, None)


def _select(connection: Connection, table: Table, keys: Collection[str] | None) -> Iterator[tuple[Any, str, tuple[str | None, ...]]]:
    columns = ", ".join(quote(column) for column in (*table.key, *table.data_columns))
    order = ", ".join(f"typeof({quote(column)}), {quote(column)} COLLATE BINARY" for column in table.key)
    width = len(table.key)
    driver = raw(connection.connection)
    select_all = f"SELECT {columns} FROM {quote(table.name)}"
    if keys is None:
        found: Any = driver.execute(f"{select_all} ORDER BY {order}")
    else:
        wanted = (_where(table, key) for key in keys)
        found = (row for where, values in wanted for row in driver.execute(f"{select_all} WHERE {where}", values))
    sort_key = _sort_key(driver.execute("PRAGMA encoding").fetchone()[0])
    for row in found:
        yield tuple(sort_key(value) for value in row[:width]), key_of(row[:width]), tuple(_text(value) for value in row[width:])


def _key_widths(connection: Connection) -> dict[str, int]:
    return {row[0]: len(json.loads(row[1])["key"]) for row in connection.exec_driver_sql("SELECT tbl, definition FROM replstore_replicated")}


def key_of(values: Sequence[Any]) -> str:
    """A key as JSON."""
    return json.dumps([to_json(value) for value in values])


def row_of(columns: Sequence[str], values: Sequence[Any]) -> str:
    """Values of a row, as a JSON object of texts."""
    return _json(columns, [_text(value) for value in values])


def _json(columns: Sequence[str], texts: Sequence[str | None]) -> str:
    return json.dumps(dict(zip(columns, texts, strict=True)))


def _where(table: Table, key: str) -> tuple[str, list[Any]]:
    """The condition that a row has this key, and the values to bind; text that is no UTF-8 can only be bound as bytes."""
    conditions, values = [], []
    for column, value in zip(table.key, json.loads(key), strict=True):
        odd = isinstance(value, str) and not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value)
        same = "=" if value is not None else "IS"  # a key of a table that replstore doesn't replicate may hold NULL
        conditions.append(f"{quote(column)} {same} {'CAST(? AS TEXT)' if odd else '?'}")
        values.append(bytes.fromhex(value["blob"]) if isinstance(value, dict) else value.encode("utf-8", "surrogateescape") if odd else value)
    return " AND ".join(conditions), values


def _sort_key(encoding: str) -> Callable[[Any], tuple[str, Any]]:
    """Sorts in Python as ``typeof(x), x COLLATE BINARY`` does in SQLite, which compares text byte by byte in the file's own encoding."""
    errors = "surrogateescape" if encoding == "UTF-8" else "surrogatepass"

    def sort_key(value: Any) -> tuple[str, Any]:
        if isinstance(value, str):
            return "text", value.encode(encoding, errors)
        return {bytes: "blob", int: "integer", float: "real"}.get(type(value), "null"), value

    return sort_key


def _text(value: Any) -> str | None:
    """A value as an SQL literal; None for NULL."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    return text(value) if isinstance(value, str) else repr(value)
