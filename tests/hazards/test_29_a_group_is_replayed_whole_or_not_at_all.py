"""Hazard 29 (b): one member of a group withheld, for whatever reason, is the group withheld: by state its effect would come along with the others'."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.orm import Session

from replstore import TransactionLost
from replstore.pair.decide import Term
from replstore.transaction.doubt import resolve
from tests.fix_orphans import Change, Parting, order, outcomes, reason
from tests.fix_shop import Order


def more(id: int) -> Change:
    """x += 1."""

    def change(session: Session) -> None:
        session.get_one(Order, id).quantity += 1

    return change


def told_that_it_is_lost(parting: Parting, id: str, term: Term) -> None:
    with pytest.raises(TransactionLost):
        resolve(parting.store.pair, term, id, "async", cause=None)


def term(parting: Parting) -> Term:
    return parting.store.pair.current(0.0).term


def quantity(parting: Parting) -> Any:
    with parting.store.read() as session:
        return session.get_one(Order, 1).quantity


def test_what_another_transaction_added_to_the_same_row_does_not_come_along(parting: Parting) -> None:
    parting.shared(order(1))
    before = term(parting)
    doubtful, acknowledged = parting.lost(more(1), more(1))
    told_that_it_is_lost(parting, doubtful, before)
    parting.back()
    plan = parting.store.orphans.replay(out_of_order=True)
    assert outcomes(plan) == ["withheld"]
    assert doubtful in reason(plan)
    assert quantity(parting) == 1
    assert plan.verdicts[0].group.ids == (doubtful, acknowledged)


def test_nor_what_shares_a_row_with_one_that_shares_a_row(parting: Parting) -> None:
    parting.shared(order(1), order(2))
    before = term(parting)
    first, *_ = parting.lost(order(1, "a"), lambda session: (order(1, "b")(session), order(2, "b")(session)), order(2, "c"), order(3))
    told_that_it_is_lost(parting, first, before)
    parting.back()
    assert outcomes(parting.store.orphans.replay(out_of_order=True)) == ["withheld", "replayed"]
    assert parting.orders() == {1: "tea", 2: "tea", 3: "tea"}


def test_the_same_with_a_row_that_the_writer_has_changed(parting: Parting) -> None:
    parting.shared(order(1))
    parting.lost(lambda session: (order(1, "lost")(session), order(2, "lost")(session)), order(2, "again"))
    parting.store.run(order(1, "of the new writer"))
    parting.back()
    assert outcomes(parting.store.orphans.replay(out_of_order=True)) == ["withheld"]
    assert parting.orders() == {1: "of the new writer"}


def test_naming_one_member_is_naming_its_group(parting: Parting) -> None:
    parting.shared(order(1))
    first, second, _ = parting.lost(more(1), more(1), order(3))
    parting.back()
    assert outcomes(parting.store.orphans.replay([second])) == ["replayed"]
    assert quantity(parting) == 3
    assert {first, second} <= {id for id, outcome in parting.markers() if outcome == "committed"}
    assert parting.states() == {"orders [1]": "replayed", "orders [3]": "open"}
    assert outcomes(parting.store.orphans.discard([first], reason="no")) == ["replayed before"]


def test_a_tombstone_is_remembered_by_the_record_after_it_was_pruned(parting: Parting) -> None:
    before = term(parting)
    (lost,) = parting.lost(order(1))
    told_that_it_is_lost(parting, lost, before)
    parting.back()
    node = parting.store.pair.current(0.0).node
    with node.begin() as connection:
        node.database.forget_markers(connection, [lost])
    assert (lost, "lost") not in parting.markers()
    assert "its tombstone stands" in reason(parting.store.orphans.replay())
