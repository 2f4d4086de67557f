"""Commit markers without a key are pruned once nobody can be in doubt about them any more; keyed ones stay."""

from __future__ import annotations

import time

from sqlalchemy import text

from replstore.node import Node

#: s between two rounds, and markers in one statement.
ROUND, CHUNK = 60.0, 10_000
PRUNE = text(
    "DELETE FROM replstore.marker WHERE id IN (SELECT id FROM replstore.marker WHERE key IS NULL AND at < now() - make_interval(secs => :seconds) LIMIT :chunk)"
)


class Retention:
    """Prunes on the writer; its standby follows.

    Args:
        seconds: for how long a marker is kept.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._next = seconds, 0.0

    def work(self, writer: Node) -> None:
        """One round, if it is time for one."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + ROUND
        while True:
            with writer.begin() as connection:
                connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
                pruned = connection.execute(PRUNE, {"seconds": self._seconds, "chunk": CHUNK}).rowcount
            if pruned < CHUNK:
                return
