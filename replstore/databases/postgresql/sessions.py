"""replstore's own sessions on PostgreSQL, straight on the driver: short-lived transactions with short server-side time limits.

A frozen client's transaction is ended by the server after two seconds, so that it never stops the pair (HAZARDS 9).
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psycopg
from sqlalchemy import Engine

from replstore.databases.dialect import raw

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
    """

    def __init__(self, engine: Engine, setup: Sequence[str] = (), *, optional: Sequence[str] = ()) -> None:
        # a pool of its own, always empty: one of the engine's idle connections may have died with its server
        self._pool, self._setup, self._optional = engine.pool.recreate(), setup, optional
        self._connection: Any = None

    def begin(self, statements: str) -> list[tuple[Any, ...]]:
        """Executes statements of which the first is BEGIN, on a new connection if there is none that lives, and returns the last one's rows."""
        if self._connection is None or self._connection.closed or _ended(self._connection):
            self.close()
            self._connection = self._connect()
        return self.last_result(statements)

    def _connect(self) -> Any:
        fairy = self._pool.connect()
        fairy.detach()
        connection = raw(fairy)
        for statement in self._setup:
            connection.execute(statement)
        for statement in self._optional:
            with suppress(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
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
        """Ends an open transaction; a connection that can't is closed."""
        if self._connection is None:
            return
        try:
            self._connection.rollback()
        except Exception:
            self.close()

    def close(self) -> None:
        """Closes the connection; never raises."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.close()


def _ended(connection: Any) -> bool:
    """Whether the server has ended an idle session: then there is something to read, if only the end of the stream."""
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    return bool(waiting.poll(0))
