"""Putting back rows in a mixed pair: records hold keys and values in the form that both nodes share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from replstore.databases.catalog import Column, Table, quote
from replstore.databases.mixed.keys import key_of_sqlite, kinds, natives, postgresql_key
from replstore.databases.mixed.names import name_here
from replstore.databases.mixed.types import kind_of
from replstore.databases.postgresql.replaying import PostgreSQLReplaying
from replstore.databases.sqlite.replaying import SQLiteReplaying, literal


class MixedPostgreSQLReplaying(PostgreSQLReplaying):
    """See :class:`replstore.databases.replaying.Replaying`; the canonical texts are texts that the types read."""

    def value(self, column: Column, shown: str | None) -> str:
        type, _, _ = column.type.partition(" enum(")  # the labels are only for comparing
        return super().value(replace(column, type=type), shown)

    def _key(self, table: Table) -> str:
        return f"{postgresql_key(table, 't')}::text"


class MixedSQLiteReplaying(SQLiteReplaying):
    """See :class:`replstore.databases.replaying.Replaying`."""

    def name(self, table: Table) -> str:
        return quote(name_here(table.id))

    def value(self, column: Column, shown: str | None) -> str:
        kind = kind_of(column.type)
        assert kind is not None, f"the type of {column.name} was refused"
        return "NULL" if shown is None else literal(kind.to_sqlite(kind.native(shown)))

    def _literals(self, table: Table) -> Callable[[str], str]:
        of = kinds(table, table.key)
        return lambda key: ", ".join(map(literal, natives(key, of)))

    def _key_of(self, table: Table) -> Callable[[Sequence[Any]], str]:
        of = kinds(table, table.key)
        return lambda values: key_of_sqlite(values, of)

    def _journaled(self, table: Table) -> str:
        return name_here(table.id)
