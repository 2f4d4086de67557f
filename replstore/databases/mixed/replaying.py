"""Putting back rows in a mixed pair: records hold keys and values in the form that both nodes share."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from sqlalchemy import Connection

from replstore.databases.catalog import Column, Table, quote
from replstore.databases.dialect import raw
from replstore.databases.mixed.keys import key_of_sqlite, kinds, natives, postgresql_key
from replstore.databases.mixed.names import name_here
from replstore.databases.mixed.types import kind_of
from replstore.databases.postgresql.capture import qualified
from replstore.databases.postgresql.replaying import PostgreSQLReplaying
from replstore.databases.replaying import pieces
from replstore.databases.sqlite.capture import text
from replstore.databases.sqlite.replaying import NAMED, SQLiteReplaying, literal


class MixedPostgreSQLReplaying(PostgreSQLReplaying):
    """See :class:`replstore.databases.replaying.Replaying`; the canonical texts are texts that the types read."""

    def value(self, column: Column, shown: str | None) -> str:
        type, _, _ = column.type.partition(" enum(")  # the labels are only for comparing
        return super().value(replace(column, type=type), shown)

    def keys(self, connection: Connection, table: Table, rest: str = "") -> set[str]:
        with raw(connection.connection).cursor() as cursor:
            return {
                row[0] for row in cursor.execute(f"SELECT DISTINCT {postgresql_key(table, 't')}::text FROM {qualified(table)} t {rest}").fetchall()
            }


class MixedSQLiteReplaying(SQLiteReplaying):
    """See :class:`replstore.databases.replaying.Replaying`."""

    def name(self, table: Table) -> str:
        return quote(name_here(table.id))

    def value(self, column: Column, shown: str | None) -> str:
        kind = kind_of(column.type)
        assert kind is not None, f"the type of {column.name} was refused"
        return "NULL" if shown is None else literal(kind.to_sqlite(kind.native(shown)))

    def among(self, table: Table, keys: Collection[str], alias: str) -> str:
        columns = ", ".join(f"{alias}.{quote(column)}" for column in table.key)
        rows = ", ".join(f"({_values(table, key)})" for key in keys)
        return f"(({columns}) IN (VALUES {rows}))" if keys else "0"

    def named(self, connection: Connection, table: Table, keys: Collection[str], since: str) -> set[str]:
        driver, journal = raw(connection.connection), f"replstore_journal j WHERE j.tbl = {text(name_here(table.id))} AND j.seq > {int(since)}"
        if driver.execute(f"SELECT EXISTS (SELECT 1 FROM {journal} AND j.k1 IS NULL)").fetchone()[0]:
            return set(keys)
        names = ", ".join(f"j.k{n}" for n in range(1, len(table.key) + 1))
        found: set[str] = set()
        for piece in pieces(keys, NAMED):  # each one walks through the journal
            rows = ", ".join(f"({_values(table, key)})" for key in piece)
            changed = driver.execute(f"SELECT DISTINCT {names} FROM {journal} AND ({names}) IN (VALUES {rows})")
            found |= {key_of_sqlite(row, kinds(table, table.key)) for row in changed}
        return found

    def keys(self, connection: Connection, table: Table, rest: str = "") -> set[str]:
        columns, of = ", ".join(f"t.{quote(column)}" for column in table.key), kinds(table, table.key)
        return {key_of_sqlite(row, of) for row in raw(connection.connection).execute(f"SELECT DISTINCT {columns} FROM {self.name(table)} t {rest}")}


def _values(table: Table, key: str) -> str:
    return ", ".join(literal(value) for value in natives(key, kinds(table, table.key)))
