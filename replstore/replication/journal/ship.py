"""The shipper: one snapshot of the writer becomes one transaction on the follower.

What it promises: after ``ship()`` returned, the follower holds everything that was committed on the writer before the call, under the term that was
expected, and all of it is in the writer's durable log.  In this order (HAZARDS 1, 23, 24, 25), each step for a reason:

1. Read the follower: its boot identity (before the writer is asked whether it went solo), position and tick.
2. If the follower isn't eligible, or the writer acknowledges alone: first make the follower required again, on the writer; then begin anew.
3. Open one snapshot of the writer, read what the journal names after that position.
4. Commit a tick on the writer, durably, from a second session: whatever the snapshot saw is then earlier in the writer's log.
   It is on its way while the follower's transaction is written: rows; compare position, tick, role and term with those of step 1; new position and tick.
5. Once the tick is durable, ask the snapshot's session for a sign of life: a writer that crashed in between has lost it.
6. Only then COMMIT on the follower.

A caller that waits for its own transactions names them: if another process has shipped them in the meantime, the follower's markers say so, and nothing
more is done.  And where nobody else ships, its batch begins from what the last one left, without step 1: the follower's transaction asks and compares.

What it doesn't promise: that nothing waits.  An empty batch costs two round trips.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from sqlalchemy import select, update

from replstore.databases.base import NodeState
from replstore.databases.carrier import Carrier, CompareFailed, Keys, Landing, Snapshot, is_unmoved
from replstore.databases.catalog import Table
from replstore.databases.database import Database
from replstore.errors import NeedsCopy, NotTheWriter, ReplicationStopped
from replstore.node import Node
from replstore.replication.captured import capture_missing
from replstore.replication.journal.copying import Copying, NextPart
from replstore.replication.mirror import replicated
from replstore.timestamps import now

log = logging.getLogger("replstore.ship")

#: How often a batch is begun again because another shipper was faster.
ATTEMPTS = 50


@dataclass(frozen=True)
class Shipped:
    """What one call of ``ship`` did.

    Attributes:
        rows: how many rows travelled.
        resynced: the follower became eligible by this.
        req: the writer's count of "follower required", as of the batch (for the witness); None: the follower had what was asked for, and the writer wasn't
            looked at.
        batch: number of the follower's last batch.
        term_no, term_uuid: the term under which the follower holds it.
    """

    rows: int
    resynced: bool
    req: int | None
    batch: int
    term_no: int
    term_uuid: str


class Shipper:
    """Ships from one node to the other; one thread at a time.

    Args:
        writer, follower: the nodes.
        turn: s to wait for another process's batch.
    """

    def __init__(self, writer: Node, follower: Node, *, turn: float = 2.0) -> None:
        self.writer, self.follower, self._turn = writer, follower, turn
        self.carrier: Carrier = writer.database.carrier(writer.service, follower.service)
        self._copying = Copying(self.carrier, follower)
        self._remembered: set[tuple[int, frozenset[str]]] = set()
        self._left: NodeState | None = None
        """The follower as the last batch left it."""
        self._alone = False
        """Nobody else has shipped between that batch and the one before."""

    def ship(self, deadline: float = math.inf, transactions: Collection[str] = ()) -> Shipped:
        """Ships everything that was committed on the writer before the call.

        Args:
            deadline: on the monotonic clock; no part of a copy is begun after it.
            transactions: ids of transactions that were; the follower's having these is enough.

        Raises:
            TimeoutError: a copy is under way, and isn't done at the deadline; the next call goes on with it.
            NotTheWriter: the nodes' roles or terms aren't those of a writer and its follower.
            ReplicationStopped: a state that needs a migration, a copy or a person.
            Exception: a driver's error, from either node.
        """
        if transactions and (shipped := self._go_on()) is not None:
            return shipped
        required, last, attempts = False, "", 0
        while attempts < ATTEMPTS:
            attempts += 1
            try:
                base = self._read_follower(transactions)
                if self.carrier.holds and _in_sync(base):
                    return Shipped(0, False, None, base.batch or 0, base.term_no, base.term_uuid)
                number = (base.batch or 0) + 1 if transactions and _in_sync(base) else None
                snapshot = self.carrier.snapshot(since=base.position, held=base.tick, batch=number)
                check_roles(snapshot.state, base)
                resync = base.eligible_boot != base.boot or snapshot.state.solo
                if snapshot.faults:
                    self.carrier.abandon()
                    self._remember_faults(snapshot)
                check_continuity(base, snapshot, self.writer.database)
                if (part := self._copying.next_part(base, snapshot)) is not None:
                    if time.monotonic() >= deadline:
                        raise TimeoutError(f"{base.name} is being copied, {len(part.to_copy)} table(s) to go; the next batch goes on with it")
                    self._land_part(base, snapshot, part)
                    attempts = 0
                    continue
                if resync and (not required or snapshot.state.solo):
                    self.carrier.abandon()
                    self._disown_follower(base)
                    self.require_follower(snapshot.state)
                    required = True
                    continue
                return self._finish(base, snapshot, resync)
            except CompareFailed as error:
                last = str(error)
                log.debug("batch begins again: %s", last)
                time.sleep(0.005)
            finally:
                self.carrier.abandon()
        raise CompareFailed(f"the follower changed in each of {ATTEMPTS} attempts to ship a batch ({last})")

    def _go_on(self) -> Shipped | None:
        """A batch that begins from what the last one left, likely where nobody else ships; None: it must ask.

        Whatever seems to be wrong may be so only by comparison with what the follower no longer is.
        """
        base = self._left
        if base is None or not self._alone or not _in_sync(base) or not self.carrier.assume(wait=self._turn):
            return None
        try:
            snapshot = self.carrier.snapshot(since=base.position, held=base.tick, batch=(base.batch or 0) + 1)
            check_roles(snapshot.state, base)
            check_continuity(base, snapshot, self.writer.database)
            return None if snapshot.empty or snapshot.state.solo else self._finish(base, snapshot, resync=False)
        except (CompareFailed, NotTheWriter, ReplicationStopped) as error:
            log.debug("batch begins again: %s", error)
            self._alone = False
            return None
        finally:
            self.carrier.abandon()

    def _read_follower(self, transactions: Collection[str]) -> NodeState:
        base = self.carrier.follower(wait=self._turn, transactions=transactions)
        self._alone = self._left is not None and is_unmoved(base, self._left)
        return base

    def _land_part(self, base: NodeState, snapshot: Snapshot, part: NextPart) -> None:
        """One part of a copy: the follower keeps the position that it began with."""
        tick = self.carrier.tick(batch=(base.batch or 0) + 1, held=base.tick)
        position = base.position if base.position is not None else snapshot.position
        self.carrier.apply(part.rows, Landing(base, snapshot.state, position, tick, eligible=False, to_copy=part.to_copy, left=part.left))
        self.carrier.still_there()
        self.carrier.land()

    def _finish(self, base: NodeState, snapshot: Snapshot, resync: bool) -> Shipped:
        left = self._copying.left(base) if base.copying else None
        copy = left or ()
        rows = self._rows(base, snapshot, copy)
        if snapshot.empty and not resync and not copy and not base.copying:
            return Shipped(0, False, snapshot.state.req, base.batch or 0, base.term_no, base.term_uuid)
        tick = self.carrier.tick(batch=(base.batch or 0) + 1, held=base.tick)
        written = self.carrier.apply(rows, Landing(base, snapshot.state, snapshot.position, tick, eligible=resync, left=left))
        self.carrier.still_there()
        self.carrier.land()
        self._left = _landed(base, snapshot, tick, resync=resync)
        if resync:
            log.info("%s is in sync with %s and may take over, term %d", base.name, snapshot.state.name, snapshot.state.term_no)
        return Shipped(written, resync, snapshot.state.req, (base.batch or 0) + 1, base.term_no, base.term_uuid)

    def _rows(self, base: NodeState, snapshot: Snapshot, copy: Collection[str]) -> Mapping[str, Keys]:
        known = self.carrier.tables()
        if base.position is None:  # nothing was ever shipped
            return {name: Keys(whole=True) for name in known}
        rows = {name: Keys(whole=count is None) for name, count in snapshot.changed.items() if name in known}
        rows.update({name: Keys(whole=True) for name in copy if name in known})
        return rows

    def _disown_follower(self, base: NodeState) -> None:
        """A follower that was left behind and didn't restart (a person's solo, a file moved away and back) isn't eligible until it has everything."""
        if base.eligible_boot is not None:
            with self.follower.begin() as connection:
                connection.execute(update(self.follower.database.control.position).values(eligible_boot=None))

    def _remember_faults(self, snapshot: Snapshot) -> None:
        """A capture that was seen to be lost stays lost until ``migrate`` copies the table, even if somebody puts it back: changes went by in between."""
        database, control = self.writer.database, self.writer.database.control
        seen = (snapshot.state.schema_no, frozenset(snapshot.faults))
        if seen in self._remembered:
            return
        with self.writer.begin() as connection:
            database.lock_migration(connection)
            state = database.state(connection)
            if state is None or state.schema_no != snapshot.state.schema_no:
                return  # a migration was faster
            known = replicated(self.writer, connection)
            faulty = [table for name, table in known.items() if name in snapshot.faults]
            prints = database.fingerprints(connection, faulty)
            recorded = {row.tbl: row.fingerprint for row in connection.execute(select(control.replicated.c.tbl, control.replicated.c.fingerprint))}
            lost = [
                table.id
                for table in faulty
                if recorded[table.id] and not _partitions_only(database, table, recorded[table.id], prints.get(table.id, ""))
            ]
            if lost:
                connection.execute(update(control.replicated).where(control.replicated.c.tbl.in_(lost)).values(fingerprint=""))
        self._remembered.add(seen)

    def require_follower(self, writer: NodeState) -> None:
        """Leaves solo: from now on nothing is acknowledged without the follower (HAZARDS 2); also voids a solo decision under way."""
        control = self.writer.database.control
        with self.writer.begin() as connection:
            connection.execute(
                update(control.acknowledge).values(solo=False, req=control.acknowledge.c.req + 1, reason="the follower is back", since=now())
            )
            state = self.writer.database.state(connection)
            if state is None or (state.role, state.term_no, state.term_uuid) != (writer.role, writer.term_no, writer.term_uuid):
                raise NotTheWriter(f"{self.writer.name} is no longer the writer of term {writer.term_no}")

    def interrupt(self) -> None:
        """Frees a thread that waits for a node that fell silent; never raises."""
        self.carrier.interrupt()

    def close(self) -> None:
        """Closes the shipper's connections; never raises."""
        self.carrier.close()


