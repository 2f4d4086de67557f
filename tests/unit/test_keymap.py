"""The map of a table's keys: nothing that differs is missing from it, however many rows differ and wherever they lie."""

from __future__ import annotations

import json
from itertools import pairwise
from random import Random

import pytest

from replstore.databases.digests import Bucket
from replstore.reconcile.keymap import CELLS, KINDS, RANGES, KeyMap, drawn


def bucket(rows: int) -> Bucket:
    return Bucket(rows, 0, 0)


def blank(low: int, high: int, *, ordered: bool = True) -> KeyMap:
    """A map of a table that has a row under every key."""
    shift = max(0, (high - low).bit_length() - 8)
    numbers = range(low >> shift, (high >> shift) + 1)
    full = {number: bucket(min(high, ((number + 1) << shift) - 1) - max(low, number << shift) + 1) for number in numbers}
    return drawn(low, high, shift, full, {}, ordered=ordered)


def sums(map: KeyMap) -> tuple[int, ...]:
    return tuple(sum(getattr(cell, kind) for cell in map.cells()) for kind in KINDS)


def test_each_row_is_counted_under_its_kind_where_it_lies() -> None:
    map = blank(1, 10_000).marked([(1, "changed"), (2, "changed"), (10_000, "missing_on_standby"), (5_000, "missing_on_primary")])
    assert map.kinds == {"changed": 2, "missing_on_standby": 1, "missing_on_primary": 1}
    assert [(cell.low <= 1, cell.changed) for cell in map.cells() if cell.changed] == [(True, 2)]
    (last,) = (cell for cell in map.cells() if cell.missing_on_standby)
    assert (last.low <= 10_000 <= last.high, last.high) == (True, 10_000)
    assert sum(cell.rows or 0 for cell in map.cells()) == 10_000
    assert len(map.cells()) <= CELLS + 1


@pytest.mark.parametrize(("low", "high"), [(0, 0), (7, 7), (-5, 5), (-(1 << 63), (1 << 63) - 1), (-(1 << 63), -(1 << 63) + 3), (1, 1 << 62)])
def test_cells_cover_all_positions_once_and_in_order(low: int, high: int) -> None:
    map = drawn(low, high, 0 if high - low < 100 else 58, {}, {}, ordered=True).marked([(low, "changed"), (high, "changed")])
    cells = map.cells()
    assert (cells[0].low, cells[-1].high) == (low, high)
    assert all(one.high + 1 == other.low for one, other in pairwise(cells))
    assert len(cells) <= CELLS + 2
    assert sums(map) == (2, 0, 0)


def test_however_many_rows_differ_the_map_stays_small_and_loses_none() -> None:
    random = Random(1)
    found = [(random.randrange(-(1 << 63), 1 << 63), random.choice(KINDS)) for _ in range(20_000)]
    map = blank(-(1 << 63), (1 << 63) - 1, ordered=False).marked(iter(found))
    assert len(map.ranges) <= RANGES
    assert sums(map) == tuple(sum(1 for _, each in found if each == kind) for kind in KINDS)
    for position, kind in found[:50]:
        assert any(cell.low <= position <= cell.high and getattr(cell, kind) for cell in map.cells())


def test_what_is_no_difference_after_all_is_taken_off() -> None:
    found = [(position * 1000, "changed") for position in range(3000)]
    map = blank(0, 3_000_000).marked(found)
    assert map.fine > 0
    assert map.marked(found[:-1], -1).kinds == {"changed": 1, "missing_on_standby": 0, "missing_on_primary": 0}
    assert map.marked(found, -1).ranges == ()


def test_the_parts_of_a_table_are_its_whole() -> None:
    found = [(position, KINDS[position % 3]) for position in range(3, 100_000, 37)]
    whole = blank(0, 100_000).marked(found)
    parts = [blank(0, 100_000) for _ in range(2)]
    parts = [parts[0].marked(found[:1000]), KeyMap(True, 0, 100_000, parts[1].shift, ()).marked(found[1000:])]
    for both in (parts[0] + parts[1], parts[1] + parts[0]):
        assert (both.kinds, both.cells()) == (whole.kinds, whole.cells())


def test_a_table_that_grew_between_two_parts_has_one_map() -> None:
    both = blank(0, 1000).marked([(999, "changed")]) + blank(0, 1 << 40).marked([(1 << 39, "changed")])
    assert (both.low, both.high, both.kinds["changed"], sum(cell.changed for cell in both.cells())) == (0, 1 << 40, 2, 2)
    first, second, *_ = both.cells()
    assert (first.rows, second.rows) == (1001 + first.high + 1, second.high - second.low + 1)


def test_neighbours_are_one_range() -> None:
    map = blank(1, 1000).marked([(position, "changed") for position in (1, 2, 3, 7, 1000)] + [(8, "missing_on_primary")])
    assert [(run.low, run.high, run.changed, run.missing_on_primary) for run in map.runs()] == [(1, 3, 3, 0), (7, 8, 1, 1), (1000, 1000, 1, 0)]
    assert json.loads(json.dumps(map.as_dict())) == map.as_dict()
    assert map.as_dict()["ranges"][1] == {"low": 7, "high": 8, "changed": 1, "missing_on_standby": 0, "missing_on_primary": 1}


def test_a_small_part_is_shown_closer() -> None:
    found = [(position, "changed") for position in range(500_000, 500_200, 2)]
    closer = blank(1, 1_000_000).marked(found).closer()
    assert (closer[0].low, closer[-1].high) == (500_000, 500_198)
    assert len([cell for cell in closer if cell.changed]) > 30
    assert sum(cell.changed for cell in closer) == 100


@pytest.mark.parametrize(
    ("map", "found"),
    [
        (blank(1, 1_000_000), [(1, "changed"), (1_000_000, "changed")]),
        (blank(1, 1_000_000), [(1, "changed"), (250_000, "changed")]),
        (blank(1, 1_000_000), [(5, "changed")]),
        (blank(1, 40), [(5, "changed"), (8, "changed")]),
        (blank(0, 1 << 60, ordered=False), [(5, "changed"), (5000, "changed")]),
        (blank(1, 100), []),
    ],
)
def test_nothing_is_shown_closer_that_says_no_more(map: KeyMap, found: list[tuple[int, str]]) -> None:
    assert map.marked(found).closer() == []
