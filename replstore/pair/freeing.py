"""COMMITs that wait for a standby for longer than a caller does are ended: the server itself would let them wait for ever (HAZARDS 6)."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from replstore.node import Node, one_line
from replstore.pair.promotion import native

if TYPE_CHECKING:
    from replstore.pair.pair import Pair

log = logging.getLogger("replstore.pair")
#: s between two looks at the COMMITs under way, at most.
LOOK = 0.25


class Freeing:
    """A thread that is there while COMMITs are, with or without a monitor.

    Args:
        pair: the pair; closing it ends the thread.
    """

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._lock = threading.Lock()
        self._running = False
        self._told = ""

    def committing(self) -> None:
        """A transaction is about to send its COMMIT, and the pair knows it."""
        if self._running:
            return
        with self._lock:
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="replstore commits", daemon=True).start()

    def _run(self) -> None:
        pair = self._pair
        interval = min(LOOK, pair.settings.ack_timeout / 4)
        while not pair.closed.wait(interval):
            for node in pair.nodes.values():
                try:
                    self._free(node)
                except Exception as error:
                    self._tell(f"COMMITs that wait on {node.name} can't be ended: {one_line(error)}")
            with self._lock:
                self._running = False  # first: who comes now either sees it, or is seen
                if not pair.has_commits():
                    return
                self._running = True

    def _tell(self, trouble: str) -> None:
        """Logs it, once."""
        if trouble != self._told:
            log.info("%s", trouble)
        self._told = trouble

    def _free(self, node: Node) -> None:
        """Shuts the connections of late COMMITs, as far as the server lets them wait for a standby."""
        late = self._pair.late_commits(node, self._pair.settings.ack_timeout)
        if not late:
            return
        with node.begin(limit=2 * self._pair.settings.probe_timeout) as connection:
            waiting = native(node).waiting(connection, [attempt.backend for attempt in late.values() if attempt.backend is not None])
        for connection, attempt in late.items():
            if attempt.backend is not None and attempt.backend[0] in waiting:
                attempt.cut = True
                node.database.interrupt(connection)
