"""Digests lead to every row that differs, however many there are and however keys are spread, and only these are read."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from replstore.databases.digests import Bucket, Cut, Row
from replstore.databases.postgresql.digests import PostgreSQLDigests
from replstore.errors import CannotCheck
from replstore.reconcile import buckets, reading, rows, strangers
from tests.fix_reconcile import BOTH, Two, found, only

#: Rows of the tables here: some thousands, so that there are many buckets.
ROWS = 5000


def fill(two: Two, key: str = "INTEGER PRIMARY KEY", of: str = "i", count: int = ROWS) -> None:
    """A table ``t`` whose key is ``of`` a number ``i``."""
    series = f"WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < {count}) "
    two.both(f"CREATE TABLE t (k {key}, v text)", f"INSERT INTO t {series}SELECT {of}, 'v' || i FROM s")


def watched(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """The rows that the check reads one by one, from now on."""
    read: list[Row] = []
    real = reading.Reader.rows

    def spied(self: reading.Reader, cut: Cut) -> list[Row]:
        found = real(self, cut)
        read.extend(found)
        return found

    monkeypatch.setattr(reading.Reader, "rows", spied)
    monkeypatch.setattr(rows, "_rows", None)  # streams are for more rows than there are here
    return read


SPREAD = {
    "dense": ("bigint PRIMARY KEY", "i"),
    "negative": ("bigint PRIMARY KEY", "-3 * i"),
    "one far away": ("bigint PRIMARY KEY", "CASE i WHEN 5000 THEN 9223372036854775807 WHEN 4999 THEN -9223372036854775807 ELSE i END"),
    "text": ("text PRIMARY KEY", "'key ' || i"),
}


@pytest.mark.parametrize("spread", SPREAD)
def test_scattered_differences_are_found_and_little_else_is_read(two: Two, spread: str, monkeypatch: pytest.MonkeyPatch) -> None:
    declared, of = SPREAD[spread]
    fill(two, declared.replace("bigint", "INTEGER") if "sqlite" in two.urls["primary"] else declared, of)
    monkeypatch.setattr(buckets, "MANY", 500)
    read = watched(monkeypatch)
    assert two.check().equal
    assert not read
    two.sql("standby", "UPDATE t SET v = v || '!' WHERE v IN ('v17', 'v2500', 'v5000')", "DELETE FROM t WHERE v = 'v4999'")
    two.sql("primary", "DELETE FROM t WHERE v IN ('v1', 'v4242')")
    report = two.check()
    assert sorted(kind for _, kind, _ in found(report)) == ["changed"] * 3 + ["missing_on_primary"] * 2 + ["missing_on_standby"]
    assert (only(report).primary, only(report).standby, only(report).settled) == (ROWS - 2, ROWS - 1, 0)
    assert 5 <= len(read) < 2 * ROWS / 4


@pytest.mark.parametrize("few", [0, 100_000], ids=["streamed", "listed"])
def test_a_table_that_differs_everywhere_is_counted_and_named_up_to_the_limit(two: Two, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "FEW", few)
    fill(two)
    two.sql("standby", "UPDATE t SET v = v || '!'")
    report = two.check(limit=7)
    assert (len(only(report).differences), only(report).total) == (7, ROWS)
    assert [key for key, _, _ in found(report)] == [(number,) for number in range(1, 8)]
    two.sql("standby", "DELETE FROM t")
    report = two.check(limit=0)
    assert (only(report).differences, only(report).total, only(report).standby) == ((), ROWS, 0)
    two.both("DELETE FROM t")
    assert two.check().equal


@pytest.mark.parametrize("key", ["text PRIMARY KEY", "text"])
def test_rows_are_streamed_in_the_order_of_a_hash(two: Two, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "FEW", 0)
    fill(two, key, "'k' || i")
    two.sql("standby", "UPDATE t SET v = v || '!' WHERE v LIKE 'v1%'", "DELETE FROM t WHERE v LIKE 'v2%'")
    two.sql("primary", "DELETE FROM t WHERE v LIKE 'v3%'")
    assert only(two.check(limit=0)).total == 1111 * (3 if "KEY" in key else 4)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("key", ["bigint PRIMARY KEY", "text PRIMARY KEY", "text"])
def test_a_large_table_is_read_in_pieces_by_several_sessions(two_servers: Two, key: str, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIECE", 1 << 13)
    sessions, pieces = dict[str, set[Any]](), list[Any]()
    all_at_it = {name: threading.Event() for name in BOTH}
    real = PostgreSQLDigests.buckets

    def spied(self: PostgreSQLDigests, cut: Cut, piece: Any, told: Any) -> Any:
        name = next(name for name, url in two_servers.urls.items() if f":{self._driver.info.port}/" in url)
        seen = sessions.setdefault(name, set())
        seen.add(self._driver)
        if len(seen) == workers:
            all_at_it[name].set()
        assert all_at_it[name].wait(60)
        pieces.append(piece)
        return real(self, cut, piece, told)

    monkeypatch.setattr(PostgreSQLDigests, "buckets", spied)
    fill(two_servers, key, "i" if "bigint" in key else "'k' || i")
    two_servers.both("UPDATE t SET v = v || '.' WHERE v LIKE '%7'")  # dead rows, and pages in another order
    assert two_servers.check(workers=workers).equal
    assert len(pieces) > 10
    assert {name: len(each) for name, each in sessions.items()} == dict.fromkeys(BOTH, workers)
    two_servers.sql("standby", "DELETE FROM t WHERE v = 'v4242'")
    report = two_servers.check(workers=workers)
    assert [kind for _, kind, _ in found(report)] == ["missing_on_standby"]
    assert (only(report).primary, only(report).standby) == (ROWS, ROWS - 1)


def test_all_sessions_of_a_node_read_in_one_snapshot(two_servers: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "AT_LEAST", 0)
    monkeypatch.setattr(reading, "PIECE", 1 << 15)
    fill(two_servers)
    real = reading.Sessions._joined

    def late(self: reading.Sessions, side: Any, shared: str) -> Any:
        if side.name == "primary":
            two_servers.sql("primary", "UPDATE t SET v = 'late ' || v")
        return real(self, side, shared)

    monkeypatch.setattr(reading.Sessions, "_joined", late)
    report = two_servers.check(workers=3, limit=0)
    assert (report.total, only(report).primary, only(report).standby) == (0, ROWS, ROWS)
    monkeypatch.undo()
    assert two_servers.check(limit=0).total == ROWS


def test_partitions_are_read_in_pieces(two_servers: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIECE", 1 << 15)
    parts = [f"CREATE TABLE p{n} PARTITION OF t FOR VALUES FROM ({n * 2000}) TO ({n * 2000 + 2000})" for n in range(3)]
    filled = "INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 5000) i"
    two_servers.both("CREATE TABLE t (k int PRIMARY KEY, v text) PARTITION BY RANGE (k)", *parts, filled)
    assert only(two_servers.check()).primary == ROWS
    two_servers.sql("standby", "UPDATE t SET v = '' WHERE k IN (1, 4001)")
    assert found(two_servers.check()) == [((1,), "changed", ("v",)), ((4001,), "changed", ("v",))]


def test_a_row_that_is_there_often_is_counted_over_all_pieces(two_servers: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIECE", 1 << 11)
    often = "INSERT INTO t SELECT 'often' FROM generate_series(1, 1000)"
    of = "INSERT INTO t SELECT '{0} ' || i FROM generate_series(1, 300) i"
    two_servers.both("CREATE TABLE t (v text)")
    two_servers.sql("primary", often, of.format("a"))
    two_servers.sql("standby", of.format("b"), often)
    report = only(two_servers.check(limit=0))
    assert (report.primary, report.standby, report.total) == (1300, 1300, 600)


def test_a_node_that_is_lost_ends_the_reading_of_the_other(two_servers: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(two_servers, count=10)
    real = PostgreSQLDigests.buckets

    def lost(self: PostgreSQLDigests, cut: Cut, piece: Any, told: Any) -> Any:
        if self._driver.info.port == int(two_servers.urls["standby"].rpartition(":")[2].partition("/")[0]):
            self._driver.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        self._driver.execute("SELECT pg_sleep(60)")
        return real(self, cut, piece, told)

    monkeypatch.setattr(PostgreSQLDigests, "buckets", lost)
    began = time.monotonic()
    with pytest.raises(CannotCheck, match="standby can't be read: "):
        two_servers.check()
    assert time.monotonic() - began < 30


def test_buckets_add_up() -> None:
    assert Bucket(1, 5, 5) + Bucket(2, -8, 3) == Bucket(3, -3, 6)


def test_neighbouring_buckets_are_one_range() -> None:
    assert Cut(2, (4, frozenset({-1, 0, 2}))).ranges() == [(-16, 15), (32, 47)]


# -- what is compared


def test_tables_are_chosen_and_left_out(two: Two) -> None:
    for name in ("one", "other", "third"):
        two.both(f"CREATE TABLE {name} (k int PRIMARY KEY)")
    names = [[each.name.rpartition(".")[2] for each in two.check(**wishes).tables] for wishes in ({}, {"tables": ["other", "third"]})]
    assert names == [["one", "other", "third"], ["other", "third"]]
    assert [each.name.rpartition(".")[2] for each in two.check(exclude=["other"]).tables] == ["one", "third"]
    assert [each.name.rpartition(".")[2] for each in two.check(tables=["one", "other"], exclude=["other"]).tables] == ["one"]


def test_only_rows_of_the_condition_are_compared(two: Two) -> None:
    fill(two)
    two.sql("standby", "UPDATE t SET v = 'x' WHERE k IN (100, 2000)")
    report = two.check(where="k < 1000 AND v NOT LIKE '%(%'")
    assert found(report) == [((100,), "changed", ("v",))]
    assert (only(report).primary, only(report).standby) == (999, 999)
    assert any("k < 1000" in note for note in report.notes)
    with pytest.raises(CannotCheck, match="can't be read: "):
        two.check(where="nonsense = 1")


@pytest.mark.parametrize("key", ["INTEGER PRIMARY KEY", "text PRIMARY KEY"])
def test_a_sample_is_a_part_of_the_rows_the_same_on_both_nodes(two: Two, key: str) -> None:
    fill(two, key, "i" if "INTEGER" in key else "'k' || i")
    report = two.check(sample=0.3)
    assert report.equal
    assert ROWS * 0.1 < only(report).primary < ROWS * 0.6  # type: ignore[operator]
    assert any("30 %" in note for note in report.notes)
    two.sql("standby", "UPDATE t SET v = v || '!'")
    report = two.check(sample=0.3, limit=10)
    assert only(report).total == only(report).primary
    assert two.check(sample=0.3, limit=10).as_dict() == report.as_dict()


def test_a_throttled_check_rests_and_finds_the_same(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(two)
    two.sql("standby", "DELETE FROM t WHERE k = 9")
    rests: list[float] = []
    monkeypatch.setattr(reading, "time", SimpleNamespace(monotonic=time.monotonic, sleep=rests.append))
    assert two.check().total == 1
    assert not rests
    began = time.monotonic()
    assert found(two.check(max_load=0.25)) == [((9,), "missing_on_standby", ())]
    assert len(rests) >= 2
    assert 0 < min(rests) < 3 * (time.monotonic() - began)


@pytest.mark.parametrize("node", BOTH)
def test_a_table_that_one_database_lacks_is_a_difference(two: Two, node: str) -> None:
    two.sql(node, "CREATE TABLE extra (k int PRIMARY KEY)")
    report = two.check()
    assert [each.text for each in report.schema] == [f"on {node} only"]
    assert (report.tables, report.equal) == ((), False)


def test_progress_tells_rows_and_how_many_are_expected(two_servers: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIECE", 1 << 16)
    fill(two_servers)
    two_servers.both("ANALYZE t")
    told: list[tuple[str, int]] = []
    expected: list[tuple[str, int]] = []
    two_servers.check(progress=lambda *step: told.append(step), expected=lambda *step: expected.append(step))
    assert expected == [("public.t", ROWS)]
    assert [count for _, count in told] == sorted(count for _, count in told)
    assert told[0] == ("public.t", 0)
    assert told[-1] == ("public.t", ROWS)
    assert len(told) > 3
