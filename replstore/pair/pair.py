"""The pair: who writes now, and the one place that carries out what ``decide`` decides.

Callers that need a writer look and act by themselves (``settle``); the threads of ``monitor.py`` do so all the time; ``by_hand.py`` has what a person
orders.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from replstore.config import Settings
from replstore.databases.base import NodeState
from replstore.errors import NotAPair, NotTheWriter, NoWriter, StoreClosed
from replstore.node import Node, one_line
from replstore.pair.admission import agree, is_no_pair
from replstore.pair.alone import is_dead, is_uncontested
from replstore.pair.backlog import Backlog
from replstore.pair.flip import settle_guard
from replstore.pair.lead import Lead
from replstore.pair.link import Held, Link
from replstore.pair.turn import Busy, Turn
from replstore.pair.view import Action, Decision, NodeView, Policy, Reach, Role, Term, View, named
from replstore.pair.watch import Watch
from replstore.pair.witness import Witness

log = logging.getLogger("replstore.pair")

#: What callers wait for; everything else the keeper does.
URGENT = (Action.TAKE_OVER, Action.GO_SOLO, Action.FINISH)


class Committing(Protocol):
    """A transaction at its COMMIT.

    Attributes:
        cut: its connection was shut because the server waited for a standby.
    """

    cut: bool

    @property
    def backend(self) -> tuple[int, str] | None:
        """Its server process, by id and start."""


class Pair:
    """Both nodes, and who writes.

    Args:
        settings: the Store's settings; those of the pair have been compared with its control tables.
        link: makes its link, by what the settings say (``links.link_of``).
    """

    def __init__(self, settings: Settings, link: Callable[[Pair], Link]) -> None:
        self.settings = settings
        self.primary = self._node("primary", settings.primary_url, settings.standby_url)
        self.standby = self._node("standby", settings.standby_url, settings.primary_url)
        self.nodes = {"primary": self.primary, "standby": self.standby}
        self.witness = Witness(settings.witness_url, seconds=settings.probe_timeout) if settings.witness_url else None
        self.policy = Policy(
            durability=settings.durability,
            takeover=settings.takeover,
            on_follower_down=settings.on_follower_down,
            rejoin=settings.rejoin,
            refused_means_dead=settings.refused_means_dead,
            detection_time=settings.detection_time,
            promote=settings.promote,
            max_data_loss=settings.max_data_loss_bytes,
        )
        gap = max(1.0, 2 * settings.probe_interval + settings.probe_timeout)
        self.watch = Watch(self.primary, self.standby, self.policy, timeout=settings.probe_timeout, gap=gap, witness=self.witness)
        self.lead: Lead | None = None
        self.decision: Decision | None = None
        self.link = link(self)
        self.shipping = self.link.shipping
        self._agreed = False
        self.backlog = Backlog(settings, self._last_seen, self.ship_from)
        self._looked = float("-inf")
        self.settling = Turn()
        self.maintenance = threading.Lock()
        """Held by a migration, so that the keeper doesn't take its half-way state for a fault."""
        self._changed = threading.RLock()
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        self.acts = True
        """False: this program neither takes over nor goes solo by itself; a command that ends at once may have a wrong URL."""
        self.watched = False
        """A monitor frees who waits for a silent node."""
        self.closed = threading.Event()
        self.nudged = threading.Event()

    def _node(self, name: str, url: URL, beside: URL) -> Node:
        options = self.settings.engine_options(name)
        return Node(
            name, url, seconds=self.settings.probe_timeout, engine_options=options, beside=beside, native=self.settings.replication == "native"
        )

    def other(self, node: Node) -> Node:
        """The other node."""
        return self.standby if node is self.primary else self.primary

    def _last_seen(self, node: Node) -> NodeState | None:
        seen = self.watch.states.get(node.name)
        return seen.state if seen is not None else None

    # -- deciding and acting

    def look(self) -> tuple[View, Decision]:
        """Observes both nodes, decides, and remembers who leads."""
        self.refuse_closed()
        began = time.monotonic()
        view = self.watch.view()
        self._agree()
        decision = self.link.decide(view)
        self._remember(view, decision, began)
        return view, decision

    def _agree(self) -> None:
        """Once, when the pair is met: its settings are those that this program works with."""
        met = None if self._agreed else next((node for node in self.nodes.values() if self._last_seen(node) is not None), None)
        if met is not None:
            try:
                agree(self.settings, met)
                self._agreed = True
            except DBAPIError as error:
                log.debug("%s doesn't tell the pair's settings: %s", met.name, one_line(error))

    def _remember(self, view: View, decision: Decision, began: float) -> None:
        if began < self._looked:
            return  # another thread began to look later, and was faster
        self._looked, lead = began, None
        if decision.writer is not None and decision.action is not Action.TAKE_OVER:
            seen = named(view, decision.writer)
            if seen.role is Role.WRITER and seen.term is not None:
                node = self.nodes[decision.writer]
                uncontested = self._uncontested(view, seen, began)
                lead = Lead(node, self.other(node), seen.term, decision.acknowledge, began, decision.reason, uncontested, seen.boot)
        if (self.decision is None or decision.action is not self.decision.action) and not self._is_no_pair():
            log.info("%s: %s", decision.action, decision.reason)
        with self._changed:
            old = self.lead
            if lead is None and old is not None and decision.action is not Action.STOP and not self._lost(view, old):
                lead = old  # not confirmed, but nothing says that it is gone either
            if old is not None and (lead is None or lead.term != old.term):
                self._interrupt(old.node)
            self.lead, self.decision = lead, decision
        self.settling.told()
        for seen in (view.primary, view.standby):
            if seen.reach is Reach.SILENT and seen.silent_for >= self.policy.detection_time:
                self._interrupt(self.nodes[seen.name])  # nobody waits for TCP

    def _is_no_pair(self) -> bool:
        return not self.watch.met and is_no_pair(self.nodes.values(), self.watch.states)

    def _uncontested(self, view: View, writer: NodeView, began: float) -> float:
        """Until when no other node had become the writer, as far as is known: a dead node doesn't, if it hadn't before it died."""
        other = named(view, self.other(self.nodes[writer.name]).name)
        before = self.lead.uncontested if self.lead is not None and self.lead.term == writer.term else float("-inf")
        dead_since_then = is_dead(view, other) and began - before <= self.policy.detection_time
        return began if dead_since_then or is_uncontested(view, writer, other) else before

    def _lost(self, view: View, lead: Lead) -> bool:
        """Whether a writer is gone for good as far as callers that wait for it are concerned."""
        seen = named(view, lead.node.name)
        if seen.reach is Reach.UP:
            return seen.role is not Role.WRITER or seen.term != lead.term
        return seen.reach is Reach.REFUSED or (seen.reach is Reach.SILENT and seen.silent_for >= self.policy.detection_time)

    def act(self, view: View, decision: Decision) -> None:
        """Carries out a decision; see ``Link.act``."""
        self.link.act(view, decision)

    def took_over(self, node: Node, term: Term, decision: Decision) -> None:
        """Callers go on at the new writer at once; another look would wait for the old one."""
        self.watch.learn(term)
        with self._changed:
            now, seen = time.monotonic(), self._last_seen(node)
            self.lead = Lead(node, self.other(node), term, decision.acknowledge, now, decision.reason, now, seen.boot if seen else "")
        self.settling.told()

    def settle(self, deadline: float, *, above: int = 0) -> Lead:
        """Looks and acts until some node may write.

        Args:
            deadline: on the monotonic clock.
            above: the least term number that will do.

        Raises:
            NoWriter: no node may write; the message says what each node's state is and what to do.
            NotAPair: the two databases have never been a pair.
        """
        entered = time.monotonic()

        def found() -> Lead | None:  # by another thread, while this one waits for its turn
            lead = self.lead
            return lead if lead is not None and lead.confirmed >= entered and lead.term.number >= above else None

        while True:
            try:
                # a deadline that has passed leaves time for one look
                limit = max(deadline - time.monotonic(), 2 * self.settings.probe_timeout)
                with self.settling.taken("a look at both nodes", limit, unless=lambda: found() is not None) as mine:
                    if not mine:
                        lead = found()
                        if lead is not None:
                            return lead
                        continue
                    _, decision = self.look_and_act()
                    lead = self.lead
                    if lead is not None and lead.term.number >= above:
                        return lead
            except Busy as error:
                before = self.decision
                known = f"{self._why_nobody(before)}; " if before is not None and before.action is not Action.WRITE else ""
                raise NoWriter(f"{known}{error}; nobody is known to write until it has come to its end: repeat it then") from None
            if self._is_no_pair():
                raise NotAPair("these two databases are no pair yet: store.migrate(…) or `replstore migrate` makes one of them")
            forbidden = decision.action is Action.TAKE_OVER and not self.acts
            if decision.action is Action.STOP or forbidden or time.monotonic() >= deadline or self.closed.is_set():
                raise NoWriter(self._why_nobody(decision))
            self.closed.wait(min(0.05, self.settings.probe_interval))

    def _why_nobody(self, decision: Decision) -> str:
        step = decision.next_step
        if decision.action is Action.TAKE_OVER and not self.acts:
            lost = self.other(self.nodes[decision.node or ""])
            step = f"if {lost.name}'s URL is right and it is lost, run `replstore takeover`"
        return f"{decision.reason}; {step}" if step else decision.reason

    def look_and_act(self) -> tuple[View, Decision]:
        """Looks, does at once what callers wait for, and looks again; an act that fails was decided on what has changed since."""
        with self.settling.taken("a look at both nodes"):
            view, decision = self.look()
            if decision.action in URGENT and (self.acts or decision.action is Action.FINISH):
                try:
                    self.act(view, decision)
                except Exception as error:
                    log.info("%s failed: %s", decision.action, one_line(error))
                else:
                    if decision.action is not Action.TAKE_OVER:
                        view, decision = self.look()
            if self.lead is not None:
                self._open_guard(self.lead)
        return view, decision

    def _open_guard(self, lead: Lead) -> None:
        """A takeover whose program died between its two transactions left a writer that still refuses changes."""
        state = self.watch.states.get(lead.node.name)
        if state is not None and state.state is not None and state.state.role == "writer" and not state.state.guard_open:
            with suppress(Exception):
                settle_guard(lead.node)

    def current(self, deadline: float, *, fresh: float | None = None) -> Lead:
        """Who writes: as last seen, or after a look if that was more than ``fresh`` s ago or nobody is known."""
        self.refuse_closed()
        lead = self.lead
        fresh = self.settings.detection_time if fresh is None else fresh
        if lead is not None and time.monotonic() - lead.confirmed <= fresh:
            return lead
        return self.settle(deadline)

    def refuse_closed(self) -> None:
        """Raises StoreClosed after ``close``."""
        if self.closed.is_set():
            raise StoreClosed("the Store is closed: make another one")

    def doubt(self, lead: Lead) -> None:
        """Something went wrong at this writer: the next ``current`` looks for itself."""
        with self._changed:
            if self.lead is not None and self.lead.term == lead.term:
                self.lead = None

    def refuse_astray(self, lead: Lead, connection: Any) -> None:
        """Raises NotTheWriter if a connection doesn't lead to the server that was seen to write: a virtual address moved, or it was started again."""
        if not lead.node.database.leads_to(connection, lead.boot):
            self.doubt(lead)
            lead.node.reconnect()
            raise NotTheWriter(f"{lead.node.name}'s URL leads to another server than the one that was seen to write, or to one that was started anew")

    # -- shipping

    def ship(self, deadline: float | None = None) -> Held:
        """Ships from the writer, for all threads that wait (group commit).

        Raises:
            TimeoutError, NotTheWriter, ReplicationStopped, CompareFailed, driver errors.
        """
        self.refuse_closed()
        lead = self.lead
        if lead is None:
            raise NotTheWriter("nobody is known to be the writer")
        return self.ship_from(lead.node, deadline)

    def ship_from(self, node: Node, deadline: float | None = None, transaction: str | None = None) -> Held:
        """The same from a node that is named; a transaction's id: that one is enough."""
        return self.shipping.ship(node, deadline, transaction)

    # -- callers that wait for a node

    def enter(self, connection: Any, node: Node) -> None:
        """A transaction runs on this driver connection; it is freed when the node falls silent."""
        if not connection.known:
            with self._changed:
                self._connections.add(connection)
            connection.known = True
        connection.in_flight = node.name

    def leave(self, connection: Any) -> None:
        """The transaction ended."""
        connection.in_flight, connection.committing = "", None

    def committing(self, connection: Any, attempt: Committing) -> None:
        """The transaction on this driver connection sends its COMMIT."""
        connection.committing = time.monotonic(), attempt
        self.link.committing()

    def has_commits(self) -> bool:
        """Whether any COMMIT is under way."""
        with self._changed:
            return any(connection.committing is not None for connection in self._connections)

    def late_commits(self, node: Node, seconds: float) -> dict[Any, Committing]:
        """By driver connection, the transactions on a node whose COMMIT was sent more than ``seconds`` ago and hasn't returned."""
        before = time.monotonic() - seconds
        committing = ((connection, connection.committing) for connection in self._waited_for(node))
        return {connection: under_way[1] for connection, under_way in committing if under_way is not None and under_way[0] < before}

    def _waited_for(self, node: Node) -> list[Any]:
        with self._changed:
            return [connection for connection in self._connections if connection.in_flight == node.name]

    def _interrupt(self, node: Node) -> None:
        for connection in self._waited_for(node):
            node.database.interrupt(connection)
        self.shipping.interrupt()

    def close(self) -> None:
        """Closes every connection; doesn't wait for a node that doesn't answer."""
        self.closed.set()
        self.nudged.set()
        self.shipping.close()
        self.watch.close()
        for node in self.nodes.values():
            node.close()
        if self.witness is not None:
            self.witness.close()
