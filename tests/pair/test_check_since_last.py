"""A check since the last one looks at what has changed, and at nothing else; and where that isn't known it says so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from replstore.errors import CannotCheck, ConfigError
from replstore.reconcile import compare, remembering
from replstore.replication.journal import verified
from replstore.replication.journal.retain import Retention
from replstore.store import Store
from tests.fix_check import adopted, behind_the_guard, fill, found, table
from tests.fix_mixed import MixedLab
from tests.fix_stores import Lab, put
from tests.hazards.test_29_markers_are_pruned_only_when_no_one_needs_them import DAY, at_once, work

__all__ = ["at_once"]
NODES = ("primary", "standby")


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tables that were compared as a whole."""
    compared: list[str] = []
    real = compare.compare_rows

    def compare_rows(*given: Any) -> Any:
        compared.append(given[2])
        return real(*given)

    monkeypatch.setattr(compare, "compare_rows", compare_rows)
    return compared


def checked(lab: Lab, **settings: Any) -> Store:
    """A pair with fifty accounts that a check has found equal."""
    store = lab.migrated(background=False, **settings)
    fill(store, range(50))
    store.sync()
    assert store.check().equal
    return store


# -- what is compared


def test_only_rows_that_have_changed_are_compared(lab: Lab, whole: list[str]) -> None:
    store = checked(lab)
    for id in (3, 4, 60):
        store.run(put(id, 7))
    whole.clear()
    report = store.check(since="last")
    assert (report.equal, whole) == (True, [])
    assert (table(report, "account").primary, table(report, "account").standby, table(report, "account").changed) == (3, 3, 3)
    assert "Equal: 3 rows in 1 table that changed since 20" in str(report)
    store.run(put(5, 7))
    assert table(store.check(since="last"), "account").changed == 1


@pytest.mark.parametrize("node", NODES)
def test_every_changed_row_that_differs_is_found(lab: Lab, node: str) -> None:
    store = checked(lab)
    for id in (3, 4, 5, 60):
        store.run(put(id, 7))
    behind_the_guard(lab, node, "UPDATE account SET amount = 99 WHERE id = 3", "DELETE FROM account WHERE id IN (4, 60)")
    report = store.check(since="last")
    expected = [((3,), "changed", ("amount",)), ((4,), f"missing_on_{node}", ()), ((60,), f"missing_on_{node}", ())]
    assert found(report, "account") == expected
    assert not report.equal
    full = store.check()
    assert table(full, "account").differences == table(report, "account").differences


def test_a_row_that_is_only_on_its_way_is_no_difference_and_is_compared_the_next_time(lab: Lab) -> None:
    store = checked(lab, durability="async")
    for id in (3, 60):
        store.run(put(id, 7))
    report = store.check(since="last")
    assert (report.equal, report.waiting, table(report, "account").changed) == (True, 2, 2)
    lab.ship()
    behind_the_guard(lab, "standby", "UPDATE account SET amount = 8 WHERE id = 60")
    assert found(store.check(since="last"), "account") == [((60,), "changed", ("amount",))]


def test_rows_that_differed_are_compared_until_they_are_equal(lab: Lab) -> None:
    store = checked(lab)
    behind_the_guard(lab, "standby", "UPDATE account SET amount = 99 WHERE id = 3", "DELETE FROM account WHERE id = 4")
    assert store.check(limit=0).total == 2
    for _ in range(2):
        assert [key for key, *_ in found(store.check(since="last"), "account")] == [(3,), (4,)]
    store.repair(dry_run=False)
    report = store.check(since="last")
    assert (report.equal, table(report, "account").changed) == (True, 2)
    assert table(store.check(since="last"), "account").changed == 0


def test_what_a_repair_changed_on_the_follower_is_compared_also_when_it_was_undone(lab: Lab) -> None:
    """A repair writes to the follower past the journal."""
    store = checked(lab)
    behind_the_guard(lab, "standby", "UPDATE account SET amount = 99 WHERE id = 3")
    repaired = store.repair(dry_run=False).id
    assert repaired is not None
    assert table(store.check(since="last"), "account").changed == 1
    store.undo_repair(repaired)
    assert found(store.check(since="last"), "account") == [((3,), "changed", ("amount",))]


def test_what_no_trigger_saw_is_left_to_a_whole_check_and_the_report_says_so(lab: Lab) -> None:
    store = checked(lab)
    behind_the_guard(lab, "primary", "UPDATE account SET amount = 99 WHERE id = 3")
    report = store.check(since="last")
    assert report.equal
    assert any("written past the triggers" in note and "without --since" in note for note in report.notes)
    assert found(store.check(), "account") == [((3,), "changed", ("amount",))]


