"""Hazard 32 (b): the new writer's changes count since the two nodes last had the same, not since the takeover: a forced one has changes from before it."""

from __future__ import annotations

from tests.fix_orphans import Parting, order, outcomes, reason


def forced(parting: Parting) -> list[str]:
    """The primary writes, unshipped, and is lost; the standby takes over and writes; a person forces the primary back, and the standby rejoins."""
    parting.shared(order(1), order(2), order(3))
    parting.lost(order(1, "acknowledged by the primary"))
    ids = parting.ids(order(1, "of the standby"), order(2, "of the standby"))
    parting.pair.kill("standby")
    parting.pair.start("primary")
    parting.store.takeover("primary", force=True)
    parting.pair.start("standby")
    parting.store.rejoin(copy=True)
    parting.store.sync()
    return ids


def test_a_row_that_the_forced_node_changed_before_it_was_forced_is_touched(parting: Parting) -> None:
    touched, free = forced(parting)
    plan = parting.store.orphans.replay(out_of_order=True)
    assert [verdict.group.ids for verdict in plan.verdicts] == [(touched,), (free,)]
    assert outcomes(plan) == ["withheld", "replayed"]
    assert "had changed row [1]" in reason(plan)
    assert parting.orders() == {1: "acknowledged by the primary", 2: "of the standby", 3: "tea"}


def test_what_the_forced_node_overruled_may_have_been_acknowledged(parting: Parting) -> None:
    ids = forced(parting)
    records = {record["tx"]: record for record in parting.store.orphans.records()}
    assert set(ids) == set(records)
    assert all(record["maybe_acknowledged"] for record in records.values())
