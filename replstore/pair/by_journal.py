"""The pair's link by journal: acts by compare-and-set on the control tables, ships through plain SQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from replstore.errors import ReplicationStopped, StaleRead, TokenLost
from replstore.node import Node
from replstore.pair import by_hand
from replstore.pair.decide import decide
from replstore.pair.link import Link, still_lost
from replstore.pair.rejoin import fence_former, rejoin
from replstore.pair.shipping import Shipping
from replstore.pair.solo import go_solo
from replstore.pair.takeover import take_over
from replstore.pair.token import Token
from replstore.pair.view import Acknowledge, Action, Decision, NodeView, Reach, Role, View, named
from replstore.replication.journal.retain import Retention
from replstore.replication.journal.ship import Shipper
from replstore.replication.mirror import mirror

if TYPE_CHECKING:
    from replstore.databases.base import NodeState
    from replstore.pair.lead import Lead
    from replstore.pair.pair import Pair


class JournalLink(Link):
    """See :class:`replstore.pair.link.Link`.

    Args:
        pair: the pair.
    """

    shipping: Shipping
    durabilities = ("replicated", "async")
    without_follower = "`replstore solo` lets {writer} acknowledge alone"

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self.shipping = Shipping(pair.other, pair.witness, lambda: pair.watched)
        self._retention = Retention(pair.settings.marker_retention, pair.settings.journal_kept)

    def decide(self, view: View) -> Decision:
        return decide(view)

    def beat(self, view: View, writer: str) -> None:
        self._pair.watch.heartbeat(view, writer)

    def preamble(self, lead: Lead, durability: str) -> str | None:
        return None

    # -- acting

    def act(self, view: View, decision: Decision) -> None:
        pair = self._pair
        node = pair.nodes[decision.node] if decision.node else None
        if node is None:
            return
        if decision.action in (Action.TAKE_OVER, Action.GO_SOLO):
            view = still_lost(decide, pair.watch, view, decision, pair.other(node))
        seen, other = named(view, node.name), named(view, pair.other(node).name)
        if decision.action is Action.TAKE_OVER:
            reason = f"{other.name}: {other.error or other.reach}"
            term = take_over(node, seen, reason=reason, compare_heartbeat=True, witness=pair.witness, granted=view.witness, writer=other.name)
            pair.took_over(node, term, decision)
        elif decision.action is Action.GO_SOLO:
            both = frozenset(pair.nodes)
            go_solo(node, seen, reason=f"{other.name}: {other.error or other.reach}", witness=pair.witness, both=both)
        elif decision.action is Action.FINISH:
            self._finish(view, node, seen, other)
        elif decision.action is Action.FENCE:
            if other.term is not None:
                fence_former(node, other.term)
        elif decision.action is Action.REJOIN:
            if seen.fenced_by is None and other.term is not None:  # a switchover whose program died, or was overtaken, before it said so
                fence_former(node, other.term)
            rejoin(pair.other(node), node)
            pair.ship_from(pair.other(node))
        elif decision.action is Action.RESYNC:
            self._resync(view, pair.other(node))

    def _resync(self, view: View, writer: Node) -> None:
        """Ships until the follower is in sync, and tells the witness; if only the witness lacks it, it must be required anew to count there."""
        pair = self._pair
        state = pair.watch.states[writer.name].state
        both = frozenset(pair.nodes)
        if view.witness is not None and view.witness.in_sync != both and state is not None and not state.solo:
            Shipper(writer, pair.other(writer)).require_follower(state)
            self.shipping.vouch()
        pair.ship()

    def _finish(self, view: View, node: Node, seen: NodeView, other: NodeView) -> None:
        """Finishes a takeover that the witness has granted, or a switchover whose program died."""
        pair = self._pair
        if seen.role is Role.FENCED:
            node, seen, other = pair.nodes[other.name], other, seen
        if other.role is Role.FENCED and other.reach is Reach.UP:
            pair.ship_from(pair.nodes[other.name])
            seen = named(pair.watch.view(), node.name)
        take_over(node, seen, reason="switchover finished", compare_heartbeat=False, witness=pair.witness, granted=view.witness, writer=other.name)

    # -- what no caller waits for

    def look_after(self, decision: Decision) -> bool:
        pair = self._pair
        if decision.action in (Action.FENCE, Action.REJOIN):
            view, decision = pair.look()
            if decision.action not in (Action.FENCE, Action.REJOIN):
                return False
            try:
                self.act(view, decision)
            except ReplicationStopped as error:
                if decision.action is Action.REJOIN:
                    self.shipping.stop(str(error))
                raise
            return True
        if decision.action is Action.RESYNC or decision.acknowledge is not Acknowledge.SOLO:
            self._follow_migration()
            pair.ship()
            self._prune()
        return False

    def _prune(self) -> None:
        """Removes what both nodes have and nobody needs; never while the follower isn't in sync, so a former writer finds all it needs."""
        lead = self._pair.lead
        if lead is None or lead.acknowledge is Acknowledge.SOLO:
            return
        ahead, behind = (self._pair.watch.states[node.name].state for node in (lead.node, lead.follower))
        if ahead is not None and behind is not None:
            self._retention.work(lead.node, lead.follower, ahead, behind)

    def _follow_migration(self) -> None:
        """Brings a follower that missed a migration to the writer's tables."""
        lead = self._pair.lead
        if lead is None:
            return
        ahead, behind = (self._pair.watch.states[node.name].state for node in (lead.node, lead.follower))
        if ahead is not None and behind is not None and behind.role == "follower" and behind.schema_no < ahead.schema_no:
            mirror(lead.node, lead.follower)

    # -- orders

    def switchover(self, seconds: float, told: Callable[[str], Any] | None) -> None:
        by_hand.switchover(self._pair, seconds=seconds)

    def takeover(self, name: str | None, *, force: bool) -> None:
        by_hand.order_takeover(self._pair, name, force=force)

    def solo(self) -> None:
        by_hand.order_solo(self._pair)

    def rejoin(self, *, copy: bool, discard: bool) -> int:
        return by_hand.order_rejoin(self._pair, copy=copy)

    # -- tokens

    def refuse_lost(self, node: Node, state: NodeState, token: Token) -> None:
        since = state.basis if state.former_node is not None else None  # since then nobody else has written
        if token.term_uuid == state.term_uuid or (token.node == state.node and (since is None or not node.database.covers(since, token.position))):
            return
        if token.term_no > state.term_no:
            raise StaleRead(f"the token is of term {token.term_no}, and {node.name} is of term {state.term_no}")
        if token.node != state.former_node or token.term_uuid != state.stream_uuid:
            raise TokenLost(f"the token is of term {token.term_no}; how that ended is not known any more in term {state.term_no}")
        if not self._pair.other(node).database.covers(state.former_position or "", token.position):  # positions are that node's
            raise TokenLost(f"what the token stands for is not known to have reached {node.name} when it took over, term {state.term_no}")

    def has(self, node: Node, state: NodeState, token: Token) -> bool:
        # both positions are the writer's
        covers = self._pair.other(node).database.covers
        return token.node == state.source and token.term_uuid == state.term_uuid and covers(state.position or "", token.position)
