"""Rows and journal of the PostgreSQL node of a mixed pair, under the keys and texts that SQLite's node has for the same values."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from sqlalchemy import Connection

from replstore.databases.base import Entry
from replstore.databases.catalog import Table, quote
from replstore.databases.dialect import raw
from replstore.databases.mixed.keys import kinds, on, postgresql_columns, postgresql_key
from replstore.databases.postgresql.capture import qualified, text
from replstore.databases.postgresql.reading_rows import keys_of

Values = tuple[str | None, ...]
FETCH = 2000


def shared_keys(connection: Connection, table: Table, keys: Collection[str]) -> dict[str, str]:
    """Keys as the journal holds them, and the form that both nodes know them by."""
    if not keys:
        return {}
    columns = zip(table.key, kinds(table, table.key), strict=True)
    shared = f"jsonb_build_array({', '.join(kind.text(f'j.k{number}') for number, (_, kind) in enumerate(columns))})::text"
    with raw(connection.connection).cursor() as cursor:
        cursor.execute(f"SELECT j.given, {shared} FROM (SELECT e.v::text AS given, {postgresql_columns(table, 'e.v')} FROM {_unpacked(keys)}) j")
        return dict(cursor.fetchall())


def _unpacked(keys: Collection[str]) -> str:
    return f"jsonb_array_elements({text('[' + ','.join(keys) + ']')}::jsonb) e(v)"


def shared_entries(connection: Connection, tables: Callable[[Collection[str]], dict[str, Table]], found: Iterator[Entry]) -> Iterator[Entry]:
    """The journal's entries with their keys in the form that both nodes know them by."""
    while piece := list(islice(found, FETCH)):
        by_table = keys_of(piece)
        known = tables(by_table)
        forms = {name: shared_keys(connection, known[name], keys) for name, keys in by_table.items() if name in known}
        for entry in piece:
            yield replace(entry, key=forms[entry.table][entry.key]) if entry.table in forms and entry.key is not None else entry


def rows(connection: Connection, table: Table, keys: Collection[str] | None = None) -> list[tuple[str, str]]:
    """See ``Database.rows``."""
    source = f"{qualified(table)} t"
    if keys is not None:
        source += f" JOIN (SELECT DISTINCT {postgresql_columns(table, 'e.v')} FROM {_unpacked(keys)}) j ON {on(table)}"
    with raw(connection.connection).cursor() as cursor:
        cursor.execute(f"SELECT {postgresql_key(table, 't')}::text, {_out(table)} FROM {source}")
        found = cursor.fetchall()
    names = table.data_columns
    return [(row[0], json.dumps(dict(zip(names, values, strict=True)), ensure_ascii=False)) for row, values in _canonical(table, found)]


def stream(connection: Connection, table: Table) -> Iterator[tuple[bytes, str, Values]]:
    """See ``Database.stream``."""
    key = f"{postgresql_key(table, 't')}::text"
    with raw(connection.connection).cursor("replstore_stream") as cursor:
        cursor.itersize = FETCH
        cursor.execute(f"SELECT sha256(convert_to({key}, 'UTF8')), {key}, {_out(table)} FROM {qualified(table)} t ORDER BY 1")
        for row, values in _canonical(table, cursor, width=2):
            yield row[0], row[1], values


def _out(table: Table) -> str:
    return ", ".join(kind.out(f"t.{quote(name)}") for name, kind in zip(table.data_columns, kinds(table, table.data_columns), strict=True))


def _canonical(table: Table, found: Any, width: int = 1) -> Iterator[tuple[Any, Values]]:
    of = kinds(table, table.data_columns)
    for row in found:
        yield row, tuple(None if value is None else kind.canonical(value) for value, kind in zip(row[width:], of, strict=True))
