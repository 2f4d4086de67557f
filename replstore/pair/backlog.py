"""The backlog: what the writer has acknowledged on its own account and the follower doesn't have yet, kept below a limit.

One process knows it by a count of the writer's journal, taken at most every ``probe_interval``, and by the transactions that it has committed since: no
transaction asks for it by itself, and several processes can be over the limit by what they commit between two counts.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from replstore.config import Settings
from replstore.databases.base import NodeState
from replstore.errors import BacklogFull, NotTheWriter
from replstore.node import Node, one_line

log = logging.getLogger("replstore.pair")


class Backlog:
    """Lets async transactions begin while the backlog is below ``max_backlog``.

    Args:
        settings: of the Store.
        seen: a node's state as it was seen last, or None.
        ship: ships from a node until everything committed before is on the follower, or a deadline on the monotonic clock has passed.
    """

    def __init__(self, settings: Settings, seen: Callable[[Node], NodeState | None], ship: Callable[[Node, float], object]) -> None:
        self._settings, self._seen, self._ship = settings, seen, ship
        self._lock = threading.Lock()
        self._term = ""
        self._position: str | None = None
        self._counted = self._own = 0
        self._at = float("-inf")

    def committed(self) -> None:
        """This process has committed one more transaction."""
        with self._lock:
            self._own += 1

    def admit(self, writer: Node, follower: Node, term: str, *, alone: bool) -> None:
        """Returns when a transaction may begin.

        Args:
            term: the term's uuid.
            alone: the writer acknowledges alone, on record: nobody takes over without what it writes, so nothing limits it.

        Raises:
            BacklogFull: too much waits for the follower; with ``on_backlog="wait"`` for ``ack_timeout`` already.
        """
        if alone or self._settings.max_backlog == 0 or self._below(writer, follower, term):
            return
        deadline = time.monotonic() + (self._settings.ack_timeout if self._settings.on_backlog == "wait" else 0.0)
        trouble = ""
        while time.monotonic() < deadline:
            try:
                self._ship(writer, deadline)
                self._count(0, term)
                return
            except NotTheWriter:
                return  # the transaction will meet the new writer itself
            except Exception as error:
                trouble = one_line(error)
            if self._below(writer, follower, term, now=True):
                return
            time.sleep(0.05)
        if self._below(writer, follower, term, now=True):
            return
        raise BacklogFull(
            f"{self._counted} journal entries of {writer.name} wait for {follower.name}, and max_backlog is {self._settings.max_backlog}"
            f"{f' ({trouble})' if trouble else ''}: nothing was begun; bring {follower.name} back (`replstore status`), or raise max_backlog"
        )

    def position(self, follower: Node, term: str) -> str | None:
        """The follower's last known position under a term."""
        state = self._seen(follower)
        with self._lock:
            if state is not None and state.role == "follower" and state.stream_uuid == term:
                self._begin(term)
                self._position = state.position
            return self._position if term == self._term else None

    def _below(self, writer: Node, follower: Node, term: str, *, now: bool = False) -> bool:
        """Whether the backlog is below the limit, by a new count if the last one is old."""
        with self._lock:
            self._begin(term)
            moment = time.monotonic()
            if not now and moment - self._at < self._settings.probe_interval:
                return self._counted + self._own < self._settings.max_backlog
            self._at, own, self._own = moment, self._own, 0
        try:
            found = self._read(writer, self.position(follower, term))
            if found >= self._settings.max_backlog and (position := self._ask(follower, term)) is not None:
                found = self._read(writer, position)
        except Exception as error:  # the transaction will find out what it is
            log.debug("the backlog of %s can't be counted: %s", writer.name, one_line(error))
            with self._lock:
                self._own += own
            return True
        return self._count(found, term)

    def _begin(self, term: str) -> None:
        if term != self._term:
            self._term, self._position, self._counted, self._own, self._at = term, None, 0, 0, float("-inf")

    def _count(self, found: int, term: str) -> bool:
        with self._lock:
            if term == self._term:
                self._counted = found
            return found < self._settings.max_backlog

    def _read(self, writer: Node, position: str | None) -> int:
        with writer.begin(2 * self._settings.probe_timeout) as connection:
            return writer.database.backlog(connection, position, limit=self._settings.max_backlog)

    def _ask(self, follower: Node, term: str) -> str | None:
        """The follower's own word, where what was seen last says that too much waits; None: it doesn't answer."""
        try:
            with follower.begin(2 * self._settings.probe_timeout) as connection:
                state = follower.database.state(connection)
        except Exception:
            return None
        return state.position if state is not None and state.stream_uuid == term else None
