"""The blocks in which transactions run: a Session on a connection to whichever node writes, found anew while nothing has been begun there."""

from __future__ import annotations

import time
from types import TracebackType

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.orm import Session

from replstore.databases.base import Fault
from replstore.databases.dialect import as_database_error, raw
from replstore.errors import NotTheWriter, NoWriter, TransactionLost
from replstore.node import one_line
from replstore.pair.lead import Lead
from replstore.pair.pair import Pair
from replstore.transaction.attempt import Attempt


class Writing:
    """Opens blocks on the writer.

    Args:
        pair: the pair.
    """

    def __init__(self, pair: Pair) -> None:
        self._pair = pair

    def begun(self, durability: str | None, isolation: str | None) -> Block:
        """A block whose BEGIN and marker the writer has accepted before anything of the caller's is sent: it can still fail over."""
        return Block(self, durability, isolation, at_once=True)

    def block(self, durability: str | None, isolation: str | None, *, keyed: bool = False) -> Block:
        """A block that begins with its first statement, in that one's round trip: for callers that repeat it."""
        return Block(self, durability, isolation, keyed=keyed)

    def enter(self, durability: str | None, isolation: str | None, *, keyed: bool, at_once: bool) -> tuple[Connection, Attempt]:
        """A connection to the writer, and the attempt that rides on its next transaction, or on the one that has begun already."""
        return self._begin_now(durability, isolation) if at_once else self._connect(durability, isolation, keyed=keyed)

    def lost(self, attempt: Attempt, error: DBAPIError) -> TransactionLost | None:
        """What the loss of the writer in a block means; None: the error is another one, and stays what it is."""
        fault = attempt.lead.node.database.classify(error)
        if attempt.done or not (fault.connection_is_gone or fault is Fault.NOT_THE_WRITER):
            return None
        self._pair.doubt(attempt.lead)
        # COMMIT was never sent (its own loss is resolved where it happens), so the server rolls back
        return TransactionLost(f"{attempt.lead.node.name} was lost during the transaction ({one_line(error)}); nothing took effect")

    def _connect(self, durability: str | None, isolation: str | None, *, keyed: bool = False) -> tuple[Connection, Attempt]:
        """A connection to the writer on which the next transaction rides as an attempt; looks for another writer where the node doesn't answer."""
        if durability is not None and durability not in (known := self._pair.link.durabilities):
            raise ValueError(f"durability must be {', '.join(map(repr, known[:-1]))} or {known[-1]!r}, not {durability!r}")
        deadline = time.monotonic() + self._pair.settings.takeover_timeout
        while True:
            lead = self._pair.current(deadline)
            attempt = Attempt(self._pair, lead, durability or self._pair.settings.durability, keyed=keyed)
            try:
                connection = lead.node.engine.connect()
            except DBAPIError as error:
                self._give_way(lead, error, deadline, connecting=True)
                continue
            if isolation is not None:
                self._isolate(connection, isolation)
            driver = raw(connection.connection)
            try:
                attempt.ride(driver)
            except Exception as error:
                self._drop(connection, attempt, error, deadline)
                continue
            driver.next_hook = attempt
            return connection, attempt

    def _isolate(self, connection: Connection, level: str) -> None:
        """Sets the isolation level of this connection's next transaction."""
        try:
            if level == "AUTOCOMMIT":
                raise ValueError("a Store's transaction can't be AUTOCOMMIT: it is all or nothing")
            connection.execution_options(isolation_level=level)
        except BaseException:
            connection.close()
            raise

    def _begin_now(self, durability: str | None, isolation: str | None) -> tuple[Connection, Attempt]:
        """The same, begun."""
        deadline = time.monotonic() + self._pair.settings.takeover_timeout
        while True:
            connection, attempt = self._connect(durability, isolation)
            try:
                connection.begin()
                raw(connection.connection).open_now()
            except Exception as error:
                self._drop(connection, attempt, error, deadline)
                continue
            return connection, attempt

    def _drop(self, connection: Connection, attempt: Attempt, error: Exception, deadline: float) -> None:
        """Closes a connection on which nothing of the caller's has begun, and decides whether another look may help."""
        connection.invalidate()
        connection.close()
        attempt.ended()
        self._give_way(attempt.lead, as_database_error(error, connection), deadline)

    def _give_way(self, lead: Lead, error: BaseException, deadline: float, *, connecting: bool = False) -> None:
        """Decides whether another look may help; raises the error if not."""
        fault = Fault.NOT_THE_WRITER if isinstance(error, NotTheWriter) else lead.node.database.classify(error)
        seen = self._pair.watch.states.get(lead.node.name)
        if connecting and fault is Fault.SILENT and time.monotonic() >= deadline and seen is not None and seen.fault is None:
            raise NoWriter(
                f"{lead.node.name} answers on sessions that are open and takes no new ones ({one_line(error)}): its postmaster stands still, or what is "
                "between here and there; it isn't lost, so its follower doesn't become the writer"
            ) from error
        if not (fault.connection_is_gone or fault is Fault.NOT_THE_WRITER) or time.monotonic() >= deadline:
            raise error
        self._pair.doubt(lead)


class Block:
    """A Session in a transaction on the writer; the loss of the writer becomes ``TransactionLost``, every other error stays what it is.

    Args:
        writing: opens it.
        durability, isolation: as for ``Store.begin``.
        keyed: the caller writes the marker itself.
        at_once: BEGIN doesn't wait for the first statement.

    Attributes:
        attempt: what rides on the transaction; there is one while the block is open and after it.
    """

    attempt: Attempt

    def __init__(self, writing: Writing, durability: str | None, isolation: str | None, *, keyed: bool = False, at_once: bool = False) -> None:
        self._writing, self._durability, self._isolation, self._keyed, self._at_once = writing, durability, isolation, keyed, at_once

    def __enter__(self) -> Session:
        self._connection, self.attempt = self._writing.enter(self._durability, self._isolation, keyed=self._keyed, at_once=self._at_once)
        try:
            # one that has begun already is begun on the connection: the Session's commit is the transaction's
            self._session = _BlockSession(self._connection, expire_on_commit=False, join_transaction_mode="control_fully")
            self._transaction = self._session.begin().__enter__()
        except BaseException:
            self._end()
            raise
        return self._session

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            try:
                self._transaction.__exit__(kind, error, trace)
            finally:
                self._session.close()
        except DBAPIError as raised:
            if lost := self._writing.lost(self.attempt, raised):
                raise lost from raised
            raise
        else:
            if isinstance(error, DBAPIError) and (lost := self._writing.lost(self.attempt, error)):
                raise lost from error
        finally:
            self._end()

    def _end(self) -> None:
        self.attempt.ended()
        if not self._connection.invalidated and raw(self._connection.connection).is_gone():
            self._connection.invalidate()  # else the pool would try to roll back on it, and log that it can't
        self._connection.close()


class _BlockSession(Session):
    """The Session of a block, which commits at the block's end and not before: a part that is committed already would be repeated with the rest."""

    def commit(self) -> None:
        raise InvalidRequestError("a Store's transaction is committed at the end of its block or function, as a whole; it can't commit before")
