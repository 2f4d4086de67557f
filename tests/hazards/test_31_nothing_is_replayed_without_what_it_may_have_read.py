"""Hazard 31: an orphan may have read another one, which no row tells.  So nothing is replayed after one that is withheld, unless a person says so."""

from __future__ import annotations

from sqlalchemy.orm import Session

from tests.fix_orphans import Parting, customer, order, outcomes, reason, together
from tests.fix_shop import Customer, Order


def copied(session: Session) -> None:
    """Reads one row, writes another."""
    session.add(Order(id=50, item=session.get_one(Customer, 1).email))


def clashing(parting: Parting, *changes: object) -> list[str]:
    """The first orphan's unique value is taken on the new writer."""
    found = parting.lost(customer(1, "the@same"), *changes)  # type: ignore[arg-type]
    parting.store.run(customer(2, "the@same"))
    parting.back()
    return found


def test_nothing_after_a_withheld_orphan(parting: Parting) -> None:
    withheld, _ = clashing(parting, copied)
    for plan in (parting.store.orphans.plan(), parting.store.orphans.replay()):
        assert outcomes(plan) == ["withheld", "withheld"]
        assert f"transaction {withheld} was committed before" in reason(plan, 1)
    assert parting.orders() == {}


def test_a_person_may_loosen_it_and_the_plan_says_what_it_cannot_know(parting: Parting) -> None:
    clashing(parting, copied)
    orphans = parting.store.orphans
    plan = orphans.plan(out_of_order=True)
    assert outcomes(plan) == ["withheld", "replayed"]
    assert any("may rest on a row that only a withheld one wrote" in sentence for sentence in plan.unknown)
    assert not any("withheld one wrote" in sentence for sentence in orphans.plan().unknown)
    assert outcomes(orphans.replay(out_of_order=True)) == ["withheld", "replayed"]
    assert parting.orders() == {50: "the@same"}


def test_what_came_before_it_is_replayed(parting: Parting) -> None:
    parting.lost(order(1), customer(1, "the@same"), order(2))
    parting.store.run(customer(2, "the@same"))
    parting.back()
    assert outcomes(parting.store.orphans.replay()) == ["replayed", "withheld", "withheld"]
    assert parting.orders() == {1: "tea"}


def test_a_discarded_orphan_is_one_that_is_not_there(parting: Parting) -> None:
    withheld, _ = clashing(parting, copied)
    orphans = parting.store.orphans
    orphans.discard([withheld], reason="the customer is there")
    assert outcomes(orphans.replay()) == ["withheld"]
    assert outcomes(orphans.replay(out_of_order=True)) == ["replayed"]


def test_what_was_not_asked_for_is_not_there_either(parting: Parting) -> None:
    first, second = parting.lost(customer(1), copied)
    parting.back()
    assert f"transaction {first} was committed before" in reason(parting.store.orphans.replay([second]))
    assert outcomes(parting.store.orphans.replay([second, first])) == ["replayed", "replayed"]


def test_groups_that_were_committed_between_one_another_go_together(parting: Parting) -> None:
    """Neither can go before the other: the second is between two transactions of the first, and is one that fails."""
    parting.shared(order(1))
    parting.lost(order(1, "a"), customer(1, "the@same"), order(1, "b"))
    parting.store.run(customer(2, "the@same"))
    parting.back()
    assert outcomes(parting.store.orphans.replay()) == ["withheld"]
    assert parting.orders() == {1: "tea"}
    assert outcomes(parting.store.orphans.replay(out_of_order=True)) == ["replayed", "withheld"]
    assert parting.orders() == {1: "b"}


def test_such_groups_are_replayed_where_nothing_is_in_the_way(parting: Parting) -> None:
    parting.shared(order(1))
    parting.lost(order(1, "a"), together(customer(1), order(2)), order(1, "b"))
    parting.back()
    assert outcomes(parting.store.orphans.replay()) == ["replayed"]
    assert parting.orders() == {1: "b", 2: "tea"}
    assert parting.customers() == {1: "1@example.org"}
