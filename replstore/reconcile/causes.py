"""Where a difference comes from, as far as it is known.  What isn't known is said to be unknown."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import select

from replstore.databases.catalog import Table
from replstore.reconcile.report import Cause
from replstore.reconcile.schema import Definitions
from replstore.reconcile.snapshots import Both, Side, reading

#: An orphan's key where a whole table was concerned.
WHOLE_TABLE = "*"


@dataclass(frozen=True)
class Causes:
    """What is known of the differences of one table.

    Attributes:
        orphans: by key, the transaction of the orphan that was found there, or None where it had no marker.
        captured: whether its changes are captured on both nodes.
    """

    orphans: dict[str, str | None] = field(default_factory=dict)
    captured: bool = True

    def of(self, key: str) -> tuple[Cause | None, str | None]:
        """The cause and the transaction's id."""
        for name in (key, WHOLE_TABLE):
            if name in self.orphans:
                return "orphan", self.orphans[name]
        return (None if self.captured else "capture_missing"), None


def causes(both: Both, tables: Definitions, name: str) -> Causes:
    """What is known of a table's differences."""
    found: dict[str, str | None] = {}
    if both.strangers:
        return Causes()
    for side in both.sides:
        orphans = [*_recorded(side, name)]
        if side is both.follower:
            orphans += _not_yet_recorded(both, name)
        for side_table, other in ((tables.primary[name], both.sides[0]), (tables.standby[name], both.sides[1])):
            found.update(_as_streamed(other, side_table, dict(orphans)))
    return Causes(found, captured=name not in tables.faults)


def _recorded(side: Side, name: str) -> list[tuple[str, str | None]]:
    orphan = side.node.database.control.orphan.c
    with reading(side.node):
        return [(row.key, row.tx) for row in side.connection.execute(select(orphan.key, orphan.tx).where(orphan.tbl == name))]


def _not_yet_recorded(both: Both, name: str) -> list[tuple[str, str | None]]:
    """What a former writer that waits to rejoin has committed since the other node took over."""
    writer, former = both.writer.state, both.follower
    if former.state.role == "follower" or writer.former_node != former.state.node or writer.former_position is None:
        return []
    with reading(former.node):
        entries = former.node.database.entries(former.connection, writer.former_position)
        return [(entry.key or WHOLE_TABLE, entry.tx) for entry in entries if entry.table == name]


def _as_streamed(side: Side, table: Table, orphans: dict[str, str | None]) -> dict[str, str | None]:
    keys = [key for key in orphans if key != WHOLE_TABLE]
    with reading(side.node):
        same = side.node.database.same_keys(side.connection, table, keys)
    whole = {WHOLE_TABLE: orphans[WHOLE_TABLE]} if WHOLE_TABLE in orphans else {}
    return whole | {form: orphans[given] for form, given in same.items()}
