"""Rejoin: a former writer comes back as the follower, with nothing dropped without a record.

Fence it; read its orphans in one snapshot; record each on the new writer with both versions; then ONE transaction on the former writer gives every
orphan's key the new writer's row, together with everything that changed there since the takeover.  So it is never torn (HAZARDS 11, 26 to 28), and a
program that dies anywhere leaves a fenced node from which the next one begins again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import NAMESPACE_URL, uuid5

from sqlalchemy import Connection, insert, select

from replstore.databases.base import Entry, NodeState
from replstore.databases.carrier import CompareFailed, Keys, Landing
from replstore.databases.catalog import Table
from replstore.databases.landing import journal_seen
from replstore.errors import NeedsCopy, NotTheWriter
from replstore.node import Node
from replstore.pair.decide import Term
from replstore.pair.flip import under_role_lock
from replstore.pair.switchover import fence
from replstore.replication.journal.ship import Shipper
from replstore.timestamps import now

log = logging.getLogger("replstore.pair")
WHOLE_TABLE = "*"


@dataclass
class Orphans:
    """What a former writer has that the new one doesn't.

    Attributes:
        entries: its journal's entries and markers, in order.
        seen: the journal as it was read, compared when the rows are overwritten.
        rows: by table, the former writer's rows by key; None in ``keys``: the whole table.
        keys: by table, the keys; None: the whole table.
        maybe_acknowledged: the former writer acknowledged alone.
    """

    entries: list[Entry]
    seen: str
    maybe_acknowledged: bool
    keys: dict[str, set[str] | None] = field(default_factory=dict)
    rows: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def markers(self) -> tuple[str, ...]:
        """Ids of the transactions and tombstones among them."""
        return tuple(dict.fromkeys(entry.tx for entry in self.entries if entry.table is None and entry.tx))


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

    Args:
        writer: the writer.
        former: the former writer, fenced.
        copy: copy every table, because the former writer's history doesn't continue the writer's.

    Returns:
        How many orphan rows were recorded.

    Raises:
        NeedsCopy: only a full copy can bring the former writer back.
        NotTheWriter: the roles have changed.
    """
    with writer.snapshot() as connection:
        ahead = _state(writer, connection)
        tables = {table.id: table for table in replicated_tables(writer, connection)}
    if ahead.role != "writer":
        raise NotTheWriter(f"{writer.name} is no longer the writer")
    with former.snapshot() as connection:
        behind = _state(former, connection)
        if behind.role != "fenced" or behind.fenced_by_no is None or behind.fenced_by_no > ahead.term_no:
            raise NotTheWriter(f"{former.name} is not a former writer that waits to rejoin: its role is {behind.role}")
        continues = _continues(former, connection, ahead, behind)
        if not continues and not copy:
            raise NeedsCopy(
                f"{former.name}'s history doesn't reach {writer.name}'s takeover (it went back in time, or was away for too long): run `replstore rejoin --copy`"
            )
        since = ahead.former_position if continues else None
        orphans = _read_orphans(former, connection, behind, tables, since)
    recorded = _record(writer, former, ahead, behind, orphans, tables)
    shipper = Shipper(writer, former)
    try:
        _overwrite(shipper, ahead, behind, orphans, whole=copy or not continues)
    finally:
        shipper.close()
    log.warning("%s follows %s again, term %d; %d orphan row(s) recorded", former.name, writer.name, ahead.term_no, recorded)
    return recorded


def _state(node: Node, connection: Connection) -> NodeState:
    state = node.database.state(connection)
    if state is None:
        raise NotTheWriter(f"{node.name} has no control tables: run `replstore migrate`")
    return state


def replicated_tables(node: Node, connection: Connection) -> list[Table]:
    """The tables that a node's control tables name as replicated."""
    control = node.database.control
    return [Table.from_json(text) for text in connection.execute(select(control.replicated.c.definition)).scalars()]


def _continues(former: Node, connection: Connection, ahead: NodeState, behind: NodeState) -> bool:
    """Whether the former writer still has what the new one held of it at the takeover (HAZARDS 26)."""
    control = former.database.control
    if ahead.former_node != behind.node or ahead.former_position is None or ahead.schema_no != behind.schema_no:
        return False
    tick = connection.execute(select(control.tick.c.tick).where(control.tick.c.tick == ahead.former_tick)).scalar()
    pruned = connection.execute(select(control.retention.c.pruned_through)).scalar()
    return tick is not None and (pruned is None or former.database.covers(ahead.former_position, pruned))


def _read_orphans(former: Node, connection: Connection, behind: NodeState, tables: dict[str, Table], since: str | None) -> Orphans:
    seen = connection.exec_driver_sql(f"SELECT {journal_seen(former.database.control)}").scalar_one()
    entries = former.database.entries(connection, since) if since else []
    orphans = Orphans(entries, seen, behind.solo)
    for entry in entries:
        if entry.table is None:
            continue
        known = orphans.keys.setdefault(entry.table, set())
        if entry.key is None:
            orphans.keys[entry.table] = None
        elif known is not None:
            known.add(entry.key)
    for name, keys in orphans.keys.items():
        if name in tables and keys:
            orphans.rows[name] = dict(former.database.rows(connection, tables[name], keys))
    return orphans


