"""PostgreSQL through psycopg 3: BEGIN, the commit marker and the first statement share one round trip.

The driver's connection stays in autocommit and BEGIN is ours: it is kept back until the first statement and sent with it in one pipeline.
A transaction that never executes a statement costs nothing and leaves no marker.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Generator, Sequence
from functools import cache, partial
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.pq import ConnStatus, PipelineStatus, TransactionStatus
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from replstore.databases.base import Hook
from replstore.databases.dialect import HookedConnection, HookedDialect, raw
from replstore.databases.postgresql import faults
from replstore.databases.postgresql.capture import NOT_THE_WRITER
from replstore.databases.postgresql.pipeline import Answer, Pipeline
from replstore.databases.postgresql.state import BOOT
from replstore.errors import NotAPair, NotTheWriter

Result = TypeVar("Result")
#: undefined_table, invalid_schema_name
UNDEFINED = ("42P01", "3F000")
#: Methods of the driver's cursors and connections by which a statement of the caller's shares a round trip with those of replstore; without them it has its own.
CARRIES = all(hasattr(psycopg.Cursor, name) for name in ("_execute_gen", "_execute_send", "_send_prepare", "_send_query_prepared")) and hasattr(
    psycopg.Connection, "_deallocate"
)

#: What PostgreSQL takes as a transaction's first statements only, in one statement that does nothing else.  READ ONLY isn't among it: a marker is written.
_GOES_FIRST = re.compile(
    r"\s*SET\s+(?:(?:LOCAL\s+)?TRANSACTION(?:(?:\s*,\s*|\s+)(?:ISOLATION\s+LEVEL\s+(?:SERIALIZABLE|REPEATABLE\s+READ|READ\s+(?:UN)?COMMITTED)|READ\s+WRITE|(?:NOT\s+)?DEFERRABLE|"
    r"SNAPSHOT\s+'[^'\\]*'))+|(?:LOCAL\s+)?transaction_isolation\s*(?:=|\sTO\s)\s*(?:'[a-z ]+'|\w+))\s*;?\s*",
    re.IGNORECASE,
)
ENDED = "a COMMIT or ROLLBACK of the caller's own has ended the transaction before its block did"

#: What a new connection asks first.  A client's host that loses its power says nothing any more: unless the server is told to ask sooner than after two
#: hours, the session keeps its locks for as long (HAZARDS 9).
OPEN = (
    f"SELECT backend_start::text, current_setting('synchronous_commit'), {BOOT}, current_setting('default_transaction_isolation'), "
    # a wait for a standby that was cancelled is told by a warning only (HAZARDS 6)
    "CASE WHEN current_setting('client_min_messages') = 'error' THEN set_config('client_min_messages', 'warning', false) END, "
    + ", ".join(
        f"CASE WHEN current_setting('{name}')::int > {most} THEN set_config('{name}', '{most}', false) END"
        for name, most in (("tcp_keepalives_idle", 10), ("tcp_keepalives_interval", 5), ("tcp_keepalives_count", 3))
    )
    + " FROM pg_stat_activity WHERE pid = pg_backend_pid()"
)


class StoreConnection(psycopg.Connection[Any], HookedConnection):
    """A connection in autocommit whose BEGIN waits for the first statement."""

    pending: str | None = None
    """The BEGIN that has not been sent yet; empty: it has been, and what is to go behind it hasn't."""
    manual: bool = True
    """False: SQLAlchemy was asked for AUTOCOMMIT, no BEGIN is sent."""
    one_snapshot: bool = False
    """A transaction sees from its first statement to its last what was there at the first one, unless it says otherwise."""
    wire: Pipeline | None = None
    """Sends what replstore itself has to say at a transaction's beginning."""

    def opening(self) -> list[tuple[str, tuple[Any, ...]]]:
        """The statements that must go before the next one; they count as sent from now on."""
        begin, self.pending = self.pending, None
        if not begin:
            self.refuse_ended()
        if begin is None:
            return []
        if not begin and self.wire is not None:  # a name that isn't known there any more would end the transaction that the caller has begun
            self.wire.forget()
        statements: list[tuple[str, tuple[Any, ...]]] = [(begin, ())] if begin else []
        hook = self.hook
        if hook is not None:
            hook.began = True
            if hook.marker is not None:
                statements.append(marker_statement(*hook.marker))
            if hook.preamble is not None:
                statements.append((hook.preamble, ()))
        return statements

    def is_gone(self) -> bool:
        return self.pgconn.status == ConnStatus.BAD

    def refuse_ended(self) -> None:
        """Raises where the transaction has been ended already, by a COMMIT of the caller's own: what came now would be committed by itself."""
        if self.hook is not None and self.pgconn.transaction_status == TransactionStatus.IDLE:
            raise psycopg.errors.NoActiveSqlTransaction(ENDED)

    def open_now(self) -> None:
        """Sends what must go before a statement that can't share its round trip."""
        if statements := self.opening():
            try:
                self._ask(statements)
            except psycopg.Error as error:
                self._refuse(error)
                raise

    def open_with(self, statement: str) -> list[tuple[Any, ...]]:
        """Sends it together with a statement of replstore's own, in one round trip, and returns that one's rows."""
        return self._ask([*self.opening(), (statement, ())]).rows

    def goes_first(self, query: Any) -> bool:
        """Whether a statement gives the transaction a characteristic that it must have before any query, so that it can't go behind the marker."""
        return (
            bool(self.pending)
            and self.hook is not None
            and self.hook.marker is not None
            and isinstance(query, str)
            and bool(_GOES_FIRST.fullmatch(query))
        )

    def open_before(self, caller: Callable[[], Generator[Any, Any, None]], *, alone: bool = False) -> None:
        """Sends it together with a statement of the caller's, in one round trip.

        Args:
            caller: makes the driver's generator that executes the statement.
            alone: BEGIN alone; what is to go behind it goes before the next statement.
        """
        if alone:
            statements: list[tuple[str, tuple[Any, ...]]] = [(str(self.pending), ())]
            self.pending = ""
        else:
            statements = self.opening()

        def carry(wire: Pipeline) -> None:
            with self.lock:
                wire.carry(caller())

        try:
            self._send(statements, carry)
        except psycopg.Error as error:
            if self.wire is not None and self.wire.failed:  # else it is the caller's own
                self._refuse(error)
            raise

    def end_reading(self) -> None:
        """Rolls back a transaction that has only read.  The driver's own rollback would deallocate all that is prepared, ours too."""
        assert self.wire is not None  # it has sent the BEGIN
        self.wire.say(b"ROLLBACK")

    def _ask(self, statements: Sequence[tuple[str, tuple[Any, ...]]]) -> Answer:
        """Executes the statements in one round trip, by libpq itself: the driver's own pipeline costs a multiple of its processor time."""

        def answer(wire: Pipeline) -> Answer:
            wire.end()
            return wire.receive()[-1]

        return self._send(statements, answer)

    def _send(self, statements: Sequence[tuple[str, tuple[Any, ...]]], rest: Callable[[Pipeline], Result]) -> Result:
        wire = self.wire = self.wire or Pipeline(self, lambda: None)
        wire.failed = False
        begins = bool(statements) and statements[0][0].startswith("BEGIN")  # else what is sent again would be a transaction by itself
        for again in (True, False):
            for statement, values in statements:
                wire.send(statement, *values)
            try:
                return rest(wire)
            except psycopg.errors.InvalidSqlStatementName:  # the caller has deallocated all that was prepared in the session
                if not (again and wire.failed and begins):
                    raise
                self.rollback()
                wire.forget()
        raise AssertionError

    def _deallocate(self, name: bytes | None) -> Any:
        """The driver forgets what it has prepared, as a part of a statement's execution."""
        if self.wire is not None and self.wire.carries:
            self.wire.land()
        return super()._deallocate(name)

    def _refuse(self, error: psycopg.Error) -> None:
        """Tells a marker that was refused from what is wrong with the caller's own statement."""
        hook = self.hook
        if hook is None or hook.marker is None:
            return
        if error.sqlstate == NOT_THE_WRITER:
            hook.refused()
            raise NotTheWriter(error.diag.message_primary or str(error)) from error
        if error.sqlstate in UNDEFINED and not self._has_marker():
            raise NotAPair("the writer's database has lost replstore's control tables, or is another one than before") from error

    def _has_marker(self) -> bool:
        self.rollback()
        row = psycopg.Cursor(self).execute("SELECT to_regclass('replstore.marker') IS NOT NULL").fetchone()
        return row is not None and bool(row[0])


