"""The PostgreSQL node of a mixed pair: its own tables, with keys and texts in the form that SQLite's node has as well."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from sqlalchemy import Connection, Engine

from replstore.databases.base import Entry
from replstore.databases.carrier import Carrier
from replstore.databases.catalog import Difference, Table, quote
from replstore.databases.counting import Taken
from replstore.databases.dialect import raw
from replstore.databases.digests import Digests, Forms, Recipe
from replstore.databases.mixed import compare, crossing, digests, guards, making_postgresql, reading_postgresql
from replstore.databases.mixed.from_postgresql import PostgreSQLToSQLite
from replstore.databases.mixed.from_sqlite import ADVANCE
from replstore.databases.mixed.keys import postgresql_key
from replstore.databases.mixed.replaying import MixedPostgreSQLReplaying
from replstore.databases.postgresql.capture import qualified
from replstore.databases.postgresql.database import PostgreSQL
from replstore.errors import CannotReplicate

#: Sets a table apart from the same one in a pair of PostgreSQL servers, so that leaving the mixed pair takes the guards off.
BESIDE = "beside sqlite"
_LABELS = """
SELECT t.id, a.attname, string_agg(quote_literal(l.enumlabel), ', ' ORDER BY l.enumsortorder)
FROM unnest(%s::text[], %s::text[]) t(id, relation) JOIN pg_attribute a ON a.attrelid = t.relation::regclass AND a.attnum > 0
JOIN pg_enum l ON l.enumtypid = a.atttypid GROUP BY 1, 2"""
#: By table: the sequence that gives a key its values, and where it stands.
_COUNTERS = """
SELECT t.id, pg_sequence_last_value(s.oid::regclass), s.seqincrement
FROM unnest(%s::text[], %s::text[], %s::text[]) t(id, relation, key)
JOIN LATERAL (SELECT seqrelid AS oid, seqincrement FROM pg_sequence WHERE seqrelid = pg_get_serial_sequence(t.relation, t.key)::regclass) s ON true"""


class MixedPostgreSQL(PostgreSQL):
    """See :class:`replstore.databases.database.Database`."""

    same_triggers: ClassVar[bool] = False

    def carrier(self, writer: Engine, follower: Engine) -> Carrier:  # type: ignore[override]
        return PostgreSQLToSQLite(writer, str(follower.url.database))

    def is_same(self, one: Connection, other: Connection) -> bool:
        return False

    def replaying(self) -> MixedPostgreSQLReplaying:
        return MixedPostgreSQLReplaying()

    # -- tables

    def orphan_table(self, connection: Connection) -> Table:
        return replace(super().orphan_table(connection), options=(BESIDE,))

    def tables(self, connection: Connection, only: Collection[str] | None = None) -> list[Table]:
        found = super().tables(connection, only)
        labels = _labels(connection, found)
        return [_shared(table, labels) for table in found]

    def crossing(self, table: Table) -> Table:
        return compare.crossing(table)

    def differences(self, a: Table | None, b: Table | None, names: tuple[str, str] = ("primary", "standby")) -> list[Difference]:
        return compare.differences(a, b, names)

    def refusal(self, connection: Connection, table: Table) -> str | None:
        refuse_encoding(connection)
        sentence = super().refusal(connection, table) or compare.refusal(table, {column.name: column.type for column in table.columns})
        if sentence is not None:
            return sentence
        (own,) = super().tables(connection, [table.id])
        if own.sequences and (len(own.sequences) > 1 or not counted(connection, [table])):
            return (
                f"table {table.name} can't be replicated between SQLite and PostgreSQL: it takes values from a sequence that isn't its key's own, or "
                f"counts down ({', '.join(own.sequences)}), and SQLite has none such"
            )
        return None

    def create_statements(self, connection: Connection, tables: Sequence[Table], target: Connection) -> list[str]:
        return making_postgresql.create_statements(tables)

    def prepare_target(self, connection: Connection, tables: Sequence[Table], target: Connection) -> list[str]:
        refuse_encoding(target)
        return []

    def partition_statements(self, *args: Any) -> list[str] | None:
        return None

    def left_out(self, connection: Connection, tables: Sequence[Table]) -> list[str]:
        return []  # making_*.py refuse what they can't make

    def capture_statements(self, table: Table) -> list[str]:
        return [*super().capture_statements(table), *guards.postgresql_guards(table)]

    # -- sequences: those that give keys their values, by table

    def sequences(self, connection: Connection) -> dict[str, int | None]:
        tables = [table for table in self.tables(connection) if compare.counts(table)]
        known = counted(connection, tables)
        return {table.id: known.get(table.id) for table in tables}

    def advance_sequences(self, connection: Connection, values: Mapping[str, int | None]) -> None:
        known = {id: value for id, value in values.items() if value is not None}
        for table in self.tables(connection, list(known)):
            if compare.counts(table):
                connection.exec_driver_sql(ADVANCE, (qualified(table), table.key[0], known[table.id]))

    def lagging_sequences(self, connection: Connection, values: Mapping[str, int | None]) -> dict[str, bool | None]:
        tables = {table.id: table for table in self.tables(connection, list(values)) if compare.counts(table)}
        behind: dict[str, bool | None] = {}
        for id, here in counted(connection, list(tables.values())).items():
            there = values[id]
            if there is not None and there > (here or 0):
                rows = f"SELECT EXISTS (SELECT FROM {qualified(tables[id])} WHERE {{0}} > {here or 0} AND {{0}} <= {there})"
                with raw(connection.connection).cursor() as cursor:
                    cursor.execute(rows.format(quote(tables[id].key[0])))
                    behind[id] = bool(cursor.fetchone()[0])
        return behind

    def next_value(self, connection: Connection, id: str) -> int | None:
        (table,) = self.tables(connection, [id])
        return (counted(connection, [table])[id] or 0) + 1

    def taken(self, connection: Connection, id: str, after: int | None, through: int) -> Taken | None:
        (table,) = self.tables(connection, [id])
        key = quote(table.key[0])
        rows = f"SELECT min({key}) FROM {qualified(table)} WHERE {key} > {after or 0} AND {key} <= {through}"
        value = connection.exec_driver_sql(rows).scalar()
        return None if value is None else Taken(id, table.key[0], int(value), "refused")

    # -- reading for check and rejoin

    def unshipped_keys(self, connection: Connection, since: str, *, most: int | None = None) -> Mapping[str, set[str] | None]:
        found = super().unshipped_keys(connection, since, most=most)
        tables = self._tables(connection, list(found))
        return {
            name: keys if keys is None else set(reading_postgresql.shared_keys(connection, tables[name], keys).values())
            for name, keys in found.items()
            if name in tables
        }

    def same_keys(self, connection: Connection, table: Table, keys: Collection[str]) -> Mapping[str, str]:
        return {key: key for key in keys}

    def entries(self, connection: Connection, since: str) -> Iterator[Entry]:
        return reading_postgresql.shared_entries(connection, lambda names: self._tables(connection, names), super().entries(connection, since))

    def _key_of(self, table: Table) -> str:
        return f"{postgresql_key(table, 't')}::text"

    def lookable(self, table: Table, keys: Collection[str]) -> Collection[str]:
        return crossing.lookable(table, keys)

    def uncrossable(self, connection: Connection, table: Table, keys: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        return crossing.of_postgresql(connection, table, keys)

    def rows(self, connection: Connection, table: Table, keys: Collection[str] | None = None) -> list[tuple[str, str]]:
        return reading_postgresql.rows(connection, table, keys)

    def stream(self, connection: Connection, table: Table) -> Iterator[tuple[Any, str, tuple[str | None, ...]]]:
        return reading_postgresql.stream(connection, table)

    def forms(self, connection: Connection, table: Table) -> Forms:
        return digests.postgresql_forms(table)

    def digests(self, connection: Connection, table: Table, recipe: Recipe) -> Digests:
        return digests.MixedPostgreSQLDigests(connection, table, recipe)

    def _tables(self, connection: Connection, names: Collection[str]) -> dict[str, Table]:
        orphans = self.orphan_table(connection)
        return {table.id: table for table in [*self.tables(connection, [name for name in names if name != orphans.id]), orphans]}


def refuse_encoding(connection: Connection) -> None:
    """Refuses a database whose text isn't Unicode, as SQLite's is.

    Raises:
        CannotReplicate: it is in another encoding.
    """
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
    if encoding != "UTF8":
        raise CannotReplicate(f"the PostgreSQL database is in encoding {encoding}: beside SQLite it must be made with ENCODING 'UTF8'")


def _shared(table: Table, labels: Mapping[tuple[str, str], str]) -> Table:
    """A table as both nodes compare it."""
    columns = tuple(replace(column, type=column.type + labels.get((table.id, column.name), "")) for column in table.columns)
    return replace(table, columns=columns, options=(*table.options, BESIDE), sequences=compare.counters(table))


def _labels(connection: Connection, tables: Sequence[Table]) -> dict[tuple[str, str], str]:
    """By table and column: the labels of an enumeration, as a part of its type's name."""
    with raw(connection.connection).cursor() as cursor:
        cursor.execute(_LABELS, ([table.id for table in tables], [qualified(table) for table in tables]))
        return {(row[0], row[1]): f" enum({row[2]})" for row in cursor.fetchall()}


def counted(connection: Connection, tables: Sequence[Table]) -> dict[str, int | None]:
    """By table: the last value that its key's own sequence gave; tables without one, or one that counts down, are left out."""
    single = [table for table in tables if len(table.key) == 1]
    with raw(connection.connection).cursor() as cursor:
        cursor.execute(_COUNTERS, ([table.id for table in single], [qualified(table) for table in single], [table.key[0] for table in single]))
        return {row[0]: row[1] for row in cursor.fetchall() if row[2] > 0}
