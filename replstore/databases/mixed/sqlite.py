"""The SQLite node of a mixed pair: its tables under PostgreSQL's names and types.

A file's declared types say less than PostgreSQL's (INTEGER may be of 32 bits or of 64 there, DATETIME with time zone or without): what PostgreSQL's
table has is learned from it and kept in a setting; a table that isn't there yet gets the defaults of ``types.py``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from sqlalchemy import Connection, Engine

from replstore.databases.base import Entry
from replstore.databases.carrier import Carrier
from replstore.databases.catalog import Column, Difference, Table, split_id
from replstore.databases.counting import Taken
from replstore.databases.dialect import raw
from replstore.databases.digests import Digests, Forms, Recipe
from replstore.databases.mixed import compare, crossing, digests, guards, making_sqlite, reading_sqlite
from replstore.databases.mixed.from_sqlite import SQLiteToPostgreSQL
from replstore.databases.mixed.names import ORPHAN, name_here, shared_id
from replstore.databases.mixed.replaying import MixedSQLiteReplaying
from replstore.databases.mixed.types import agree, default_type
from replstore.databases.sqlite import sequences
from replstore.databases.sqlite.catalog import refusal
from replstore.databases.sqlite.database import SQLite
from replstore.databases.sqlite.state import CONTROL

#: Name of the setting that holds the learned types: by table, by column.
TYPES = "mixed types"


def native(table: Table) -> Table:
    """The table as SQLite has it; it rides in the options of the one that both nodes compare."""
    return Table.from_json(table.options[0])


class MixedSQLite(SQLite):
    """See :class:`replstore.databases.database.Database`."""

    learns: ClassVar[bool] = True
    schemas: ClassVar[bool] = True
    same_triggers: ClassVar[bool] = False

    def carrier(self, writer: Engine, follower: Engine) -> Carrier:  # type: ignore[override]
        return SQLiteToPostgreSQL(str(writer.url.database), follower)

    def is_same(self, one: Connection, other: Connection) -> bool:
        return False

    def replaying(self) -> MixedSQLiteReplaying:
        return MixedSQLiteReplaying()

    # -- tables

    def orphan_table(self, connection: Connection) -> Table:
        own = super().orphan_table(connection)  # the one table whose declared lengths are PostgreSQL's as well
        types = {column.name: column.type.lower().replace("varchar", "character varying") for column in own.columns}
        return _shared(own, types)

    def tables(self, connection: Connection, only: Collection[str] | None = None) -> list[Table]:
        learned = _learned(connection)
        found = super().tables(connection, None if only is None else [name_here(id) for id in only])
        return [_shared(table, learned.get(table.name, {})) for table in found]

    def table_ids(self, connection: Connection) -> list[str]:
        return [shared_id(name) for name in super().table_ids(connection)]

    def learn(self, connection: Connection, there: Sequence[Table], fresh: Collection[str]) -> list[Table]:
        before = {table.id: table for table in self.tables(connection)}
        learned = known = _learned(connection)
        for table in there:
            if table.id == ORPHAN:
                continue
            own = {column.name: column.type for column in native(before[table.id]).columns} if table.id in before else {}
            types = {column.name: column.type for column in table.columns if column.name not in own or agree(own[column.name], column.type)}
            strange = [column for column in table.columns if column.name not in types and column.name in table.data_columns]
            if strange and table.id in fresh:
                raise compare.strange(table, strange[0], own[strange[0].name])
            learned = {**learned, table.name: types}
        if learned == known:
            return []
        CONTROL.hold(connection, TYPES, json.dumps(learned))
        return [table for table in self.tables(connection) if before.get(table.id) != table]

    def beside(self, tables: Sequence[Table], there: Sequence[Table]) -> list[Table]:
        types = {table.id: {column.name: column.type for column in table.columns} for table in there}
        return [_shared(native(table), types.get(table.id, {})) for table in tables]

    def crossing(self, table: Table) -> Table:
        return compare.crossing(table)

    def differences(self, a: Table | None, b: Table | None, names: tuple[str, str] = ("primary", "standby")) -> list[Difference]:
        return compare.differences(a, b, names)

    def refusal(self, connection: Connection, table: Table) -> str | None:
        here = native(table)
        return refusal(here) or compare.refusal(table, {column.name: column.type for column in here.columns})

    def create_statements(self, connection: Connection, tables: Sequence[Table], target: Connection) -> list[str]:
        return making_sqlite.create_statements(tables)

    def left_out(self, connection: Connection, tables: Sequence[Table]) -> list[str]:
        return []  # making_*.py refuse what they can't make

    def drop_statements(self, tables: Sequence[Table]) -> list[str]:
        return super().drop_statements([native(table) for table in tables])

    def capture_statements(self, table: Table) -> list[str]:
        here = native(table)
        statements = [*super().capture_statements(here), *guards.sqlite_guards(table, here)]
        return [*statements, *guards.SQLITE_MARKER_GUARD] if table.id == ORPHAN else statements

    def journal_whole(self, connection: Connection, tables: Sequence[Table]) -> None:
        super().journal_whole(connection, [native(table) for table in tables])

    def fingerprints(self, connection: Connection, tables: Sequence[Table]) -> dict[str, str]:
        found = super().fingerprints(connection, [native(table) for table in tables])
        return {shared_id(name): print for name, print in found.items()}

    # -- sequences: what the key of a table has given, whether an AUTOINCREMENT counts it or not

    def sequences(self, connection: Connection) -> dict[str, int | None]:
        counters = sequences.sequences(connection, CONTROL)
        return {table.id: reading_sqlite.highest(connection, native(table), counters) for table in self.tables(connection) if compare.counts(table)}

    def advance_sequences(self, connection: Connection, values: Mapping[str, int | None]) -> None:
        sequences.advance_sequences(connection, {name_here(id): value for id, value in values.items()})

    def lagging_sequences(self, connection: Connection, values: Mapping[str, int | None]) -> dict[str, bool | None]:
        found = sequences.lagging(connection, {name_here(id): value for id, value in values.items()})
        return {shared_id(name): used for name, used in found.items()}

    def next_value(self, connection: Connection, id: str) -> int | None:
        return sequences.next_value(connection, name_here(id))

    def taken(self, connection: Connection, id: str, after: int | None, through: int) -> Taken | None:
        found = sequences.taken(connection, name_here(id), after, through)
        return found and replace(found, table=id)

    # -- reading for check and rejoin

    def unshipped_keys(self, connection: Connection, since: str, *, most: int | None = None) -> Mapping[str, set[str] | None]:
        return reading_sqlite.unshipped_keys(connection, self._known(connection), since, most)

    def same_keys(self, connection: Connection, table: Table, keys: Collection[str]) -> Mapping[str, str]:
        return {key: key for key in keys}

    def entries(self, connection: Connection, since: str) -> Iterator[Entry]:
        return reading_sqlite.entries(connection, self._known(connection), since)

    def journaled(self, connection: Connection) -> set[str]:
        return {shared_id(name) for name in super().journaled(connection)}

    def holds_rows(self, connection: Connection, table: Table) -> bool:
        return super().holds_rows(connection, native(table))

    def lookable(self, table: Table, keys: Collection[str]) -> Collection[str]:
        return crossing.lookable(table, keys)

    def uncrossable(self, connection: Connection, table: Table, keys: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        return crossing.of_sqlite(connection, table, native(table), keys)

    def rows(self, connection: Connection, table: Table, keys: Collection[str] | None = None) -> list[tuple[str, str]]:
        return reading_sqlite.rows(connection, table, native(table), keys)

    def stream(self, connection: Connection, table: Table) -> Iterator[tuple[Any, str, tuple[str | None, ...]]]:
        return reading_sqlite.stream(connection, table, native(table))

    def forms(self, connection: Connection, table: Table) -> Forms:
        return digests.sqlite_forms(connection, table, native(table))

    def digests(self, connection: Connection, table: Table, recipe: Recipe) -> Digests:
        return digests.MixedSQLiteDigests(connection, table, native(table), recipe)

    def _known(self, connection: Connection) -> dict[str, Table]:
        """The tables by the names that the journal has for them."""
        return {native(table).name: table for table in [*self.tables(connection), self.orphan_table(connection)]}


def _learned(connection: Connection) -> dict[str, dict[str, str]]:
    """By table, by column: the types that PostgreSQL's table has."""
    if raw(connection.connection).execute("SELECT 1 FROM sqlite_master WHERE name = 'replstore_setting'").fetchone() is None:
        return {}
    value = CONTROL.held(connection, TYPES)
    return dict(json.loads(value)) if value else {}


def _shared(table: Table, learned: Mapping[str, str]) -> Table:
    """A table of this file as both nodes compare it."""
    schema, name = split_id(shared_id(table.name))
    columns = tuple(_column(column, learned.get(column.name)) for column in table.columns)
    foreign_keys = tuple(replace(key, ref_table=shared_id(key.ref_table)) for key in table.foreign_keys)
    shared = replace(table, schema=schema, name=name, columns=columns, options=(table.to_json(),), foreign_keys=foreign_keys)
    return replace(shared, sequences=compare.counters(shared))


def _column(column: Column, learned: str | None) -> Column:
    type = learned if learned is not None and agree(column.type, learned) else default_type(column.type)
    return replace(column, type=type or column.type)