def test_a_table_of_which_the_journal_names_no_keys_is_compared_as_a_whole(lab: Lab, whole: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "MANY", 10)
    store = checked(lab)
    with store.begin() as session:
        session.execute(text("UPDATE account SET amount = 1 WHERE id < 11"))
    store.sync()
    behind_the_guard(lab, "standby", "DELETE FROM account WHERE id = 5")
    whole.clear()
    report = store.check(since="last")
    assert found(report, "account") == [((5,), "missing_on_standby", ())]
    assert [name.rpartition(".")[2] for name in whole] == ["account"]
    assert any("all its rows were compared" in note for note in report.notes)


def test_two_forms_of_an_equal_key_are_two_rows(postgresql_lab: Lab) -> None:
    store = adopted(postgresql_lab, "CREATE TABLE keyed (k numeric PRIMARY KEY, v int)", "INSERT INTO keyed VALUES (1.0, 1), (2, 2)")
    store.sync()
    assert store.check().equal
    store.run(lambda session: session.execute(text("UPDATE keyed SET k = 1.00 WHERE k = 1")) and None)
    assert store.check(since="last").equal
    store.run(lambda session: session.execute(text("UPDATE keyed SET v = 3 WHERE k = 1")) and None)
    behind_the_guard(postgresql_lab, "standby", "UPDATE keyed SET k = 1.000 WHERE k = 1")
    assert sorted(kind for _, kind, _ in found(store.check(since="last"), "keyed")) == ["missing_on_primary", "missing_on_standby"]


def test_a_mixed_pair_is_checked_since_last_whichever_writes(mixed_lab: MixedLab) -> None:
    store = checked(mixed_lab)
    for lead in NODES:
        turn = 1 + NODES.index(lead)
        store.run(put(3, turn))
        store.run(put(60, turn))
        report = store.check(since="last")
        assert (report.equal, table(report, "account").changed) == (True, 2)
        store.run(put(4, turn))
        mixed_lab.postgresql = mixed_lab.server == "standby"
        behind_the_guard(mixed_lab, "standby", "UPDATE account SET amount = 99 WHERE id = 4")
        assert found(store.check(since="last"), "account") == [((4,), "changed", ("amount",))]
        store.repair(dry_run=False, source="primary" if lead == "primary" else "writer")
        assert store.check(since="last").equal
        store.switchover()
        assert store.check().equal


# -- what it can't go back to


@contextlib.contextmanager
def refused(store: Store, reason: str) -> Iterator[None]:
    """It refuses, and after a whole check it doesn't."""
    with pytest.raises(CannotCheck, match=rf"{reason}.*run `replstore check"):
        store.check(since="last")
    yield
    assert store.check().equal
    assert store.check(since="last").equal


def test_before_the_first_check_there_is_nothing_to_go_on_from(lab: Lab) -> None:
    store = lab.migrated(background=False)
    fill(store, range(5))
    with refused(store, "no check of all its rows"):
        pass


def test_after_a_change_of_roles_a_whole_check_is_needed(lab: Lab) -> None:
    store = checked(lab)
    store.run(put(1, 1))
    store.switchover()
    store.run(put(2, 1))
    with refused(store, "no check of all its rows.*since the last takeover"):
        pass
    store.switchover()  # the marks of the first term are gone for good
    with refused(store, "no check of all its rows"):
        pass


@pytest.mark.parametrize("partial", [{"where": "id < 10"}, {"sample": 0.5}], ids=["where", "sample"])
def test_a_check_of_some_rows_leaves_nothing_to_go_on_from(lab: Lab, partial: dict[str, Any]) -> None:
    store = lab.migrated(background=False)
    fill(store, range(5))
    store.check(**partial)
    with refused(store, "no check of all its rows"):
        pass
    with pytest.raises(ConfigError, match="doesn't go together with since"):
        store.check(since="last", **partial)
    with pytest.raises(ConfigError, match="only last is"):
        store.check(since="yesterday")  # type: ignore[arg-type]


