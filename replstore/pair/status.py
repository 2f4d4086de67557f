"""Status: who writes, under which term, how each node is, and what to do next."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection

from replstore.databases.base import Unshipped
from replstore.databases.suspended import stored
from replstore.node import Node
from replstore.pair.appoint import appointed, strange_witness
from replstore.pair.meaning import meaning
from replstore.pair.native_status import native_meaning, native_warnings, standing
from replstore.pair.pair import Pair
from replstore.pair.view import Acknowledge, Action, Decision, NodeView, Reach, Role, View, named
from replstore.replication import captured
from replstore.replication.journal.orphans import open_orphans
from replstore.replication.mirror import to_copy
from replstore.urls import obstacle, shown


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
        position: on a follower: how far it has got; native replication: of either node, in the write-ahead log.
        shipped_at: on a follower: when its last batch arrived.
        state: a sentence: what that means.
        lag_bytes, lag_seconds: native replication, on a follower: how much of the writer's log it hasn't replayed, and for how long at most it has lacked
            something; None: not known.
        receiving: native replication, on a follower: it is connected to a server that sends.
        waits_for: native replication, on the writer: its ``synchronous_standby_names``; empty: a COMMIT waits for no standby.
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
    lag_bytes: int | None = None
    lag_seconds: float | None = None
    receiving: bool | None = None
    waits_for: str | None = None


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
        stopped: why shipping stopped, or will with the next batch; or empty.
        warnings: settings of the databases under which a promise doesn't hold; foreign keys and triggers that a takeover couldn't bring back;
            tables of the writer's that no migration has seen; tables of the follower's whose changes would go by after a takeover.
        nodes: both nodes.
        unconfirmed: transactions that are committed on the writer and not known to be on the follower; None: not known.
        unconfirmed_for: s since the oldest of them, by the writer's clock; None: there is none, or it isn't known.
        max_backlog: journal entries that may wait before async transactions wait or fail; 0: no limit.
        pinned: what keeps the writer's journal from being pruned for longer than usual, a sentence each.
        witness: ``up``, or ``silent`` with the reason; None: the pair has none.
        replication: ``journal`` or ``native``; there, a term is a timeline.
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
    witness: str | None = None
    replication: str = "journal"

    def __str__(self) -> str:
        """A line for a log: who writes, how each node is, and what to do."""
        nodes = "; ".join(f"{node.name} {node.role or node.health} ({node.state})" for node in self.nodes.values())
        stopped = f"; shipping: {self.stopped}" if self.stopped else ""
        return f"{self.reason}; {nodes}{stopped}" + (f"; next: {self.next_step}" if self.next_step else "")

    @property
    def healthy(self) -> bool:
        """Somebody writes, and the other node follows, both by what this program can use: in sync, or in an async pair with nothing in the way of
        shipping; native replication: it streams from the writer."""
        follows = {node.role for node in self.nodes.values()} == {Role.WRITER, Role.FOLLOWER}
        acknowledged = self.acknowledge == Acknowledge.REPLICATED or self.durability in ("async", "server")
        streams = all(node.receiving is not False for node in self.nodes.values())
        usable = all(node.health == Reach.UP for node in self.nodes.values())
        return self.decision == Action.WRITE and follows and acknowledged and usable and streams and not self.stopped

    def as_dict(self) -> dict[str, Any]:
        """All fields, as JSON takes them."""
        return asdict(self)


def status(pair: Pair) -> Status:
    """Looks at both nodes and says what is to be said."""
    view, decision = _look(pair)
    native = pair.settings.replication == "native"
    views = {seen.name: seen for seen in (view.primary, view.standby)}
    writer = next((seen.name for seen in views.values() if seen.role is Role.WRITER and seen.name == decision.writer), None)
    waiting = _waiting(pair, writer, views) if writer else None
    nodes = {name: _node(pair, view, decision, name, waiting.changes if waiting and name != writer else None) for name in views}
    capture_missing, not_replicated = _captured(pair, writer, views)
    skew = {node.schema_no for node in nodes.values() if node.schema_no is not None}
    stopped = pair.shipping.stopped or capture_missing
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
        next_step=_next_step(view, decision),
        durability=pair.policy.durability,
        orphans=_orphans(pair, writer) if writer else 0,
        stopped=stopped,
        unconfirmed=waiting.transactions if waiting else None,
        unconfirmed_for=waiting.seconds if waiting else None,
        max_backlog=pair.settings.max_backlog,
        pinned=_pinned(pair, writer, views) if writer else [],
        witness=_witness(pair, view),
        warnings=[*_warnings(pair, view), *not_replicated, *_late(pair, decision, waiting), *(native_warnings(view) if native else [])],
        nodes=nodes,
        replication=pair.settings.replication,
    )


def _look(pair: Pair) -> tuple[View, Decision]:
    """Looks at both nodes; if one doesn't answer and nobody has watched that for long enough, looks on until something can be said."""
    view, decision = pair.look()
    deadline = time.monotonic() + pair.policy.detection_time + pair.settings.probe_timeout
    while _is_young(view, decision) and not pair.watched and time.monotonic() < deadline:
        time.sleep(min(0.1, pair.settings.probe_interval))
        view, decision = pair.look()
    return view, decision


