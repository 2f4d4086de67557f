"""The check says where a difference comes from, as far as that can be proved, and no further."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from replstore.reconcile.origin import Change, Origin
from replstore.reconcile.report import Report
from replstore.replication.journal.retain import Retention
from replstore.store import Store
from tests.fix_check import adopted, behind_the_guard, fill, table
from tests.fix_mixed import MixedLab
from tests.fix_stores import Lab, insert, put
from tests.hazards.test_29_markers_are_pruned_only_when_no_one_needs_them import DAY, at_once, work

__all__ = ["at_once"]
NODES = ("primary", "standby")


def origins(report: Report, name: str = "account") -> dict[int, Origin]:
    return {next(iter(each.key.values())): each.origin for each in table(report, name).differences}


def checked(lab: Lab) -> tuple[Store, str]:
    """A pair with twenty accounts, and when a check found it equal."""
    store = lab.migrated(background=False)
    fill(store, range(20))
    store.sync()
    report = store.check()
    assert report.equal
    assert report.about.began is not None
    return store, report.about.began.isoformat(timespec="seconds")


def test_a_row_that_was_equal_and_that_no_journal_names_since_was_written_past_the_triggers(lab: Lab) -> None:
    store, before = checked(lab)
    store.run(put(1, 7))
    behind_the_guard(
        lab, "standby", *(f"UPDATE account SET amount = 99 WHERE id IN (1, {id})" for id in (2, 3)), "DELETE FROM account WHERE id = 4", insert(50)
    )
    found = origins(store.check())
    assert {id: (each.cause, each.after) for id, each in found.items()} == {
        1: (None, None),  # it was captured since: what became of it then nobody knows
        **dict.fromkeys((2, 3, 4, 50), ("behind_guard", before)),
    }
    assert origins(store.check()) == origins(store.check(since="last")) == found, "what was proved once stays so"
    store.run(put(2, 8))
    store.sync()
    behind_the_guard(lab, "standby", "UPDATE account SET amount = 97 WHERE id = 2")
    assert (origins(store.check())[2].cause, origins(store.check())[3].cause) == (None, "behind_guard")


@pytest.mark.parametrize("node", NODES)
def test_the_version_of_a_row_tells_on_which_node_it_was_written_past_the_triggers(postgresql_lab: Lab, node: str) -> None:
    lab = postgresql_lab
    store, before = checked(lab)
    behind_the_guard(lab, node, "UPDATE account SET amount = 99 WHERE id = 2", "DELETE FROM account WHERE id = 3", insert(50))
    behind_the_guard(lab, "primary", "UPDATE account SET amount = 98 WHERE id = 4")
    behind_the_guard(lab, "standby", "UPDATE account SET amount = 97 WHERE id = 4")
    found = origins(store.check())
    assert {id: each.change and each.change.node for id, each in found.items()} == {2: node, 3: node, 4: None, 50: None}
    assert str(found[2]) == f"written past the triggers on {node}, after the check of {before}"


def test_whoever_switches_the_triggers_off_has_written_past_them(lab: Lab) -> None:
    store, _ = checked(lab)
    if lab.postgresql:
        lab.sql("primary", "SET session_replication_role = replica", "UPDATE account SET amount = 99 WHERE id = 2")
    else:
        (trigger,) = lab.sql("primary", "SELECT name, sql FROM sqlite_master WHERE tbl_name = 'account' AND name LIKE 'replstore_capture_update%'")
        lab.sql("primary", f"DROP TRIGGER {trigger[0]}", "UPDATE account SET amount = 99 WHERE id = 2", trigger[1])
    assert {id: each.cause for id, each in origins(store.check()).items()} == ({2: "behind_guard"})


def test_without_an_earlier_check_nothing_is_said(lab: Lab) -> None:
    store = lab.migrated(background=False)
    fill(store, range(5))
    behind_the_guard(lab, "standby", "UPDATE account SET amount = 99 WHERE id = 2")
    assert origins(store.check())[2].cause is None


def test_after_a_change_of_roles_an_earlier_check_proves_nothing(lab: Lab) -> None:
    store, _ = checked(lab)
    store.switchover()
    behind_the_guard(lab, "standby", "UPDATE account SET amount = 99 WHERE id = 2")
    assert origins(store.check())[2].cause is None


def test_a_journal_that_no_longer_reaches_back_to_the_check_proves_nothing(lab: Lab, at_once: None) -> None:
    store, _ = checked(lab)
    store.run(put(2, 7))
    work(lab, Retention(DAY))
    behind_the_guard(lab, "standby", "UPDATE account SET amount = 99 WHERE id IN (2, 3)")
    assert {id: each.cause for id, each in origins(store.check()).items()} == {2: None, 3: None}


def test_the_last_captured_change_stands_beside_with_its_transaction_time_and_node(lab: Lab) -> None:
    store, _ = checked(lab)
    with store.begin() as session:
        put(1, 7)(session)
    before = lab.markers("primary").keys()
    store.run(put(2, 7))
    (tx,) = lab.markers("primary").keys() - before
    lab.sql("primary", "UPDATE account SET amount = 6 WHERE id = 3")
    store.sync()
    behind_the_guard(lab, "standby", "UPDATE account SET amount = 99 WHERE id IN (2, 3)")
    found = origins(store.check())
    assert found[2].last is not None
    assert (found[2].last.tx, found[2].last.node) == (tx, "primary")
    assert found[2].last.at is not None
    assert found[2].last.at.startswith("20")
    assert found[3].last is not None
    assert found[3].last.tx is None, "no Store wrote it"
    assert f"last captured change: transaction {tx} at 20" in found[2].sentence


def test_the_last_change_of_a_table_that_was_emptied_is_that_of_all_its_rows(postgresql_lab: Lab) -> None:
    store, _ = checked(postgresql_lab)
    before = postgresql_lab.markers("primary").keys()
    with store.begin() as session:
        session.execute(text("TRUNCATE account"))
    store.sync()
    (tx,) = postgresql_lab.markers("primary").keys() - before
    behind_the_guard(postgresql_lab, "standby", insert(2))
    (origin,) = origins(store.check()).values()
    assert (origin.cause, origin.last and origin.last.tx) == (None, tx)


def test_an_orphan_is_named_with_its_transaction_time_and_node(lab: Lab) -> None:
    store, _ = checked(lab)
    row = {
        "id": "o",
        "node": "standby",
        "term_no": 1,
        "tx": "the-tx",
        "tx_at": "2026-01-01 12:00:00",
        "tbl": table(store.check(), "account").name,
        "key": "[3]",
    }
    columns = ", ".join((*row, "maybe_acknowledged", "recorded_at"))
    values = ", ".join((*(repr(value) for value in row.values()), "true", "'now'"))
    for node in NODES:
        behind_the_guard(lab, node, f"INSERT INTO {lab.name('orphan')} ({columns}) VALUES ({values})")
    behind_the_guard(lab, "standby", "UPDATE account SET amount = 99 WHERE id = 3")
    origin = origins(store.check())[3]
    assert (origin.cause, origin.change) == ("orphan", Change("the-tx", "2026-01-01 12:00:00", "standby"))


def test_a_value_that_the_other_kind_of_database_cannot_hold_is_named(mixed_lab: MixedLab) -> None:
    """Guards refuse it; a program that passed them has written it."""
    lab = mixed_lab
    types = ("int", "double precision") if lab.server == "primary" else ("INTEGER", "DOUBLE")
    store = adopted(lab, "CREATE TABLE measured (id {0} PRIMARY KEY, level {1}, seen {0})".format(*types))
    store.run(lambda session: session.execute(text("INSERT INTO measured VALUES (1, 0.5, 1), (2, 0.5, 2), (3, 0.5, 3)")) and None)
    store.sync()
    assert store.check().equal
    lab.postgresql = True
    behind_the_guard(lab, lab.server, "UPDATE measured SET level = 'NaN' WHERE id = 1")
    lab.postgresql = False
    behind_the_guard(lab, lab.sqlite, "UPDATE measured SET seen = 'two' WHERE id = 2", "UPDATE measured SET seen = 4 WHERE id = 3")
    found = origins(store.check(), "measured")
    assert {id: (each.cause, each.reason) for id, each in found.items()} == {
        1: ("conversion", "level: NaN and a negative zero can't be stored by SQLite"),
        2: ("conversion", "seen is no whole number, so PostgreSQL can't hold it"),
        3: ("behind_guard", None),
    }
