"""Nodes, witnesses and views of the decision table's tests, and how a row is checked."""

from __future__ import annotations

from dataclasses import replace

from replstore.pair.decide import Acknowledge, Action, Contact, Decision, NodeView, Policy, Reach, Role, Term, View, WitnessView, decide

T1, T2, T3 = Term(1, "one"), Term(2, "two"), Term(3, "three")
D = 1.5

WRITER = NodeView("primary", node="A", role=Role.WRITER, term=T1, boot="a0")
FOLLOWER = NodeView(
    "standby", node="B", role=Role.FOLLOWER, term=T1, boot="b0", source="A", stream_term=T1, eligible_boot="b0", batch=7, heartbeat=40
)
REFUSED = replace(WRITER, reach=Reach.REFUSED, error="connection refused")
SILENT = replace(WRITER, reach=Reach.SILENT, silent_for=D)
STILL = replace(FOLLOWER, still_for=D)
FOLLOWER_REFUSED = replace(FOLLOWER, reach=Reach.REFUSED, error="connection refused")
FOLLOWER_SILENT = replace(FOLLOWER, reach=Reach.SILENT, silent_for=D)
CONTACT = Contact(0.4, T1, "primary", "a0", "b0")
ASYNC = Policy(durability="async")
WITNESS = WitnessView(Reach.UP, T1, "primary", frozenset({"primary", "standby"}), -1)
GRANTED = WitnessView(Reach.UP, T2, "standby", frozenset({"standby"}), -1)
UNREACHABLE = WitnessView(Reach.SILENT, Term(0, ""), "", frozenset(), 0)


def view(primary: NodeView, standby: NodeView, policy: Policy | None = None, **facts: object) -> View:
    return View(primary, standby, policy or Policy(), **facts)  # type: ignore[arg-type]


def check(seen: View, action: Action, node: str | None, writer: str | None, acknowledge: Acknowledge, *, says: str = "", then: str = "") -> Decision:
    decision = decide(seen)
    assert (decision.action, decision.node, decision.writer, decision.acknowledge) == (action, node, writer, acknowledge), decision
    assert says in decision.reason
    assert then in decision.next_step
    return decision
