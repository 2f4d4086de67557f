"""One thread of a program at a time looks at the pair and acts; whoever waits for that keeps the deadline of its own caller."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Busy(Exception):
    """Another thread of this program is at it; the message says what it does, and since when."""


class Turn:
    """A lock that a thread may take again, and that says who has it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._held: list[tuple[str, float]] = []

    @contextmanager
    def taken(self, what: str, seconds: float | None = None) -> Iterator[None]:
        """Has the turn in the block.

        Args:
            what: what the block does, as a noun.
            seconds: s to wait for it; None: as long as it takes.

        Raises:
            Busy: another thread has had it for as long.
        """
        if not self._lock.acquire(timeout=-1 if seconds is None else max(0.0, seconds)):
            raise Busy(self._who())
        self._held.append((what, time.monotonic()))
        try:
            yield
        finally:
            self._held.pop()
            self._lock.release()

    def _who(self) -> str:
        held = self._held[:1]  # of somebody else's: it may be over by now
        if not held:
            return "another thread of this program looks after the pair"
        what, since = held[0]
        return f"{what} by another thread of this program has been under way for {time.monotonic() - since:.1f} s"
