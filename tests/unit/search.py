"""Breadth-first search over all reachable states: the first broken state found has the shortest trace."""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, TypeVar

S = TypeVar("S", bound=Hashable)


class Step(NamedTuple):
    """One event: what happens, the state after it, and what it breaks, if anything."""

    event: str
    state: Hashable
    fault: str | None = None


class Result(NamedTuple):
    """What a search found."""

    exhausted: bool
    """Every reachable state was seen, and nothing was broken."""
    states: int
    seconds: float
    trace: list[str]
    """The events that lead to the fault, and the fault; empty if none was found."""

    def __str__(self) -> str:
        verdict = "counterexample" if self.trace else "exhausted, no counterexample" if self.exhausted else "limit reached, no counterexample"
        lines = [f"{verdict} ({self.states:,} states, {self.seconds:.1f} s)", *(f"{number:4}. {event}" for number, event in enumerate(self.trace, 1))]
        return "\n".join(lines)


def search(start: S, steps: Callable[[S], Iterable[Step]], *, normal: Callable[[S], S], key: Callable[[S], Hashable], limit: int = 10**9) -> Result:
    """Searches until every state was seen or an event breaks something.

    Args:
        start: the first state.
        steps: all events that are possible in a state.
        normal: maps states that differ by nothing that matters to one of them.
        key: equal for states that differ by names only.
        limit: how many states to look at, at most.
    """
    gc.freeze()  # millions of tuples and not one cycle among them: collecting would only cost time
    gc.disable()
    try:
        return _search(start, steps, normal, key, limit)
    finally:
        gc.enable()
        gc.unfreeze()


def _search(start: S, steps: Callable[[S], Iterable[Step]], normal: Callable[[S], S], key: Callable[[S], Hashable], limit: int) -> Result:
    began = time.perf_counter()
    came_from: dict[Hashable, tuple[S, S | None]] = {key(start): (start, None)}
    queue = deque([start])
    while queue and len(came_from) < limit:
        state = queue.popleft()
        for event, following, fault in steps(state):
            if fault:
                return Result(
                    False, len(came_from), time.perf_counter() - began, [*_way_to(state, came_from, steps, normal, key), event, f"=> {fault}"]
                )
            following = normal(following)
            name = key(following)
            if name not in came_from:
                came_from[name] = (following, state)
                queue.append(following)
    return Result(not queue, len(came_from), time.perf_counter() - began, [])


def _way_to(
    state: S,
    came_from: dict[Hashable, tuple[S, S | None]],
    steps: Callable[[S], Iterable[Step]],
    normal: Callable[[S], S],
    key: Callable[[S], Hashable],
) -> list[str]:
    """The events that lead to a state; only states were kept, so each step is found again."""
    events: list[str] = []
    while (before := came_from[key(state)][1]) is not None:
        events.append(next(step.event for step in steps(before) if normal(step.state) == state))
        state = before
    return events[::-1]
