"""Retention: commit markers and tombstones without a key go when nobody can be in doubt about them any more; those with a key stay for ever.

They must be older than the pair's ``marker_retention``, and the follower must have them under this term: so nothing goes before a former writer has rejoined or was
replaced, and can be asked what it alone had (HAZARDS 29).  Whoever is in doubt relies on half that time only (HAZARDS 4).
"""

from __future__ import annotations

import random
import time

from replstore.databases.base import NodeState
from replstore.databases.native.base import Native
from replstore.errors import NotTheWriter
from replstore.node import Node

#: s that one piece may take on a server that hangs.
LIMIT = 15.0
#: s of work at a time, and between two walks through all markers (at most).
SPELL, WALK = 0.1, 3600.0


class Retention:
    """Prunes on the writer, from where the follower gets it too; several programs may do so at the same time.

    Args:
        seconds: the pair's ``marker_retention``.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._walk = min(WALK, seconds / 24)
        self._after: int | None = None
        self._next_walk = time.monotonic() + random.uniform(0, self._walk)  # programs that start together don't walk together

    def work(self, writer: Node, ahead: NodeState, behind: NodeState, age: float) -> None:
        """Does a little of what there is to do.

        Args:
            ahead, behind: both nodes as they were seen last.
            age: for how many s, at most, the follower has been without something that was committed.

        Raises:
            NotTheWriter: the node writes under another term by now.
            Exception: a driver's error.
        """
        now = time.monotonic()
        if not in_sync(ahead, behind) or age > self._seconds / 2 or (self._after is None and now < self._next_walk):
            return
        while True:
            began = time.monotonic()
            self._after = prune(writer, ahead, self._seconds, self._after or 0)
            if self._after is None:
                self._next_walk = time.monotonic() + self._walk
                return
            worked = time.monotonic() - began
            if time.monotonic() + worked >= now + SPELL:
                return
            time.sleep(worked)


def in_sync(ahead: NodeState, behind: NodeState) -> bool:
    """Whether a writer's follower follows it under its term."""
    return ahead.role == "writer" and behind.role == "follower" and bool(ahead.term_uuid) and ahead.term_uuid == behind.stream_uuid


def prune(writer: Node, ahead: NodeState, seconds: float, after: int) -> int | None:
    """One piece of a walk; what a node prunes that writes under another term by now is rolled back.

    Returns:
        Where the next piece begins; None: this was the last one.
    """
    assert isinstance(writer.database, Native)
    with writer.begin(LIMIT) as connection:
        following = writer.database.prune_markers(connection, seconds, after)
        state = writer.database.state(connection)
        if state is None or (state.role, state.term_uuid) != ("writer", ahead.term_uuid):
            raise NotTheWriter(f"{writer.name} is no longer the writer of term {ahead.term_no}")
    return following
