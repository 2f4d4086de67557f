"""Two ordered streams of rows' digests become the rows that differ, in memory that doesn't grow with the table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from replstore.databases.digests import Row
from replstore.reconcile.report import Kind


class Differing(NamedTuple):
    """A row that differs: its key as ``Database.rows`` has it, what is the matter, and its position."""

    key: str
    kind: Kind
    position: int


def differing(primary: Iterable[Row], standby: Iterable[Row]) -> Iterator[Differing]:
    """Joins rows by position and key.

    Rows of one key that differ are one changed row.  A key may be there more than once, if it holds NULL or is the whole row of a table without a key: then
    what is the same on both is taken off first.

    Args:
        primary, standby: rows in the order of their positions.
    """
    left, right = (groupby(rows, attrgetter("position")) for rows in (primary, standby))
    a, b = next(left, None), next(right, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a[0] < b[0]):
            assert a is not None
            yield from _compared(a[0], a[1], ())
            a = next(left, None)
        elif a is None or b[0] < a[0]:
            yield from _compared(b[0], (), b[1])
            b = next(right, None)
        else:
            yield from _compared(a[0], a[1], b[1])
            a, b = next(left, None), next(right, None)


def _compared(position: int, primary: Iterable[Row], standby: Iterable[Row]) -> Iterator[Differing]:
    """The rows of one position."""
    surplus: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for row in primary:
        surplus[row.key][row.digest] += row.times
    for row in standby:
        surplus[row.key][row.digest] -= row.times
    for key, digests in surplus.items():
        mine = sum(times for times in digests.values() if times > 0)
        theirs = -sum(times for times in digests.values() if times < 0)
        both = min(mine, theirs)
        kinds: tuple[tuple[Kind, int], ...] = (("changed", both), ("missing_on_standby", mine - both), ("missing_on_primary", theirs - both))
        for kind, times in kinds:
            for _ in range(times):
                yield Differing(key, kind, position)
