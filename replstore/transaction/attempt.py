"""One attempt of a transaction: the marker that rides on it, and what happens at and after its COMMIT."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from replstore.node import Node
from replstore.pair.decide import Acknowledge
from replstore.pair.lead import Lead
from replstore.pair.pair import Pair
from replstore.timestamps import uptime
from replstore.transaction.acknowledge import acknowledge, is_on_both
from replstore.transaction.doubt import end, resolve


class Attempt:
    """Rides on one transaction of a writer's engine (see ``databases.base.Hook``).

    Args:
        pair: the pair.
        lead: the writer and the term that the transaction runs under.
        durability: ``replicated`` or ``async``.
        keyed: the caller writes the marker itself.

    Raises:
        BacklogFull: too much waits for the follower, and ``durability`` is async; nothing was begun.
        DurabilityUnavailable: the server isn't set up for what is asked; nothing was begun.
    """

    read_only = False

    def __init__(self, pair: Pair, lead: Lead, durability: str, *, keyed: bool = False) -> None:
        if durability == "async":
            pair.backlog.admit(lead.node, lead.follower, lead.term.uuid, alone=lead.acknowledge is Acknowledge.SOLO)
        self.pair, self.lead, self.durability = pair, lead, durability
        marked = keyed or pair.settings.commit_marker
        self.id: str | None = new_id() if marked else None
        """Of its marker; None: it has none, and what its COMMIT came to can't be found out afterwards."""
        self.since: float | None = None if keyed else uptime()
        self.began = False
        self.done = False
        """It is committed: an error after that never means that nothing took effect."""
        self.preamble = pair.link.preamble(lead, durability)
        self.cut = False
        """Its connection was shut because COMMIT waited for a standby for too long."""
        self.connection: Any = None
        self.marker: tuple[Any, ...] | None = self.marker_values() if marked and not keyed else None

    def marker_values(self, key: str | None = None, fn: str | None = None) -> tuple[Any, ...]:
        """The marker's row, in the order of ``MARKER_COLUMNS``."""
        return self.id, key, fn, "committed", None, self.durability, self.lead.term.number

    def ride(self, connection: Any) -> None:
        """Takes place on a driver connection, before its BEGIN.

        Raises:
            NotTheWriter: it doesn't lead to the server that was seen to write.
        """
        self.pair.refuse_astray(self.lead, connection)
        self.connection = connection
        self.pair.enter(connection, self.lead.node)

    @property
    def backend(self) -> tuple[int, str] | None:
        """Its server process, by id and start; None: there is none, or it has ended."""
        connection = self.connection
        return None if connection is None else self.lead.node.database.backend(connection)

    def refused(self) -> None:
        """The node isn't the writer of this term any more: whoever comes next looks for itself."""
        self.pair.doubt(self.lead)

    def ended(self) -> None:
        """Nobody waits on the connection any more, and a transaction that never began leaves nothing for the next one to ride on."""
        connection, self.connection = self.connection, None
        if connection is not None:
            self.pair.leave(connection)
            if connection.next_hook is self:
                connection.next_hook = None

    def committing(self) -> None:
        """COMMIT is about to be sent: it may wait for a standby, and not for ever."""
        self.pair.committing(self.connection, self)

    def committed(self) -> None:
        """COMMIT has returned: acknowledges.

        Raises:
            CommittedNotReplicated, CommitUnknown, TransactionLost.
        """
        self.done = True
        durability = "replicated" if self.connection is not None and self.connection.warned else self.durability
        acknowledge(self.pair, self.lead, self.id, durability, began=self.since)

    def in_doubt(self, error: BaseException) -> None:
        """The connection died during COMMIT.

        Raises:
            TransactionLost: it did not happen and never will.
            CommitUnknown, CommittedNotReplicated.
        """
        self.pair.doubt(self.lead)
        if self.cut and self.backend is not None:
            with suppress(Exception):  # it waits on, and keeps its locks
                end(self.lead, self.backend, limit=2 * self.pair.settings.probe_timeout)
        if self.cut and self.id is None:
            lead = self.lead  # a COMMIT that waits for a standby has happened already
        else:
            lead = resolve(self.pair, self.lead.term, self.id, self.durability, began=self.since, backend=self.backend, cause=error)
        self.done = True
        if is_on_both(self.pair, self.lead, lead):
            return
        # a server that was to wait for a standby has not done so to the end: that it has the commit must be proved, and soon if it was waited for already
        durability = "replicated" if self.cut or self.pair.link.waits(lead, self.durability) else self.durability
        acknowledge(self.pair, lead, self.id, durability, began=self.since, seconds=min(1.0, self.pair.settings.ack_timeout) if self.cut else None)


class Reading:
    """Rides on a transaction that only reads.

    Args:
        pair: the pair.
        node: where it reads; when that falls silent, the connection is freed.
    """

    read_only = True
    marker: tuple[Any, ...] | None = None
    preamble: str | None = None

    def __init__(self, pair: Pair, node: Node, connection: Any) -> None:
        self.began = False
        self._pair, self._connection = pair, connection
        pair.enter(connection, node)

    def refused(self) -> None:
        """It writes no marker."""

    def committing(self) -> None:
        """It waits for nobody."""

    def committed(self) -> None:
        """Nothing to acknowledge."""

    def in_doubt(self, error: BaseException) -> None:
        """Nothing was changed."""

    def ended(self) -> None:
        """Nobody waits on the connection any more."""
        self._pair.leave(self._connection)


def new_id() -> str:
    """A uuid of version 4, as text; ``uuid.uuid4`` makes an object of it first, which takes as long as all the rest of an attempt."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{'89ab'[int(digits[16], 16) & 3]}{digits[17:20]}-{digits[20:]}"
