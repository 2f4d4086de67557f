"""Rounds, spreads and ratios.

Variants take turns (A, B, C, A, B, C, …), and a ratio is formed within a round, so that whatever else the machine does meanwhile hits both sides.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

#: What one turn of a variant has measured, by name.
Measured = Mapping[str, float]
Variant = Callable[[], Measured]


@dataclass(frozen=True)
class Spread:
    """The median of some values, the quartiles around it, and how many they were."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of values; with fewer than three, from the least to the greatest."""
        if len(values) < 3:
            return cls(statistics.median(values), min(values), max(values), len(values))
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(statistics.median(values), low, high, len(values))


@dataclass(frozen=True)
class Figure:
    """A measured value.

    Attributes:
        name: what was measured.
        unit: in which unit.
        value: the values of all rounds.
    """

    name: str
    unit: str
    value: Spread


@dataclass(frozen=True)
class Ratio:
    """A value in proportion to another, or in proportion to a limit.

    Attributes:
        name: the sentence it belongs to.
        value: the values of all rounds.
        target: what it has to reach; None: it is only told.
        at_most: the target is a ceiling.
    """

    name: str
    value: Spread
    target: float | None = None
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the target."""
        if self.target is None:
            return None
        return self.value.median <= self.target if self.at_most else self.value.median >= self.target


@dataclass
class Section:
    """What one case has found.

    Attributes:
        title: its heading.
        about: how it was measured.
    """

    title: str
    about: str
    figures: list[Figure] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)


class Rounds:
    """The values of all rounds, by name, each list in the order of the rounds."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def add(self, measured: Measured) -> None:
        """Takes what one turn has measured."""
        for name, value in measured.items():
            self.values.setdefault(name, []).append(value)

    def figure(self, name: str, unit: str) -> Figure:
        """A series as a figure."""
        return Figure(name, unit, Spread.of(self.values[name]))

    def figures(self, unit: str, names: Sequence[str] | None = None) -> list[Figure]:
        """Several series, by default all, as figures."""
        return [self.figure(name, unit) for name in (self.values if names is None else names)]

    def ratio(self, sentence: str, of: str, to: str, *, target: float | None = None, at_most: bool = False) -> Ratio:
        """One series in proportion to another, round by round."""
        pairs = zip(self.values[of], self.values[to], strict=True)
        return Ratio(sentence, Spread.of([one / other for one, other in pairs]), target, at_most)

    def difference(self, sentence: str, of: str, to: str, *, target: float | None = None) -> Ratio:
        """What one series is above another, round by round; a target is a ceiling."""
        pairs = zip(self.values[of], self.values[to], strict=True)
        return Ratio(sentence, Spread.of([one - other for one, other in pairs]), target, at_most=True)


def interleave(variants: Sequence[Variant], *, seconds: float, least: int = 3, most: int = 1000) -> Rounds:
    """Lets variants take turns, in an order that moves on by one each round.

    Args:
        seconds: no round begins after them, except for the ``least``.
        least, most: number of rounds.
    """
    rounds, deadline = Rounds(), time.monotonic() + seconds
    for number in itertools.count():
        if number >= most or (number >= least and time.monotonic() >= deadline):
            return rounds
        for place in range(len(variants)):
            rounds.add(variants[(place + number) % len(variants)]())
    raise AssertionError("count() doesn't end")


def rate(transaction: Callable[[], object], seconds: float) -> float:
    """How many transactions a second one thread makes."""
    done, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        transaction()
        done += 1
    return done / spent


def timed(run: Callable[[], object]) -> float:
    """How long a call takes, in s."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
