"""Orphans: what a former writer committed and the new writer doesn't have, found in one snapshot of it.

They are recorded (``recording.py``) before they are overwritten.  Nothing here replays anything: that is a person's decision (``replay.py``).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice

from sqlalchemy import Connection, func, select

from replstore.databases.base import Entry
from replstore.databases.catalog import Table
from replstore.databases.landing import journal_seen
from replstore.node import Node
from replstore.replication.journal.groups import State
from replstore.replication.journal.spool import Spool
from replstore.replication.merge import merge

#: Keys in one statement.
PIECE = 2000


@dataclass
class Orphans:
    """What a former writer has that the new one doesn't.

    Attributes:
        spool: its journal's entries and markers, and the rows that differ where the journal tells too little.
        tables: its replicated tables, by id.
        seen: the journal as it was read, compared when the rows are overwritten.
        maybe_acknowledged: the former writer acknowledged alone, or nobody can tell whether it did.
        common: the new writer's own position at which both nodes had the same; None: not known.
        shapes: by table, what ``shape`` says of it on the former writer; not of one whose rows aren't all on record.
        recorded: by table, how many records were made.
    """

    spool: Spool
    tables: dict[str, Table]
    seen: str
    maybe_acknowledged: bool
    common: str | None = None
    shapes: dict[str, str] = field(default_factory=dict)
    recorded: Counter[str] = field(default_factory=Counter)


def read_orphans(
    former: Node, connection: Connection, spool: Spool, tables: dict[str, Table], since: str | None, *, common: str | None, maybe_acknowledged: bool
) -> Orphans:
    """Reads what a former writer has in its journal since the last position that both nodes share; without one, only its tombstones.

    Args:
        spool: where it is laid down.
        tables: the former writer's replicated tables, by id.
        since: that position, as the former writer's.
        common: the same, as the new writer's.
    """
    seen = connection.exec_driver_sql(f"SELECT {journal_seen(former.database.control)}").scalar_one()
    spool.add(former.database.entries(connection, since) if since else _tombstones(former, connection))
    orphans = Orphans(spool, tables, seen, maybe_acknowledged, common, {name: shape(table) for name, table in tables.items()})
    for name in spool.tables:
        if name in tables and spool.is_whole(name) and _count(former, connection, tables[name]) != _named(former, connection, tables[name], spool):
            orphans.shapes.pop(name)  # the table was rewritten rather than emptied: what it held is not all on record
    return orphans


def shape(table: Table) -> str:
    """A digest of what must be the same for rows to be put back: key, columns, types."""
    columns = sorted((column.name, column.type, column.collation, column.generated) for column in table.columns)
    return sha256(json.dumps([table.key, columns]).encode()).hexdigest()


def _count(former: Node, connection: Connection, table: Table) -> int:
    statement = f"SELECT count(*) FROM {former.database.replaying().name(table)}"
    return int(connection.exec_driver_sql(statement, execution_options={"no_parameters": True}).scalar_one())


def _named(former: Node, connection: Connection, table: Table, spool: Spool) -> int:
    """How many of the table's rows the journal names."""
    keys, found = spool.keys(table.id), 0
    while piece := list(islice(keys, PIECE)):
        found += len(former.database.rows(connection, table, piece))
    return found


def _tombstones(former: Node, connection: Connection) -> Iterator[Entry]:
    marker = former.database.control.marker.c
    for row in connection.execute(select(marker.id, marker.at, marker.durability, marker.key).where(marker.outcome == "lost")):
        yield Entry(None, None, row.id, str(row.at), row.durability, "lost", row.key)


def open_orphans(node: Node, connection: Connection) -> int:
    """How many recorded rows nobody has decided on."""
    orphan = node.database.control.orphan
    return int(connection.execute(select(func.count()).select_from(orphan).where(orphan.c.state == State.OPEN.value)).scalar_one())


def add_differences(orphans: Orphans, former: Node, there: Connection, writer: Node, here: Connection, tables: dict[str, Table]) -> None:
    """Adds every row that the former writer has and the writer hasn't, or has otherwise: for a former writer whose journal tells too little.

    A table that was emptied as a whole stays one, and its rows are kept besides.
    """
    wanted = {table.id: table for table in writer.database.tables(here, only=list(tables))}
    for name, table in tables.items():
        same = name in wanted and (wanted[name].key, wanted[name].data_columns) == (table.key, table.data_columns)
        here_rows = writer.database.stream(here, wanted[name]) if same else ()
        different = (
            (key, json.dumps(dict(zip(table.data_columns, mine, strict=True))))
            for key, mine, theirs in merge(former.database.stream(there, table), here_rows)
            if mine is not None and mine != theirs
        )
        orphans.spool.add_differences(name, different)
