"""One thread of a program at a time looks at the pair and acts; whoever waits for that keeps the deadline of its own caller."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Busy(Exception):
    """Another thread of this program is at it; the message says what it does, and since when."""


class Turn:
    """A lock that a thread may take again, that says who has it, and that isn't waited for any longer once there is what it was wanted for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._owner: int | None = None
        self._held: list[tuple[str, float]] = []

    @contextmanager
    def taken(self, what: str, seconds: float | None = None, *, unless: Callable[[], bool] = lambda: False) -> Iterator[bool]:
        """Has the turn in the block, which gets True; or False, without it: ``unless`` came true first.

        Args:
            what: what the block does, as a noun.
            seconds: s to wait for it; None: as long as it takes.
            unless: whether the turn isn't needed any more; asked when it is free, and after ``told``.

        Raises:
            Busy: another thread has had it for as long.
        """
        me, needless = threading.get_ident(), False
        with self._changed:

            def decided() -> bool:
                nonlocal needless
                needless = unless()
                return needless or self._owner in (None, me)

            if not self._changed.wait_for(decided, None if seconds is None else max(0.0, seconds)):
                raise Busy(self._who())
            if not needless:
                self._owner = me
                self._held.append((what, time.monotonic()))
        if needless:
            yield False
            return
        try:
            yield True
        finally:
            with self._changed:
                self._held.pop()
                if not self._held:
                    self._owner = None
                    self._changed.notify_all()

    def told(self) -> None:
        """What somebody waits for may be there."""
        with self._changed:
            self._changed.notify_all()

    def _who(self) -> str:
        what, since = self._held[0]
        return f"{what} by another thread of this program has been under way for {time.monotonic() - since:.1f} s"
