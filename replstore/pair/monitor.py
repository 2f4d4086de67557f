"""The background threads of a Store.

The monitor looks at both nodes every ``probe_interval``, counts the heartbeat up, takes over or goes solo, and frees callers that wait for a silent
node.  The keeper does what takes longer: fencing, rejoin, resync, and shipping what programs without a Store have written.
"""

from __future__ import annotations

import logging
import threading
import time

from replstore.errors import ReplicationStopped
from replstore.node import one_line
from replstore.pair.decide import Acknowledge, Action, Decision, Reach
from replstore.pair.pair import Pair
from replstore.replication.journal.retain import Retention
from replstore.replication.mirror import mirror

log = logging.getLogger("replstore.pair")
#: s between two looks while a node owes an answer.
HURRY = 0.1


class Monitor:
    """Looks after a pair.

    Args:
        pair: the pair; closing it ends the threads.
    """

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        pair.watched = True
        self._told: dict[str, str] = {}
        self._retention = Retention(pair.settings.marker_retention, pair.settings.journal_kept)
        # daemons: what they do is done by any other Store, or by the next call, just as well
        self._threads = [
            threading.Thread(target=target, name=f"replstore {name}", daemon=True)
            for name, target in (("monitor", self._watch), ("keeper", self._keep))
        ]
        for thread in self._threads:
            thread.start()

    def join(self, seconds: float = 1.0) -> None:
        """Waits until the threads have ended, after the pair was told to close."""
        for thread in self._threads:
            thread.join(timeout=seconds)

    def _watch(self) -> None:
        while not self._pair.closed.is_set():
            began, view = time.monotonic(), None
            try:
                view, decision = self._pair.look_and_act()
                if decision.writer is not None:
                    self._pair.watch.heartbeat(view, decision.writer)
                if decision.action in (Action.FENCE, Action.REJOIN, Action.RESYNC):
                    self._pair.nudged.set()
            except Exception as error:
                self._tell("monitor", one_line(error))
            else:
                self._tell("monitor", "")
            hurry = Reach.SILENT in (view.primary.reach, view.standby.reach) if view is not None else False
            interval = min(HURRY, self._pair.settings.probe_interval) if hurry else self._pair.settings.probe_interval
            self._pair.closed.wait(max(0.0, interval - (time.monotonic() - began)))

    def _keep(self) -> None:
        while not self._pair.closed.is_set():
            self._pair.nudged.wait(self._pair.settings.ship_interval)
            self._pair.nudged.clear()
            decision = self._pair.decision
            if self._pair.closed.is_set() or decision is None or self._pair.lead is None:
                continue
            if self._pair.maintenance.acquire(blocking=False):
                try:
                    self._look_after(decision)
                finally:
                    self._pair.maintenance.release()

    def _look_after(self, decision: Decision) -> None:
        try:
            if decision.action in (Action.FENCE, Action.REJOIN):
                view, decision = self._pair.look()
                if decision.action in (Action.FENCE, Action.REJOIN):
                    self._pair.act(view, decision)
                    self._pair.nudged.set()
            elif decision.action is Action.RESYNC or decision.acknowledge is not Acknowledge.SOLO:
                self._follow_migration()
                self._pair.ship()
                self._prune()
        except Exception as error:
            if decision.action is Action.REJOIN and isinstance(error, ReplicationStopped):
                self._pair.shipping.stop(str(error))
            self._tell("keeper", one_line(error))
            self._pair.closed.wait(self._pair.settings.probe_interval)
        else:
            self._tell("keeper", "")

    def _tell(self, who: str, trouble: str) -> None:
        """Logs what a thread can't do, once: a node that is away stays away for many looks."""
        if trouble and trouble != self._told.get(who):
            log.info("%s: %s", who, trouble)
        self._told[who] = trouble

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
