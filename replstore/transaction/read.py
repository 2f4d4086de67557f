"""Reads say what they are: from the writer, confirmed no longer ago than a bound; or from the follower, within a bound on its lag or after a token."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

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


class Reader:
    """Chooses the node of a read.

    Args:
        pair: the pair.
    """

    def __init__(self, pair: Pair) -> None:
        self._pair = pair

    @contextmanager
    def read(self, node: str, max_lag: float | None, after: Token | None) -> Iterator[Session]:
        """See ``Store.read``."""
        self._pair.refuse_closed()
        if node not in ("writer", "follower", "any"):
            raise ValueError(f"node must be 'writer', 'follower' or 'any', not {node!r}")
        # no rollback of the Session: it would expire what the caller has read; its connection rolls back when it is closed
        with self._connection(node, max_lag, after) as connection, Session(connection) as session:
            yield session
            if changed := [*session.new, *session.dirty, *session.deleted]:
                raise InvalidRequestError(
                    f"store.read() only reads, and {len(changed)} changed object(s), such as {type(changed[0]).__name__}, would be dropped: "
                    "change objects in store.begin() or store.run()"
                )

    def _connection(self, node: str, max_lag: float | None, after: Token | None) -> Connection:
        deadline = time.monotonic() + self._pair.settings.takeover_timeout
        refused = ""
        if node != "writer":
            found, refused = self._on_follower(max_lag, after, deadline)
            if found is not None:
                return found
        while True:
            try:
                lead = self._pair.current(deadline)
                return self._on_writer(lead, after, deadline, max_lag)
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

    def _on_follower(self, max_lag: float | None, after: Token | None, deadline: float) -> tuple[Connection | None, str]:
        """A connection to the follower if the terms hold there, else why not."""
        pair = self._pair
        lead = pair.lead
        follower = lead.follower if lead is not None else None
        if follower is None:
            candidates = [
                node for node in pair.nodes.values() if (seen := pair.watch.states.get(node.name)) and seen.state and seen.state.role == "follower"
            ]
            if not candidates:
                return None, "no follower is known"
            follower = candidates[0]
        try:
            connection, state = self._open(follower)
            if max_lag is not None and state is not None and pair.shipping.age(state) > max_lag:
                connection.close()
                try:
                    pair.ship(min(deadline, time.monotonic() + 1.0))
                except Exception as error:
                    return None, f"{follower.name} can't be brought within {max_lag:g} s: {one_line(error)}"
                connection, state = self._open(follower)  # what was read before the batch doesn't show it
        except DBAPIError as error:
            return None, f"{follower.name}: {one_line(error)}"
        reason = self._unfit(follower, state, lead, max_lag, after)
        if reason:
            connection.close()
            return None, reason
        return connection, ""

    def _unfit(self, node: Node, state: NodeState | None, lead: Lead | None, max_lag: float | None, after: Token | None) -> str:
        if state is None or state.role != "follower" or state.position is None:
            return f"{node.name} is not a follower"
        if state.copying:
            return f"{node.name} is not readable: it is being copied"
        if lead is not None and state.term_uuid != lead.term.uuid:
            return f"{node.name} follows term {state.term_no}, not {lead.term.number}"
        if after is not None and not self._pair.link.has(node, state, after):
            return f"{node.name} doesn't have what the token stands for yet"
        return ""

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
        lead = self._pair.current(time.monotonic() + self._pair.settings.takeover_timeout)
        with lead.node.begin(limit=2 * self._pair.settings.probe_timeout) as connection:
            state = lead.node.database.state(connection)
            position = lead.node.database.committed(connection)
        if state is None:
            raise StaleRead(f"{lead.node.name} has no control tables")
        return Token(state.term_no, state.term_uuid, state.node, position)