class StoreCursor(psycopg.Cursor[Any]):
    """Sends the waiting BEGIN and marker before, and where possible together with, its first statement."""

    def execute(self, query: Any, params: Any = None, *, prepare: bool | None = None, binary: bool | None = None) -> Any:
        connection: Any = self.connection
        if connection.pending is None:
            connection.refuse_ended()
            return super().execute(query, params, prepare=prepare, binary=binary)
        if CARRIES and connection.goes_first(query):
            connection.open_before(partial(self._execute_gen, query, params, prepare=prepare, binary=binary), alone=True)
            return self
        if connection.pending == "" and _GOES_FIRST.fullmatch(str(query)):
            return super().execute(query, params, prepare=prepare, binary=binary)
        # without parameters it may hold several statements, which a pipeline refuses
        if not params or connection.hook is None or not CARRIES:
            connection.open_now()
            return super().execute(query, params, prepare=prepare, binary=binary)
        connection.open_before(partial(self._execute_gen, query, params, prepare=prepare, binary=binary))
        return self

    def _execute_send(self, query: Any, *, force_extended: bool = False, binary: bool | None = None) -> None:
        wire = self._conn.wire  # type: ignore[attr-defined]
        carried = wire is not None and wire.carries
        super()._execute_send(query, force_extended=force_extended or carried, binary=binary)
        if carried:
            wire.sent()

    def _send_prepare(self, name: bytes, query: Any) -> None:
        super()._send_prepare(name, query)
        self._sent()

    def _send_query_prepared(self, name: bytes, pgq: Any, *, binary: bool | None = None) -> None:
        super()._send_query_prepared(name, pgq, binary=binary)
        self._sent()

    def _sent(self) -> None:
        wire = self._conn.wire  # type: ignore[attr-defined]
        if wire is not None and wire.carries:
            wire.sent()

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
    durable = True
    """A session whose server would acknowledge what a crash takes back is told not to; False: that is left to the server."""

    def connect(self, *cargs: Any, **cparams: Any) -> Any:
        connection = StoreConnection.connect(*cargs, **{**cparams, "autocommit": True})
        connection.cursor_factory = StoreCursor
        connection.server_cursor_factory = StoreServerCursor
        row = connection.execute(OPEN).fetchone()
        assert row is not None
        connection.backend, connection.boot, connection.one_snapshot = (connection.info.backend_pid, row[0]), row[2], row[3] == "repeatable read"
        connection.add_notice_handler(partial(_warned, connection))
        if self.expected_pair is not None:
            self._check_pair(connection)
        if row[1] == "off" and self.durable:  # an acknowledgement must outlive a crash (HAZARDS 1f)
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
        begin, connection.pending = connection.pending, None
        if begin:
            return
        status = connection.pgconn.transaction_status
        if status == TransactionStatus.INERROR:
            # the server would answer COMMIT with ROLLBACK, and the driver say nothing
            connection.rollback()
            raise psycopg.errors.InFailedSqlTransaction("the transaction had failed in an earlier statement, so nothing was committed")
        if connection.manual and status == TransactionStatus.IDLE:
            raise psycopg.errors.NoActiveSqlTransaction(ENDED)
        if connection.wire is not None and connection.pgconn.pipeline_status == PipelineStatus.OFF:
            connection.wire.say(b"COMMIT")
        else:
            connection.commit()

    def rollback(self, connection: Any, hook: Hook | None) -> None:
        connection.pending = None
        status = connection.pgconn.transaction_status
        if status == TransactionStatus.INTRANS and hook is not None and hook.read_only and connection.wire is not None:
            connection.end_reading()
        elif status != TransactionStatus.IDLE:  # the pool asks for it each time
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
    """A wait for a standby was cancelled, and COMMIT says so by a warning only (HAZARDS 6); a program's own RAISE WARNING has the same code."""
    if diagnostic.sqlstate == "01000" and diagnostic.source_function == "SyncRepWaitForLSN":
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


