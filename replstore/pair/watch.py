"""What this process knows of both nodes: the facts that ``decide`` decides by.

Only this process's own monotonic clock is used, and only for what it watched without a gap: after a pause of the process itself (SIGSTOP, a
suspended laptop) every watch begins anew (HAZARDS 22).
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from sqlalchemy import update

from replstore.databases.base import Fault, NodeState
from replstore.node import Node, Observation
from replstore.pair.decide import Contact, NodeView, Policy, Reach, Role, Term, View
from replstore.pair.witness import Witness
from replstore.timestamps import uptime

REACH = {
    None: Reach.LOCKED_OUT,  # it answered, but without control tables
    Fault.REFUSED: Reach.REFUSED,
    Fault.SILENT: Reach.SILENT,
    Fault.LOST_CONNECTION: Reach.SILENT,
    Fault.TIMEOUT: Reach.SILENT,
    Fault.TRANSIENT: Reach.SILENT,
}
#: s after which a node that has answered is asked on, while the other one owes its answer.
MEANWHILE = 0.1


@dataclass
class _Since:
    """Since when something stands as it is; a gap between two looks voids what was seen before."""

    value: object = None
    began: float = 0.0
    looked: float = 0.0

    def look(self, value: object, at: float, gap: float, *, began: float | None = None) -> float:
        """Returns for how many s ``value`` has been seen without change.

        Args:
            at: when it was seen.
            began: when it began, where that is known better than by when it was first seen; ``gap`` before it at most: what was before nobody watched.
        """
        if value != self.value or at - self.looked > gap:
            self.value, self.began = value, at if began is None or at - began > gap else began
        self.looked = at
        return at - self.began


class Watch:
    """Observes both nodes.

    Args:
        primary, standby: the nodes.
        policy: the pair's policy.
        timeout: s to wait for a node's answer.
        gap: s between two looks after which a watch begins anew.
    """

    def __init__(self, primary: Node, standby: Node, policy: Policy, *, timeout: float, gap: float, witness: Witness | None = None) -> None:
        self.nodes = (primary, standby)
        self.policy = policy
        self.witness = witness
        self.contact: Contact | None = None
        self._sent = 0.0
        self._highest: Term | None = None
        self._seen_written: tuple[Term | None, int, float] = (None, 0, 0.0)
        self._received: dict[tuple[str, Term | None], tuple[int, float]] = {}
        self._boots: dict[str, str] = {}
        self._timeout, self._gap = timeout, gap
        self._silent = {node.name: _Since() for node in self.nodes}
        self._still = {node.name: _Since() for node in self.nodes}
        self._batches: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()
        self._askers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="replstore ask")
        self.states: dict[str, Observation] = {}
        self.met: set[str] = set()

    def view(self) -> View:
        """Asks both nodes, and the witness, and returns what is known now."""
        known = self._highest
        observations = self._observe()
        for n, seen in enumerate(observations):
            if self._is_restarted_writer(self.nodes[n], seen):
                observations[1 - n] = self.nodes[1 - n].observe(self._timeout)
        with self._lock:
            primary, standby = (self._node_view(node, seen) for node, seen in zip(self.nodes, observations, strict=True))
            self.states = {node.name: seen for node, seen in zip(self.nodes, observations, strict=True)}
        return self._view(primary, standby, known)

    def _observe(self) -> list[Observation]:
        """Asks both nodes.  One that has answered is asked on while the other one owes its answer: its place would else be known for as much less time."""
        asked = [self._askers.submit(node.observe, self._timeout) for node in self.nodes]
        late = wait(asked, timeout=MEANWHILE).not_done
        if len(late) == 1:
            (owing,) = late
            n = 1 - asked.index(owing)
            while not owing.done() and (seen := asked[n].result()).state is not None:
                with self._lock:
                    self._node_view(self.nodes[n], seen)
                asked[n] = self._askers.submit(self.nodes[n].observe, self._timeout)
                wait([owing], timeout=MEANWHILE)
        return [each.result() for each in asked]

    def _is_restarted_writer(self, node: Node, seen: Observation) -> bool:
        """Native: whether it answers as the writer for the first time since its start.  While it was away the other one may have been promoted, and what that
        said may be older than this answer: then it would be taken for the standby that it was."""
        if seen.state is None or seen.state.stream is None or seen.state.role != "writer" or self._boots.get(node.name) == seen.state.boot:
            return False
        self._boots[node.name] = seen.state.boot
        return True

    def again(self, view: View, node: Node) -> View:
        """Asks one node again, and puts its answer together with what was read of the other one before."""
        seen = node.observe(self._timeout)
        with self._lock:
            fresh = self._node_view(node, seen)
            self.states = {**self.states, node.name: seen}
        primary, standby = (fresh, view.standby) if node is self.nodes[0] else (view.primary, fresh)
        return self._view(primary, standby, view.highest)

    def _view(self, primary: NodeView, standby: NodeView, known: Term | None) -> View:
        """What is known now; ``known`` is the highest term that was known before the nodes were asked."""
        with self._lock:
            pair = next((seen.state.pair for seen in self.states.values() if seen.state is not None), None)
        witness = self.witness.view(pair) if self.witness else None
        with self._lock:
            for view in (primary, standby):
                if term := _term(view):
                    self._learn(term)
            contact = self.contact
            if contact is not None and self._highest is not None and self._highest.outranks(contact.term):
                contact = None  # a contact with a writer that has been replaced confirms nothing
            if contact is not None:
                contact = Contact(uptime() - self._sent, contact.term, contact.writer, contact.writer_boot, contact.follower_boot)
            seen_batch = max((self._remember(view) for view in (primary, standby) if view.role is Role.FOLLOWER), default=0)
            written = self._written(primary, standby)
            highest = self._highest
            if highest != known and highest is not None and Term(highest.number, "") in (_term(primary), _term(standby)):
                highest = Term(highest.number, "")  # another thread has read its record since this one asked
            return View(primary, standby, self.policy, contact, witness, seen_batch, highest, written)

    def _written(self, *views: NodeView) -> int | None:
        """How far the writer of the highest term has been seen to come, unless its follower has received more since for longer than a look takes."""
        at = time.monotonic()
        for view in views:
            if view.stream is None:
                continue
            if view.role is Role.FOLLOWER and view.stream.flushed > self._received.get((view.name, view.term), (-1, 0.0))[0]:
                self._received[view.name, view.term] = view.stream.flushed, at
            elif view.role is Role.WRITER and view.term is not None and view.term == self._highest:
                before = self._seen_written[1] if self._seen_written[0] == view.term else 0
                self._seen_written = view.term, max(before, view.stream.flushed), at
        term, place, seen = self._seen_written
        moved = max((since for _, since in self._received.values()), default=0.0)
        return place if term is not None and term == self._highest and moved - seen <= self._gap else None

    def learn(self, term: Term) -> None:
        """A takeover has begun this term; contacts with earlier writers confirm nothing any more, whoever answers."""
        with self._lock:
            self._learn(term)

    def _learn(self, term: Term) -> None:
        known = self._highest
        if known is None or term.outranks(known) or (not known.uuid and term.number == known.number):
            self._highest = term

    def _remember(self, view: NodeView) -> int:
        """The highest batch number ever seen on a follower under its term: less means that it went back in time."""
        term = view.stream_term.uuid if view.stream_term else ""
        known = max(self._batches.get((view.node, term), 0), view.batch)
        self._batches[view.node, term] = known
        return known

    def _node_view(self, node: Node, seen: Observation) -> NodeView:
        reach = Reach.UP if seen.state else REACH.get(seen.fault, Reach.LOCKED_OUT)
        if seen.state is not None:
            self.met.add(node.name)
        if reach is Reach.REFUSED and not self.policy.refused_means_dead:
            reach = Reach.SILENT
        # silent since the first question that got no answer was sent
        silent_for = self._silent[node.name].look(reach, seen.answered, self._gap, began=seen.since if reach is Reach.SILENT else None)
        if seen.state is None:
            silent_for = silent_for if reach is Reach.SILENT else 0.0
            return NodeView(name=node.name, reach=reach, silent_for=silent_for, met=node.name in self.met, error=seen.error)
        still_for = self._still[node.name].look((seen.state.heartbeat, seen.state.boot, seen.state.term_uuid), seen.answered, self._gap)
        return node_view(seen.state, node.name, still_for)

    def heartbeat(self, view: View, writer: str) -> None:
        """Counts the follower's heartbeat up, having just seen the writer; an answered one is a contact."""
        ahead, behind = (view.primary, view.standby) if writer == view.primary.name else (view.standby, view.primary)
        if ahead.role is not Role.WRITER or behind.role is not Role.FOLLOWER or ahead.term is None or ahead.term != behind.term:
            return
        node = next(node for node in self.nodes if node.name == behind.name)
        control = node.database.control
        sent = uptime()
        with node.begin(limit=2 * self._timeout) as connection:
            connection.execute(update(control.heartbeat).values(no=control.heartbeat.c.no + 1))
            state = node.database.state(connection)
        if state is not None and state.role == "follower" and Term(state.term_no, state.term_uuid) == ahead.term and state.boot == behind.boot:
            with self._lock:
                self._sent = sent
                self.contact = Contact(0.0, ahead.term, ahead.name, ahead.boot, state.boot)

    def close(self) -> None:
        """Stops asking."""
        self._askers.shutdown(wait=False, cancel_futures=True)


def _term(view: NodeView) -> Term | None:
    """A node's term; of a timeline that nobody has recorded yet the number alone."""
    if view.term is None and view.role is Role.WRITER and view.stream is not None and view.stream.timeline is not None:
        return Term(view.stream.timeline, "")
    return view.term


def node_view(state: NodeState, name: str, still_for: float = 0.0) -> NodeView:
    """A node's control state in the words that ``decide`` uses."""
    follows = state.stream_no is not None
    return NodeView(
        name=name,
        node=state.node,
        role=Role(state.role),
        term=Term(state.term_no, state.term_uuid) if state.term_uuid else None,
        boot=state.boot,
        solo=state.solo,
        solo_boot=state.solo_boot,
        req=state.req,
        fenced_by=Term(state.fenced_by_no, state.fenced_by_uuid or "") if state.fenced_by_no is not None else None,
        source=state.source or "",
        stream_term=Term(state.stream_no or 0, state.stream_uuid or "") if follows else None,
        eligible_boot=state.eligible_boot,
        copying=state.copying,
        heartbeat=state.heartbeat,
        batch=state.batch or 0,
        stream=state.stream,
        still_for=still_for,
    )