def _is_young(view: View, decision: Decision) -> bool:
    """Whether what is known of the one node that doesn't answer is younger than the detection time, and may still become a decision."""
    if decision.action is not Action.WAIT:
        return False
    return any(_is_new(view, lost, other) for lost, other in ((view.primary, view.standby), (view.standby, view.primary)))


def _is_new(view: View, lost: NodeView, other: NodeView) -> bool:
    if other.reach is not Reach.UP or lost.reach not in (Reach.SILENT, Reach.REFUSED):
        return False
    silent = lost.silent_for if lost.reach is Reach.SILENT else float("inf")
    still = other.still_for if other.role is Role.FOLLOWER else float("inf")
    return min(silent, still) < view.policy.detection_time


def _next_step(view: View, decision: Decision) -> str:
    """What to do, in the words that fit what is seen."""
    if decision.action is Action.TAKE_OVER:
        lost = next(seen for seen in (view.primary, view.standby) if seen.name != decision.node)
        if lost.reach is Reach.SILENT:
            seconds = f"{view.policy.detection_time:g} s of silence"
            return decision.next_step or f"any running Store takes over after {seconds}; `replstore takeover` does it now"
    for seen in (view.primary, view.standby):
        if seen.reach is Reach.LOCKED_OUT and decision.next_step in (f"bring {seen.name} back", f"mend {seen.name}"):
            return f"mend {seen.name}'s URL, its password or its server"
    return decision.next_step


def _node(pair: Pair, view: View, decision: Decision, name: str, waiting: int | None) -> NodeStatus:
    node = pair.nodes[name]
    seen, other = named(view, name), named(view, pair.other(node).name)
    hindered = obstacle(node.url) if seen.reach is Reach.UP else ""
    error = seen.error or hindered
    answer = pair.watch.states.get(node.name)
    state = answer.state if answer else None
    if pair.settings.replication == "native":
        stands = standing(pair, seen, other)
        return NodeStatus(
            name=node.name,
            url=shown(node.url),
            role=str(seen.role) if seen.role else None,
            health=str(seen.reach) + (f": {error}" if error else ""),
            term=seen.stream.timeline if seen.stream and seen.stream.timeline else seen.term.number if seen.term else None,
            schema_no=None,
            waiting=None,
            shipped_at=None,
            state=native_meaning(view, decision, seen, other),
            **asdict(stands),
        )
    follows = state is not None and state.role == "follower"
    return NodeStatus(
        name=node.name,
        url=shown(node.url),
        role=str(seen.role) if seen.role else None,
        health=str(seen.reach) + (f": {error}" if error else ""),
        term=seen.term.number if seen.term else None,
        schema_no=state.schema_no if state else None,
        waiting=waiting,
        position=state.position if follows and state else None,
        shipped_at=state.shipped_at if follows and state else None,
        state=f"{meaning(view, decision, seen, other)}{_to_go(node) if state and state.copying else ''}{f'; but {hindered}' if hindered else ''}",
    )


def _to_go(node: Node) -> str:
    """How far a copy has come."""
    with node.snapshot() as connection:
        left = to_copy(node, connection)
    under_way = next((f", {name} up to key {key}" for name, key in left.items() if key is not None), "")
    return f"; {len(left)} table(s) to go{under_way}"


