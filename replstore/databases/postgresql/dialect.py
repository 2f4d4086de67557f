"""PostgreSQL through psycopg 3: BEGIN, the commit marker and the first statement share one round trip.

The driver's connection stays in autocommit and BEGIN is ours: it is kept back until the first statement and sent with it in one pipeline.
A transaction that never executes a statement costs nothing and leaves no marker.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from replstore.control import MARKER_COLUMNS
from replstore.databases.base import Hook
from replstore.databases.dialect import HookedConnection, HookedDialect, raw
from replstore.databases.postgresql import faults
from replstore.databases.postgresql.capture import NOT_THE_WRITER
from replstore.databases.postgresql.pipeline import Answer, Pipeline
from replstore.databases.postgresql.state import BOOT
from replstore.errors import NotAPair, NotTheWriter

MARKER_VALUES = MARKER_COLUMNS[:-1]  # the database's own clock gives the time
#: undefined_table, invalid_schema_name
UNDEFINED = ("42P01", "3F000")
INSERT_MARKER = f"INSERT INTO replstore.marker ({', '.join(MARKER_VALUES)}) VALUES ({', '.join(['%s'] * len(MARKER_VALUES))})"
#: The same for libpq itself.
WIRED = {
    INSERT_MARKER: f"INSERT INTO replstore.marker ({', '.join(MARKER_VALUES)}) VALUES ({', '.join(f'${n + 1}' for n in range(len(MARKER_VALUES)))})"
}

#: What a new connection asks first.  A client's host that loses its power says nothing any more: unless the server is told to ask sooner than after two
#: hours, the session keeps its locks for as long (HAZARDS 9).
OPEN = (
    f"SELECT backend_start::text, current_setting('synchronous_commit'), {BOOT}, "
    + ", ".join(
        f"CASE WHEN current_setting('{name}')::int > {most} THEN set_config('{name}', '{most}', false) END"
        for name, most in (("tcp_keepalives_idle", 10), ("tcp_keepalives_interval", 5), ("tcp_keepalives_count", 3))
    )
    + " FROM pg_stat_activity WHERE pid = pg_backend_pid()"
)


class StoreConnection(psycopg.Connection[Any], HookedConnection):
    """A connection in autocommit whose BEGIN waits for the first statement."""

    pending: str | None = None
    """The BEGIN that has not been sent yet."""
    manual: bool = True
    """False: SQLAlchemy was asked for AUTOCOMMIT, no BEGIN is sent."""
    wire: Pipeline | None = None
    """Sends what replstore itself has to say at a transaction's beginning."""
    backend_start: str = ""
    """Start of the server's process, as text; with the pid it names the backend (HAZARDS 4)."""

    def opening(self) -> list[tuple[str, tuple[Any, ...] | None]]:
        """The statements that must go before the next one; they count as sent from now on."""
        begin, self.pending = self.pending, None
        if begin is None:
            return []
        statements: list[tuple[str, tuple[Any, ...] | None]] = [(begin, None)]
        if self.hook is not None:
            self.hook.began = True
            if self.hook.marker is not None:
                statements.append((INSERT_MARKER, self.hook.marker))
            if self.hook.preamble is not None:
                statements.append((self.hook.preamble, None))
        return statements

    def open_now(self) -> None:
        """Sends what must go before a statement that can't share its round trip."""
        if statements := self.opening():
            with self.refusals():
                self._ask(statements)

    def open_with(self, statement: str) -> list[tuple[Any, ...]]:
        """Sends it together with a statement of replstore's own, in one round trip, and returns that one's rows."""
        return self._ask([*self.opening(), (statement, None)]).rows

    def end_reading(self) -> None:
        """Rolls back a transaction that has only read.  The driver's own rollback would deallocate all that is prepared, ours too."""
        self._ask([("ROLLBACK", None)])

    def _ask(self, statements: list[tuple[str, tuple[Any, ...] | None]]) -> Answer:
        """Executes the statements in one round trip, by libpq itself: the driver's own pipeline costs a multiple of its processor time."""
        wire = self.wire = self.wire or Pipeline(self, lambda: None)
        for again in (True, False):
            for statement, values in statements:
                wire.send(WIRED.get(statement, statement), *(values or ()))
            wire.end()
            try:
                return wire.receive()[-1]
            except psycopg.errors.InvalidSqlStatementName:  # the caller has deallocated all that was prepared in the session
                if not again:
                    raise
                self.rollback()
                wire.forget()
        raise AssertionError

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Tells a marker that was refused from what is wrong with the caller's own statement."""
        try:
            yield
        except psycopg.Error as error:
            hook = self.hook
            if hook is None or hook.marker is None:
                raise
            if error.sqlstate == NOT_THE_WRITER:
                hook.refused()
                raise NotTheWriter(error.diag.message_primary or str(error)) from error
            if error.sqlstate in UNDEFINED and not self._has_marker():
                raise NotAPair("the writer's database has lost replstore's control tables, or is another one than before") from error
            raise

    def _has_marker(self) -> bool:
        self.rollback()
        row = self.execute("SELECT to_regclass('replstore.marker') IS NOT NULL").fetchone()
        return row is not None and bool(row[0])

    def _send(self, statements: list[tuple[str, tuple[Any, ...] | None]]) -> None:
        cursor = psycopg.Cursor(self)
        for statement, parameters in statements:
            cursor.execute(statement, parameters, prepare=parameters is not None and self.prepare_threshold is not None)


