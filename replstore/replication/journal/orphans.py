"""Orphans: what a former writer committed and the new writer doesn't have, found and recorded before it is overwritten.

A record holds both versions of a row, the transaction's id and time, how the new writer knows it, and whether it may have been acknowledged.  Records
are rows of a control table that is replicated like the user's tables.  Nothing here replays anything: that is a person's decision.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from uuid import NAMESPACE_URL, uuid5

from sqlalchemy import Connection, delete, insert, select

from replstore.databases.base import Entry, NodeState
from replstore.databases.catalog import Table
from replstore.databases.landing import journal_seen
from replstore.errors import NotTheWriter
from replstore.node import Node
from replstore.replication.merge import merge
from replstore.timestamps import now

WHOLE_TABLE = "*"


@dataclass
class Orphans:
    """What a former writer has that the new one doesn't.

    Attributes:
        entries: its journal's entries and markers, in order.
        seen: the journal as it was read, compared when the rows are overwritten.
        maybe_acknowledged: the former writer acknowledged alone, or nobody can tell whether it did.
        keys: by table, the keys; None: the whole table.
        rows: by table, the former writer's rows by key.
    """

    entries: list[Entry]
    seen: str
    maybe_acknowledged: bool
    keys: dict[str, set[str] | None] = field(default_factory=dict)
    rows: dict[str, dict[str, str]] = field(default_factory=dict)

    def recorded(self, table: str) -> list[str | None]:
        """The keys of a table that get a record each; None stands for the table as a whole."""
        keys = self.keys[table]
        return [*sorted(keys)] if keys is not None else [None, *sorted(self.rows.get(table, {}))]

    @property
    def markers(self) -> tuple[str, ...]:
        """Ids of the transactions and tombstones among them."""
        return tuple(dict.fromkeys(entry.tx for entry in self.entries if entry.table is None and entry.tx))


def read_orphans(former: Node, connection: Connection, tables: dict[str, Table], since: str | None, *, maybe_acknowledged: bool) -> Orphans:
    """Reads what a former writer has in its journal since the last position that both nodes share; without one, only its tombstones."""
    seen = connection.exec_driver_sql(f"SELECT {journal_seen(former.database.control)}").scalar_one()
    entries = former.database.entries(connection, since) if since else _tombstones(former, connection)
    orphans = Orphans(entries, seen, maybe_acknowledged)
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


def _tombstones(former: Node, connection: Connection) -> list[Entry]:
    marker = former.database.control.marker.c
    found = connection.execute(select(marker.id, marker.at, marker.durability, marker.key).where(marker.outcome == "lost"))
    return [Entry(None, None, row.id, str(row.at), row.durability, "lost", row.key) for row in found]


def record(writer: Node, former: Node, ahead: NodeState, behind: NodeState, orphans: Orphans) -> int:
    """Records each orphan on the writer, durably and idempotently, with both versions; the guard on the orphan table keeps a flip out."""
    control = writer.database.control
    with writer.begin() as connection:
        # a change first: once a transaction has read, SQLite doesn't wait for the write lock, and on a busy writer this would never get through
        connection.execute(delete(control.orphan).where(control.orphan.c.id == ""))
        state = writer.database.state(connection)
        if state is None or state.role != "writer" or (state.term_no, state.term_uuid) != (ahead.term_no, ahead.term_uuid):
            raise NotTheWriter(f"{writer.name} is no longer the writer of term {ahead.term_no}")
        known = _known(writer, connection, orphans)
        records = []
        defined = {table.id: table for table in writer.database.tables(connection, only=list(orphans.keys))}
        for name in orphans.keys:
            keys = orphans.recorded(name)
            there = dict(writer.database.rows(connection, defined[name], [key for key in keys if key])) if name in defined else {}
            last = {entry.key: entry for entry in orphans.entries if entry.table == name}
            for key in keys:
                entry = last.get(key, Entry(name, key, None, None))
                records.append(_orphan(former, behind, entry, name, key, orphans, there, known))
        with_rows = {entry.tx for entry in orphans.entries if entry.table is not None}
        records += [  # a tombstone for a transaction that the writer holds committed contradicts it (HAZARDS 32)
            _orphan(former, behind, entry, control.name("marker"), json.dumps([entry.tx]), orphans, {}, known)
            for entry in orphans.entries
            if entry.table is None and entry.tx not in with_rows and entry.outcome == "lost" and known.get(entry.tx or "") == "committed"
        ]
        for values in records:
            if connection.execute(select(control.orphan.c.id).where(control.orphan.c.id == values["id"])).scalar() is None:
                connection.execute(insert(control.orphan).values(**values))
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
    identity = f"{behind.node} {behind.term_no} {behind.term_uuid} {behind.tick} {name} {key or WHOLE_TABLE}"
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


def add_differences(orphans: Orphans, former: Node, there: Connection, writer: Node, here: Connection, tables: dict[str, Table]) -> None:
    """Adds every row that the former writer has and the writer hasn't, or has otherwise: for a former writer whose journal tells too little.

    A table that was emptied as a whole stays one, and its rows are kept besides.
    """
    wanted = {table.id: table for table in writer.database.tables(here, only=list(tables))}
    for name, table in tables.items():
        same = name in wanted and wanted[name].data_columns == table.data_columns
        here_rows = writer.database.stream(here, wanted[name]) if same else ()
        for key, mine, theirs in merge(former.database.stream(there, table), here_rows):
            if mine is None or mine == theirs:
                continue
            keys = orphans.keys.setdefault(name, set())
            if keys is not None:
                keys.add(key)
            orphans.rows.setdefault(name, {})[key] = json.dumps(dict(zip(table.data_columns, mine, strict=True)))