def _waiting(pair: Pair, writer: str, views: dict[str, NodeView]) -> Unshipped | None:
    """What the follower doesn't have yet."""
    term = views[writer].term
    node = pair.nodes[writer]
    if term is None or views[writer].reach is not Reach.UP or not node.database.captures:
        return None
    position = pair.backlog.position(pair.other(node), term.uuid)
    with node.snapshot() as connection:
        return node.database.unshipped(connection, position)


def _pinned(pair: Pair, writer: str, views: dict[str, NodeView]) -> list[str]:
    if views[writer].reach is not Reach.UP or not pair.nodes[writer].database.captures:
        return []
    with pair.nodes[writer].snapshot() as connection:
        return [f"{writer}: {sentence}" for sentence in pair.nodes[writer].database.pinned(connection)]


def _captured(pair: Pair, writer: str | None, views: dict[str, NodeView]) -> tuple[str, list[str]]:
    """Why the next batch will stop, whoever ships it, or empty; and what isn't shipped at all, or wouldn't be after a takeover, a sentence each."""
    stopped, warnings = "", []
    for name, seen in views.items():
        if not pair.nodes[name].database.captures:
            continue
        if seen.reach is not Reach.UP or (name != writer and seen.role is not Role.FOLLOWER):
            continue
        node = pair.nodes[name]
        with node.snapshot() as connection:
            faults = captured.lost(node, connection)
            unknown = captured.not_replicated(node, connection) if name == writer else None
        if faults and name == writer:
            stopped = captured.capture_missing(name, faults)
        elif faults:
            warnings.append(f"{name}: {captured.would_be_missing(faults)}")
        if unknown:
            warnings.append(f"{name}: {unknown}")
    return stopped, warnings


def _orphans(pair: Pair, writer: str) -> int:
    node = pair.nodes[writer]
    with node.snapshot() as connection:
        return open_orphans(node, connection)


def _late(pair: Pair, decision: Decision, waiting: Unshipped | None) -> list[str]:
    """That what should be on the follower at once isn't: nobody ships, or a batch takes long."""
    expected = pair.policy.durability == "replicated" and decision.acknowledge is Acknowledge.REPLICATED
    if not expected or waiting is None or waiting.seconds is None or waiting.seconds <= pair.settings.ack_timeout:
        return []
    return [f"a transaction has waited for the follower for {waiting.seconds:.0f} s: no Store is at work, or shipping fails; see `replstore sync`"]


def _witness(pair: Pair, view: View) -> str | None:
    if view.witness is None or pair.witness is None:
        return None
    return str(view.witness.reach) + (f": {pair.witness.error}" if pair.witness.error else "")


def _warnings(pair: Pair, view: View) -> list[str]:
    found = []
    for seen in (view.primary, view.standby):
        if seen.reach is Reach.UP:
            with pair.nodes[seen.name].snapshot() as connection:
                found += [f"{seen.name}: {warning}" for warning in pair.nodes[seen.name].database.warnings(connection)]
                found += _away(pair, seen, connection)
                if strange := _strange_witness(pair, view, seen, connection):
                    found.append(f"{seen.name}: {strange}; nothing is done by itself")
    if view.witness is not None and view.witness.reach is not Reach.UP and pair.witness is not None:
        found.append(f"the witness isn't reached ({pair.witness.error}): nobody goes on alone by it")
    return found


def _strange_witness(pair: Pair, view: View, seen: NodeView, connection: Connection) -> str:
    """That a node knows another witness than this program names; empty: it doesn't, or that can't be told."""
    if pair.witness is None or (view.witness is not None and view.witness.reach is not Reach.UP):
        return ""
    known = appointed(pair.nodes[seen.name], connection)
    return strange_witness(known, pair.witness.identity) if known != pair.witness.identity else ""


def _away(pair: Pair, seen: NodeView, connection: Connection) -> list[str]:
    """What a takeover couldn't bring back."""
    away = stored(pair.nodes[seen.name].database.control, connection) if seen.role is Role.WRITER else []
    return [
        f"{seen.name}: {each} isn't in force, since the takeover couldn't bring it back; make what it needs and run `replstore migrate`, which tries "
        f"again: {each.statement}"
        for each in away
    ]
