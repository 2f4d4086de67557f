"""Reads say what they are: from the writer, confirmed no longer ago than a bound; or from the follower, within a bound on its lag or after a token."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.orm import Session

from replstore.databases.base import Fault, NodeState
from replstore.databases.dialect import as_database_error, raw
from replstore.errors import NotTheWriter, NoWriter, StaleRead
from replstore.node import Node, one_line
from replstore.pair.lead import Lead
from replstore.pair.pair import Pair
from replstore.pair.token import Token
from replstore.transaction.attempt import Reading

log = logging.getLogger("replstore.transaction")
Result = TypeVar("Result")

#: s that a read waits for the follower at most, and for which none waits after one has waited in vain.
PATIENCE, IMPATIENCE = 1.0, 5.0


@dataclass(frozen=True)
class Wanted:
    """The terms of a read; see ``Store.read``."""

    node: str = "writer"
    max_lag: float | None = None
    max_lag_bytes: int | None = None
    after: Token | None = None

    def refuse_nonsense(self) -> None:
        """Raises ValueError for terms that mean nothing."""
        if self.node not in ("writer", "follower", "any"):
            raise ValueError(f"node must be 'writer', 'follower' or 'any', not {self.node!r}")
        for name, value, unit in (("max_lag", self.max_lag, "seconds"), ("max_lag_bytes", self.max_lag_bytes, "bytes")):
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0):
                raise ValueError(f"{name} is a number of {unit}, not {value!r}")
        if self.after is not None and not isinstance(self.after, Token):
            raise ValueError(f"after is a token, as store.token() and Token.parse() give it, not {self.after!r}")


class Reader:
    """Chooses the node of a read.

    Args:
        pair: the pair.
    """

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._impatient_until = -math.inf

    @contextmanager
    def read(self, wanted: Wanted) -> Iterator[Session]:
        """See ``Store.read``."""
        self._pair.refuse_closed()
        wanted.refuse_nonsense()
        if wanted.max_lag_bytes is not None and not self._pair.link.counts_bytes:
            raise ValueError("max_lag_bytes belongs to native replication, whose log is counted in bytes: the journal has max_lag, in seconds")
        # no rollback of the Session: it would expire what the caller has read; its connection rolls back when it is closed
        with self._connection(wanted) as connection, Session(connection) as session:
            yield session
            if not session._is_clean() and (changed := [*session.new, *session.dirty, *session.deleted]):  # what those three are takes its time
                raise InvalidRequestError(
                    f"store.read() only reads, and {len(changed)} changed object(s), such as {type(changed[0]).__name__}, would be dropped: "
                    "change objects in store.begin() or store.run()"
                )

    def query(self, fn: Callable[[Session], Result], wanted: Wanted, attempts: int) -> Result:
        """See ``Store.query``."""
        if isinstance(attempts, bool) or attempts < 1:
            raise ValueError(f"attempts is a number from 1 on, not {attempts!r}")
        for left in range(attempts - 1, -1, -1):
            try:
                with self.read(wanted if left else replace(wanted, node="writer")) as session:
                    return fn(session)
            except DBAPIError as error:
                fault = self._pair.primary.database.classify(error)
                if not left or not (fault is Fault.TRANSIENT or fault.connection_is_gone):
                    raise
                log.debug("a query is repeated: %s", one_line(error))
        raise AssertionError("the last attempt returns or raises")

    def _connection(self, wanted: Wanted) -> Connection:
        deadline = time.monotonic() + self._pair.settings.takeover_timeout
        refused = ""
        if wanted.node != "writer":
            found, refused = self._on_follower(wanted, deadline)
            if found is not None:
                return found
        while True:
            try:
                lead = self._pair.current(deadline)
                return self._on_writer(lead, wanted.after, deadline, wanted.max_lag)
            except NoWriter as error:
                raise StaleRead(f"no node can serve this read: {'; '.join(filter(None, (refused, str(error))))}") from error
            except NotTheWriter as error:
                if time.monotonic() >= deadline:
                    raise StaleRead(f"no node can serve this read: {error}") from error
                self._pair.doubt(lead)
            except DBAPIError as error:
                fault = lead.node.database.classify(error)
                if not (fault.connection_is_gone or fault is Fault.NOT_THE_WRITER) or time.monotonic() >= deadline:
                    raise
                self._pair.doubt(lead)

    def _require_uncontested(self, lead: Lead, deadline: float, max_lag: float | None) -> None:
        """Raises if another node may have replaced the writer for longer than the read may be old, as of now: its answer may have come late."""
        pair, bound = self._pair, max(self._pair.settings.detection_time, max_lag or 0.0)
        if pair.settings.durability != "replicated":
            return
        for known in (pair.lead, None):  # as last seen, else after a look of its own
            now = known or pair.settle(deadline)
            if now.term != lead.term:
                raise NotTheWriter(f"{lead.node.name} was the writer of term {lead.term.number}, {now.node.name} is of term {now.term.number}")
            if time.monotonic() - now.uncontested <= bound:
                return
        raise StaleRead(
            f"{lead.follower.name} may have taken over from {lead.node.name} unseen: it has not been met for more than {bound:g} s ({now.reason}); "
            "a larger max_lag accepts what may be older"
        )

    def _on_writer(self, lead: Lead, after: Token | None, deadline: float, max_lag: float | None) -> Connection:
        connection, state = self._open(lead.node)
        try:
            if state is not None:
                self._pair.refuse_astray(lead, connection.connection)
            self._require_uncontested(lead, deadline, max_lag)
            if state is None or state.role != "writer" or state.term_uuid != lead.term.uuid:
                raise NotTheWriter(f"{lead.node.name} is no longer the writer of term {lead.term.number}")
            if after is not None:
                self._pair.link.refuse_lost(lead.node, state, after)
        except BaseException:
            connection.close()
            raise
        return connection

    def _on_follower(self, wanted: Wanted, deadline: float) -> tuple[Connection | None, str]:
        """A connection to the follower if the terms hold there, else why not."""
        follower = self._follower()
        if follower is None:
            return None, "no follower is known"
        until = min(deadline, time.monotonic() + PATIENCE)
        try:
            connection, state = self._open_again(follower, until)
            reason, late = self._unfit(follower, state), self._late(follower, state, wanted)
            if late and not reason and self._wait(until, wanted):
                connection.close()
                connection, state = self._open_again(follower, until)  # what was read before doesn't show it
                # it has everything that was committed before the wait began: no bound on its lag is less than that
                reason, late = self._unfit(follower, state), self._late(follower, state, Wanted(after=wanted.after))
        except DBAPIError as error:
            return None, f"{follower.name}: {one_line(error)}"
        if reason or late:
            connection.close()
            return None, reason or late
        return connection, ""

    def _follower(self) -> Node | None:
        pair = self._pair
        if not pair.watch.states:
            with suppress(NoWriter):
                pair.settle(time.monotonic())
        if pair.lead is not None:
            return pair.lead.follower
        seen = ((node, pair.watch.states.get(node.name)) for node in pair.nodes.values())
        return next((node for node, found in seen if found and found.state and found.state.role == "follower"), None)

    def _wait(self, until: float, wanted: Wanted) -> bool:
        """Waits until the follower has everything that is committed now, together with whoever else waits; returns whether it has.

        A follower that has stopped costs one wait, and not one for each read.
        """
        began = time.monotonic()
        if wanted.node == "any" or began < self._impatient_until:
            return False
        try:
            self._pair.ship(until)
        except Exception as error:
            log.debug("a read didn't wait for the follower any longer: %s", one_line(error))
            if time.monotonic() - began >= PATIENCE / 2:
                self._impatient_until = time.monotonic() + IMPATIENCE
            return False
        return True

    def _unfit(self, node: Node, state: NodeState | None) -> str:
        """Why a node serves no read as a follower; empty: it may."""
        lead = self._pair.lead
        if state is None or state.role != "follower" or state.position is None:
            return f"{node.name} is not a follower"
        if state.copying:
            return f"{node.name} is not readable: it is being copied"
        if lead is not None and state.term_uuid != lead.term.uuid:
            return f"{node.name} follows term {state.term_no}, not {lead.term.number}"
        return ""

    def _late(self, node: Node, state: NodeState | None, wanted: Wanted) -> str:
        """Which of the terms a follower doesn't meet yet; empty: none."""
        pair = self._pair
        if state is None:
            return ""
        if wanted.max_lag is not None and pair.shipping.age(state) > wanted.max_lag:
            return f"{node.name} isn't known to be within {wanted.max_lag:g} s"
        if wanted.max_lag_bytes is not None and pair.shipping.behind(state, pair.settings.detection_time) > wanted.max_lag_bytes:
            return f"{node.name} isn't known to be within {wanted.max_lag_bytes} bytes"
        if wanted.after is not None and not pair.link.has(node, state, wanted.after):
            return f"{node.name} doesn't have what the token stands for yet"
        return ""

    def _open_again(self, node: Node, until: float) -> tuple[Connection, NodeState | None]:
        """The same as ``_open``, repeated where a pooled connection was lost, or had to give way to the follower's recovery."""
        while True:
            try:
                return self._open(node)
            except DBAPIError as error:
                if node.database.classify(error) not in (Fault.TRANSIENT, Fault.LOST_CONNECTION) or time.monotonic() >= until:
                    raise
                time.sleep(0.002)

    def _open(self, node: Node) -> tuple[Connection, NodeState | None]:
        """A read-only transaction on the application's engine, and the node's state as that transaction sees it."""
        connection = node.engine.connect()
        try:
            driver = raw(connection.connection)
            driver.next_hook = Reading(self._pair, node, driver)
            return connection, node.database.begin_reading(connection)
        except BaseException as error:
            connection.invalidate()
            connection.close()
            if isinstance(error, Exception):
                raise as_database_error(error, connection) from error
            raise

    def token(self) -> Token:
        """See ``Store.token``."""
        deadline = time.monotonic() + self._pair.settings.takeover_timeout
        while True:
            lead = self._pair.current(deadline)
            try:
                return self._token(lead)
            except Exception as error:
                fault = Fault.NOT_THE_WRITER if isinstance(error, NotTheWriter) else lead.node.database.classify(error)
                if not (fault.connection_is_gone or fault is Fault.NOT_THE_WRITER) or time.monotonic() >= deadline:
                    raise
                self._pair.doubt(lead)

    def _token(self, lead: Lead) -> Token:
        with lead.node.begin(limit=2 * self._pair.settings.probe_timeout) as connection:
            state = lead.node.database.state(connection)
            if state is None or (state.role, state.term_uuid) != ("writer", lead.term.uuid):  # a follower's position is less than what was committed
                raise NotTheWriter(f"{lead.node.name} is no longer the writer of term {lead.term.number}")
            position = lead.node.database.committed(connection)
        return Token(state.term_no, state.term_uuid, state.node, position)
