"""The pair's link by native replication: the database copies the data; replstore follows the servers' roles, promotes where it may, and proves commits."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from uuid import uuid4

from replstore.databases.base import NodeState
from replstore.databases.native.base import Native
from replstore.errors import NotAPair, TakeoverRefused
from replstore.node import Node
from replstore.pair.link import Link
from replstore.pair.native_rules import decide
from replstore.pair.view import Action, Decision, NodeView, Reach, Role, Term, View, named
from replstore.replication.native.proof import Proof
from replstore.replication.native.retain import Retention
from replstore.timestamps import now

if TYPE_CHECKING:
    from replstore.pair.pair import Pair

log = logging.getLogger("replstore.pair")
#: s that a promotion may take, and between two looks at it: an idle standby writes 25 to 45 ms after it was told to.
PROMOTION, LOOK = 10.0, 0.01


class NativeLink(Link):
    """See :class:`replstore.pair.link.Link`.

    Args:
        pair: the pair.
    """

    shipping: Proof

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self.shipping = Proof(pair.other)
        self._retention = Retention(pair.settings.marker_retention)

    def decide(self, view: View) -> Decision:
        for name, seen in self._pair.watch.states.items():
            if seen.state is not None and named(view, name).reach is Reach.UP:
                self.shipping.learn(seen.state, seen.since)
        return decide(view)

    def beat(self, view: View, writer: str) -> None:
        node = self._pair.nodes[writer]
        with node.begin(limit=2 * self._pair.settings.probe_timeout) as connection:
            connection.exec_driver_sql("SET LOCAL synchronous_commit = local")  # it is there to be received, not to be waited for
            native(node).beat(connection)

    def look_after(self, decision: Decision) -> bool:
        lead = self._pair.lead
        if lead is not None and decision.writer == lead.node.name:
            self._retention.work(lead.node)
        return False

    def compare(self, states: Mapping[str, NodeState]) -> None:
        systems = {name: state.stream.system for name, state in states.items() if state.stream is not None}
        if len(set(systems.values())) == 2:
            raise NotAPair(
                f"primary and standby are two clusters, not one and its copy (system identifiers {systems['primary']} and {systems['standby']}): "
                "a standby of native replication is made from the primary, with pg_basebackup"
            )
        if len({state.pair for state in states.values()}) == 2:
            raise NotAPair("primary and standby hold the control tables of different pairs")

    # -- acting

    def act(self, view: View, decision: Decision) -> None:
        node = self._pair.nodes[decision.node] if decision.node else None
        if node is None:
            return
        if decision.action is Action.TAKE_OVER:
            lost = self._pair.other(node)
            view = self._pair.watch.again(view, lost)
            again = decide(view)
            if (again.action, again.node) != (decision.action, decision.node):
                raise TakeoverRefused(f"{lost.name} was asked once more: {again.reason}")
            term = promote(node, named(view, node.name), refused=named(view, lost.name).reach is Reach.REFUSED)
            self._pair.took_over(node, term, decision)
        elif decision.action is Action.FINISH:
            record(node)


def native(node: Node) -> Native:
    """What a node's database has for native replication."""
    assert isinstance(node.database, Native)
    return node.database


def promote(node: Node, seen: NodeView, *, refused: bool, seconds: float = PROMOTION) -> Term:
    """Makes a standby the primary, and records the timeline that it begins.

    Args:
        node: the standby.
        seen: what the decision saw of it.
        refused: the primary refuses connections.
        seconds: limit for the promotion itself.

    Returns:
        The new term.

    Raises:
        TakeoverRefused: the standby isn't what was seen any more, or doesn't become the primary in time.
        Exception: the driver's error.
    """
    stream, term = seen.stream, seen.term
    if stream is None or term is None:
        raise TakeoverRefused(f"{node.name} can't be promoted: its place in the log isn't known")
    with node.begin(limit=seconds) as connection:
        refusal = native(node).promote(connection, boot=seen.boot, term=term.uuid, received=stream.flushed, refused=refused)
    if refusal is not None:
        raise TakeoverRefused(f"{node.name} isn't promoted: {refusal}")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with node.begin(limit=seconds) as connection:
            state = node.database.state(connection)
        if state is not None and state.role == Role.WRITER:
            new = record(node)
            log.warning("%s was promoted, timeline %d", node.name, new.number)
            return new
        time.sleep(LOOK)
    raise TakeoverRefused(f"{node.name} was told to become the primary and hasn't within {seconds:g} s; its server's log says why")


def record(node: Node) -> Term:
    """Gives the timeline that a writer writes on its row, unless it has one.

    Raises:
        TakeoverRefused: it isn't the writer any more.
        Exception: the driver's error.
    """
    with node.begin() as connection:
        native(node).record(connection, str(uuid4()), now())
    with node.begin() as connection:
        state = node.database.state(connection)
    if state is None or state.role != Role.WRITER or not state.term_uuid:
        raise TakeoverRefused(f"{node.name} is in recovery again, or has begun another timeline")
    return Term(state.term_no, state.term_uuid)
