"""Hazard 5 and 10, as far as replay goes: what is lost to its caller, or may have been repeated by it, is not replayed; a key takes effect once."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.orm import Session

from replstore import TransactionLost, local
from replstore.pair.decide import Acknowledge
from replstore.pair.lead import Lead
from replstore.transaction.acknowledge import acknowledge
from tests.fix_orphans import Parting, order, outcomes, reason
from tests.fix_shop import Order, new_store


def place(session: Session) -> str:
    session.add(Order(id=10, item="under a key"))
    return "placed"


def asleep(parting: Parting) -> Lead:
    """The writer as a program knows it that hasn't looked for a while."""
    lead = parting.store.pair.current(0.0)
    return Lead(lead.node, lead.follower, lead.term, Acknowledge.REPLICATED, lead.confirmed, lead.reason)


def test_what_its_caller_was_told_is_lost(parting: Parting) -> None:
    lead = asleep(parting)
    (id,) = parting.lost(order(1))
    with pytest.raises(TransactionLost):
        acknowledge(parting.store.pair, lead, id, "replicated")
    parting.store.run(order(2, "repeated by hand"))
    parting.back()
    orphans = parting.store.orphans
    for plan in (orphans.plan(), orphans.replay(), orphans.replay([id])):
        assert "its tombstone stands" in reason(plan)
    assert parting.orders() == {2: "repeated by hand"}


def test_what_the_writer_holds_committed_under_its_id(parting: Parting) -> None:
    """A marker came some other way: rows that merely look as if they weren't there don't count against it."""
    (id,) = parting.lost(order(1))
    parting.back()
    parting.store.run(lambda session: session.connection().exec_driver_sql(_marker(parting, id)))
    assert f"holds transaction {id} committed" in reason(parting.store.orphans.replay())
    assert parting.orders() == {}


def _marker(parting: Parting, id: str) -> str:
    term = parting.store.pair.current(0.0).term.number
    return f"INSERT INTO {parting.name('marker')} (id, outcome, durability, term_no) VALUES ('{id}', 'committed', 'async', {term})"


@pytest.mark.parametrize("late", [False, True], ids=["before the rejoin", "after it"])
def test_a_key_that_was_used_again_takes_effect_once(parting: Parting, late: bool) -> None:
    (id,) = parting.lost(place, key="order 10")
    if late:
        parting.back()
        assert outcomes(parting.store.orphans.plan()) == ["replayed"]

    def again(session: Session) -> Any:
        session.add(Order(id=11, item="under a key"))

    parting.store.run(again, key="order 10")
    parting.store.sync() if late else parting.back()
    assert f"the key of transaction {id}" in reason(parting.store.orphans.replay())
    assert parting.orders() == {11: "under a key"}


def test_what_was_never_acknowledged_is_replayed_only_by_its_name(shop: local.Pair) -> None:
    """Its caller got no answer, and may have done it again by other means."""
    with new_store(shop, background=False, ack_timeout=0.2) as store:
        store.sync()
        parting = Parting(shop, store)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("replstore.transaction.attempt.acknowledge", lambda *_, **__: None)  # the caller's program dies here
            (id,) = parting.lost(order(1))
        parting.back()
        assert "was never acknowledged" in reason(store.orphans.replay())
        assert parting.orders() == {}
        assert outcomes(store.orphans.replay([id])) == ["replayed"]
        assert parting.orders() == {1: "tea"}