def _record(writer: Node, former: Node, ahead: NodeState, behind: NodeState, orphans: Orphans, tables: dict[str, Table]) -> int:
    """Records each orphan on the writer, durably and idempotently, with both versions; the guard on the orphan table keeps a flip out."""
    control = writer.database.control
    with writer.begin() as connection:
        state = _state(writer, connection)
        if state.role != "writer" or (state.term_no, state.term_uuid) != (ahead.term_no, ahead.term_uuid):
            raise NotTheWriter(f"{writer.name} is no longer the writer of term {ahead.term_no}")
        known = _known(writer, connection, orphans)
        records = []
        for name, keys in orphans.keys.items():
            if name not in tables:
                continue
            there = dict(writer.database.rows(connection, tables[name], keys)) if keys else {}
            last = {entry.key: entry for entry in orphans.entries if entry.table == name}
            records += [_orphan(former, behind, last[key], name, key, orphans, there, known) for key in (keys if keys is not None else [None])]
        with_rows = {entry.tx for entry in orphans.entries if entry.table is not None}
        for entry in orphans.entries:  # a transaction that changed nothing, or a tombstone, is told too if the writer knows better
            if entry.table is None and entry.tx not in with_rows and entry.outcome == "lost" and known.get(entry.tx or "") == "committed":
                records.append(_orphan(former, behind, entry, control.name("marker"), json.dumps([entry.tx]), orphans, {}, known))
        for record in records:
            exists = select(control.orphan.c.id).where(control.orphan.c.id == record["id"])
            if connection.execute(exists).scalar() is None:
                connection.execute(insert(control.orphan).values(**record))
    return len(records)


def _known(writer: Node, connection: Connection, orphans: Orphans) -> dict[str, str]:
    """How the writer knows the orphans' transactions: by id (its outcome) or by key."""
    marker = writer.database.control.marker.c
    known: dict[str, str] = {}
    for entry in orphans.entries:
        if entry.tx is None or entry.tx in known:
            continue
        outcome = connection.execute(select(marker.outcome).where(marker.id == entry.tx)).scalar()
        if outcome is None and entry.marker_key is not None:
            outcome = "key" if connection.execute(select(marker.id).where(marker.key == entry.marker_key)).scalar() else None
        if outcome is not None:
            known[entry.tx] = outcome
    return known


def _orphan(
    former: Node, behind: NodeState, entry: Entry, name: str, key: str | None, orphans: Orphans, there: dict[str, str], known: dict[str, str]
) -> dict[str, object]:
    identity = f"{behind.node} {behind.term_no} {behind.term_uuid} {name} {key or WHOLE_TABLE}"
    return {
        "id": str(uuid5(NAMESPACE_URL, "replstore:" + identity)),  # the same orphan has the same id, whoever records it
        "node": former.name,
        "term_no": behind.term_no,
        "tx": entry.tx,
        "tx_at": entry.at,
        "tx_known": known.get(entry.tx or ""),
        "maybe_acknowledged": orphans.maybe_acknowledged or entry.durability != "replicated",
        "tbl": name,
        "key": key or WHOLE_TABLE,
        "former_row": orphans.rows.get(name, {}).get(key or ""),
        "writer_row": there.get(key or ""),
        "recorded_at": now(),
    }


def _overwrite(shipper: Shipper, ahead: NodeState, behind: NodeState, orphans: Orphans, *, whole: bool) -> None:
    """The last transaction: orphan keys get the writer's rows, the writer's changes since the takeover come along, and the node follows."""
    carrier = shipper.carrier
    shipper.require_follower(ahead)
    try:
        base = carrier.follower(wait=5.0)
        if base.role != "fenced" or (base.term_no, base.term_uuid) != (behind.term_no, behind.term_uuid):
            raise CompareFailed(f"{base.name} is no longer fenced")
        snapshot = carrier.snapshot(since=None if whole else ahead.basis, held=None)
        if snapshot.state.role != "writer" or snapshot.state.term_uuid != ahead.term_uuid:
            raise NotTheWriter(f"{snapshot.state.name} is no longer the writer of term {ahead.term_no}")
        known = carrier.tables()
        if whole or snapshot.pruned_past:
            rows = {name: Keys(whole=True) for name in known}
        else:
            rows = {name: Keys(whole=count is None) for name, count in snapshot.changed.items() if name in known}
            for name, keys in orphans.keys.items():
                if name in known:
                    both_whole = keys is None or (name in rows and rows[name].whole)
                    rows[name] = Keys(journal=name in rows, extra=_sorted(keys or ()), whole=both_whole)
        tick = carrier.tick(batch=1, held=None)
        carrier.still_there()
        landing = Landing(
            base,
            snapshot.state,
            snapshot.position,
            tick,
            eligible=not snapshot.state.solo,
            rejoin=True,
            journal_seen=orphans.seen,
            forget=orphans.markers,
        )
        carrier.apply(rows, landing)
    finally:
        carrier.abandon()


def _sorted(keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(keys))
