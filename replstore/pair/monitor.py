"""The background threads of a Store.

The monitor looks at both nodes every ``probe_interval``, counts the heartbeat up, takes over or goes solo, and frees callers that wait for a silent
node.  The keeper does what takes longer: fencing, rejoin, resync, and shipping what programs without a Store have written.
"""

from __future__ import annotations

import logging
import threading
import time

from replstore.node import one_line
from replstore.pair.pair import Pair
from replstore.pair.view import Action, Decision, Reach

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
                    self._pair.link.beat(view, decision.writer)
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
            if self._pair.link.look_after(decision):
                self._pair.nudged.set()
        except Exception as error:
            self._tell("keeper", one_line(error))
            self._pair.closed.wait(self._pair.settings.probe_interval)
        else:
            self._tell("keeper", "")

    def _tell(self, who: str, trouble: str) -> None:
        """Logs what a thread can't do, once: a node that is away stays away for many looks."""
        if trouble and trouble != self._told.get(who):
            log.info("%s: %s", who, trouble)
        self._told[who] = trouble
