"""Orphans: what a former writer committed and the new writer doesn't have, found and recorded before it is overwritten.

A record holds both versions of a row, the transaction's id and time, how the new writer knows it, and whether it may have been acknowledged.  Records
are rows of a control table that is replicated like the user's tables.  Nothing here replays anything: that is a person's decision (``replay.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from uuid import NAMESPACE_URL, uuid5

from sqlalchemy import Connection, delete, func, insert, select

from replstore.databases.base import Entry, NodeState
from replstore.databases.catalog import Table
from replstore.databases.landing import journal_seen
from replstore.databases.replaying import name_of
from replstore.errors import NotTheWriter
from replstore.node import Node
from replstore.replication.journal.groups import WHOLE_TABLE, Change, State
from replstore.replication.merge import merge
from replstore.timestamps import now

#: Ids in one statement.
PIECE = 500


@dataclass
class Orphans:
    """What a former writer has that the new one doesn't.

    Attributes:
        entries: its journal's entries and markers, in order.
        seen: the journal as it was read, compared when the rows are overwritten.
        maybe_acknowledged: the former writer acknowledged alone, or nobody can tell whether it did.
        common: the new writer's own position at which both nodes had the same; None: not known.
        keys: by table, the keys; None: the whole table.
        rows: by table, the former writer's rows by key.
        shapes: by table, what ``shape`` says of it on the former writer.
        results: by id of a keyed transaction, its function and its result.
    """

    entries: list[Entry]
    seen: str
    maybe_acknowledged: bool
    common: str | None = None
    keys: dict[str, set[str] | None] = field(default_factory=dict)
    rows: dict[str, dict[str, str]] = field(default_factory=dict)
    shapes: dict[str, str] = field(default_factory=dict)
    results: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)

    def recorded(self, table: str) -> list[str | None]:
        """The keys of a table that get a record each; None stands for the table as a whole."""
        keys = self.keys[table]
        return [*sorted(keys)] if keys is not None else [None, *sorted(self.rows.get(table, {}))]

    @property
    def markers(self) -> tuple[str, ...]:
        """Ids of the transactions and tombstones among them."""
        return tuple(dict.fromkeys(entry.tx for entry in self.entries if entry.table is None and entry.tx))


def read_orphans(
    former: Node, connection: Connection, tables: dict[str, Table], since: str | None, *, common: str | None, maybe_acknowledged: bool
) -> Orphans:
    """Reads what a former writer has in its journal since the last position that both nodes share; without one, only its tombstones.

    Args:
        since: that position, as the former writer's.
        common: the same, as the new writer's.
    """
    seen = connection.exec_driver_sql(f"SELECT {journal_seen(former.database.control)}").scalar_one()
    entries = former.database.entries(connection, since) if since else _tombstones(former, connection)
    orphans = Orphans(entries, seen, maybe_acknowledged, common, shapes={name: shape(table) for name, table in tables.items()})
    named: dict[str, set[str]] = {}
    for entry in entries:
        if entry.table is None:
            continue
        orphans.keys.setdefault(entry.table, set())
        if entry.key is None:
            orphans.keys[entry.table] = None
        else:
            named.setdefault(entry.table, set()).add(entry.key)
    for name, keys in orphans.keys.items():
        if keys is not None:
            keys |= named[name]
        if name in tables and name in named:
            orphans.rows[name] = dict(former.database.rows(connection, tables[name], named[name]))
        if name in tables and keys is None and _count(connection, tables[name]) != len(orphans.rows.get(name, {})):
            orphans.shapes.pop(name)  # the table was rewritten rather than emptied: what it held is not all on record
    orphans.results = dict(_results(former, connection, orphans))
    return orphans


def shape(table: Table) -> str:
    """A digest of what must be the same for rows to be put back: key, columns, types."""
    columns = sorted((column.name, column.type, column.collation, column.generated) for column in table.columns)
    return sha256(json.dumps([table.key, columns]).encode()).hexdigest()


def _count(connection: Connection, table: Table) -> int:
    return int(connection.exec_driver_sql(f"SELECT count(*) FROM {name_of(table)}").scalar_one())


def _results(former: Node, connection: Connection, orphans: Orphans) -> Iterator[tuple[str, tuple[str | None, str | None]]]:
    """Of each keyed transaction, the function and the result: what a later call with the key would get."""
    marker = former.database.control.marker.c
    keyed = sorted({entry.tx for entry in orphans.entries if entry.tx is not None and entry.marker_key is not None})
    for begin in range(0, len(keyed), PIECE):
        for row in connection.execute(select(marker.id, marker.fn, marker.result).where(marker.id.in_(keyed[begin : begin + PIECE]))):
            yield row.id, (row.fn, row.result)


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
        records = [{**each, "common_term": ahead.term_uuid} for each in _records(writer, connection, former, behind, orphans, known)]
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


def _records(
    writer: Node, connection: Connection, former: Node, behind: NodeState, orphans: Orphans, known: dict[str, str]
) -> Iterator[dict[str, object]]:
    """A record for each row, with every transaction that changed it."""
    defined = {table.id: table for table in writer.database.tables(connection, only=list(orphans.keys))}
    for name in orphans.keys:
        keys = orphans.recorded(name)
        there = dict(writer.database.rows(connection, defined[name], [key for key in keys if key])) if name in defined else {}
        touched = _touched(writer, connection, defined[name], orphans.common, [key for key in keys if key]) if name in defined else None
        by_key: dict[str | None, list[Entry]] = {}
        for entry in orphans.entries:
            if entry.table == name:
                by_key.setdefault(entry.key, []).append(entry)
        whole = [entry for entries in by_key.values() for entry in entries]  # an emptied table has to do with whoever changed it
        for key in keys:
            entries = by_key.get(key, [])
            entry = entries[-1] if entries else Entry(name, key, None, None)
            changes = {(each.place, each.tx): _change(each, orphans, known) for each in (whole if key is None else entries) if each.place is not None}
            yield {
                **_orphan(former, behind, entry, name, key, orphans, there, known),
                "place": entry.place,
                "changed_by": json.dumps([change.as_json() for change in changes.values()]) if changes else None,
                "common": orphans.common,
                "touched": None if touched is None else key in touched,
                "shape": orphans.shapes.get(name),
                "state": State.OPEN.value,
            }


def _touched(writer: Node, connection: Connection, table: Table, common: str | None, keys: list[str]) -> set[str] | None:
    replaying = writer.database.replaying()
    if common is None or replaying is None or not keys:
        return None
    return replaying.named(connection, table, keys, common)


def _change(entry: Entry, orphans: Orphans, known: dict[str, str]) -> Change:
    assert entry.place is not None
    fn, result = orphans.results.get(entry.tx or "", (None, None))
    return Change(
        place=entry.place,
        tx=entry.tx,
        at=entry.at,
        maybe_acknowledged=orphans.maybe_acknowledged or entry.durability != "replicated",
        known=known.get(entry.tx or ""),
        key=entry.marker_key,
        fn=fn,
        result=result,
        durability=entry.durability or "async",
    )


def open_orphans(node: Node, connection: Connection) -> int:
    """How many recorded rows nobody has decided on."""
    orphan = node.database.control.orphan
    return int(connection.execute(select(func.count()).select_from(orphan).where(orphan.c.state == State.OPEN.value)).scalar_one())


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
        same = name in wanted and (wanted[name].key, wanted[name].data_columns) == (table.key, table.data_columns)
        here_rows = writer.database.stream(here, wanted[name]) if same else ()
        for key, mine, theirs in merge(former.database.stream(there, table), here_rows):
            if mine is None or mine == theirs:
                continue
            keys = orphans.keys.setdefault(name, set())
            if keys is not None:
                keys.add(key)
            orphans.rows.setdefault(name, {})[key] = json.dumps(dict(zip(table.data_columns, mine, strict=True)))