def test_differences_that_are_too_many_to_remember_need_a_whole_check(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    store = checked(lab)
    monkeypatch.setattr(verified, "KEYS", 3)
    behind_the_guard(lab, "standby", "DELETE FROM account WHERE id < 4")
    assert store.check().total == 4
    with pytest.raises(CannotCheck, match=r"no check of all its rows.*no more than 1,000.*--tables (public\.)?account"):
        store.check(since="last")
    store.check(tables=["account"], where="id > 3")
    with pytest.raises(CannotCheck):
        store.check(since="last")


def test_differences_that_a_check_of_some_rows_has_found_are_not_forgotten(lab: Lab) -> None:
    store = checked(lab)
    behind_the_guard(lab, "standby", "DELETE FROM account WHERE id = 4")
    assert store.check(where="id < 10").total == 1
    with pytest.raises(CannotCheck, match="no check of all its rows"):
        store.check(since="last")


def test_a_table_that_was_migrated_or_is_new_is_named_with_the_check_that_is_needed(lab: Lab) -> None:
    store = adopted(lab, "CREATE TABLE a (id INTEGER PRIMARY KEY, v TEXT)", "CREATE TABLE b (id INTEGER PRIMARY KEY, v TEXT)")
    store.sync()
    assert store.check().equal
    lab.sql("primary", "ALTER TABLE a ADD COLUMN w TEXT", "CREATE TABLE c (id INTEGER PRIMARY KEY)")
    store.migrate()
    store.sync()
    schema = "public." if lab.postgresql else ""
    with pytest.raises(CannotCheck, match=rf"{schema}a.*run `replstore check --tables {schema}a,{schema}c`"):
        store.check(since="last")
    assert store.check(since="last", tables=["b"]).equal
    assert store.check(tables=["a", "c"]).equal
    assert store.check(since="last").equal


def test_a_table_that_was_copied_needs_a_whole_check(lab: Lab) -> None:
    """Its definition is what it was: its capture was lost, and brought back."""
    store = checked(lab)
    trigger = (
        "replstore_capture_update"
        if lab.postgresql
        else lab.sql("primary", "SELECT name FROM sqlite_master WHERE name LIKE 'replstore_capture_update%'")[0][0]
    )
    lab.sql("primary", f"DROP TRIGGER {trigger}{' ON account' if lab.postgresql else ''}")
    with pytest.raises(CannotCheck, match="its changes weren't all captured"):
        store.check(since="last")
    store.migrate()
    store.sync()
    with refused(store, "no check of all its rows.*copy"):
        pass


def test_a_follower_that_was_copied_anew_needs_a_whole_check(lab: Lab) -> None:
    store = checked(lab)
    store.rejoin(copy=True)
    store.sync()
    with refused(store, "no check of all its rows.*rejoin"):
        pass


@pytest.mark.parametrize("node", NODES)
def test_a_node_that_went_back_behind_the_last_check_needs_a_whole_one(restorable_lab: Lab, node: str) -> None:
    """Only one node has the mark; the follower's place in the journal is still known, or told as lost."""
    lab = restorable_lab
    store = lab.migrated(background=False)
    fill(store, range(5))
    store.sync()
    lab.save(node)
    assert store.check().equal
    lab.restore(node)
    store.pair.look()
    with pytest.raises(CannotCheck, match="run `replstore check"):
        store.check(since="last")


# -- the journal that it needs


def test_the_journal_is_kept_for_the_next_check(lab: Lab, at_once: None) -> None:
    store = checked(lab)
    for id in (3, 4):
        store.run(put(id, 7))
    work(lab, Retention(DAY, 1000))
    assert table(store.check(since="last"), "account").changed == 2
    work(lab, Retention(DAY, 1000))
    assert int(lab.sql("primary", f"SELECT count(*) FROM {lab.name('journal')}")[0][0]) <= 2
    assert store.check(since="last").equal


def test_the_journal_is_kept_while_a_check_runs(lab: Lab, at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    store = lab.migrated(background=False)
    fill(store, range(5))
    store.sync()
    real = remembering.Memory.keep

    def keep(*given: Any) -> Any:
        store.run(put(3, 7))
        work(lab, Retention(DAY, 1000))
        return real(*given)

    monkeypatch.setattr(remembering.Memory, "keep", keep)
    assert store.check().equal
    assert table(store.check(since="last"), "account").changed == 1


def test_a_journal_that_grows_too_large_is_kept_no_longer(lab: Lab, at_once: None) -> None:
    store = checked(lab)
    fill(store, range(100, 120))
    store.sync()
    work(lab, Retention(DAY, 10))
    assert int(lab.sql("primary", f"SELECT count(*) FROM {lab.name('journal')}")[0][0]) <= 2
    with refused(store, "the journal no longer reaches back to the check of 20"):
        pass


def test_what_cannot_be_remembered_is_a_note(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    store = lab.migrated(background=False)
    fill(store, range(5))

    def write(*given: Any) -> None:
        raise OSError("no room")

    monkeypatch.setattr(verified, "write", write)
    report = store.check()
    assert report.equal
    assert any("can't go on from this one by --since last: standby: no room" in note for note in report.notes)
