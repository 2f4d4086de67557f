"""A repair that ends half-way: what it has repaired stays and is kept as it was, and the same command goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from replstore.errors import RepairBrokeOff
from replstore.reconcile import repair as repairing
from replstore.reconcile.writing import Hand
from replstore.store import Store
from tests.fix_check import behind_the_guard, table
from tests.fix_repair import NODES, filled, other
from tests.fix_stores import Lab

#: Repairs in transactions of five rows, and waits after the first one.
REPAIR = """
import sys
from replstore import Store
from replstore.reconcile import repair
from replstore.reconcile.writing import Hand
repair.CHUNK = 5
real = Hand.write
def write(*given):
    written = real(*given)
    print("wrote", len(written.done), flush=True)
    sys.stdin.readline()
    return written
Hand.write = write
with Store(primary=sys.argv[1], standby=sys.argv[2], background=False) as store:
    store.repair(source=sys.argv[3], dry_run=False)
"""


@pytest.fixture(autouse=True)
def five_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repairing, "CHUNK", 5)


def after_the_first_rows(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """Does something between the first transaction of the next repair and the second."""
    real, calls = Hand.write, list[str]()

    def write(*given: Any) -> Any:
        if len(calls) == 1:
            act()
        calls.append(given[1])
        return real(*given)

    monkeypatch.setattr(Hand, "write", write)


def spoiled(lab: Lab) -> Store:
    """Twenty accounts, of which fifteen are changed on the standby."""
    store = filled(lab)
    behind_the_guard(lab, "standby", "UPDATE account SET amount = 99 WHERE id < 15")
    return store


def repaired(lab: Lab, node: str) -> int:
    """How many rows a node keeps as they were."""
    return int(lab.sql(node, f"SELECT count(*) FROM {lab.name('repair')} WHERE undone_at IS NULL")[0][0])


def right(lab: Lab, amount: int) -> int:
    return sum(1 for id, each in lab.accounts("standby").items() if id < 15 and each == amount)


def broken_off(store: Store, **repair: Any) -> RepairBrokeOff:
    with pytest.raises(RepairBrokeOff, match=r"repair [-0-9a-f]{36} broke off after 5 rows \(.*\): these stay, each kept as it was") as caught:
        store.repair(dry_run=False, **repair)
    assert f"`replstore repair --undo {caught.value.id}`" in str(caught.value)
    assert caught.value.rows == 5
    return caught.value


def test_a_lost_follower_ends_a_repair_with_its_id_and_the_next_step(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    store = spoiled(lab)
    after_the_first_rows(monkeypatch, lambda: lab.kill("standby"))
    error = broken_off(store)
    assert "standby" in str(error)
    lab.start("standby")
    assert (repaired(lab, "standby"), right(lab, 0)) == (5, 5)
    store.sync()
    assert store.repair(dry_run=False).complete
    assert store.check().equal
    assert (repaired(lab, "standby"), len(store.repairs())) == (15, 2)
    store.undo_repair(error.id)
    assert right(lab, 99) == 5, "what the first one did can be brought back by itself"


def test_a_lost_connection_to_the_follower_ends_it_in_the_same_way(postgresql_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = postgresql_lab
    store = spoiled(lab)
    real, calls = Hand._as_seen, list[int]()

    def as_seen(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            lab.sql(
                "standby", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        return real(*given)

    monkeypatch.setattr(Hand, "_as_seen", staticmethod(as_seen))
    error = broken_off(store)
    assert "(standby postgresql" in str(error)
    assert (repaired(lab, "standby"), right(lab, 0)) == (5, 5)
    assert store.repair(dry_run=False).complete
    assert store.check().equal


def test_a_takeover_ends_a_repair_of_the_follower_and_the_same_one_goes_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left to be repaired is the new writer's now."""
    store = spoiled(lab)

    def take_over() -> None:
        lab.kill("primary")
        store.takeover("standby")

    after_the_first_rows(monkeypatch, take_over)
    broken_off(store, source="primary")
    assert (repaired(lab, "standby"), right(lab, 0)) == (5, 5)
    lab.start("primary")
    store.rejoin()
    store.sync()
    assert table(store.check(), "account").total == 10
    done = store.repair(source="primary", dry_run=False)
    assert (done.complete, len(done.done), {change.node for change in done.done}) == (True, 10, {"standby"})
    store.sync()
    assert store.check().equal
    assert lab.accounts("primary") == dict.fromkeys(range(20), 0)


def test_a_switchover_ends_a_repair_of_the_writer_and_the_same_one_goes_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    store = spoiled(lab)
    after_the_first_rows(monkeypatch, store.switchover)
    assert "isn't the writer any more" in str(broken_off(store, source="standby"))
    assert repaired(lab, "primary") == 5
    assert store.repair(source="standby", dry_run=False).complete
    store.sync()
    assert store.check().equal
    assert right(lab, 99) == 15


@pytest.mark.parametrize("node", NODES)
def test_a_program_that_is_killed_within_a_repair_leaves_what_it_has_repaired(lab: Lab, node: str) -> None:
    store = spoiled(lab)
    source = other(node)
    program = lab.program(REPAIR, source)
    assert program.says() == "wrote 5"
    program.kill()
    assert repaired(lab, node) == 5
    (first,) = store.repairs()
    assert (first.node, first.rows, first.undone) == (node, 5, 0)
    assert len(store.repair(source=source, dry_run=False).done) == 10  # type: ignore[arg-type]
    store.sync()
    assert store.check().equal
    assert repaired(lab, node) == 15


def test_an_undo_that_breaks_off_goes_on_too(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    store = spoiled(lab)
    id = store.repair(dry_run=False).id
    assert id is not None
    with monkeypatch.context() as patched:
        after_the_first_rows(patched, lambda: lab.kill("standby"))
        with pytest.raises(RepairBrokeOff, match=rf"the undo of repair {id} broke off after 5 rows .*the same command goes on"):
            store.undo_repair(id)
    lab.start("standby")
    assert (repaired(lab, "standby"), right(lab, 99)) == (10, 5)
    store.sync()
    assert len(store.undo_repair(id).done) == 10
    assert (repaired(lab, "standby"), right(lab, 99)) == (0, 15)