class StoreCursor(psycopg.Cursor[Any]):
    """Sends the waiting BEGIN and marker before, and where possible together with, its first statement."""

    def execute(self, query: Any, params: Any = None, *, prepare: bool | None = None, binary: bool | None = None) -> Any:
        connection: Any = self.connection
        if connection.pending is None:
            return super().execute(query, params, prepare=prepare, binary=binary)
        # without parameters it may hold several statements, which a pipeline refuses.  A pipeline's end, a flush that psycopg sends after the sync, leaves
        # the session without idle_in_transaction_session_timeout, which replstore's own sessions can't do without (HAZARDS 9)
        if not params or connection.hook is None:
            connection.open_now()
            return super().execute(query, params, prepare=prepare, binary=binary)
        with connection.refusals(), connection.pipeline():
            connection._send(connection.opening())
            super().execute(query, params, prepare=prepare, binary=binary)
        return self

    def executemany(self, query: Any, params_seq: Any, *, returning: bool = False) -> None:
        self.connection.open_now()  # type: ignore[attr-defined]
        super().executemany(query, params_seq, returning=returning)

    def stream(self, query: Any, params: Any = None, *, binary: bool | None = None, size: int = 1) -> Any:
        self.connection.open_now()  # type: ignore[attr-defined]
        return super().stream(query, params, binary=binary, size=size)

    def copy(self, statement: Any, params: Any = None, *, writer: Any = None) -> Any:
        self.connection.open_now()  # type: ignore[attr-defined]
        return super().copy(statement, params, writer=writer)


