"""replstore's own sessions on PostgreSQL, straight on the driver: short-lived transactions with short server-side time limits.

A frozen client's transaction is ended by the server after two seconds, so that it never stops the pair (HAZARDS 9).  A client that is well and waits for
one server keeps its transaction on the other open by asking something there once a second: so the limit stays what it is, however long a batch takes.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine

from replstore.databases.dialect import raw
from replstore.databases.postgresql.pipeline import Answer, Pipeline

#: s that a session has for the answer to a question that only a server which lives can answer.
PATIENCE = 2.0

#: How replstore's own sessions name themselves; only sessions of this name are ever ended by replstore.
SERVICE_NAME = "replstore service"


def interrupt(connection: Any) -> None:
    """Shuts the socket under a driver connection, so that a thread that waits on it stops waiting; never raises."""
    with suppress(Exception):  # a copy of the descriptor: the driver closes its own
        wire = socket.socket(fileno=os.dup(raw(connection).fileno()))
        try:
            wire.shutdown(socket.SHUT_RDWR)
        finally:
            wire.close()


class Session:
    """One driver connection that is opened when it is first needed and again after it broke.

    Args:
        engine: where to connect; its connect arguments carry the time limits.
        setup: statements to run on each new connection.
        optional: the same, where the role has the right to.

    Attributes:
        meanwhile: called about once a second while an answer of this session is waited for.
        refused: the role had no right to one of the optional statements on the present connection.
    """

    def __init__(self, engine: Engine, setup: Sequence[str] = (), *, optional: Sequence[str] = ()) -> None:
        # a pool of its own, always empty: one of the engine's idle connections may have died with its server
        self._pool, self._setup, self._optional = engine.pool.recreate(), setup, optional
        self.engine, self.refused = engine, False
        self._connection: Any = None
        self._pipeline: Any = None
        self._until: float | None = None
        self._left = False
        """A ROLLBACK is on its way, and nobody has waited for its answer."""
        self.meanwhile: Sequence[Callable[[], None]] = ()

    def open(self) -> None:
        """Makes sure that there is a connection that lives, for a new transaction."""
        if self._left:
            self._left = False
            try:
                self._pipeline.receive()
            except psycopg.Error:
                self.close()
        if self._connection is None or self._connection.closed or _ended(self._connection):
            self.close()
            connection = self._connect()
            self._connection, self._pipeline = connection, Pipeline(connection, self._while_waiting)
            connection.prepare_threshold = None  # the driver, which prepares too, would send a DEALLOCATE ALL after a rollback

    def begin(self, statements: str) -> list[tuple[Any, ...]]:
        """Executes statements of which the first is BEGIN, on a new connection if there is none that lives, and returns the last one's rows."""
        self.open()
        return self.last_result(statements)

    def _connect(self) -> Any:
        fairy = self._pool.connect()
        fairy.detach()
        connection = raw(fairy)
        for statement in self._setup:
            connection.execute(statement)
        self.refused = False
        for statement in self._optional:
            try:
                connection.execute(statement)
            except psycopg.errors.InsufficientPrivilege:
                self.refused = True
        return connection

    @property
    def connection(self) -> Any:
        """The driver's connection.  A transaction that lost it is never gone on with on another one.

        Raises:
            psycopg.OperationalError: it is gone, or ``begin`` was never called.
        """
        if self._connection is None or self._connection.closed:
            raise psycopg.OperationalError("the session of this transaction is gone")
        return self._connection

    def cursor(self) -> Any:
        """A cursor of the driver."""
        return self.connection.cursor()

    # -- statements in a pipeline, with places $1, $2, …

    @property
    def pipeline(self) -> Pipeline:
        """The connection's pipeline; raises like ``connection``."""
        assert self.connection is not None
        pipeline: Pipeline = self._pipeline
        return pipeline

    def send(self, statement: str, *values: Any, raw: bool = False) -> None:
        """See ``Pipeline.send``."""
        if self._pipeline is None:
            raise psycopg.OperationalError("the session of this transaction is gone")
        self._pipeline.send(statement, *values, raw=raw)

    def receive(self) -> list[Answer]:
        """Sends what is on its way, and returns all the answers to it."""
        self.pipeline.end()
        return self.pipeline.receive()

    def ask(self, statement: str, *values: Any) -> Answer:
        """Executes one statement, in one round trip."""
        self.send(statement, *values)
        return self.receive()[0]

    def copy_out(self, statement: str) -> Iterator[bytes]:
        """See ``Pipeline.copy_out``."""
        return self.pipeline.copy_out(statement)

    def copy_in(self, statement: str, pieces: Iterator[bytes]) -> int:
        """See ``Pipeline.copy_in``."""
        return self.pipeline.copy_in(statement, pieces)

    # -- waiting

    def stay(self) -> None:
        """Keeps an idle transaction from being ended as a frozen client's (HAZARDS 9).

        Raises:
            psycopg.Error: it has ended, or its server doesn't answer.
        """
        if self._connection is not None and self._status() == TransactionStatus.INTRANS:
            self._ask_for_life()

    def live(self) -> None:
        """Raises unless the server answers this session now, on a new connection if there is none; one that has something to do is not asked."""
        if self._connection is None or self._left or self._status() == TransactionStatus.IDLE:
            self.open()
            self._ask_for_life()

    def _status(self) -> Any:
        return self._connection.pgconn.transaction_status

    def _ask_for_life(self) -> None:
        self._until = time.monotonic() + PATIENCE
        try:
            self.ask("SELECT 1")
        finally:
            self._until = None

    def _while_waiting(self) -> None:
        if self._until is None:
            for act in self.meanwhile:
                act()
        elif time.monotonic() > self._until:
            raise psycopg.OperationalError(f"no answer within {PATIENCE:g} s while another session was waited for")

    # -- statements by the driver, with places %s

    def last_result(self, statements: str) -> list[tuple[Any, ...]]:
        """Executes one or more statements in one round trip and returns the rows of the last one, if it has any."""
        with self.cursor() as cursor:
            cursor.execute(statements, None)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def execute(self, statement: str, parameters: Sequence[Any]) -> int:
        """Executes one statement with parameters and returns how many rows it touched."""
        with self.cursor() as cursor:
            cursor.execute(statement, parameters)
            return int(cursor.rowcount)

    def interrupt(self) -> None:
        """Shuts the connection's socket, whoever waits on it; never raises."""
        interrupt(self._connection)

    def rollback(self) -> None:
        """Ends an open transaction, without waiting until it has ended; a connection that can't, or that still owes an answer, is closed."""
        if self._left or self._connection is None or (not self._pipeline.failed and self._status() == TransactionStatus.IDLE):
            return  # as after every batch that landed
        try:
            if self._pipeline.failed or self._status() in (TransactionStatus.ACTIVE, TransactionStatus.UNKNOWN):
                self.close()
            else:
                self.send("ROLLBACK")
                self._pipeline.end()
                self._left = True
        except Exception:
            self.close()

    def close(self) -> None:
        """Closes the connection; never raises."""
        connection, self._connection, self._pipeline, self._left = self._connection, None, None, False
        if connection is not None:
            with suppress(Exception):
                connection.close()


def _ended(connection: Any) -> bool:
    """Whether the server has ended an idle session: then there is something to read, if only the end of the stream."""
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    return bool(waiting.poll(0))
