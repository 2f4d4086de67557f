"""A carrier moves one batch from a writer to a follower: the database's part of shipping.  The protocol is in ``replication/journal/ship.py``.

A carrier belongs to one direction and one thread at a time.  Order of calls for a batch: ``follower()`` or ``assume()``, ``snapshot()``, ``tick()``,
``apply()``, ``still_there()``, ``land()``; or ``abandon()`` at any point.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter

from replstore.databases.base import NodeState
from replstore.databases.catalog import Table

#: Old ticks go with every so manieth batch.
TICKS_GO = 100


class CompareFailed(Exception):
    """The follower is no longer what the batch began from (HAZARDS 24, 25); nothing was written, begin again."""


class Moved(CompareFailed):
    """Another shipper was faster."""


@dataclass(frozen=True)
class Part:
    """Some of a table's rows by their keys, in the order that the writer's database has of them.

    Attributes:
        after: the key before the first one, as JSON; None: from the beginning.
        upto: the last key; None: to the end.
    """

    after: str | None
    upto: str | None


@dataclass(frozen=True)
class Keys:
    """Which rows of a table to carry.

    Attributes:
        journal: the keys that the journal names as not shipped.
        recorded: also the keys of the orphans that the writer has on record from this node, by name and term number.
        whole: every row of the table; all others are removed from the follower.
        part: these rows alone, without those that the journal names: a value that a changed row no longer has may be another's by now, and is still
            on the follower.  None is removed there, but with ``whole`` all are.
    """

    journal: bool = True
    recorded: tuple[str, int] | None = None
    whole: bool = False
    part: Part | None = None


@dataclass(frozen=True)
class Snapshot:
    """What one snapshot of the writer shows.

    Attributes:
        state: the writer's control tables and boot identity.
        position: the snapshot's own position: what the follower has once this is applied.
        has_tick: the tick that the follower holds is here, so time did not go back (HAZARDS 1, 23).
        pruned_past: the journal was pruned further than the follower's position.
        changed: by table id, how many rows the journal names as not shipped; None: the whole table.
        markers: how many commit markers and tombstones were not shipped.
        faults: by table id, what is wrong with its capture.
    """

    state: NodeState
    position: str
    has_tick: bool
    pruned_past: bool
    changed: Mapping[str, int | None]
    markers: int
    faults: Mapping[str, str] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether the follower has everything that this snapshot shows."""
        return not self.changed and not self.markers


@dataclass(frozen=True)
class Landing:
    """What the follower's transaction writes besides rows.

    Attributes:
        base: the follower as the batch began; compared again before anything is written.
        writer: the writer whose snapshot this is.
        position, tick: stored on the follower.
        eligible: the follower may take over from now on, under the boot identity that ``base`` has.
        rejoin: the node, a fenced former writer or a follower that lost its place, becomes a follower by this.
        journal_seen: with ``rejoin``: the former writer's journal as its orphans were read from it, count and last number; compared.
        forget: with ``rejoin``: ids of the former writer's markers that the writer doesn't have; None: all of them.
        to_copy: by id of each table that must still be copied whole, the last key that the follower has of it; None: the follower has everything.
        left: of a follower that is being copied: the same as the batch began; compared.
    """

    base: NodeState
    writer: NodeState
    position: str
    tick: str
    eligible: bool
    rejoin: bool = False
    journal_seen: str | None = None
    forget: Iterable[str] | None = ()
    to_copy: Mapping[str, str | None] | None = None
    left: Mapping[str, str | None] | None = None


def is_unmoved(now: NodeState, base: NodeState) -> bool:
    """Whether a follower is what a batch began from, but for the heartbeat, which goes on meanwhile."""
    return bool(_STAYS(now) == _STAYS(base))


_STAYS = attrgetter(*(each.name for each in fields(NodeState) if each.name not in ("heartbeat", "shipped_at")))


def capture_faults(recorded: Mapping[str, str], found: Mapping[str, str]) -> dict[str, str]:
    """What is wrong with the capture of tables, by id (HAZARDS 8).

    Args:
        recorded: fingerprint by table as ``migrate`` left it; empty: its capture was seen to be lost.
        found: the same as it is now, of the tables that exist.
    """
    return {
        name: "the table is gone" if name not in found else "its columns or capture triggers are not those that migrate left"
        for name, print in recorded.items()
        if found.get(name) != print
    }


class Carrier(ABC):
    """Moves batches from one node to the other.

    Attributes:
        holds: whether the follower had the commit markers of all the transactions that ``follower()`` was asked for.
    """

    holds = False

    @abstractmethod
    def follower(self, *, wait: float, transactions: Collection[str] = ()) -> NodeState:
        """Takes the shipper's turn where the database has one, and reads the follower.

        Args:
            wait: s to wait for the turn.
            transactions: ids of transactions; whether the follower has them says ``holds``.
        """

    def assume(self, *, wait: float) -> bool:
        """Lets a batch begin from what this carrier's last one has left, without asking: ``apply()`` takes the turn and compares.

        Args:
            wait: s to wait for the turn.

        Returns:
            Whether this is possible; if not, ``follower()`` must be called.
        """
        return False

    @abstractmethod
    def snapshot(self, *, since: str | None, held: str | None, batch: int | None = None) -> Snapshot:
        """Opens one snapshot of the writer and reads what was committed after a position.

        Args:
            since: the position; None: nothing was ever shipped (markers all count as not shipped, rows are named by the caller).
            held: the tick to look for.
            batch: number of a batch that has something to carry: its tick may be committed behind the snapshot in the same session and round trip.
        """

    @abstractmethod
    def tables(self) -> Mapping[str, Table]:
        """The replicated tables as the snapshot's control tables define them."""

    @abstractmethod
    def boundary(self, name: str, after: str | None, rows: int) -> str | None:
        """The last key of a part of a table, in the snapshot.

        Args:
            name: the table's id.
            after: the key before the part's first one; None: the table's beginning.
            rows: how many rows the part has.

        Returns:
            The key as JSON; None: there are no more rows than these.
        """

    @abstractmethod
    def recorded(self, node: str, term_no: int) -> Mapping[str, int]:
        """By table id, how many orphans of a node and a term the snapshot has on record."""

    @abstractmethod
    def tick(self, *, batch: int, held: str | None) -> str:
        """Begins to commit a tick on the writer, durably, from a second session, unless the snapshot's own has done that; old ones but ``held`` go."""

    @abstractmethod
    def apply(self, rows: Mapping[str, Keys], landing: Landing) -> int:
        """Writes the batch in one transaction on the follower, and doesn't commit it.

        Returns:
            How many rows were written.

        Raises:
            CompareFailed: the follower changed since ``follower()``.
        """

    @abstractmethod
    def still_there(self) -> None:
        """Returns once the tick is durable and the snapshot's session has given a sign of life after that; the snapshot is over.

        Raises if that session has gone: the writer crashed between snapshot and tick.
        """

    @abstractmethod
    def land(self) -> None:
        """Commits the batch on the follower."""

    def interrupt(self) -> None:
        """Frees another thread that waits for a node in one of the calls above; never raises."""

    @abstractmethod
    def abandon(self) -> None:
        """Ends whatever is open; never raises."""

    @abstractmethod
    def close(self) -> None:
        """Closes the connections; never raises."""
