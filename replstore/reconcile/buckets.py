"""Where a table differs: one scan of each node gives the digests of many buckets, and those that differ are divided further while that pays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from zlib import crc32

from replstore.databases.digests import BITS, Bucket, Buckets, Cut
from replstore.reconcile.keymap import KeyMap, drawn
from replstore.reconcile.reading import Meter, Reader, Sessions, at_once

#: Rows in a bucket of the first division, and buckets at least and at most.
ROWS, FEWEST, MOST = 256, 64, 1 << 16
#: Rows in differing buckets beyond which these are divided again: where an index finds them, and where that means to read the whole table once more.
MANY, MANY_TO_SCAN = 20_000, 500_000
#: Buckets in which so few rows are left aren't divided again.
SMALL = 16
#: Times the rows of a usual bucket from which on it says little that a bucket differs.
CROWDED = 4
ROUNDS = 8
#: Rows of a table from which on it is gone on with by stretches: at least half of 2 to the power of their number, unless keys are few.
STRETCHED, STRETCHES = 1_000_000, 5
Within = tuple[int, frozenset[int]] | None


@dataclass(frozen=True)
class Found:
    """What the digests say of a table.

    Attributes:
        primary, standby: how many rows each node has, of those that were looked at.
        cut: where rows differ; None: nowhere.
        left: how many rows are there, on the node that has more.
        map: rows by position; None: rows differ nowhere, and the whole table was looked at.
    """

    primary: int
    standby: int
    cut: Cut | None
    left: int
    map: KeyMap | None


def expected(readers: tuple[Reader, Reader], sessions: Sessions) -> int:
    """About how many rows a table has."""
    return max(at_once(readers, sessions, lambda reader: reader.digests.estimate()))


def stretches(readers: tuple[Reader, Reader], sessions: Sessions, rows: int) -> list[tuple[int, frozenset[int]]]:
    """A large table's positions in a few parts that are compared one after the other; none where there are few rows, or no index finds them.

    Args:
        rows: about how many there are.
    """
    if rows < STRETCHED or not readers[0].recipe.numbered:
        return []
    low, high = _bounds(readers, sessions)
    shift = max(0, (high - low).bit_length() - STRETCHES)
    return [(shift, frozenset({number})) for number in range(low >> shift, (high >> shift) + 1)]


def find(readers: tuple[Reader, Reader], sessions: Sessions, meter: Meter, expected: int, *, share: float = 1.0, within: Within = None) -> Found:
    """Compares the digests of both nodes.

    Args:
        readers: primary and standby.
        sessions: of the check.
        meter: told what was read.
        expected: about how many rows the table has.
        share: of the positions that are looked at, chosen by chance, the same ones each time.
        within: the buckets that are looked at; None: all.
    """
    numbered = readers[0].recipe.numbered
    low, high = _bounds(readers, sessions) if numbered else (-(1 << BITS - 1), (1 << BITS - 1) - 1)
    shift = _shift(low, high, expected // ROWS)
    cut = (
        Cut(min(shift, within[0]), within)
        if within
        else Cut(shift, None if share >= 1 else (shift, _chosen(range(low >> shift, (high >> shift) + 1), share)))
    )
    primary, standby = _buckets(readers, sessions, cut, meter)
    rows = sum(bucket.rows for bucket in primary.values()), sum(bucket.rows for bucket in standby.values())
    found, left = _differing(cut, primary, standby)
    map = drawn(low, high, cut.shift, primary, standby, ordered=numbered) if left or within else None
    cut = found
    whole = max(rows)
    for _ in range(ROUNDS):
        assert cut.within is not None
        each = left // max(1, len(cut.within[1]))
        crowded = each > CROWDED * ROWS  # keys that lie close together beside others that lie far away
        if not cut.shift or left <= (MANY if numbered else MANY_TO_SCAN) or (left * 2 > whole and not crowded):
            break
        whole = left
        finer = Cut(max(0, cut.shift - min(max(1, (each // SMALL).bit_length()), MOST.bit_length() - 1)), cut.within)
        cut, left = _differing(finer, *_buckets(readers, sessions, finer, None))
    return Found(*rows, cut if left else None, left, map)


def _bounds(readers: tuple[Reader, Reader], sessions: Sessions) -> tuple[int, int]:
    known = [each for each in at_once(readers, sessions, lambda reader: reader.digests.bounds()) if each is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else (0, 0)


def _shift(low: int, high: int, buckets: int) -> int:
    """The smallest division of these positions into no more buckets than are wanted."""
    return ((high - low) // min(max(buckets, FEWEST), MOST)).bit_length()


def _chosen(numbers: range, share: float) -> frozenset[int]:
    chosen = frozenset(number for number in numbers if crc32(number.to_bytes(9, "big", signed=True)) < share * (1 << 32))
    return chosen or frozenset(numbers[:1])


def _buckets(readers: tuple[Reader, Reader], sessions: Sessions, cut: Cut, meter: Meter | None) -> tuple[Buckets, Buckets]:
    told = {reader.side.name: meter.of(reader.side.name) if meter else lambda rows: None for reader in readers}
    return at_once(readers, sessions, lambda reader: reader.buckets(cut, told[reader.side.name]))


def _differing(cut: Cut, primary: Mapping[int, Bucket], standby: Mapping[int, Bucket]) -> tuple[Cut, int]:
    """The buckets that differ, and how many rows are in them on the node that has more."""
    numbers = frozenset(number for number in primary.keys() | standby.keys() if primary.get(number) != standby.get(number))
    rows = sum(max(each.rows for each in (primary.get(number), standby.get(number)) if each is not None) for number in numbers)
    return Cut(cut.shift, (cut.shift, numbers)), rows
