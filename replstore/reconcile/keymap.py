"""Where a table's differences lie among its keys: rows by cells of positions, and what differs by ranges that are as fine as memory allows.

It costs nothing but a count for each row that differs: how many rows there are, the first scan's buckets tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from replstore.databases.digests import Bucket

#: Cells of the whole key space, about; and ranges with differences that are remembered at most.
CELLS, RANGES = 64, 1024
KINDS = ("changed", "missing_on_standby", "missing_on_primary")


class Cell(NamedTuple):
    """A range of positions, both ends included, and what is in it.

    Attributes:
        low, high: the range.
        rows: on the node that has more of them; None: not known of so small a range.
        changed, missing_on_standby, missing_on_primary: rows that differ.
    """

    low: int
    high: int
    rows: int | None
    changed: int
    missing_on_standby: int
    missing_on_primary: int

    @property
    def differing(self) -> int:
        """Rows that differ."""
        return self.changed + self.missing_on_standby + self.missing_on_primary


@dataclass(frozen=True)
class KeyMap:
    """Where a table's differences lie.

    Attributes:
        ordered: a position is the key itself; else a hash of it, and neighbours have nothing in common.
        low, high: the least and the greatest position, on either node.
        shift: cell ``n`` has the positions whose upper bits, without the lowest ``shift`` ones, are ``n``.
        rows: by cell, how many rows it has; cells that have none, or weren't looked at, are missing.
        fine: the same as ``shift`` for the ranges of ``ranges``.
        ranges: number, then rows that differ of each of ``KINDS``; in order.
    """

    ordered: bool
    low: int
    high: int
    shift: int
    rows: tuple[tuple[int, int], ...]
    fine: int = 0
    ranges: tuple[tuple[int, int, int, int], ...] = ()

    def marked(self, found: Iterable[tuple[int, str]], times: int = 1) -> KeyMap:
        """The map with these differences as well, by position and kind.

        Args:
            found: they are counted as they come; none is kept.
            times: -1 takes them off again.
        """
        counts = {number: list(kinds) for number, *kinds in self.ranges}
        fine = self.fine
        for position, kind in found:
            counts.setdefault(position >> fine, [0, 0, 0])[KINDS.index(kind)] += times
            while len(counts) > RANGES:
                counts, fine = _folded(counts, 1), fine + 1
        kept = ((number, *kinds) for number, kinds in sorted(counts.items()) if any(kinds))
        return replace(self, fine=fine, ranges=tuple((number, a, b, c) for number, a, b, c in kept))

    def __add__(self, other: object) -> KeyMap:
        """The map of this part of a table and of another one."""
        if not isinstance(other, KeyMap):
            return NotImplemented
        shift, fine = max(self.shift, other.shift), max(self.fine, other.fine)
        rows: dict[int, list[int]] = {}
        counts: dict[int, list[int]] = {}
        for each in (self, other):
            _add(rows, _folded({number: [count] for number, count in each.rows}, shift - each.shift))
            _add(counts, _folded({number: list(kinds) for number, *kinds in each.ranges}, fine - each.fine))
        while len(counts) > RANGES:
            counts, fine = _folded(counts, 1), fine + 1
        return KeyMap(
            self.ordered,
            min(self.low, other.low),
            max(self.high, other.high),
            shift,
            tuple((number, count) for number, (count,) in sorted(rows.items())),
            fine,
            tuple((number, a, b, c) for number, (a, b, c) in sorted(counts.items())),
        )

    def cells(self) -> list[Cell]:
        """The whole key space in order, cells without rows included."""
        shift = max(self.shift, self.fine)
        rows = _folded({number: [count] for number, count in self.rows}, shift - self.shift)
        return list(self._cells(self.low, self.high, shift, {number: count for number, (count,) in rows.items()}))

    def closer(self) -> list[Cell]:
        """The part in which all differences lie, where that is so small a part that ``cells`` shows nothing of it; else nothing."""
        if not self.ordered or not self.ranges:
            return []
        low = max(self.low, self.ranges[0][0] << self.fine)
        high = min(self.high, ((self.ranges[-1][0] + 1) << self.fine) - 1)
        shift = max(self.fine, shift_of(low, high))
        if (high - low) * 8 > self.high - self.low or high - low < 2 or shift >= max(self.shift, self.fine):
            return []
        return list(self._cells(low, high, shift, None))

    def _cells(self, low: int, high: int, shift: int, rows: Mapping[int, int] | None) -> Iterator[Cell]:
        counts = _folded({number: list(kinds) for number, *kinds in self.ranges}, shift - self.fine)
        for number in range(low >> shift, (high >> shift) + 1):
            ends = max(low, number << shift), min(high, ((number + 1) << shift) - 1)
            changed, here, there = counts.get(number, (0, 0, 0))
            yield Cell(*ends, None if rows is None else rows.get(number, 0), changed, here, there)

    def runs(self) -> list[Cell]:
        """The ranges that have differences, as small as they are known; neighbours are one."""
        found: list[Cell] = []
        for number, *kinds in self.ranges:
            low, high = max(self.low, number << self.fine), min(self.high, ((number + 1) << self.fine) - 1)
            changed, here, there = kinds
            if found and found[-1].high == low - 1:
                last = found.pop()
                low, changed, here, there = last.low, last.changed + changed, last.missing_on_standby + here, last.missing_on_primary + there
            found.append(Cell(low, high, None, changed, here, there))
        return found

    @property
    def kinds(self) -> dict[str, int]:
        """Rows that differ, by kind."""
        return {kind: sum(each[place] for each in self.ranges) for place, kind in enumerate(KINDS, 1)}

    def as_dict(self) -> dict[str, Any]:
        """The map as JSON can hold it."""
        return {
            "by": "key" if self.ordered else "hash",
            "low": self.low,
            "high": self.high,
            "ranges": [{"low": each.low, "high": each.high, **{kind: getattr(each, kind) for kind in KINDS}} for each in self.runs()],
        }


def shift_of(low: int, high: int) -> int:
    """The division of these positions into about as many cells as a map has."""
    return ((high - low) // CELLS).bit_length()


def drawn(low: int, high: int, shift: int, primary: Mapping[int, Bucket], standby: Mapping[int, Bucket], *, ordered: bool) -> KeyMap:
    """A map without differences.

    Args:
        low, high: the least and the greatest position.
        shift: of the buckets.
        primary, standby: the buckets of both nodes.
        ordered: whether a position is the key itself.
    """
    most = {number: [max(each[number].rows for each in (primary, standby) if number in each)] for number in primary.keys() | standby.keys()}
    coarse = max(shift, shift_of(low, high))
    rows = _folded(most, coarse - shift)
    return KeyMap(ordered, low, high, coarse, tuple((number, count) for number, (count,) in sorted(rows.items())))


def _folded(counts: Mapping[int, list[int]], by: int) -> dict[int, list[int]]:
    """The counts of ranges that are 2 to the power of ``by`` times as large."""
    found: dict[int, list[int]] = {}
    for number, each in counts.items():
        _add(found, {number >> by: each})
    return found


def _add(to: dict[int, list[int]], counts: Mapping[int, list[int]]) -> None:
    for number, each in counts.items():
        to[number] = [a + b for a, b in zip(to[number], each, strict=True)] if number in to else list(each)