def marker_statement(
    id: str, key: str | None, fn: str | None, outcome: str, result: str | None, durability: str, term_no: int
) -> tuple[str, tuple[Any, ...]]:
    """What inserts a marker, of which only the id changes from one to the next."""
    if key is not None or fn is not None or result is not None:
        return _INSERT_MARKER, (id, key, fn, outcome, result, durability, term_no)
    return _insert_marker(outcome, durability, term_no), (id,)


_INSERT_MARKER = "INSERT INTO replstore.marker (id, key, fn, outcome, result, durability, term_no) VALUES ($1, $2, $3, $4, $5, $6, $7)"


@cache
def _insert_marker(outcome: str, durability: str, term_no: int) -> str:
    return f"INSERT INTO replstore.marker (id, outcome, durability, term_no) VALUES ($1, {literal(outcome)}, {literal(durability)}, {term_no})"


def literal(value: Any) -> str:
    """A value as an SQL literal, for the few statements that take no parameters (COPY, SET)."""
    return sql.Literal(value).as_string(None)


def _own_report(record: logging.LogRecord) -> bool:
    """The driver logs that a pipeline of a lost connection can't be ended; that loss is raised, and reported once, as an error."""
    return "error ignored terminating" not in record.getMessage()


logging.getLogger("psycopg").addFilter(_own_report)
registry.register("postgresql.replstore", __name__, "StorePostgreSQL")
