"""Group commit: one thread ships for all that wait.

A batch whose snapshot was opened after a commit returned covers that commit.  So a caller needs the end of any batch that began after it
came here: it begins one if none is running, else it waits for the running one and then for, or with, the next.  Whoever runs one is told what all
of them wait for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Result = TypeVar("Result")


class GroupCommit(Generic[Result]):
    """Runs a function for many callers at once.

    Args:
        run: what one caller does for all; it is given that caller's deadline, and what each of them waits for.
    """

    def __init__(self, run: Callable[[float, Sequence[str | None]], Result]) -> None:
        self._run = run
        self._wanted: list[str | None] = []
        self._changed = threading.Condition()
        self._started = 0
        self._finished = 0
        self._running = False
        self._ended = False
        self._last: Result | Exception | None = None

    def cover(self, deadline: float, wanted: str | None = None) -> Result:
        """Returns the result of a run that began after this call did.

        Args:
            deadline: on the monotonic clock; may be infinite.
            wanted: what is waited for, by a name; None: everything.

        Raises:
            TimeoutError: the deadline passed; the run goes on for others.
            RuntimeError: ``finish`` was called.
            Exception: what the run raised; InterruptedError where its thread was interrupted (a KeyboardInterrupt stays that thread's).
        """
        with self._changed:
            needed = self._started + 1
            self._wanted.append(wanted)
            while self._running:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not self._changed.wait(min(remaining, threading.TIMEOUT_MAX)):
                    raise TimeoutError("the batch under way didn't end in time")
                if self._finished >= needed:
                    return self._result(self._last)
            if self._ended:
                raise RuntimeError("the Store is closed")
            self._running = True
            self._started += 1
            wants, self._wanted = self._wanted, []
        outcome: Result | Exception = InterruptedError("the thread that shipped was interrupted")  # what the others see if that happens
        try:
            outcome = self._run(deadline, wants)
        except Exception as error:
            outcome = error
        finally:
            with self._changed:
                self._running = False
                self._finished, self._last = self._started, outcome
                self._changed.notify_all()
        return self._result(outcome)

    def finish(self, seconds: float) -> bool:
        """Lets no run begin any more, and waits for the one under way.

        Returns:
            Whether none is under way now.
        """
        with self._changed:
            self._ended = True
            return self._changed.wait_for(lambda: not self._running, timeout=seconds)

    @staticmethod
    def _result(outcome: Result | Exception | None) -> Result:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[return-value]
