"""Status: who writes, under which term, how each node is, and what to do next."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from replstore.databases.base import Unshipped
from replstore.node import Node
from replstore.pair.decide import Acknowledge, Action, NodeView, Reach, Role
from replstore.pair.pair import Pair
from replstore.replication.journal.orphans import open_orphans
from replstore.urls import shown


@dataclass(frozen=True)
class NodeStatus:
    """One node.

    Attributes:
        name: ``primary`` or ``standby``.
        url: without password.
        role: ``writer``, ``follower``, ``fenced``, or None where it doesn't answer.
        health: ``up``, ``refused``, ``silent`` or ``locked out``, with what it answered.
        term: its term number.
        schema_no: how many migrations it has had.
        waiting: on a follower: changed rows that it doesn't have yet, at most (one that doesn't answer may have the last few); None: not known.
        position: on a follower: how far it has got.
        shipped_at: on a follower: when its last batch arrived.
        state: a sentence: what that means.
    """

    name: str
    url: str
    role: str | None
    health: str
    term: int | None
    schema_no: int | None
    waiting: int | None
    position: str | None
    shipped_at: str | None
    state: str


@dataclass(frozen=True)
class Status:
    """The pair, as one process sees it now.

    Attributes:
        writer: name of the node that writes, or None.
        term: its term number.
        acknowledge: how commits are acknowledged: ``replicated``, ``solo``, ``alone`` or ``none``.
        decision: what the decision function says: ``write`` when all is well.
        reason, next_step: sentences.
        orphans: rows recorded at rejoin and not decided yet.
        stopped: why shipping stopped, or empty.
        warnings: settings of the databases under which a promise doesn't hold.
        nodes: both nodes.
        unconfirmed: transactions that are committed on the writer and not known to be on the follower; None: not known.
        unconfirmed_for: s since the oldest of them, by the writer's clock; None: there is none, or it isn't known.
        max_backlog: journal entries that may wait before async transactions wait or fail; 0: no limit.
        pinned: what keeps the writer's journal from being pruned for longer than usual, a sentence each.
    """

    writer: str | None
    term: int | None
    acknowledge: str
    decision: str
    reason: str
    next_step: str
    durability: str
    orphans: int
    stopped: str
    warnings: list[str] = field(default_factory=list)
    nodes: dict[str, NodeStatus] = field(default_factory=dict)
    unconfirmed: int | None = None
    unconfirmed_for: float | None = None
    max_backlog: int = 0
    pinned: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Somebody writes, and the other node follows: in sync, or in an async pair with nothing in the way of shipping."""
        follows = {node.role for node in self.nodes.values()} == {Role.WRITER, Role.FOLLOWER}
        acknowledged = self.acknowledge == Acknowledge.REPLICATED or self.durability == "async"
        return self.decision == Action.WRITE and follows and acknowledged and not self.stopped

    def as_dict(self) -> dict[str, Any]:
        """All fields, as JSON takes them."""
        return asdict(self)


def status(pair: Pair) -> Status:
    """Looks at both nodes and says what is to be said."""
    view, decision = pair.look()
    views = {seen.name: seen for seen in (view.primary, view.standby)}
    writer = next((seen.name for seen in views.values() if seen.role is Role.WRITER and seen.name == decision.writer), None)
    waiting = _waiting(pair, writer, views) if writer else None
    nodes = {name: _node(pair, pair.nodes[name], seen, waiting.changes if waiting and name != writer else None) for name, seen in views.items()}
    skew = {node.schema_no for node in nodes.values() if node.schema_no is not None}
    stopped = pair.stopped or next((seen.stopped for seen in views.values() if seen.stopped), "")
    if len(skew) == 2:
        stopped = (
            f"schema_skew: primary has had {nodes['primary'].schema_no} migrations, standby {nodes['standby'].schema_no}; run `replstore migrate`"
        )
    return Status(
        writer=writer,
        term=views[writer].term.number if writer and views[writer].term else None,  # type: ignore[union-attr]
        acknowledge=str(decision.acknowledge),
        decision=str(decision.action),
        reason=decision.reason,
        next_step=decision.next_step,
        durability=pair.policy.durability,
        orphans=_orphans(pair, writer) if writer else 0,
        stopped=stopped,
        unconfirmed=waiting.transactions if waiting else None,
        unconfirmed_for=waiting.seconds if waiting else None,
        max_backlog=pair.settings.max_backlog,
        pinned=_pinned(pair, writer, views) if writer else [],
        warnings=[warning for name, seen in views.items() if seen.reach is Reach.UP for warning in _warnings(pair.nodes[name])],
        nodes=nodes,
    )


def _node(pair: Pair, node: Node, seen: NodeView, waiting: int | None) -> NodeStatus:
    answer = pair.watch.states.get(node.name)
    state = answer.state if answer else None
    follows = state is not None and state.role == "follower"
    return NodeStatus(
        name=node.name,
        url=shown(node.url),
        role=str(seen.role) if seen.role else None,
        health=str(seen.reach) + (f": {seen.error}" if seen.error else ""),
        term=seen.term.number if seen.term else None,
        schema_no=state.schema_no if state else None,
        waiting=waiting,
        position=state.position if follows and state else None,
        shipped_at=state.shipped_at if follows and state else None,
        state=_sentence(seen),
    )


def _sentence(seen: NodeView) -> str:
    if seen.reach is Reach.REFUSED:
        return "nothing is there: its server is down or its file is gone"
    if seen.reach is Reach.SILENT:
        return "it doesn't answer in time; it may be alive"
    if seen.reach is Reach.LOCKED_OUT:
        return "it answers, but doesn't serve replstore"
    if seen.role is Role.WRITER:
        return "it writes" + (", and acknowledges alone" if seen.solo and seen.solo_boot == seen.boot else "")
    if seen.role is Role.FENCED:
        return "a former writer that waits to rejoin" if seen.fenced_by else "a switchover was begun and not finished"
    if seen.stopped:
        return f"shipping to it stopped: {seen.stopped}"
    if seen.copying:
        return "it is being copied"
    return "in sync; it may take over" if seen.eligible_boot == seen.boot else "it follows and may not take over before it is in sync again"


def _waiting(pair: Pair, writer: str, views: dict[str, NodeView]) -> Unshipped | None:
    """What the follower doesn't have yet."""
    term = views[writer].term
    if term is None or views[writer].reach is not Reach.UP:
        return None
    node = pair.nodes[writer]
    position = pair.backlog.position(pair.other(node), term.uuid)
    with node.snapshot() as connection:
        return node.database.unshipped(connection, position)


def _pinned(pair: Pair, writer: str, views: dict[str, NodeView]) -> list[str]:
    if views[writer].reach is not Reach.UP:
        return []
    with pair.nodes[writer].snapshot() as connection:
        return [f"{writer}: {sentence}" for sentence in pair.nodes[writer].database.pinned(connection)]


def _orphans(pair: Pair, writer: str) -> int:
    node = pair.nodes[writer]
    with node.snapshot() as connection:
        return open_orphans(node, connection)


def _warnings(node: Node) -> list[str]:
    with node.snapshot() as connection:
        return [f"{node.name}: {warning}" for warning in node.database.warnings(connection)]
