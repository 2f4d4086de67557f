"""Where a table's differences lie, as the check finds it: the map counts what the report counts, in the place where it is."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from replstore.reconcile import buckets, rows, strangers
from replstore.reconcile.keymap import KeyMap
from replstore.reconcile.report import TableReport
from tests.fix_check import behind_the_guard, fill, table
from tests.fix_reconcile import Two, only
from tests.fix_stores import Lab, put
from tests.reconcile.test_buckets import ROWS
from tests.reconcile.test_buckets import fill as fill_two


def map_of(report: TableReport) -> KeyMap:
    assert report.map is not None
    return report.map


def test_ranges_of_keys_are_where_the_differences_are(two: Two) -> None:
    fill_two(two, "INTEGER PRIMARY KEY")
    two.sql("standby", "DELETE FROM t WHERE k BETWEEN 100 AND 149", "UPDATE t SET v = 'other' WHERE k BETWEEN 2000 AND 2009")
    two.sql("primary", "DELETE FROM t WHERE k = 1")
    found = only(two.check(limit=3))
    map = map_of(found)
    assert (found.total, len(found.differences)) == (61, 3)
    assert map.kinds == {"changed": 10, "missing_on_standby": 50, "missing_on_primary": 1}
    assert map.ordered
    assert [(run.low, run.high, run.differing) for run in map.runs()] == [(1, 1, 1), (100, 149, 50), (2000, 2009, 10)]
    assert sum(cell.rows or 0 for cell in map.cells()) == ROWS - 1  # each node lacks some of the first cell
    assert [each.position for each in found.differences] == [each.key["k"] for each in found.differences]


@pytest.mark.parametrize("key", ["text", "numeric(9, 2)"])
def test_of_other_keys_the_map_counts_as_well(two: Two, key: str) -> None:
    fill_two(two, f"{key} PRIMARY KEY")
    two.sql("standby", "DELETE FROM t WHERE k IN ('7', '8', '9')" if key == "text" else "DELETE FROM t WHERE k IN (7, 8, 9)")
    map = map_of(only(two.check()))
    assert (map.ordered, map.kinds) == (False, {"changed": 0, "missing_on_standby": 3, "missing_on_primary": 0})
    assert sum(cell.missing_on_standby for cell in map.cells()) == 3


def test_a_table_without_a_key_has_a_map(two: Two) -> None:
    two.both("CREATE TABLE t (v int)", "INSERT INTO t VALUES (1), (1), (2)")
    two.sql("standby", "INSERT INTO t VALUES (1), (5)")
    assert map_of(only(two.check())).kinds == {"changed": 0, "missing_on_standby": 0, "missing_on_primary": 2}


def test_a_table_that_is_compared_in_stretches_has_one_map(two: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_two(two, "INTEGER PRIMARY KEY")
    two.sql("standby", "UPDATE t SET v = 'other' WHERE k IN (1, 2, 1000, 5000)", "DELETE FROM t WHERE k = 3000")
    whole = map_of(only(two.check()))
    monkeypatch.setattr(buckets, "STRETCHED", 100)
    parts = map_of(only(two.check(resume=str(tmp_path / "found"))))
    assert (parts.runs(), parts.cells()) == (whole.runs(), whole.cells())
    assert len(parts.runs()) == 4


def test_equal_tables_have_none(two: Two) -> None:
    fill_two(two, "INTEGER PRIMARY KEY")
    report = two.check()
    assert only(report).map is None
    assert report.as_dict()["tables"][0]["map"] is None


@pytest.mark.parametrize("key", ["PRIMARY KEY", ""])
def test_what_was_only_late_is_not_on_the_map(two: Two, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    two.both(f"CREATE TABLE t (k int {key}, v text)", "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    two.sql("standby", "DELETE FROM t WHERE k IN (1, 2)")
    waited = threading.Event()

    def sleep(seconds: float) -> None:
        if not waited.is_set():
            waited.set()
            two.sql("standby", "INSERT INTO t VALUES (1, 'a')")

    monkeypatch.setattr(strangers.time, "sleep", sleep)
    found = only(two.check(settle=0.1))
    assert (found.total, found.settled) == (1, 1)
    assert map_of(found).kinds == {"changed": 0, "missing_on_standby": 1, "missing_on_primary": 0}


def test_what_is_on_its_way_is_not_on_the_map(lab: Lab) -> None:
    store = lab.migrated(background=False, durability="async")
    fill(store, range(5))
    lab.ship()
    store.run(put(9))
    late = table(store.check(), "account")
    assert (late.total, late.waiting, late.map) == (0, 1, None)
    behind_the_guard(lab, "standby", "DELETE FROM account WHERE id = 3")
    found = table(store.check(), "account")
    assert (found.total, found.waiting) == (1, 1)
    assert [(run.low, run.high, run.missing_on_standby) for run in map_of(found).runs()] == [(3, 3, 1)]


def test_a_row_whose_values_are_the_same_after_all_is_not_on_the_map(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    two.both("CREATE TABLE t (k INTEGER PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    two.sql("standby", "UPDATE t SET v = 'z'")
    real: Any = rows.values_of

    def same(reader: Any, keys: Any) -> Any:
        return {key: [{**row, "v": "same"} if row["k"] == "1" else row for row in found] for key, found in real(reader, keys).items()}

    monkeypatch.setattr(rows, "values_of", same)
    found = only(two.check())
    assert (found.total, [each.key["k"] for each in found.differences]) == (1, [2])
    assert [(run.low, run.changed) for run in map_of(found).runs()] == [(2, 1)]


def test_columns_that_are_the_same_are_at_hand(two: Two) -> None:
    two.both("CREATE TABLE t (k int PRIMARY KEY, v text, w text, x int)", "INSERT INTO t VALUES (1, 'a', 'same', NULL), (2, 'b', NULL, 5)")
    two.sql("standby", "UPDATE t SET v = 'z' WHERE k = 1", "DELETE FROM t WHERE k = 2")
    changed, missing = sorted(only(two.check()).differences, key=lambda each: each.kind)
    assert list(changed.common) == ["w", "x"]
    assert (changed.common["x"], str(changed.common["w"]).strip("'")) == (None, "same")
    assert (changed.columns, missing.common) == (("v",), {})


def test_a_report_says_of_which_databases_it_is_and_how_long_it_took(two: Two) -> None:
    report = two.check()
    assert report.about.began is not None
    assert 0 < (report.about.seconds or 0) < 60
    assert sorted(report.about.urls) == ["primary", "standby"]
    assert report.as_dict()["urls"] == report.about.urls