class StoreServerCursor(psycopg.ServerCursor[Any]):
    """A named cursor: its DECLARE goes after the waiting BEGIN."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        self.connection.open_now()  # type: ignore[attr-defined]
        return super().execute(query, params, **options)


class StorePostgreSQL(HookedDialect, PGDialect_psycopg):
    """The dialect of a Store's engines on PostgreSQL: ``postgresql+replstore://…``."""

    driver = "replstore"
    supports_statement_cache = True

    def connect(self, *cargs: Any, **cparams: Any) -> Any:
        connection = StoreConnection.connect(*cargs, **{**cparams, "autocommit": True})
        connection.cursor_factory = StoreCursor
        connection.server_cursor_factory = StoreServerCursor
        row = connection.execute(OPEN).fetchone()
        assert row is not None
        connection.backend_start, connection.boot = row[0], row[2]
        connection.add_notice_handler(partial(_warned, connection))
        if self.expected_pair is not None:
            self._check_pair(connection)
        if row[1] == "off":  # an acknowledgement must outlive a crash (HAZARDS 1f)
            connection.execute("SET synchronous_commit TO on")
        return connection

    def _check_pair(self, connection: StoreConnection) -> None:
        try:
            try:
                found = connection.execute("SELECT pair FROM replstore.node").fetchone()
            except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
                found = None
            self.check_pair(found[0] if found else None, f"{connection.info.host}:{connection.info.port}/{connection.info.dbname}")
        except BaseException:
            connection.close()
            raise

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        return faults.classify(e).connection_is_gone or bool(super().is_disconnect(e, connection, cursor))  # type: ignore[no-untyped-call]

    def begin(self, connection: Any) -> None:
        connection.warned = False
        if connection.manual:
            connection.pending = begin_statement(connection)

    def commit(self, connection: Any) -> None:
        if connection.pending is not None:
            connection.pending = None
            return
        if connection.info.transaction_status == TransactionStatus.INERROR:
            # the server would answer COMMIT with ROLLBACK, and the driver say nothing
            connection.rollback()
            raise psycopg.errors.InFailedSqlTransaction("the transaction had failed in an earlier statement, so nothing was committed")
        if connection.manual and connection.info.transaction_status == TransactionStatus.IDLE:
            raise psycopg.errors.NoActiveSqlTransaction("a COMMIT or ROLLBACK of the caller's own has ended the transaction before its block did")
        connection.commit()

    def rollback(self, connection: Any, hook: Hook | None) -> None:
        connection.pending = None
        if hook is not None and hook.read_only and connection.info.transaction_status == TransactionStatus.INTRANS:
            connection.end_reading()
        else:
            connection.rollback()

    def commit_in_doubt(self, error: BaseException) -> bool:
        return faults.commit_in_doubt(error)

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        connection = raw(dbapi_connection)
        if level == "AUTOCOMMIT" and self.new_hook is not None:
            raise ValueError(
                "a Store's transaction can't be AUTOCOMMIT: it is all or nothing; use an engine of your own for what must run outside of one"
            )
        connection.manual = level != "AUTOCOMMIT"
        connection.isolation_level = self._isolation_lookup[level] if connection.manual else None

    def reset_isolation_level(self, dbapi_connection: Any) -> None:
        connection = raw(dbapi_connection)
        connection.manual, connection.isolation_level = True, None

    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        connection = raw(dbapi_connection)
        if not connection.manual:
            return "AUTOCOMMIT"
        if connection.isolation_level is not None:
            return connection.isolation_level.name.replace("_", " ")
        return super().get_isolation_level(dbapi_connection)  # type: ignore[no-untyped-call]


def _warned(connection: StoreConnection, diagnostic: psycopg.errors.Diagnostic) -> None:
    """A wait for a standby was cancelled, and COMMIT says so by a warning only (HAZARDS 6)."""
    if diagnostic.sqlstate == "01000" and diagnostic.severity_nonlocalized == "WARNING":
        connection.warned = True


def begin_statement(connection: Any) -> str:
    """BEGIN with the characteristics that were set on the driver's connection."""
    parts = ["BEGIN"]
    if connection.isolation_level is not None:
        parts.append("ISOLATION LEVEL " + psycopg.IsolationLevel(connection.isolation_level).name.replace("_", " "))
    if connection.hook is not None and connection.hook.read_only:
        parts.append("READ ONLY")
    elif connection.read_only is not None:
        parts.append("READ ONLY" if connection.read_only else "READ WRITE")
    if connection.deferrable is not None:
        parts.append("DEFERRABLE" if connection.deferrable else "NOT DEFERRABLE")
    return " ".join(parts)


def literal(value: Any) -> str:
    """A value as an SQL literal, for the few statements that take no parameters (COPY, SET)."""
    return sql.Literal(value).as_string(None)


def _own_report(record: logging.LogRecord) -> bool:
    """The driver logs that a pipeline of a lost connection can't be ended; that loss is raised, and reported once, as an error."""
    return "error ignored terminating" not in record.getMessage()


logging.getLogger("psycopg").addFilter(_own_report)
registry.register("postgresql.replstore", __name__, "StorePostgreSQL")