def _in_sync(follower: NodeState) -> bool:
    """Whether the follower has a position, is whole, and may take over."""
    return follower.role == "follower" and follower.position is not None and not follower.copying and follower.eligible_boot == follower.boot


def _landed(base: NodeState, snapshot: Snapshot, tick: str, *, resync: bool) -> NodeState:
    """The follower after a batch."""
    writer = snapshot.state
    return replace(
        base,
        source=writer.node,
        stream_no=writer.term_no,
        stream_uuid=writer.term_uuid,
        position=snapshot.position,
        tick=tick,
        batch=(base.batch or 0) + 1,
        eligible_boot=base.boot if resync else base.eligible_boot,
        copying=False,
    )


def _partitions_only(database: Database, table: Table, before: str, now: str) -> bool:
    return before != now and database.joined(table, before, now) is not None


def check_roles(writer: NodeState, follower: NodeState) -> None:
    """Raises unless the two are a writer and its follower, of one pair and one term.

    A writer that was fenced for a switchover still ships the rest, under the same term.
    """
    writing = writer.role == "writer" or (writer.role == "fenced" and writer.fenced_by_no is None)
    if not writing:
        raise NotTheWriter(f"{writer.name} is not the writer: its role is {writer.role}, term {writer.term_no}")
    if follower.role != "follower":
        raise NotTheWriter(f"{follower.name} is not a follower: its role is {follower.role}, term {follower.term_no}")
    if writer.term_no > follower.term_no:
        raise NeedsCopy(
            f"{follower.name} follows term {follower.term_no} and {writer.name} writes under term {writer.term_no}, by force or without it: "
            f"{follower.name} needs a copy; run `replstore rejoin --copy`"
        )
    if (writer.term_no, writer.term_uuid) != (follower.term_no, follower.term_uuid):
        raise NotTheWriter(
            f"{writer.name} is of term {writer.term_no}, {follower.name} of term {follower.term_no}: they aren't one pair's writer and follower"
        )
    if writer.pair != follower.pair:
        raise NotTheWriter(f"{writer.name} and {follower.name} belong to different pairs")


