"""PostgreSQL 15 and newer through psycopg 3."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, ClassVar

import psycopg
import sqlalchemy
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.pool import QueuePool

from replstore.control import Control
from replstore.databases.base import Entry, Fault, NodeState, Unshipped
from replstore.databases.catalog import Table
from replstore.databases.counting import Taken
from replstore.databases.database import Database
from replstore.databases.dialect import raw
from replstore.databases.digests import Digests, Forms, Recipe
from replstore.databases.postgresql import (
    amounts,
    capture,
    catalog,
    ddl,
    dialect,
    digests,
    faults,
    reading_changes,
    reading_rows,
    retention,
    sequences,
    sessions,
    suspended,
)
from replstore.databases.postgresql.brief import BriefCarrier
from replstore.databases.postgresql.capture import GUARD, LOCK_CLASS, MIGRATION, ONE_MIGRATION, TURN, text
from replstore.databases.postgresql.carrier import PostgreSQLCarrier
from replstore.databases.postgresql.replaying import PostgreSQLReplaying
from replstore.databases.postgresql.sessions import SERVICE_NAME, Session
from replstore.databases.postgresql.state import CONTROL, SELECT_STATE
from replstore.databases.state import node_state
from replstore.databases.suspended import Restore

#: Kept by the server: a client's host that lost its power says nothing any more, and its session would hold what it holds for hours (HAZARDS 9).
POWERED_OFF = "-c tcp_keepalives_idle=2 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=3 -c tcp_user_timeout=4000 -c client_connection_check_interval=2000"
#: How replstore's own sessions are, whatever the defaults of the database and the role: a compare-and-set that waited for a lock must see what is there then.
SERVICE_SETTINGS = (
    r"-c default_transaction_isolation=read\ committed -c default_transaction_read_only=off -c default_transaction_deferrable=off "
    "-c standard_conforming_strings=on -c client_encoding=UTF8 -c search_path=pg_catalog -c row_security=off -c idle_in_transaction_session_timeout=2000"
)
GUARD_LOCK = (
    f"l.locktype = 'advisory' AND l.classid = {LOCK_CLASS} AND l.objid = {GUARD} "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


@cache
def _nothing_of_replstore() -> Control:
    """A schema for control tables that is no user's either, so that replstore's own are shown. Making one takes longer than reading a catalog."""
    return Control("information_schema", "")


class PostgreSQL(Database):
    """See :class:`replstore.databases.database.Database`."""

    name: ClassVar[str] = "postgresql"
    control: ClassVar[Control] = CONTROL

    def user_engine(self, url: URL, **options: Any) -> Engine:
        # a dead host is noticed by the monitor; these limits are the net under it
        network = {"connect_timeout": 3, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
        arguments = {**network, **options.pop("connect_args", {})}
        return create_engine(url.set(drivername="postgresql+replstore"), connect_args=arguments, **options)

    def service_engine(self, url: URL, *, seconds: float) -> Engine:
        limit = int(seconds * 1000)
        settings = f"{SERVICE_SETTINGS} {POWERED_OFF} -c lock_timeout={limit} -c statement_timeout={limit}"
        arguments = {
            "connect_timeout": max(2, int(seconds)),
            "tcp_user_timeout": 2000,
            "keepalives_idle": 1,
            "keepalives_interval": 1,
            "keepalives_count": 2,
            "application_name": SERVICE_NAME,
            "options": settings,
        }
        return create_engine(url.set(drivername="postgresql+replstore"), connect_args=arguments, poolclass=QueuePool, pool_size=2, max_overflow=10)

    def carrier(self, writer: Engine, follower: Engine) -> PostgreSQLCarrier:
        # a plan that was made while a table was small must not read all of it when it is large: keys are looked up in the index, always
        setup = ["SET statement_timeout = 0", "SET enable_seqscan = off"]
        applying = [*setup, "SET synchronous_commit = on"]
        return BriefCarrier(Session(writer, setup), Session(writer), Session(follower, applying, optional=["SET session_replication_role = replica"]))

    def is_same(self, one: Connection, other: Connection) -> bool:
        key = (secrets.randbits(62),)
        one.exec_driver_sql("SELECT pg_advisory_xact_lock_shared(%s)", key)  # these locks belong to one database of one server
        return not other.exec_driver_sql("SELECT pg_try_advisory_xact_lock(%s)", key).scalar()

    def interrupt(self, connection: Any) -> None:
        sessions.interrupt(connection)

    def backend(self, connection: Any) -> tuple[int, str] | None:
        backend: tuple[int, str] | None = raw(connection).backend
        return backend

    def end_backend(self, connection: Connection, backend: tuple[int, str]) -> bool:
        statement = "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE pid = %s AND backend_start::text = %s"
        return bool(connection.exec_driver_sql(statement, backend).scalar())

    def classify(self, error: BaseException) -> Fault:
        return faults.classify(error)

    def state(self, connection: Connection) -> NodeState | None:
        if connection.exec_driver_sql("SELECT to_regclass('replstore.role') IS NULL").scalar():
            return None
        row = connection.exec_driver_sql(SELECT_STATE).fetchone()
        return None if row is None else node_state(row)

    def begin_reading(self, connection: Connection) -> NodeState | None:
        connection.begin()
        try:
            rows = raw(connection.connection).open_with(SELECT_STATE)
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            connection.invalidate()
            return None
        return node_state(rows[0]) if rows else None

    def lock_roles(self, connection: Connection, *, seconds: float) -> None:
        limit = max(1, int(seconds * 1000))
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {limit}")
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {limit + 1000}")
        connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK_CLASS}, {GUARD})")

    def blockers(self, connection: Connection) -> list[str]:
        return self.holders(connection, GUARD_LOCK) + suspended.blockers(connection)

    def holders(self, connection: Connection, lock: str) -> list[str]:
        """Who else has a lock, by a condition on ``pg_locks l``, a sentence each."""
        rows = connection.exec_driver_sql(f"""
            SELECT CASE WHEN l.pid IS NULL THEN 'a prepared transaction (' || coalesce((SELECT string_agg(gid, ', ') FROM pg_prepared_xacts
                        WHERE database = current_database()), 'unknown') || ')'
                   ELSE 'backend ' || l.pid || coalesce(' of ' || nullif(a.application_name, ''), '') || ', ' || coalesce(a.state, 'unknown') END
            FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid WHERE {lock} AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()""")
        return [row[0] for row in rows]

    def end_blockers(self, connection: Connection) -> int:
        rows = connection.exec_driver_sql(f"""
            SELECT pg_terminate_backend(l.pid, 500) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
            WHERE {GUARD_LOCK} AND l.granted AND l.pid <> pg_backend_pid() AND a.application_name = {text(SERVICE_NAME)}
                AND (a.state LIKE 'idle in transaction%%' OR a.wait_event = 'ClientRead') AND clock_timestamp() - a.state_change > interval '400 milliseconds'""")
        return len(rows.fetchall())

    def set_guard(self, connection: Connection, *, term_no: int, writing: bool) -> None:
        connection.exec_driver_sql(f"SELECT setval('replstore.guard', {term_no * 2 + int(writing)})")

    def position(self, connection: Connection) -> str:
        return str(connection.exec_driver_sql("SELECT pg_current_snapshot()::text").scalar())

    def committed(self, connection: Connection) -> str:
        # ticks and other databases move the snapshot on as well: a follower that has the last captured transaction has all of them
        row = connection.exec_driver_sql(
            "SELECT pg_current_snapshot()::text, (SELECT xid FROM replstore.journal ORDER BY xid DESC LIMIT 1)::text, "
            "(SELECT xid FROM replstore.marker ORDER BY xid DESC LIMIT 1)::text"
        ).one()
        _, xmax, running = _parsed(row[0])
        xmax = min(xmax, max((int(xid) + 1 for xid in row[1:] if xid is not None), default=0))
        running = {xid for xid in running if xid < xmax}
        return f"{min(running, default=xmax)}:{xmax}:{','.join(map(str, sorted(running)))}"

    def covers(self, position: str, earlier: str) -> bool:
        _, xmax, running = _parsed(position)
        _, old_xmax, old_running = _parsed(earlier)
        unseen = {xid for xid in running if xid < old_xmax} | set(range(xmax, min(old_xmax, xmax + 100_000)))
        return unseen <= old_running

    def mark(self, connection: Connection, mark: str | None) -> None:
        connection.exec_driver_sql(f"SET LOCAL replstore.mark = {text(mark or '')}")

    def warnings(self, connection: Connection) -> list[str]:
        off = connection.exec_driver_sql("SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'").scalars()
        return [f"{name} is off: what was acknowledged may not survive a power cut" for name in off]

    def orphan_table(self, connection: Connection) -> Table:
        (table,) = catalog.tables(connection, _nothing_of_replstore(), only={"replstore.orphan"})
        return table

    def tables(self, connection: Connection, only: Collection[str] | None = None) -> list[Table]:
        return catalog.tables(connection, CONTROL, only=only)

    def table_ids(self, connection: Connection) -> list[str]:
        return catalog.table_ids(connection, CONTROL)

    def refusal(self, connection: Connection, table: Table) -> str | None:
        return catalog.refusal(table) or catalog.refusal_here(connection, table)

    def create_statements(self, connection: Connection, tables: Sequence[Table], target: Connection) -> list[str]:
        return ddl.create_statements(tables, connection, target=target)

    def prepare_target(self, connection: Connection, tables: Sequence[Table], target: Connection) -> list[str]:
        amounts.refuse_other_amounts(connection, tables, target)
        return ddl.label_statements(tables, connection, target)

    def left_out(self, connection: Connection, tables: Sequence[Table]) -> list[str]:
        return ddl.left_out(tables, connection)

    def drop_statements(self, tables: Sequence[Table]) -> list[str]:
        return ddl.drop_statements(tables)

    def lock_migration(self, connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK_CLASS}, {MIGRATION})")

    @contextmanager
    def one_migration(self, node: Engine) -> Iterator[None]:
        with node.begin() as connection:
            for limit in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"):
                connection.exec_driver_sql(f"SET LOCAL {limit} = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK_CLASS}, {ONE_MIGRATION})")
            yield

    def migration_url(self, url: URL, *, mark: bool) -> URL:
        return url.update_query_dict({"options": "-c replstore.mark=migrate"}) if mark else url

    def control_statements(self, revision: str) -> list[str]:
        return capture.CONTROL_STATEMENTS if revision == "0001" else []

    def capture_statements(self, table: Table) -> list[str]:
        return capture.install_statements(table)

    def journal_whole(self, connection: Connection, tables: Sequence[Table]) -> None:
        for table in tables:
            connection.exec_driver_sql("INSERT INTO replstore.journal (tbl, keys) VALUES (%s, NULL)", (table.id,))

    def joined(self, table: Table, before: str, now: str) -> set[str] | None:
        return capture.joined(table, before, now)

    def journal_partitions(self, connection: Connection, table: Table, partitions: Collection[str]) -> None:
        parts = [member for member in table.partitions if member.id in partitions and not member.partition_by]
        self.execute_script(connection, [capture.journal_rows(table, member) for member in parts])

    def partition_statements(
        self, connection: Connection, wanted: Table, present: Table, fresh: Collection[str], target: Connection
    ) -> list[str] | None:
        return ddl.partition_statements(wanted, present, fresh, connection, target=target)

    def storage(self, connection: Connection, tables: Sequence[Table]) -> dict[str, str]:
        with raw(connection.connection).cursor() as cursor:
            cursor.execute(capture.select_storage(tables))
            return dict(cursor.fetchall())

    def fingerprints(self, connection: Connection, tables: Sequence[Table]) -> dict[str, str]:
        with raw(connection.connection).cursor() as cursor:
            cursor.execute(capture.select_fingerprints(tables))
            return dict(cursor.fetchall())

    def execute_script(self, connection: Connection, statements: Sequence[str]) -> None:
        with raw(connection.connection).cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def jump_sequences(self, connection: Connection, margin: int) -> None:
        sequences.jump_sequences(connection, CONTROL, margin)

    def sequences(self, connection: Connection) -> dict[str, int | None]:
        return sequences.sequences(connection, CONTROL)

    def advance_sequences(self, connection: Connection, values: Mapping[str, int | None]) -> None:
        sequences.advance_sequences(connection, values)

    def lagging_sequences(self, connection: Connection, values: Mapping[str, int | None]) -> dict[str, bool | None]:
        return sequences.lagging(connection, values)

    def next_value(self, connection: Connection, id: str) -> int | None:
        return sequences.next_value(connection, id)

    def taken(self, connection: Connection, id: str, after: int | None, through: int) -> Taken | None:
        return sequences.taken(connection, id, after, through)

    def in_force(self, connection: Connection, tables: Sequence[Table]) -> list[Restore]:
        return suspended.in_force(connection, tables)

    def suspend(self, connection: Connection, tables: Sequence[Table], restores: Sequence[Restore]) -> None:
        suspended.suspend(connection, tables, restores)

    def whole(self, connection: Connection, tables: Sequence[Table]) -> list[Table]:
        return suspended.whole(connection, tables)

    def disregard(self, table: Table, other: Table) -> Table:
        return suspended.disregard(table, other)

    def resume(self, connection: Connection, *, insist: bool = True) -> list[Restore]:
        suspended.wait_longer(connection)
        return super().resume(connection, insist=insist)

    def hold_follower(self, connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL replstore.mark = 'apply'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK_CLASS}, {TURN}), pg_advisory_xact_lock_shared({LOCK_CLASS}, {GUARD})")
        suspended.switch_off(connection)

    def replaying(self) -> PostgreSQLReplaying:
        return PostgreSQLReplaying()

    def begin_snapshot(self, connection: Connection) -> None:
        reading_rows.begin_snapshot(connection)

    def unshipped_keys(self, connection: Connection, since: str, *, most: int | None = None) -> Mapping[str, set[str] | None]:
        return reading_rows.unshipped_keys(connection, since, most)

    def same_keys(self, connection: Connection, table: Table, keys: Collection[str]) -> Mapping[str, str]:
        return reading_rows.same_keys(connection, table, keys)

    def entries(self, connection: Connection, since: str) -> Iterator[Entry]:
        return reading_rows.entries(connection, since)

    def last_changes(self, connection: Connection, table: Table, keys: Collection[str]) -> Mapping[str, Entry]:
        return reading_changes.last_changes(connection, table, keys)

    def written_since(self, connection: Connection, table: Table, keys: Collection[str], position: str) -> Mapping[str, bool]:
        return reading_changes.written_since(connection, table, keys, position, self._key_of(table))

    def _key_of(self, table: Table) -> str:
        """The expression of the key of a row ``t``, as ``rows`` gives it."""
        return reading_rows.key_of(table)

    def last_transactions(self, connection: Connection) -> Iterator[tuple[str, int]]:
        return reading_changes.last_transactions(connection)

    def journaled(self, connection: Connection) -> set[str]:
        return reading_rows.journaled(connection)

    def take_time(self, connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql("SET LOCAL synchronous_commit = on")

    def insert_new(self, connection: Connection, table: sqlalchemy.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:  # one statement: it is one entry of the journal
            columns = ", ".join(rows[0])
            connection.exec_driver_sql(
                f"INSERT INTO {table.fullname} ({columns}) SELECT {columns} FROM json_populate_recordset(NULL::{table.fullname}, %s::json) "
                "ON CONFLICT DO NOTHING",
                (json.dumps([dict(row) for row in rows], ensure_ascii=False),),
            )

    def prune(self, connection: Connection, shipped: str, *, limit: int | None = None) -> int:
        return retention.prune(connection, shipped, limit=limit)

    def old_markers(self, connection: Connection, shipped: str, *, seconds: float, after: str | None) -> tuple[list[str], str | None]:
        return retention.old_markers(connection, shipped, seconds=seconds, after=after)

    def forget_markers(self, connection: Connection, ids: Sequence[str]) -> None:
        retention.forget_markers(connection, ids)

    def unshipped(self, connection: Connection, since: str | None) -> Unshipped:
        return retention.unshipped(connection, since)

    def backlog(self, connection: Connection, since: str | None, *, limit: int) -> int:
        return retention.backlog(connection, since, limit=limit)

    def changes(self, connection: Connection, since: str, *, limit: int) -> int:
        return retention.changes(connection, since, limit=limit)

    def pinned(self, connection: Connection) -> list[str]:
        return retention.pinned(connection)

    def rows(self, connection: Connection, table: Table, keys: Collection[str] | None = None) -> list[tuple[str, str]]:
        return reading_rows.rows(connection, table, keys)

    def stream(self, connection: Connection, table: Table) -> Iterator[tuple[Any, str, tuple[str | None, ...]]]:
        return reading_rows.stream(connection, table)

    def forms(self, connection: Connection, table: Table) -> Forms:
        return digests.forms(connection, table)

    def digests(self, connection: Connection, table: Table, recipe: Recipe) -> Digests:
        return digests.PostgreSQLDigests(connection, table, recipe)

    def share_snapshot(self, connection: Connection) -> str | None:
        return str(connection.exec_driver_sql("SELECT pg_export_snapshot()").scalar())

    def join_snapshot(self, connection: Connection, shared: str) -> None:
        reading_rows.begin_snapshot(connection, shared)


def _parsed(snapshot: str) -> tuple[int, int, set[int]]:
    xmin, xmax, running = snapshot.split(":")
    return int(xmin), int(xmax), {int(xid) for xid in running.split(",") if xid}


_ = dialect  # registers postgresql+replstore
