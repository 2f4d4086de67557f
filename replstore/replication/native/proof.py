"""Proof that the follower has replayed what was committed: a COMMIT that returned is none (HAZARDS 6).

Callers that wait for transactions of their own name them: the follower is asked, for all of them at once, until it shows their markers, which it does when it has
replayed their commits.  Whoever waits for everything asks the writer first how far its log has come; a place counts only under the same timeline: the follower
must have replayed the row with which the writer began it, else it may be on another history that is longer (HAZARDS 15).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from replstore.databases.base import NodeState
from replstore.databases.native.base import Native
from replstore.errors import NotTheWriter
from replstore.node import Node
from replstore.replication.group import GroupCommit
from replstore.replication.native.samples import Sample, Samples

if TYPE_CHECKING:
    from replstore.databases.native.replay import Place, Replay

log = logging.getLogger("replstore.native")
#: s between two questions to the follower: first, and at most.
SOON, LATER = 0.0002, 0.01
#: s after which a commit that the follower doesn't show may not have been sent yet: its transaction may have asked for no flush of the log.
NUDGE = 0.05


@dataclass(frozen=True)
class Proved:
    """What the follower holds: everything up to ``place``, under the term, but for the transactions in ``missing``."""

    place: int
    term_no: int
    term_uuid: str
    missing: frozenset[str] = frozenset()


class _NoAnswer(TimeoutError):
    """A node owes the answer to a question."""


class Proof:
    """Waits for either node as the other one's follower; see ``pair.link.Shipping``.

    Args:
        other: gives the node that isn't this one.

    Attributes:
        stopped: always empty: the database replicates by itself.
        synced_at: a moment of which the follower is known to have everything, on the monotonic clock.
    """

    def __init__(self, other: Callable[[Node], Node]) -> None:
        self._other = other
        self.stopped = ""
        self.synced_at = float("-inf")
        self._samples = Samples()
        self._lock = threading.Lock()
        self._replays: dict[str, tuple[Replay, GroupCommit[Proved]]] = {}

    def ship(self, node: Node, deadline: float | None, transaction: str | None = None) -> Proved:
        """Returns when the follower has replayed what was committed on a node before the call.

        Raises:
            TimeoutError: it hasn't by the deadline.
            NotTheWriter: the node isn't the writer of its timeline, or the follower isn't its follower; or it has replayed as much, and not this transaction.
            Exception: the driver's error.
        """
        with self._lock:
            if node.name not in self._replays:
                follower = self._other(node)
                assert isinstance(node.database, Native)
                replay = node.database.replay(node.service, follower.service)
                run = _Run(self, node, follower, replay)
                self._replays[node.name] = (replay, GroupCommit(run.prove))
            _, group = self._replays[node.name]
        proved = group.cover(time.monotonic() + 30.0 if deadline is None else deadline, transaction)
        if transaction in proved.missing:
            raise NotTheWriter(
                f"{self._other(node).name} has come as far and doesn't have the transaction: it may follow another server, on another history"
            )
        return proved

    # -- how old a follower is, without asking anybody

    def learn(self, state: NodeState, at: float) -> None:
        """A writer was asked at a moment, and answered with this state."""
        if state.stream is not None and state.role == "writer" and state.term_uuid:
            self._samples.add(Sample(at, state.stream.place, state.term_uuid))

    def age(self, state: NodeState) -> float:
        """For how many s, at most, a follower with this state has been without something that was committed; infinite: not known."""
        if state.stream is None:
            return math.inf
        return time.monotonic() - self._samples.had_all_at(state.stream.place, state.stream_uuid or "")

    def behind(self, state: NodeState, fresh: float) -> float:
        """How many bytes of the log a follower with this state lacks; infinite: the writer's place isn't known from the last ``fresh`` s."""
        if state.stream is None:
            return math.inf
        return self._samples.behind(state.stream.place, state.stream_uuid or "", time.monotonic() - fresh)

    def proved(self, place: Place, asked: float) -> None:
        """The follower has replayed up to a place at which the writer was at a moment."""
        self._samples.add(Sample(asked, place.place, place.term_uuid))
        self.synced_at = max(self.synced_at, asked)

    # -- ending

    def stop(self, reason: str) -> None:
        """Nothing here stops: what is wrong with the database's own replication, ``status`` says."""
        log.warning("%s", reason)

    def interrupt(self) -> None:
        """Frees who waits for a node."""
        for replay, _ in list(self._replays.values()):
            replay.interrupt()

    def close(self) -> None:
        """Closes every connection; doesn't wait for a node that doesn't answer."""
        with self._lock:
            replays = list(self._replays.values())
        for replay, group in replays:
            replay.interrupt()
            if group.finish(1.0):
                replay.close()