def check_continuity(follower: NodeState, snapshot: Snapshot, database: Database) -> None:
    """Raises unless the writer's history continues what the follower holds (HAZARDS 1) and every table's capture is whole (HAZARDS 8)."""
    writer = snapshot.state
    if follower.position is not None:
        if follower.source != writer.node:
            raise NeedsCopy(f"{follower.name} followed another node than {writer.name}: it needs a copy; run `replstore rejoin --copy`")
        if snapshot.pruned_past:
            raise NeedsCopy(
                f"{writer.name}'s journal no longer reaches back to what {follower.name} has: it needs a copy; run `replstore rejoin --copy`"
            )
        # a dump of the writer that was restored into another cluster has the tick, and gives numbers again that the position stands beyond
        if not snapshot.has_tick or not database.covers(snapshot.position, follower.position):
            raise ReplicationStopped(
                f"writer_rewound: {writer.name} doesn't know the last batch that {follower.name} holds, so one of them went back in time (crash, restored "
                "backup, copied file); compare them with `replstore check`, then run `replstore rejoin --copy`"
            )
    if snapshot.faults:
        raise ReplicationStopped(capture_missing(writer.name, snapshot.faults))
    if writer.schema_no != follower.schema_no:
        raise ReplicationStopped(
            f"schema_skew: {writer.name} has had {writer.schema_no} migrations and {follower.name} {follower.schema_no}; run `replstore migrate`"
        )
