"""Reading rows and journal of one PostgreSQL node in one snapshot, for the check and for rejoin.

Values are compared as the text that their types print under pinned settings: exact for every built-in type (HAZARDS 14).  ``format('%s')`` asks the type's
own output function; a cast to text can lose something (``char`` its trailing blanks).  A key is JSON; the journal holds it as the settings of the
session that wrote it made it (a timestamp in its time zone), so it is cast back to the key's types and printed again before anything is compared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, select

from replstore.databases.base import Entry
from replstore.databases.catalog import Table
from replstore.databases.dialect import raw
from replstore.databases.postgresql.capture import qualified, quote, text
from replstore.databases.postgresql.carrier import UNSHIPPED, unpacked
from replstore.databases.postgresql.state import CONTROL

#: Settings under which two values that differ never have the same text (HAZARDS 14).
_TEXT = {
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "row_security": "off",
    "search_path": "pg_catalog",
}
TEXT_SETTINGS = "; ".join(f"SET LOCAL {name} TO '{value}'" for name, value in _TEXT.items())
#: And how a snapshot may be read for as long as it takes. Digests are cheap to compute and many: to compile them costs more.
_READING = {**_TEXT, "statement_timeout": "0", "idle_in_transaction_session_timeout": "0", "jit": "off"}
#: Rows in one fetch.
FETCH = 5000


def begin_snapshot(connection: Connection, shared: str | None = None) -> None:
    """See ``Database.begin_snapshot``.

    Args:
        shared: name of the snapshot to read in; None: a new one.
    """
    connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    if shared is not None:
        connection.exec_driver_sql(f"SET TRANSACTION SNAPSHOT {text(shared)}")
    settings = ", ".join(f"set_config({text(name)}, {text(value)}, true)" for name, value in _READING.items())
    connection.exec_driver_sql(f"SELECT {settings}")  # the first query takes the snapshot


def unshipped_keys(connection: Connection, since: str, most: int | None = None) -> Mapping[str, set[str] | None]:
    """See ``Database.unshipped_keys``."""
    condition = UNSHIPPED.format(name="j", position=f"{text(since)}::pg_snapshot")
    keys: dict[str, set[str] | None] = {}
    if most is not None:
        counted = f"SELECT j.tbl, sum(jsonb_array_length(j.keys)) FROM replstore.journal j WHERE {condition} GROUP BY j.tbl"
        keys = {name: None for name, count in connection.exec_driver_sql(counted) if (count or 0) > most}
    rows = connection.exec_driver_sql(
        "SELECT j.tbl, k.v::text FROM replstore.journal j LEFT JOIN LATERAL jsonb_array_elements(j.keys) k(v) ON true "
        f"WHERE {condition} AND j.tbl <> ALL(%s)",
        (list(keys),),
    )
    for name, key in rows:
        known = keys.setdefault(name, set())
        if key is None:
            keys[name] = None
        elif known is not None:
            known.add(key)
    return keys


def _printed(connection: Connection, keys: Mapping[str, Collection[str]]) -> dict[tuple[str, str], str]:
    """By table and key as the journal holds it: the key as this session prints it."""
    tables = {table.id: table for table in map(Table.from_json, connection.execute(select(CONTROL.replicated.c.definition)).scalars())}
    printed = {(name, key): key for name, found in keys.items() for key in found}
    for name, found in keys.items():
        if name in tables:
            for given, key, _ in _found(connection, tables[name], found, join=False):
                printed[name, given] = key
    return printed


def _found(connection: Connection, table: Table, keys: Collection[str], *, join: bool) -> list[tuple[str, str, str | None]]:
    """Each key as given, as this session prints it, and (joined) as the row prints it that has this key here; None: there is none."""
    cast = ", ".join(f"(e.v->>{n})::{table.column(column).type} AS k{n}" for n, column in enumerate(table.key))
    source = f"(SELECT e.v::text AS given, {cast} FROM jsonb_array_elements({_json(keys)}::jsonb) e(v)) j"
    printed = f"jsonb_build_array({', '.join(f'j.k{n}' for n in range(len(table.key)))})::text"
    here = "NULL"
    if join:
        here = f"CASE WHEN t.ctid IS NOT NULL THEN {key_of(table)} END"
        source += f" LEFT JOIN {qualified(table)} t ON {_on(table)}"
    with raw(connection.connection).cursor() as cursor:
        cursor.execute(f"SELECT j.given, {printed}, {here} FROM {source}")
        return list(cursor.fetchall())


def same_keys(connection: Connection, table: Table, keys: Collection[str]) -> dict[str, str]:
    """See ``Database.same_keys``."""
    same: dict[str, str] = {}
    for given, printed, here in _found(connection, table, keys, join=True) if keys else ():
        same[printed] = given
        if here is not None:
            same[here] = given
    return same


def entries(connection: Connection, since: str) -> Iterator[Entry]:
    """See ``Database.entries``.

    A transaction's place is the number of its last entry.  Numbers are given when a statement ends, so they aren't the commit order; but a transaction that
    changed or read what another had committed, and then changed something, comes after it.
    """
    position = f"{text(since)}::pg_snapshot"
    with raw(connection.connection).cursor("replstore_entries") as cursor:
        cursor.execute(f"""
            WITH j AS (SELECT j.*, max(j.id) OVER (PARTITION BY j.xid) AS place FROM replstore.journal j WHERE {UNSHIPPED.format(name="j", position=position)})
            SELECT j.tbl, k.v::text, m.id, j.at::text, m.durability, m.outcome, m.key, j.place, j.id AS number FROM j
            LEFT JOIN LATERAL jsonb_array_elements(j.keys) k(v) ON true LEFT JOIN replstore.marker m ON m.xid = j.xid UNION ALL
            SELECT NULL, NULL, m.id, m.at::text, m.durability, m.outcome, m.key, (SELECT max(j.place) FROM j WHERE j.xid = m.xid), 0
            FROM replstore.marker m WHERE {UNSHIPPED.format(name="m", position=position)}
            ORDER BY place NULLS FIRST, number""")
        while found := [Entry(*row[:8]) for row in cursor.fetchmany(FETCH)]:
            printed = _printed(connection, keys_of(found))
            for entry in found:
                yield entry if entry.table is None or entry.key is None else replace(entry, key=printed[entry.table, entry.key])


def keys_of(entries: Collection[Entry]) -> dict[str, set[str]]:
    """By table, the keys that entries name."""
    keys: dict[str, set[str]] = {}
    for entry in entries:
        if entry.table is not None and entry.key is not None:
            keys.setdefault(entry.table, set()).add(entry.key)
    return keys


def journaled(connection: Connection) -> set[str]:
    """See ``Database.journaled``."""
    return set(connection.exec_driver_sql("SELECT DISTINCT tbl FROM replstore.journal").scalars())


def rows(connection: Connection, table: Table, keys: Collection[str] | None = None) -> list[tuple[str, str]]:
    """See ``Database.rows``."""
    row = row_of(table.data_columns)
    source = f"{qualified(table)} t"
    if keys is not None:
        source += f" JOIN ({unpacked(table, _json(keys))}) j ON {_on(table)}"
    with raw(connection.connection).cursor() as cursor:
        cursor.execute(f"SELECT {key_of(table)}, {row} FROM {source}")
        return list(cursor.fetchall())


def stream(connection: Connection, table: Table) -> Iterator[tuple[Any, str, tuple[str | None, ...]]]:
    """See ``Database.stream``; the order is that of a digest of the key's text, which no collation and no encoding of a server can change."""
    values = ", ".join(text_of(column) for column in table.data_columns)
    key = key_of(table)
    with raw(connection.connection).cursor("replstore_stream") as cursor:
        cursor.itersize = FETCH
        cursor.execute(f"SELECT sha256(convert_to({key}, 'UTF8')), {key}, {values} FROM {qualified(table)} t ORDER BY 1")
        for row in cursor:
            yield row[0], row[1], tuple(row[2:])


def key_of(table: Table) -> str:
    """The key of a row of ``t``, as JSON."""
    return f"jsonb_build_array({', '.join('t.' + quote(column) for column in table.key)})::text"


def row_of(columns: Sequence[str]) -> str:
    """These columns of a row of ``t``, as a JSON object of texts."""
    # arrays, because a function takes 100 arguments and a table has up to 1600 columns
    names = ", ".join(text(column) for column in columns)
    values = ", ".join(text_of(column) for column in columns)
    return f"jsonb_object(ARRAY[{names}]::text[], ARRAY[{values}]::text[])::text"


def _on(table: Table) -> str:
    return " AND ".join(f"t.{quote(column)} = j.k{n}" for n, column in enumerate(table.key))


def _json(keys: Collection[str]) -> str:
    return text("[" + ",".join(keys) + "]")


def text_of(column: str) -> str:
    """The text of a column of ``t``; a composite value whose fields are all NULL is not NULL itself."""
    name = f"t.{quote(column)}"
    return f"CASE WHEN {name} IS DISTINCT FROM NULL THEN format('%s', {name}) END"
