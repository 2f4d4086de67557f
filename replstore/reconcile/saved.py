"""Rows as they were before a repair changed them: a control table of the node where they were.

Each is written in the transaction that changes the row, so there is no repaired row without its record, and no record of a row that wasn't repaired.  It isn't
replicated: what was on a follower only must not become a change of the writer's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, inspect, select, update

from replstore.errors import ConfigError
from replstore.node import Node
from replstore.reconcile.plan import Change, Row
from replstore.timestamps import now

Numbered = tuple[int, Change]


@dataclass(frozen=True)
class Repair:
    """A repair as one node has it on record.

    Attributes:
        id: its id, the same on both nodes.
        node: the node.
        at: when it began there, by the clock of the program that repaired; for people.
        source: what it took for right.
        rows: how many rows it changed there.
        undone: how many of them were changed back.
    """

    id: str
    node: str
    at: str
    source: str
    rows: int
    undone: int


def require_table(node: Node, connection: Connection) -> None:
    """Raises ConfigError if the node's control tables are of a time before there were repairs."""
    repair = node.database.control.repair
    if not inspect(connection).has_table(repair.name, schema=repair.schema):
        raise ConfigError(f"{node.name} can't keep rows as they were: run `replstore migrate` first")


def save(node: Node, connection: Connection, id: str, source: str, changes: Sequence[Numbered]) -> None:
    """Keeps rows as they are, in the transaction that changes them."""
    at = now()
    rows = [
        {
            "id": id,
            "no": no,
            "at": at,
            "source": source,
            "tbl": change.table,
            "key": change.key,
            "before": _text(change.before),
            "after": _text(change.after),
            "undone_at": None,
        }
        for no, change in changes
    ]
    node.database.insert_new(connection, node.database.control.repair, rows)


def undone(node: Node, connection: Connection, id: str, numbers: Sequence[int]) -> None:
    """Says that rows are changed back, in the transaction that does so."""
    repair = node.database.control.repair
    for start in range(0, len(numbers), 500):
        connection.execute(update(repair).where(repair.c.id == id, repair.c.no.in_(numbers[start : start + 500])).values(undone_at=now()))


def repairs(node: Node) -> list[Repair]:
    """What a node has on record, the newest first."""
    repair = node.database.control.repair
    with node.snapshot() as connection:
        require_table(node, connection)
        counts = (func.count(), func.count(repair.c.undone_at))
        found = select(repair.c.id, func.min(repair.c.at).label("at"), func.min(repair.c.source), *counts).group_by(repair.c.id)
        rows = connection.execute(found).all()
    return sorted((Repair(id, node.name, at, source, rows, back) for id, at, source, rows, back in rows), key=lambda each: each.at, reverse=True)


def to_undo(node: Node, id: str) -> list[Numbered]:
    """The changes that bring a node's rows back, with their numbers, of those that weren't brought back."""
    repair = node.database.control.repair
    with node.snapshot() as connection:
        rows = connection.execute(select(repair).where(repair.c.id == id, repair.c.undone_at.is_(None)).order_by(repair.c.no)).mappings().all()
    return [(row["no"], Change(node.name, row["tbl"], row["key"], _row(row["after"]), _row(row["before"]))) for row in rows]


def _text(row: Row | None) -> str | None:
    return None if row is None else json.dumps(row)


def _row(text: Any) -> Row | None:
    return None if text is None else dict(json.loads(text))
