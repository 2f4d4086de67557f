"""Group commit: one thread runs for all that wait, and what happens to it is its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from replstore.replication.group import GroupCommit


class Gate:
    """A run that waits until it is let through, and counts."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        self.runs = 0
        self.ends: dict[int, BaseException] = {}
        self.wanted: list[list[str | None]] = []

    def run(self, deadline: float, wanted: Sequence[str | None]) -> int:
        self.runs += 1
        self.wanted.append([*wanted])
        self.entered.set()
        assert self.open.wait(10)
        if self.runs in self.ends:
            raise self.ends[self.runs]
        return self.runs


def soon() -> float:
    return time.monotonic() + 10


def waiting(pool: ThreadPoolExecutor, group: GroupCommit[int], callers: int) -> list[Future[int]]:
    """That many callers, all of which wait for the run under way, each for its own number."""
    futures = [pool.submit(group.cover, soon(), str(number)) for number in range(callers)]
    while len(group._changed._waiters) < callers:  # type: ignore[attr-defined]
        time.sleep(0.001)
    return futures


def test_those_who_come_while_a_run_is_under_way_share_the_next_one() -> None:
    gate = Gate()
    group = GroupCommit(gate.run)
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(group.cover, soon())
        assert gate.entered.wait(10)
        others = waiting(pool, group, 5)
        gate.open.set()
        assert first.result(10) == 1
        assert {other.result(10) for other in others} == {2}


def test_whoever_runs_knows_what_each_of_those_waits_for_that_share_it() -> None:
    gate = Gate()
    group = GroupCommit(gate.run)
    with ThreadPoolExecutor(4) as pool:
        pool.submit(group.cover, soon(), "first")
        assert gate.entered.wait(10)
        waiting(pool, group, 3)
        gate.open.set()
    group.cover(soon())
    assert [sorted(each for each in wanted if each) for wanted in gate.wanted] == [["first"], ["0", "1", "2"], []]
    assert gate.wanted[2] == [None]


def test_an_interrupt_is_heard_by_its_own_thread_and_as_an_error_by_those_who_shared_the_run() -> None:
    gate = Gate()
    gate.ends = {2: KeyboardInterrupt()}
    group = GroupCommit(gate.run)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(group.cover, soon())
        assert gate.entered.wait(10)
        others = waiting(pool, group, 3)
        gate.open.set()
        assert first.result(10) == 1
        assert sorted(type(other.exception(10)).__name__ for other in others) == ["InterruptedError", "InterruptedError", "KeyboardInterrupt"]
        assert group.cover(soon()) == 3


def test_a_deadline_ends_the_wait_and_not_the_run() -> None:
    gate = Gate()
    group = GroupCommit(gate.run)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(group.cover, soon())
        assert gate.entered.wait(10)
        with pytest.raises(TimeoutError):
            group.cover(time.monotonic() + 0.01)
        gate.open.set()
        assert first.result(10) == 1
