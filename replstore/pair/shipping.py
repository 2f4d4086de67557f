"""A Store's shippers: whoever commits ships for all that wait, from the node that writes, and the witness learns when the follower is in sync."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence

from sqlalchemy.exc import SQLAlchemyError

from replstore.databases.base import Fault, NodeState
from replstore.databases.carrier import CompareFailed
from replstore.errors import ReplicationStopped, ReplstoreError
from replstore.node import Node, one_line
from replstore.pair.decide import Term
from replstore.pair.witness import Witness
from replstore.replication.group import GroupCommit
from replstore.replication.journal.ship import Shipped, Shipper

log = logging.getLogger("replstore.pair")
#: s between two looks at the nodes while a batch without a deadline runs.
LOOK = 2.0


class Shipping:
    """Ships from either node to the other.

    Args:
        other: gives the node that isn't this one.
        witness: it is told when the follower is in sync again.
        is_watched: whether a monitor frees who waits for a silent node.

    Attributes:
        stopped: why it stopped, or empty.
        synced_at: when the last batch that ended well began, on the monotonic clock.
    """

    def __init__(self, other: Callable[[Node], Node], witness: Witness | None, is_watched: Callable[[], bool]) -> None:
        self._other, self._witness, self._is_watched = other, witness, is_watched
        self.stopped = ""
        self.synced_at = float("-inf")
        self._vouch = False
        self._lock = threading.Lock()
        self._shippers: dict[str, tuple[Shipper, GroupCommit[Shipped]]] = {}

    def ship(self, node: Node, deadline: float | None, transaction: str | None = None) -> Shipped:
        """Ships what was committed on a node before the call.

        Args:
            node: the writer.
            deadline: on the monotonic clock, or infinite; None: in 30 s.
            transaction: id of the one that the caller waits for; None: everything.

        Raises:
            TimeoutError, NotTheWriter, ReplicationStopped, CompareFailed, driver errors.
        """
        with self._lock:
            if node.name not in self._shippers:
                shipper = Shipper(node, self._other(node))
                self._shippers[node.name] = (shipper, GroupCommit(lambda limit, wanted: self._ship(shipper, limit, wanted)))
            shipper, group = self._shippers[node.name]
        deadline = time.monotonic() + 30.0 if deadline is None else deadline
        if self._is_watched():
            return group.cover(deadline, transaction)
        done = threading.Event()
        alarm = threading.Thread(target=_free, args=(shipper, deadline, done), name="replstore alarm", daemon=True)
        alarm.start()
        try:
            return group.cover(deadline, transaction)
        finally:
            done.set()

    def _ship(self, shipper: Shipper, deadline: float, wanted: Sequence[str | None]) -> Shipped:
        began = time.monotonic()
        transactions = [each for each in wanted if each is not None]
        try:
            shipped = shipper.ship(deadline, transactions if len(transactions) == len(wanted) else ())
        except ReplicationStopped as error:
            self.stop(str(error))
            raise
        except CompareFailed:  # others were faster: the next batch goes on
            raise
        except Exception as error:
            # whichever node's error it is: each kind of database says CALLER of the other's
            faults = {node.database.classify(error) for node in (shipper.writer, shipper.follower)}
            if not isinstance(error, ReplstoreError) and faults == {Fault.CALLER}:  # no repetition mends it
                self.stop(_refused(shipper, error))
            raise
        if shipped.req is None:
            return shipped
        if shipped.resynced or self._vouch:
            self._vouch = False
            self._grant_resync(shipper.writer, shipped.term_no, shipped.term_uuid, shipped.req)
        self.stopped, self.synced_at = "", began
        return shipped

    def age(self, state: NodeState) -> float:
        """See ``link.Shipping``: it had everything that was committed before the last batch that ended well began."""
        return time.monotonic() - self.synced_at

    def behind(self, state: NodeState, fresh: float) -> float:
        """See ``link.Shipping``: a journal isn't counted in bytes."""
        return math.inf

    def stop(self, reason: str) -> None:
        """Remembers why shipping stopped, and says it once."""
        if reason != self.stopped:
            log.error("shipping stopped: %s", reason)
        self.stopped = reason

    def vouch(self) -> None:
        """The next batch is to be told to the witness, although the follower was in sync before it."""
        self._vouch = True

    def _grant_resync(self, writer: Node, term_no: int, term_uuid: str, req: int) -> None:
        """Tells the witness that both are in sync, as of the ``req`` that the batch's own snapshot saw: a later one may belong to a solo."""
        if self._witness is None:
            return
        other = self._other(writer).name
        try:
            self._witness.grant_resync(Term(term_no, term_uuid), writer.name, frozenset({writer.name, other}), req)
        except SQLAlchemyError as error:  # the batch has landed all the same
            log.warning(
                "the witness can't be told that %s is in sync (%s): %s doesn't take over until the witness knows", other, one_line(error), other
            )

    def interrupt(self) -> None:
        """Frees who ships: each shipper talks to both nodes."""
        for shipper, _ in list(self._shippers.values()):
            shipper.interrupt()

    def close(self) -> None:
        """Ends every batch and closes every connection; doesn't wait for a node that doesn't answer."""
        with self._lock:
            shippers = list(self._shippers.values())
        for shipper, group in shippers:
            shipper.interrupt()
            if group.finish(1.0):  # a connection that another thread is using must not be closed: SQLite would crash the program
                shipper.close()


def _refused(shipper: Shipper, error: Exception) -> str:
    writer, follower = shipper.writer.name, shipper.follower.name
    return (
        f"batch_refused: a batch from {writer} to {follower} fails ({one_line(error)}); `replstore check` says how their tables differ, "
        f"`replstore migrate` makes {follower}'s as {writer}'s are"
    )


def _free(shipper: Shipper, deadline: float, done: threading.Event) -> None:
    """Frees who waits for a frozen node, which would never answer: at the deadline; without one, when a node has been silent twice in a row."""
    if deadline < math.inf:
        if not done.wait(max(0.0, deadline - time.monotonic())):
            shipper.interrupt()
        return
    silent = 0
    while silent < 2:
        if done.wait(LOOK):
            return
        silent = silent + 1 if any(node.observe(LOOK).fault is Fault.SILENT for node in (shipper.writer, shipper.follower)) else 0
    shipper.interrupt()
