"""Putting back rows on PostgreSQL: triggers are disabled by name in the same transaction, values are casts of the texts that their types print."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection

from replstore.databases.catalog import TRIGGER_PREFIX, Column, Table, execute, quote
from replstore.databases.dialect import raw
from replstore.databases.postgresql.capture import qualified, text
from replstore.databases.postgresql.carrier import UNSHIPPED, unpacked
from replstore.databases.postgresql.reading_rows import TEXT_SETTINGS, key_of
from replstore.databases.replaying import Replaying

#: How a trigger is brought back to the state that it had.
ENABLE = {"O": "ENABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}
TRIGGERS = """
SELECT g.tgrelid::regclass::text, g.tgname, g.tgenabled::text FROM pg_trigger g
WHERE g.tgrelid = ANY(%s::regclass[]) AND NOT g.tgisinternal AND g.tgenabled <> 'D' AND NOT starts_with(g.tgname, %s)"""
#: Where the transaction keeps what it has disabled: the setting ends with it, also with a savepoint.
DISABLED = "replstore.replaying"
#: s to wait for others' locks on a row or a table.
PATIENCE = 5


class PostgreSQLReplaying(Replaying):
    """See :class:`replstore.databases.replaying.Replaying`."""

    @contextmanager
    def reading(self, connection: Connection) -> Iterator[None]:
        execute(connection, [f"{TEXT_SETTINGS}; SET LOCAL lock_timeout = '{PATIENCE}s'"])
        yield

    def quiet(self, connection: Connection, tables: Sequence[Table]) -> None:
        """Disabling takes a lock under which others can read the table, not change it; foreign keys' own triggers aren't the user's, and stay."""
        with raw(connection.connection).cursor() as cursor:
            cursor.execute(TRIGGERS, ([qualified(table) for table in tables], TRIGGER_PREFIX))
            found = [(name, trigger, state) for name, trigger, state in cursor.fetchall() if state in ENABLE]
            for name, trigger, _ in found:
                cursor.execute(f"ALTER TABLE ONLY {name} DISABLE TRIGGER {quote(trigger)}")
            back = "; ".join(f"ALTER TABLE ONLY {name} {ENABLE[state]} TRIGGER {quote(trigger)}" for name, trigger, state in found)
            cursor.execute("SELECT set_config(%s, %s, true)", (DISABLED, back))
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")

    def loud(self, connection: Connection, tables: Sequence[Table]) -> None:
        with raw(connection.connection).cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # also: a table with checks under way can't be altered
            back = cursor.execute("SELECT current_setting(%s, true)", (DISABLED,)).fetchone()[0]
            if back:
                cursor.execute(back)

    def value(self, column: Column, shown: str | None) -> str:
        return f"{text(shown)}::{column.type}" if shown is not None else f"NULL::{column.type}"

    def among(self, table: Table, keys: Collection[str], alias: str) -> str:
        on = " AND ".join(f"{alias}.{quote(column)} = j.k{n}" for n, column in enumerate(table.key))
        return f"EXISTS (SELECT FROM ({unpacked(table, _json(keys))}) j WHERE {on})"

    def named(self, connection: Connection, table: Table, keys: Collection[str], since: str) -> set[str]:
        where = f"j.tbl = {text(table.id)} AND {UNSHIPPED.format(name='j', position=f'{text(since)}::pg_snapshot')}"
        types = [table.column(column).type for column in table.key]
        on = " AND ".join(f"(g.v->>{n})::{type} = (k.v->>{n})::{type}" for n, type in enumerate(types))
        statement = (
            f"SELECT DISTINCT g.v::text FROM jsonb_array_elements({_json(keys)}::jsonb) g(v) JOIN "
            f"(SELECT k.v FROM replstore.journal j, jsonb_array_elements(j.keys) k(v) WHERE {where}) k ON {on}"
        )
        with raw(connection.connection).cursor() as cursor:
            if cursor.execute(f"SELECT EXISTS (SELECT FROM replstore.journal j WHERE j.keys IS NULL AND {where})").fetchone()[0]:
                return set(keys)
            found = {row[0] for row in cursor.execute(statement).fetchall()}
            canonical = cursor.execute(
                "SELECT v.v::text, g.t FROM unnest(%s::text[]) g(t) CROSS JOIN LATERAL (SELECT g.t::jsonb) v(v)", (list(keys),)
            )
            return {given for form, given in canonical.fetchall() if form in found}

    def keys(self, connection: Connection, table: Table, rest: str = "") -> set[str]:
        with raw(connection.connection).cursor() as cursor:
            return {row[0] for row in cursor.execute(f"SELECT DISTINCT {self._key(table)} FROM {qualified(table)} t {rest}").fetchall()}

    def identity_override(self, table: Table) -> str:
        return "OVERRIDING SYSTEM VALUE "

    def _key(self, table: Table) -> str:
        """The expression of the key of a row ``t``."""
        return key_of(table)


def _json(keys: Collection[str]) -> str:
    return text("[" + ",".join(keys) + "]")
