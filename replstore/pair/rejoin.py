"""Rejoin: a former writer comes back as the follower, with nothing dropped without a record.

Fence it; read its orphans in one snapshot; record each on the new writer with both versions; then ONE transaction on the former writer gives every
orphan's key the new writer's row, together with everything that changed there since the takeover.  So it is never torn (HAZARDS 11, 26 to 28), and a
program that dies anywhere leaves a fenced node from which the next one begins again.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, select

from replstore.databases.base import NodeState
from replstore.databases.carrier import CompareFailed, Keys, Landing
from replstore.databases.catalog import Table
from replstore.databases.landing import journal_seen
from replstore.errors import NeedsCopy, NotTheWriter
from replstore.node import Node
from replstore.pair.decide import Term
from replstore.pair.flip import under_role_lock
from replstore.pair.switchover import fence
from replstore.pair.takeover import FORCED_JUMP
from replstore.replication.captured import lost
from replstore.replication.journal.orphans import Orphans, add_differences, read_orphans
from replstore.replication.journal.recording import record
from replstore.replication.journal.spool import Spool
from replstore.replication.mirror import mirror, replicated

log = logging.getLogger("replstore.pair")


def fence_former(node: Node, by: Term, *, seconds: float = 5.0) -> None:
    """Writes the fence into a former writer: from now on its own database refuses changes from everybody."""

    def change(connection: Connection, state: NodeState) -> None:
        if state.role == "writer" and state.term_no < by.number:
            fence(node, connection, state, by, f"fenced by term {by.number}")
            log.warning("%s is fenced: it was the writer of term %d, the writer's term is now %d", node.name, state.term_no, by.number)
        elif state.role == "fenced" and state.fenced_by_no is None and state.term_no < by.number:
            fence(node, connection, state, by, f"handed over to term {by.number}")

    under_role_lock(node, change, seconds=seconds)


def rejoin(writer: Node, former: Node, *, copy: bool = False) -> int:
    """Makes a fenced former writer the follower.

    It isn't eligible yet: that takes the next ship, which makes it required again first.  Until then the writer may go on alone.

    Args:
        writer: the writer.
        former: the former writer, fenced; with ``copy`` also a follower that lost its place in the writer's history.
        copy: copy every table even if the former writer's history doesn't continue the writer's; each row that differs is recorded first.

    Returns:
        How many orphan rows were recorded.

    Raises:
        NeedsCopy: only a full copy can bring the former writer back.
        NotTheWriter: the roles have changed.
    """
    with Spool() as spool:
        with former.snapshot() as connection:
            with writer.snapshot() as source:
                found = _find(writer, source, former, connection, spool, copy=copy)
            ahead, behind, orphans = found.ahead, found.behind, found.orphans
            recorded = record(writer, former, connection, ahead, behind, orphans)
        whole = not found.continues or behind.copying or found.other_tables
        if found.other_tables:
            mirror(writer, former)  # on the journal's account nothing is lost by it: the orphans are recorded
            orphans.seen = _journal(former)
        _make_ready(former, behind)
        _overwrite(writer, former, ahead, behind, orphans, whole=whole)
        log.warning("%s follows %s again, term %d; %d orphan row(s) recorded", former.name, writer.name, ahead.term_no, recorded)
        return recorded


@dataclass(frozen=True)
class _Finding:
    """Both nodes as they were found.

    Attributes:
        ahead, behind: what the writer and the former writer say.
        continues: the former writer's history continues the writer's.
        other_tables: its tables aren't the writer's, or their changes went by uncaptured.
        orphans: what it has alone.
    """

    ahead: NodeState
    behind: NodeState
    continues: bool
    other_tables: bool
    orphans: Orphans


def _find(writer: Node, source: Connection, former: Node, connection: Connection, spool: Spool, *, copy: bool) -> _Finding:
    ahead, behind = _state(writer, source), _state(former, connection)
    if ahead.role != "writer":
        raise NotTheWriter(f"{writer.name} is no longer the writer")
    if not _may_rejoin(ahead, behind, copy):
        raise NotTheWriter(f"{former.name} is not a former writer that waits to rejoin: its role is {behind.role}")
    continues = behind.role == "fenced" and _continues(former, connection, ahead, behind)
    if not continues and not copy:
        raise NeedsCopy(
            f"{former.name}'s history doesn't reach {writer.name}'s takeover (it went back in time, was away for too long or missed a takeover, or "
            f"{writer.name} was half copied): run `replstore rejoin --copy`"
        )
    tables = replicated(former, connection)
    # solo may be over on the former writer although not all of it had arrived; only force makes a follower the writer then (HAZARDS 32)
    alone = behind.solo or ahead.term_no - behind.term_no >= FORCED_JUMP
    since, common = _common(writer, source, former, connection, ahead, behind, continues)
    orphans = read_orphans(former, connection, spool, tables, since, common=common, maybe_acknowledged=alone)
    emptied = {name: table for name, table in tables.items() if spool.is_whole(name)}
    uncaptured = lost(former, connection)
    suspect = {**emptied, **_as_they_are(former, connection, uncaptured)} if continues else tables
    add_differences(orphans, former, connection, writer, source, suspect)
    return _Finding(ahead, behind, continues, ahead.schema_no != behind.schema_no or bool(uncaptured), orphans)


def _as_they_are(node: Node, connection: Connection, names: Collection[str]) -> dict[str, Table]:
    """Tables whose changes went by uncaptured: the journal doesn't say what became of their rows (HAZARDS 30)."""
    return {table.id: table for table in node.database.tables(connection, only=list(names)) if table.key} if names else {}