class _Run:
    """Proves for all that wait, from one node to the other."""

    def __init__(self, proof: Proof, writer: Node, follower: Node, replay: Replay) -> None:
        self._proof, self._writer, self._follower, self._replay = proof, writer, follower, replay
        self._deadline = math.inf
        replay.patient(self._give_up)

    def _give_up(self) -> None:
        if time.monotonic() >= self._deadline:
            raise _NoAnswer("a node doesn't answer")

    def prove(self, deadline: float, wanted: Sequence[str | None]) -> Proved:
        """Waits until the follower has what is wanted: transactions by their ids, or everything."""
        self._deadline = deadline
        try:
            ids = [each for each in wanted if each is not None]
            return self._with(deadline, ids) if len(ids) < len(wanted) else self._these(deadline, ids)
        except Exception as error:
            if not isinstance(error, TimeoutError) or isinstance(error, _NoAnswer):
                self._replay.close()  # what a session owes isn't known any more
            raise

    def _these(self, deadline: float, ids: Sequence[str]) -> Proved:
        pause, began = SOON, time.monotonic()
        while True:
            seen = self._follower_at(ids)
            if seen.found == len(set(ids)):
                return Proved(seen.place, seen.term_no, seen.term_uuid)
            now = time.monotonic()
            if now >= deadline:
                raise TimeoutError(f"{self._follower.name} hasn't replayed it")
            if now - began >= NUDGE:
                return self._with(deadline, ids)
            time.sleep(pause)
            pause = min(2 * pause, LATER)

    def _with(self, deadline: float, ids: Sequence[str]) -> Proved:
        """Everything, and which of the transactions isn't in it: a timeline that nobody has recorded yet goes by the name of the one before it, so that a
        place on it may belong to another history."""
        proved = self._all(deadline)
        return replace(proved, missing=frozenset(ids) - self._replay.shown(ids)) if ids else proved

    def _all(self, deadline: float) -> Proved:
        asked = time.monotonic()
        wanted = self._replay.written()
        if wanted is None:
            raise NotTheWriter(f"{self._writer.name} has no record of the timeline that it writes on yet")
        pause = SOON
        while True:
            seen = self._follower_at(())
            if (seen.term_no, seen.term_uuid) == (wanted.term_no, wanted.term_uuid) and seen.place >= wanted.place:
                self._proof.proved(wanted, asked)
                return Proved(wanted.place, wanted.term_no, wanted.term_uuid)
            if seen.term_no > wanted.term_no:
                raise NotTheWriter(f"{self._follower.name} follows timeline {seen.term_no}, and {self._writer.name} writes on {wanted.term_no}")
            if time.monotonic() >= deadline:
                raise TimeoutError(self._behind(seen, wanted))
            time.sleep(pause)
            pause = min(2 * pause, LATER)

    def _follower_at(self, ids: Sequence[str]) -> Place:
        seen = self._replay.replayed(ids)
        if seen.writes:
            raise NotTheWriter(f"{self._follower.name} is no standby of {self._writer.name}: it writes itself")
        return seen

    def _behind(self, seen: Place, wanted: Place) -> str:
        if seen.term_no < wanted.term_no:
            return f"{self._follower.name} has nothing yet of timeline {wanted.term_no}: does it follow {self._writer.name}?"
        return f"{self._follower.name} has {wanted.place - seen.place} bytes of the write-ahead log still to replay"
