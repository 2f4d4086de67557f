"""A repair leaves alone what has changed since it was planned, and what is on its way, and loses nothing that programs write meanwhile."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import text

from replstore.errors import CannotRepair, ConfigError
from replstore.reconcile.writing import Hand
from replstore.store import Store
from tests.fix_check import behind_the_guard, table
from tests.fix_repair import carried_out, changed, filled, left, other, planned, spoiled
from tests.fix_stores import Lab


def execute(store: Store, *statements: str) -> None:
    """One transaction of the Store's, which nobody ships."""
    with store.begin(durability="async") as session:
        for statement in statements:
            session.execute(text(statement))


def test_a_row_on_its_way_to_the_follower_is_left_alone(lab: Lab) -> None:
    store = filled(lab, durability="async")
    spoiled(lab, "standby")
    plan = planned(store)
    execute(store, "UPDATE account SET amount = 1 WHERE id = 5")
    execute(store, "UPDATE account SET amount = 0 WHERE id = 5")  # as it was, and still to be shipped
    done = carried_out(store, plan)
    assert left(done) == {"[5]": "the writer has changed it, and that is on its way to standby"}
    assert {key for _, key, _ in changed(done)} == {"[7]", "[100]"}
    assert lab.accounts("standby")[5] == 99
    assert not done.complete
    store.sync()
    assert store.check().equal


def test_a_row_that_the_writer_has_changed_since_is_left_alone(lab: Lab) -> None:
    store = filled(lab)
    spoiled(lab, "standby")
    plan = planned(store)
    store.run(lambda session: session.execute(text("UPDATE account SET amount = 1 WHERE id IN (5, 7)")) and None)
    done = carried_out(store, plan)
    assert {key for _, key, _ in changed(done)} == {"[100]"}
    assert left(done).keys() == {"[5]", "[7]"}
    assert lab.accounts("standby") == lab.accounts("primary")
    assert lab.accounts("primary")[5] == 1


@pytest.mark.parametrize("source", ["primary", "standby"])
@pytest.mark.parametrize("node", ["primary", "standby"])
def test_a_row_that_differs_in_another_way_by_now_is_left_alone(lab: Lab, source: str, node: str) -> None:
    store = filled(lab)
    spoiled(lab, "standby")
    plan = planned(store, source)
    behind_the_guard(lab, node, "UPDATE account SET amount = 55 WHERE id = 5")
    done = carried_out(store, plan)
    assert left(done) == {"[5]": f"its row on {node} has changed in the meantime"}
    assert {key for _, key, _ in changed(done)} == {"[7]", "[100]"}
    assert lab.accounts(node)[5] == 55
    assert table(store.check(), "account").total == 1


def test_nothing_is_changed_when_the_roles_have_changed(lab: Lab) -> None:
    store = filled(lab)
    spoiled(lab, "standby")
    plans = [planned(store, source) for source in ("primary", "standby")]
    store.switchover()
    before = lab.accounts("primary"), lab.accounts("standby")
    for plan in plans:
        with pytest.raises(CannotRepair, match="isn't the writer any more"):
            carried_out(store, plan)
    assert (lab.accounts("primary"), lab.accounts("standby")) == before


def test_a_follower_that_lost_its_place_is_not_repaired(lab: Lab) -> None:
    store = filled(lab)
    spoiled(lab, "standby")
    plan = planned(store)
    lab.sql("primary", f"DELETE FROM {lab.name('tick')}")
    with pytest.raises(CannotRepair, match="went back in time"):
        carried_out(store, plan)
    with pytest.raises(CannotRepair, match="went back in time"):
        store.repair()
    assert lab.accounts("standby")[5] == 99


def test_a_report_of_an_earlier_check_is_repaired_as_far_as_it_is_still_so(lab: Lab) -> None:
    store = filled(lab)
    spoiled(lab, "standby")
    report = store.check()
    behind_the_guard(lab, "standby", "UPDATE account SET amount = 55 WHERE id = 5", "UPDATE account SET amount = 9 WHERE id = 9")
    done = store.repair(report, dry_run=False)
    assert {key for _, key, _ in changed(done)} == {"[7]", "[100]"}
    assert left(done) == {"[5]": "it has changed since the check"}
    assert table(store.check(), "account").total == 2


def test_what_programs_write_while_rows_are_repaired_is_neither_lost_nor_undone(lab: Lab) -> None:
    store = filled(lab, ack_timeout=20.0)
    stop, counts = threading.Event(), [0]

    def write() -> None:
        with lab.store(background=False, ack_timeout=20.0) as another:
            while not stop.is_set():
                another.run(lambda session: session.execute(text("UPDATE account SET amount = amount + 1 WHERE id < 10")) and None)
                counts[0] += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for round in range(8):
            behind_the_guard(lab, "standby", "UPDATE account SET amount = -1 WHERE id IN (3, 13)", f"DELETE FROM account WHERE id = {round}")
            store.repair(source="writer", dry_run=False)
    finally:
        stop.set()
        thread.join(30)
    store.repair(dry_run=False)
    report = store.check()
    assert report.equal, report.as_dict()
    assert counts[0] > 0
    assert lab.accounts("primary") == {id: counts[0] if id < 10 else 0 for id in range(20)}


def test_an_undo_leaves_a_row_alone_that_has_changed_since_and_takes_it_up_again(lab: Lab) -> None:
    store = filled(lab)
    spoiled(lab, "standby")
    done = store.repair(dry_run=False)
    assert done.id is not None
    behind_the_guard(lab, "standby", "UPDATE account SET amount = 55 WHERE id = 5")
    undone = store.undo_repair(done.id)
    assert left(undone) == {"[5]": "its row on standby has changed in the meantime"}
    assert store.repairs()[0].undone == 2
    behind_the_guard(lab, "standby", "UPDATE account SET amount = 0 WHERE id = 5")
    assert changed(store.undo_repair(done.id)) == {("standby", "[5]", "update")}
    assert lab.accounts("standby")[5] == 99
    with pytest.raises(ConfigError, match="was undone already"):
        store.undo_repair(done.id)


def test_an_undo_finds_the_rows_where_they_were_although_the_roles_have_changed(lab: Lab) -> None:
    store = filled(lab)
    spoiled(lab, "standby")
    before = lab.accounts("standby")
    done = store.repair(dry_run=False)
    store.switchover()
    store.sync()
    assert done.id is not None
    assert {node for node, _, _ in changed(store.undo_repair(done.id))} == {"standby"}
    assert lab.accounts("standby") == lab.accounts(other("standby")) == before  # of the writer now: both have it
    assert store.check().equal


def test_no_batch_lands_while_a_follower_s_rows_are_repaired(lab: Lab) -> None:
    """Else the repair would write over a row that has come since it read the writer."""
    store = filled(lab)
    spoiled(lab, "standby")
    plan = planned(store)
    landed = threading.Event()

    def change() -> None:
        with lab.store(background=False, ack_timeout=20.0) as another:
            another.run(lambda session: session.execute(text("UPDATE account SET amount = 1 WHERE id = 5")) and None)
            landed.set()

    thread = threading.Thread(target=change)

    def keep(*_: object) -> None:
        thread.start()
        assert not landed.wait(0.8)

    Hand(store.pair, store.run, "primary", keep).write("standby", list(enumerate(plan.changes)))
    thread.join(30)
    assert landed.is_set()
    assert lab.accounts("primary")[5] == lab.accounts("standby")[5] == 1
    assert store.check().equal
