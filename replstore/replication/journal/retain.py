"""Retention: what is on both nodes and needed by nobody goes, a piece at a time.

The **journal** goes as far as the follower confirmed it, a moment later; but not what a later check may want to know of, while that is no more than
``journal_kept`` changes (``verified.py``).  **Markers and tombstones** without a key go when they are older than the pair's
``marker_retention``, and only while the follower is in sync under this term, so never before a former writer has rejoined or was replaced (HAZARDS 29);
those with a key stay for ever.  What the writer decides to drop is dropped on the follower first: a program that dies in between finds the rest again on
the writer, and nothing stays behind on a follower for good.

Nothing waits long for it: a piece is a transaction of some milliseconds, after which it rests as long as it has worked; and everything stops in the
piece in which the writer turns out to be another one, or to have gone back in time.
"""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Sequence

from sqlalchemy import Connection, select

from replstore.databases.base import NodeState
from replstore.errors import NotTheWriter
from replstore.node import Node
from replstore.replication.journal.verified import positions

#: How many rows one transaction removes.
PIECE = 1000
#: s that one transaction may take on a node that hangs.
LIMIT = 15.0
#: s for which the follower must have confirmed a position before the journal goes that far: whoever reads both nodes has long read them by then.
CONFIRMED = 5.0
#: The same for markers: whoever is in doubt about a commit, and the database's clock jumped, has his answer by then.
SETTLED = 60.0
#: s of work at a time, and between two walks through all markers (at most).
SPELL, WALK = 0.1, 3600.0


def in_sync(ahead: NodeState, behind: NodeState) -> bool:
    """Whether a writer's follower confirms, under this term, what it has: until then nothing may go."""
    return (
        ahead.role == "writer"
        and not ahead.solo
        and behind.role == "follower"
        and (ahead.term_no, ahead.term_uuid) == (behind.term_no, behind.term_uuid) == (behind.stream_no, behind.stream_uuid)
        and behind.source == ahead.node
        and behind.position is not None
        and behind.eligible_boot == behind.boot
        and not behind.copying
    )


class Retention:
    """Prunes a pair from one process; others may do so at the same time.

    Args:
        seconds: the pair's ``marker_retention``.
        kept: ``journal_kept``.
    """

    def __init__(self, seconds: float, kept: int = 0) -> None:
        self._seconds, self._kept = seconds, kept
        self._weighed: dict[str, tuple[float, bool]] = {}
        self._walk = min(WALK, seconds / 24)
        self._term = ""
        self._confirmed: deque[tuple[float, str]] = deque()
        self._journal: str | None = None
        self._after: str | None = None
        self._walking = False
        self._next_walk = time.monotonic() + random.uniform(0, self._walk)  # programs that start together don't walk together

    def work(self, writer: Node, follower: Node, ahead: NodeState, behind: NodeState) -> None:
        """Does a little of what there is to do.

        Args:
            ahead, behind: both nodes as they were seen last.

        Raises:
            NotTheWriter: the nodes are no longer what they were.
            Exception: a driver's error.
        """
        if not in_sync(ahead, behind):
            self._confirmed.clear()
            return
        now = time.monotonic()
        self._remember(now, ahead.term_uuid, behind.position or "")
        end = now + SPELL
        if self._journal is not None and not prune_journal(writer, ahead, behind, self._not_wanted(writer, ahead, self._journal), until=end):
            return
        self._journal = None
        settled = self._since(now - SETTLED)
        if settled is None or (not self._walking and now < self._next_walk):
            return
        self._after = prune_markers(writer, follower, ahead, behind, settled, seconds=self._seconds, after=self._after, until=end)
        self._walking = self._after is not None
        if not self._walking:
            self._next_walk = time.monotonic() + self._walk

    def _not_wanted(self, writer: Node, ahead: NodeState, shipped: str) -> str:
        """The position up to which the journal can go: what was shipped, or where the oldest mark of a check is from which on it is small enough.

        In a transaction of its own, before the one that prunes: that begins with a change, or a busy file would never let it through.
        """
        if not self._kept:
            return shipped
        with writer.snapshot() as connection:
            wanted = positions(writer, connection, ahead)
            self._weighed = {position: known for position, known in self._weighed.items() if position in wanted}
            for position in wanted:
                if not writer.database.covers(shipped, position):
                    break
                weighed, fits = self._weighed.get(position, (-math.inf, False))
                if time.monotonic() - weighed > SETTLED:  # counting takes its time
                    fits = writer.database.changes(connection, position, limit=self._kept) <= self._kept
                    self._weighed[position] = (time.monotonic(), fits)
                if fits:
                    return position
        return shipped

    def _remember(self, now: float, term: str, position: str) -> None:
        if term != self._term:
            self._term, self._journal, self._after, self._walking = term, None, None, False
            self._confirmed.clear()
        if not self._confirmed or now - self._confirmed[-1][0] >= CONFIRMED:
            if self._confirmed:
                self._journal = self._confirmed[-1][1]
            self._confirmed.append((now, position))
        while len(self._confirmed) > 1 and self._confirmed[1][0] <= now - SETTLED:
            self._confirmed.popleft()

    def _since(self, moment: float) -> str | None:
        """The position that was confirmed at a moment, or some time before."""
        began, position = self._confirmed[0]
        return position if began <= moment else None


