"""The pair's link by native replication: the database copies the data; replstore follows the servers' roles, promotes where it may, and proves commits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from replstore.databases.native.state import lsn
from replstore.errors import DurabilityUnavailable, StaleRead, TokenLost
from replstore.node import Node
from replstore.pair import native_orders, native_rejoin, native_switchover
from replstore.pair.freeing import Freeing
from replstore.pair.link import Link, still_lost
from replstore.pair.native_rules import decide, is_one_server, is_unconfirmed
from replstore.pair.promotion import native, promote, record
from replstore.pair.ready import keep_ready
from replstore.pair.token import Token
from replstore.pair.view import Action, Decision, Reach, Role, View, named
from replstore.replication.native.proof import Proof
from replstore.replication.native.retain import Retention
from replstore.urls import several_hosts

if TYPE_CHECKING:
    from replstore.databases.base import NodeState
    from replstore.pair.lead import Lead
    from replstore.pair.pair import Pair

log = logging.getLogger("replstore.pair")
#: Levels of ``synchronous_commit`` that mean nothing without a synchronous standby.
WAITING = ("remote_apply", "remote_write", "on")

#: Looks between two attempts to reach another server by a URL that leads to the writer.
RECONNECT = 10


class NativeLink(Link):
    """See :class:`replstore.pair.link.Link`.

    Args:
        pair: the pair.
    """

    shipping: Proof
    counts_bytes = True
    durabilities = ("replicated", "server", "remote_apply", "remote_write", "on", "local", "off")
    without_follower = 'durability="server" leaves it to the server'

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        # where both URLs may lead to one server, another node's URL is no other server
        self.found_is_proof = pair.settings.refused_means_dead and not any(map(several_hosts, pair.settings.urls.values()))
        self.shipping = Proof(pair.other)
        self._retention = Retention(pair.settings.marker_retention)
        self._freeing = Freeing(pair)
        self._told = ""
        self._one_server = False
        self._reconnected = float("-inf")
        self._followed: dict[str, tuple[str, str]] = {}
        """Of each node: with which boot identity it was seen last as the follower of a writer that was seen too, and of which timeline."""

    def decide(self, view: View) -> Decision:
        for name, seen in self._pair.watch.states.items():
            if seen.state is not None and named(view, name).reach is Reach.UP:
                self.shipping.learn(seen.state, seen.since)
        decision = decide(view)
        self._one_server = Reach.UP is view.primary.reach is view.standby.reach and is_one_server(view.primary, view.standby)
        self._tell(view, decision)
        if decision.writer is not None:
            follower = named(view, self._pair.other(self._pair.nodes[decision.writer]).name)
            if follower.reach is Reach.UP and follower.role is Role.FOLLOWER and follower.term is not None:
                self._followed[follower.name] = follower.boot, follower.term.uuid
        return decision

    def _tell(self, view: View, decision: Decision) -> None:
        """Logs, once, what must not go by unread: nobody may write, or a writer is believed that may be a former one."""
        stopped = decision.action is Action.STOP
        unconfirmed = decision.writer is not None and is_unconfirmed(view, decision.writer)
        if (stopped or unconfirmed) and decision.reason != self._told:
            log.log(
                logging.ERROR if stopped else logging.WARNING,
                "%s",
                f"nobody may write: {decision.reason}; {decision.next_step}" if stopped else decision.reason,
            )
        self._told = decision.reason if stopped or unconfirmed else ""

    def beat(self, view: View, writer: str) -> None:
        node = self._pair.nodes[writer]
        # a server that hangs just now must not keep the monitor until the watch takes that for a gap
        with node.begin(limit=self._pair.settings.probe_timeout / 2) as connection:
            node.database.commit_here(connection)  # it is there to be received, not to be waited for
            native(node).beat(connection)

    def committing(self) -> None:
        self._freeing.committing()

    def waits(self, lead: Lead, durability: str) -> bool:
        return durability in WAITING or (durability == "server" and self._names_standbys(lead))

    def _names_standbys(self, lead: Lead) -> bool:
        """Whether the writer's server waits for standbys, as it was seen last; where it wasn't, it may."""
        seen = self._pair.watch.states.get(lead.node.name)
        stream = seen.state.stream if seen is not None and seen.state is not None else None
        return stream is None or bool(stream.synchronous)

    def preamble(self, lead: Lead, durability: str) -> str | None:
        if durability in ("replicated", "server"):
            return None
        if durability in WAITING and not self._names_standbys(lead):
            self._pair.look()  # somebody may just have named one
            if not self._names_standbys(lead):
                raise DurabilityUnavailable(
                    f"durability {durability!r} waits for a standby, and {lead.node.name}'s synchronous_standby_names is empty, so nothing would be waited for: "
                    'name the standby there, or ask for "replicated", which replstore proves by itself'
                )
        return f"SET LOCAL synchronous_commit = {durability}"

    def look_after(self, decision: Decision) -> bool:
        lead = self._pair.lead
        if lead is not None and decision.writer == lead.node.name:
            ahead, behind = (self._pair.watch.states[node.name].state for node in (lead.node, lead.follower))
            if ahead is not None and behind is not None:
                self._retention.work(lead.node, ahead, behind, self.shipping.age(behind))
                keep_ready(lead.follower, behind.boot)
            self._look_elsewhere(self._pair.other(lead.node))
        return False

    def _look_elsewhere(self, node: Node) -> None:
        """Now and then, a URL that leads to the writer as well is asked anew: by now it may lead to the standby that it means."""
        now = time.monotonic()
        if self._one_server and now - self._reconnected > RECONNECT * self._pair.settings.probe_interval:
            self._reconnected = now
            node.reconnect()

    # -- acting

    def act(self, view: View, decision: Decision) -> None:
        node = self._pair.nodes[decision.node] if decision.node else None
        if node is None:
            return
        if decision.action is Action.TAKE_OVER:
            lost = self._pair.other(node)
            view = still_lost(decide, self._pair.watch, view, decision, lost)
            refused, within = named(view, lost.name).reach is Reach.REFUSED, 3 * self._pair.settings.probe_timeout
            term = promote(node, named(view, node.name), refused=refused, within=within)
            self._pair.took_over(node, term, decision)
        elif decision.action is Action.FINISH:
            record(node)

    # -- orders

    def switchover(self, seconds: float, told: Callable[[str], Any] | None) -> None:
        native_switchover.switchover(self._pair, seconds, told)

    def takeover(self, name: str | None, *, force: bool) -> None:
        native_orders.takeover(self._pair, name, force=force)

    def solo(self) -> None:
        native_orders.solo(self._pair)

    def rejoin(self, *, copy: bool, discard: bool) -> int:
        return native_rejoin.rejoin(self._pair, copy=copy, discard=discard)

    # -- tokens

    def refuse_lost(self, node: Node, state: NodeState, token: Token) -> None:
        if token.node != state.node:
            raise TokenLost("the token is another pair's")
        if token.term_uuid == state.term_uuid:
            if state.position is not None and not node.database.covers(state.position, token.position):
                raise TokenLost(
                    f"the token stands for {token.position}, and {node.name}'s log has come to {state.position} only: it was made anew from a copy"
                )
            return
        known, ended = self._ended(node, token)
        if not known and token.term_no > state.term_no:
            raise StaleRead(f"the token is of timeline {token.term_no}, and {node.name} writes on {state.term_no}")
        if ended is None or not node.database.covers(lsn(ended), token.position):
            how = f"ended before it, at {lsn(ended)}" if ended is not None else "ended where nobody has recorded, or isn't part of this history"
            raise TokenLost(f"the token stands for {token.position} on timeline {token.term_no}, which {how}: what was committed there may be lost")

    def has(self, node: Node, state: NodeState, token: Token) -> bool:
        if token.node != state.source or state.position is None:
            return False
        if token.term_uuid == state.stream_uuid:
            if self._pair.lead is None and self._followed.get(node.name) != (state.boot, state.stream_uuid):
                return False  # it may be on a timeline that nobody has recorded yet
            return node.database.covers(state.position, token.position)
        _, ended = self._ended(node, token)  # it has replayed what came after that timeline, and so all of it
        return ended is not None and node.database.covers(lsn(ended), token.position)

    def _ended(self, node: Node, token: Token) -> tuple[bool, int | None]:
        with node.begin(limit=2 * self._pair.settings.probe_timeout) as connection:
            return native(node).ended_at(connection, token.term_uuid)
