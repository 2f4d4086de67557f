"""Rows of two databases that aren't a pair, read again after a while: what was only late has arrived by then, and what differs for good still does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice

from replstore.reconcile.reading import Reader
from replstore.reconcile.report import Difference, Values
from replstore.reconcile.rows import BATCH, values_of
from replstore.reconcile.snapshots import together

#: Differences of a table that are read again, whatever number is to be shown.
AT_LEAST = 10_000


def lasting(readers: tuple[Reader, Reader], found: Sequence[Difference]) -> Iterator[Difference]:
    """Those differences that are as they were: the same rows on both nodes, or the same one on one of them."""
    left = iter(found)
    while batch := list(islice(left, BATCH)):
        primary, standby = together(partial(values_of, keys={each.form for each in batch}), readers)
        yield from (each for each in batch if _lasts(each, primary[each.form], standby[each.form]))


def _lasts(found: Difference, primary: list[Values], standby: list[Values]) -> bool:
    if found.kind == "changed":
        return any(_has(row, found.primary) and row not in standby for row in primary) and any(_has(row, found.standby) for row in standby)
    here, there, row = (primary, standby, found.primary) if found.kind == "missing_on_standby" else (standby, primary, found.standby)
    return not row or (here.count(row) > there.count(row) and len(here) > len(there))


def _has(row: Values, values: Values | None) -> bool:
    return values is not None and all(row.get(name) == value for name, value in values.items())


def in_both(one: Sequence[Difference], other: Sequence[Difference]) -> Iterator[Difference]:
    """The differences of a table without a key that two comparisons have found."""
    left = Counter((each.form, each.kind) for each in other)
    for each in one:
        if left[each.form, each.kind]:
            left[each.form, each.kind] -= 1
            yield each
