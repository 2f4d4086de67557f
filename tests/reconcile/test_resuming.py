"""A check that broke off goes on where it was, says what it took over, and never takes an old answer for a new one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from replstore.errors import ConfigError
from replstore.reconcile import buckets, rows, strangers
from tests.fix_reconcile import Two, found, only
from tests.reconcile.test_buckets import ROWS, fill


class BrokeOff(Exception):
    pass


def breaking_off(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, after: int) -> list[Any]:
    """Lets a function be called so many times before the check breaks off; once more, it works on. Yields what it was called with."""
    real = getattr(module, name)
    calls: list[Any] = []

    def counted(*given: Any, **named: Any) -> Any:
        calls.append(given)
        if len(calls) == after + 1:
            raise BrokeOff
        return real(*given, **named)

    monkeypatch.setattr(module, name, counted)
    return calls


def test_tables_that_were_compared_are_taken_over(two: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "found"
    for name in ("a", "b", "c"):
        two.both(f"CREATE TABLE {name} (k int PRIMARY KEY, v text)", f"INSERT INTO {name} VALUES (1, 'x'), (2, NULL)")
    two.sql("standby", "UPDATE a SET v = 'y'", "UPDATE c SET v = 'z' WHERE k = 1")
    whole = two.check()
    calls = breaking_off(monkeypatch, strangers, "compare_rows", 1)
    with pytest.raises(BrokeOff):
        two.check(resume=str(file))
    report = two.check(resume=str(file))
    assert [given[2].rpartition(".")[2] for given in calls] == ["a", "b", "b", "c"]
    assert report.as_dict()["tables"] == whole.as_dict()["tables"]
    assert [note.partition(", compared from ")[0] for note in report.notes] == [f"1 part was taken over from {file}"]
    assert not file.exists()


def test_a_large_table_goes_on_in_the_middle(two: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "STRETCHED", 100)
    file = tmp_path / "found"
    fill(two, "INTEGER PRIMARY KEY")
    two.both("INSERT INTO t VALUES (-700000, 'x')")
    two.sql("standby", "UPDATE t SET v = v || '!' WHERE k IN (-700000, 1, 3000, 5000)", "DELETE FROM t WHERE k = 2")
    whole = two.check()
    assert only(whole).total == 5
    calls = breaking_off(monkeypatch, rows, "find", 20)
    with pytest.raises(BrokeOff):
        two.check(resume=str(file))
    report = two.check(resume=str(file))
    assert len(calls) == 24  # of 23 stretches, one twice
    assert found(report) == found(whole)
    assert (only(report).primary, only(report).standby, report.total) == (ROWS + 1, ROWS, 5)
    assert any(note.startswith(f"20 parts were taken over from {file}, compared from ") for note in report.notes)


def test_a_line_that_broke_off_is_compared_again(two: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "found"
    for name in ("a", "b"):
        two.both(f"CREATE TABLE {name} (k int PRIMARY KEY)", f"INSERT INTO {name} VALUES (1), (2)")
    calls = breaking_off(monkeypatch, strangers, "compare_rows", 1)
    with pytest.raises(BrokeOff):
        two.check(resume=str(file))
    file.write_text(file.read_text()[:-20])
    assert two.check(resume=str(file)).equal
    assert len(calls) == 4


def test_a_table_whose_definition_has_changed_is_compared_again(two: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "found"
    for name in ("a", "b"):
        two.both(f"CREATE TABLE {name} (k int PRIMARY KEY)", f"INSERT INTO {name} VALUES (1), (2)")
    breaking_off(monkeypatch, strangers, "compare_rows", 1)
    with pytest.raises(BrokeOff):
        two.check(resume=str(file))
    two.both("ALTER TABLE a ADD COLUMN v int")
    two.sql("standby", "UPDATE a SET v = 5")
    assert two.check(resume=str(file)).total == 2


@pytest.mark.parametrize("wishes", [{"where": "k > 0"}, {"sample": 0.5}, {"limit": 3}])
def test_the_file_of_another_check_is_refused(two: Two, tmp_path: Path, wishes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "found"
    two.both("CREATE TABLE a (k int PRIMARY KEY)", "CREATE TABLE b (k int PRIMARY KEY)")
    breaking_off(monkeypatch, strangers, "compare_rows", 1)
    with pytest.raises(BrokeOff):
        two.check(resume=str(file))
    kept = file.read_text()
    with pytest.raises(ConfigError, match=r"found is of another check, or none: give another file, or remove it"):
        two.check(resume=str(file), **wishes)
    assert file.read_text() == kept


def test_a_file_that_is_something_else_is_left_alone(two: Two, tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_text("a letter\n")
    with pytest.raises(ConfigError, match="is of another check, or none"):
        two.check(resume=str(file))
    assert file.read_text() == "a letter\n"
    with pytest.raises(ConfigError, match="nowhere can't keep what the check finds: No such file or directory"):
        two.check(resume=str(tmp_path / "no" / "nowhere"))