def prune_journal(writer: Node, ahead: NodeState, behind: NodeState, shipped: str, *, until: float) -> bool:
    """Removes journal entries that the follower has.

    Args:
        shipped: a position that the follower confirmed under this term.
        until: on the monotonic clock; one piece is removed in any case.

    Returns:
        Whether none is left.
    """
    while True:
        began = time.monotonic()
        with writer.begin(LIMIT) as connection:
            gone = writer.database.prune(connection, shipped, limit=PIECE)
            _still_the_writer(writer, connection, ahead, behind)
        if gone < PIECE:
            return True
        if not _rested(began, until):
            return False


def prune_markers(
    writer: Node, follower: Node, ahead: NodeState, behind: NodeState, shipped: str, *, seconds: float, after: str | None, until: float
) -> str | None:
    """Removes old markers and tombstones without a key, on both nodes.

    Args:
        shipped: a position that the follower confirmed under this term.
        seconds: how old they must be, by the writer's database.
        after: where the last call stopped; None: begin anew.
        until: on the monotonic clock; one piece is looked through in any case.

    Returns:
        Where it stopped; None: all have been looked at.
    """
    while True:
        began = time.monotonic()
        with writer.begin(LIMIT) as connection:
            _still_the_writer(writer, connection, ahead, behind)
            ids, after = writer.database.old_markers(connection, shipped, seconds=seconds, after=after)
        for start in range(0, len(ids), PIECE):
            _forget(writer, follower, ahead, behind, ids[start : start + PIECE])
        if after is None or not _rested(began, until):
            return after


def _forget(writer: Node, follower: Node, ahead: NodeState, behind: NodeState, ids: Sequence[str]) -> None:
    with follower.begin(LIMIT) as connection:
        follower.database.forget_markers(connection, ids)
        state = follower.database.state(connection)
        if state is None or (state.role, state.term_no, state.term_uuid) != ("follower", ahead.term_no, ahead.term_uuid):
            raise NotTheWriter(f"{follower.name} no longer follows term {ahead.term_no}")
    with writer.begin(LIMIT) as connection:
        writer.database.forget_markers(connection, ids)
        _still_the_writer(writer, connection, ahead, behind)


def _still_the_writer(writer: Node, connection: Connection, ahead: NodeState, behind: NodeState) -> None:
    """Raises, and so undoes the piece, unless the node writes under the same term and has the tick that the follower holds: else a position that was
    confirmed may stand for other transactions by now (HAZARDS 1)."""
    state = writer.database.state(connection)
    if state is None or (state.role, state.term_no, state.term_uuid) != ("writer", ahead.term_no, ahead.term_uuid):
        raise NotTheWriter(f"{writer.name} is no longer the writer of term {ahead.term_no}")
    tick = writer.database.control.tick.c.tick
    if connection.execute(select(tick).where(tick == behind.tick)).scalar() is None:
        raise NotTheWriter(f"{writer.name} doesn't know the last batch that {behind.name} holds")


def _rested(began: float, until: float) -> bool:
    """Rests as long as the piece took; False: the time is up."""
    worked = time.monotonic() - began
    if time.monotonic() + worked >= until:
        return False
    time.sleep(worked)
    return True