def _state(node: Node, connection: Connection) -> NodeState:
    state = node.database.state(connection)
    if state is None:
        raise NotTheWriter(f"{node.name} has no control tables: run `replstore migrate`")
    return state


def _may_rejoin(ahead: NodeState, behind: NodeState, copy: bool) -> bool:
    if behind.role == "follower":
        return copy and (behind.term_no < ahead.term_no or behind.term_uuid == ahead.term_uuid)
    return behind.role == "fenced" and behind.fenced_by_no is not None and behind.fenced_by_no <= ahead.term_no


def _continues(former: Node, connection: Connection, ahead: NodeState, behind: NodeState) -> bool:
    """Whether the former writer still has what the new one held of it at the takeover (HAZARDS 26)."""
    control = former.database.control
    if ahead.former_node != behind.node or ahead.former_position is None:
        return False
    tick = connection.execute(select(control.tick.c.tick).where(control.tick.c.tick == ahead.former_tick)).scalar()
    pruned = connection.execute(select(control.retention.c.pruned_through)).scalar()
    return tick is not None and (pruned is None or former.database.covers(ahead.former_position, pruned))


def _common(
    writer: Node, source: Connection, former: Node, connection: Connection, ahead: NodeState, behind: NodeState, continues: bool
) -> tuple[str | None, str | None]:
    """The last position that both nodes have in common, as the former writer's and as the writer's own; both None: there is none that can be proved."""
    if continues:
        return ahead.former_position, ahead.basis
    forced_back = behind.role == "fenced" and behind.basis is not None
    if forced_back and _continues(writer, source, behind, ahead) and not _pruned_past(former, connection, behind.basis):
        return behind.basis, behind.former_position  # the former writer had taken over from this one, which a person then forced back (HAZARDS 32)
    return None, None


def _pruned_past(node: Node, connection: Connection, position: str | None) -> bool:
    pruned = connection.execute(select(node.database.control.retention.c.pruned_through)).scalar()
    return position is None or (pruned is not None and not node.database.covers(position, pruned))


def _journal(node: Node) -> str:
    with node.snapshot() as connection:
        return str(connection.exec_driver_sql(f"SELECT {journal_seen(node.database.control)}").scalar_one())


def _make_ready(former: Node, behind: NodeState) -> None:
    """Takes off what would act when rows are applied (HAZARDS 7), as on any follower."""

    def change(connection: Connection, state: NodeState) -> None:
        if (state.role, state.term_no, state.term_uuid) != (behind.role, behind.term_no, behind.term_uuid):
            raise NotTheWriter(f"{former.name} is no longer {behind.role} under term {behind.term_no}")
        tables = former.database.tables(connection)
        former.database.suspend(connection, tables, former.database.restores(connection, tables))

    under_role_lock(former, change, seconds=5.0)


def _overwrite(writer: Node, former: Node, ahead: NodeState, behind: NodeState, orphans: Orphans, *, whole: bool) -> None:
    """The last transaction: orphan keys get the writer's rows, the writer's changes since the takeover come along, and the node follows."""
    carrier = writer.database.carrier(writer.service, former.service)
    try:
        base = carrier.follower(wait=5.0)
        if _seen(base) != _seen(behind):
            raise CompareFailed(f"{base.name} has changed since its orphans were read")
        snapshot = carrier.snapshot(since=None if whole else ahead.basis, held=None)
        if snapshot.state.role != "writer" or snapshot.state.term_uuid != ahead.term_uuid:
            raise NotTheWriter(f"{snapshot.state.name} is no longer the writer of term {ahead.term_no}")
        recorded = (former.name, behind.term_no)
        _refuse_missing(carrier.recorded(*recorded), orphans, writer)
        whole = whole or snapshot.pruned_past
        known = carrier.tables()
        rows = {name: Keys(whole=True) for name in known} if whole else _rows(snapshot.changed, orphans, known, recorded)
        tick = carrier.tick(batch=1, held=None)
        forget = None if whole else orphans.spool.markers()
        landing = Landing(base, snapshot.state, snapshot.position, tick, eligible=False, rejoin=True, journal_seen=orphans.seen, forget=forget)
        carrier.apply(rows, landing)
        carrier.still_there()
        carrier.land()
    finally:
        carrier.abandon()
        carrier.close()


def _seen(state: NodeState) -> tuple[object, ...]:
    """What must be as it was when the node's orphans were read."""
    return state.node, state.role, state.term_no, state.term_uuid, state.position, state.tick


def _refuse_missing(found: Mapping[str, int], orphans: Orphans, writer: Node) -> None:
    """What the overwrite's own snapshot of the writer doesn't have on record isn't overwritten."""
    missing = orphans.recorded.total() - sum(min(count, found.get(name, 0)) for name, count in orphans.recorded.items())
    if missing:
        raise CompareFailed(f"{missing} of {orphans.recorded.total()} orphans are no longer on record on {writer.name}")


def _rows(changed: Mapping[str, int | None], orphans: Orphans, known: Collection[str], recorded: tuple[str, int]) -> dict[str, Keys]:
    rows = {name: Keys(whole=count is None) for name, count in changed.items() if name in known}
    for name in orphans.spool.tables:
        if name in known:
            both_whole = orphans.spool.is_whole(name) or (name in rows and rows[name].whole)
            rows[name] = Keys(journal=name in rows, recorded=recorded, whole=both_whole)
    return rows
