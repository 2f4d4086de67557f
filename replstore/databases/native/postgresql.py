"""PostgreSQL whose own streaming replication copies the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import psycopg
from sqlalchemy import URL, Connection, Engine

from replstore.databases.base import NodeState
from replstore.databases.catalog import Table
from replstore.databases.dialect import raw
from replstore.databases.native import markers, terms
from replstore.databases.native.base import Identity, Native
from replstore.databases.native.replay import Replay, beat_statement
from replstore.databases.native.state import INSERTED, SELECT_BRIEF, SELECT_STATE, brief_state, lsn, node_state, number
from replstore.databases.postgresql.database import PostgreSQL

#: A commit marker is a plain row here: nothing has to capture or to guard it.  Most have no key, and cost its index nothing.
CONTROL_STATEMENTS = [
    """CREATE TABLE replstore.marker (
        id text PRIMARY KEY, key text, fn text, outcome text NOT NULL CHECK (outcome IN ('committed', 'lost')), result text,
        durability text NOT NULL, term_no bigint NOT NULL, at timestamptz NOT NULL DEFAULT now())""",
    "CREATE UNIQUE INDEX marker_key ON replstore.marker (key) WHERE key IS NOT NULL",
]
#: Patroni gives these on the command line of every server that it starts, and hardly anybody else does.
PATRONI = """
SELECT current_setting('cluster_name') FROM pg_settings WHERE name IN ('cluster_name', 'wal_level', 'max_wal_senders', 'max_connections')
    AND source = 'command line' HAVING count(*) = 4"""
#: Of others' sessions an ordinary role sees no more than this.
SESSIONS = """
SELECT pid FROM pg_stat_activity WHERE datid IS NOT NULL AND pid <> pg_backend_pid() AND pid NOT IN (SELECT pid FROM pg_stat_replication)"""
#: A Store's transaction inserts its marker first: whoever has this lock is alone, and whoever waits for it has changed nothing yet.
#: Two programs can't have it at once either.
ALONE = "LOCK TABLE replstore.marker IN SHARE ROW EXCLUSIVE MODE"
#: ms for which the lock is kept while its holder says nothing: the server is being shut down meanwhile, or the program stands still (HAZARDS 9).
HELD = 10_000
INSERTING = (
    "l.relation = 'replstore.marker'::regclass AND l.mode = 'RowExclusiveLock' "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
#: Bytes of a page of the write-ahead log, and of its header: no record ends right behind one.
PAGE, HEADER = 8192, 24


class NativePostgreSQL(PostgreSQL, Native):
    """See :class:`replstore.databases.database.Database`; what concerns the journal is never called."""

    captures: ClassVar[bool] = False

    def user_engine(self, url: URL, **options: Any) -> Engine:
        engine = super().user_engine(url, **options)
        engine.dialect.durable = False  # type: ignore[attr-defined]  # durability="server" is its word, and "replicated" is proved
        return engine

    def state(self, connection: Connection) -> NodeState | None:
        if connection.exec_driver_sql("SELECT to_regclass('replstore.timeline') IS NULL").scalar():
            return None
        row = connection.exec_driver_sql(SELECT_STATE).fetchone()
        return None if row is None else node_state(row)

    def leads_to(self, connection: Any, boot: str) -> bool:
        # a server's role and timeline stay what they are until it ends, but for a promotion: nothing else has to be asked of each transaction
        return not boot or raw(connection).boot == boot

    def begin_reading(self, connection: Connection) -> NodeState | None:
        driver = raw(connection.connection)
        if not driver.one_snapshot:  # else the place is asked for before: it must not be ahead of what the transaction sees
            connection.begin()
        try:
            rows = driver.open_with(SELECT_BRIEF)
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            connection.invalidate()
            return None
        if driver.one_snapshot:
            connection.begin()
        return brief_state(rows[0]) if rows else None

    def position(self, connection: Connection) -> str:
        statement = f"SELECT CASE WHEN pg_is_in_recovery() THEN (pg_last_wal_replay_lsn() - '0/0')::bigint ELSE {INSERTED} END"
        return lsn(int(connection.exec_driver_sql(statement).scalar_one()))

    def committed(self, connection: Connection) -> str:
        """The place, and all before it is flushed at the transaction's end: a crash doesn't take back what the place stands for."""
        position = self.position(connection)
        if connection.exec_driver_sql("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint").scalar_one() < number(position):
            self.commit_here(connection)
            self.beat(connection)
        return position

    def covers(self, position: str, earlier: str) -> bool:
        return number(position) >= number(earlier)

    def replay(self, writer: Engine, follower: Engine) -> Replay:
        return Replay(writer, follower)

    def identity(self, connection: Connection) -> Identity:
        statement = "SELECT (SELECT system_identifier FROM pg_control_system())::text, current_database(), pg_is_in_recovery()"
        return Identity(*connection.exec_driver_sql(statement).one())

    def in_recovery(self, connection: Connection) -> bool:
        return bool(connection.exec_driver_sql("SELECT pg_is_in_recovery()").scalar())

    def beat(self, connection: Connection) -> None:
        connection.exec_driver_sql(beat_statement(raw(connection.connection)))

    def promote(
        self, connection: Connection, *, boot: str, term: str, received: int, asked: float, within: float, refused: bool, force: bool = False
    ) -> str | None:
        seen = {"boot": boot, "term": term, "received": received, "asked": asked, "within": within}
        found = connection.exec_driver_sql(terms.PROMOTE, {**seen, "refused": refused, "force": force}).scalar()
        return None if found is None else str(found)

    def commit_here(self, connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL synchronous_commit = local")

    def record(self, connection: Connection, uuid: str, since: str) -> None:
        self.commit_here(connection)
        connection.exec_driver_sql(terms.RECORD, {"uuid": uuid, "since": since})

    def ended_at(self, connection: Connection, uuid: str) -> tuple[bool, int | None]:
        row = connection.exec_driver_sql(terms.ENDED, (uuid,)).first()
        return (False, None) if row is None else (True, row[0])

    def prune_markers(self, connection: Connection, seconds: float, after: int) -> int | None:
        return markers.prune(connection, seconds, after)

    def waiting(self, connection: Connection, backends: Sequence[tuple[int, str]]) -> set[int]:
        statement = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND (pid, backend_start::text) IN (SELECT * FROM unnest(%s::int[], %s::text[]))"
        pids, starts = [pid for pid, _ in backends], [start for _, start in backends]
        return set(connection.exec_driver_sql(statement, (pids, starts)).scalars())

    def running(self, connection: Connection) -> tuple[frozenset[int], int]:
        _, following, running = str(connection.exec_driver_sql("SELECT pg_current_snapshot()::text").scalar_one()).split(":")
        return frozenset(int(xid) % 2**32 for xid in running.split(",") if xid), int(following) % 2**32  # rows have 32 bits of it

    def sessions(self, connection: Connection) -> set[int]:
        return set(connection.exec_driver_sql(SESSIONS).scalars())

    def patroni(self, connection: Connection) -> str | None:
        found = connection.exec_driver_sql(PATRONI).scalar()
        return None if found is None else str(found)

    def lock_roles(self, connection: Connection, *, seconds: float) -> None:
        limit = max(1, int(seconds * 1000))
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {limit}")
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {limit + 1000}")
        connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {HELD}")
        connection.exec_driver_sql(ALONE)

    def blockers(self, connection: Connection) -> list[str]:
        return self.holders(connection, INSERTING)

    def end_blockers(self, connection: Connection) -> int:
        return 0  # replstore's own sessions only delete old markers, in a moment

    def control_statements(self, revision: str) -> list[str]:
        return CONTROL_STATEMENTS if revision == "0001" else []

    def capture_statements(self, table: Table) -> list[str]:
        return []

    def refusal(self, connection: Connection, table: Table) -> str | None:
        return None
