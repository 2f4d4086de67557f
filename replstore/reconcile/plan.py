"""What a repair would change: of each row that differs, which node has the right one.

The rows are read in the snapshots in which they were found to differ, so what is on its way to the follower is no part of it.  A plan changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from replstore.databases.catalog import Table
from replstore.databases.replaying import pieces
from replstore.errors import CannotRepair, ConfigError
from replstore.node import Node
from replstore.reconcile.compare import compared, wished
from replstore.reconcile.reading import Sessions, sessions
from replstore.reconcile.report import Report
from replstore.reconcile.resuming import Log
from replstore.reconcile.rows import readers_of
from replstore.reconcile.schema import Definitions, compare_schema
from replstore.reconcile.settling import lasting
from replstore.reconcile.snapshots import Both, both_nodes, reading
from replstore.reconcile.wishes import Wishes

if TYPE_CHECKING:
    from replstore.pair.pair import Pair

Row = dict[str, str | None]
SOURCES = ("writer", "primary", "standby", "newest")
#: Rows of which one statement says which is newer.
COMPARED = 200


@dataclass(frozen=True)
class Change:
    """One row that is to be changed.

    Attributes:
        node: on which node.
        table, key: which row; the key as ``Database.rows`` names it.
        before: the row as it was seen there; None: there was none.
        after: what it becomes, which is what the other node has; None: it goes.
    """

    node: str
    table: str
    key: str
    before: Row | None
    after: Row | None

    @property
    def what(self) -> str:
        """What is done to the row."""
        return "delete" if self.after is None else "insert" if self.before is None else "update"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that change, where the row stays."""
        before, after = self.before or {}, self.after or {}
        return tuple(name for name in after if before.get(name) != after[name]) if self.what == "update" else ()


@dataclass(frozen=True)
class Left:
    """One row that is left as it is, and why; the reason is a sentence without its full stop."""

    table: str
    key: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What a repair would change.

    Attributes:
        source: what it takes for right, as the caller said it.
        writer: name of the node that writes.
        changes: the rows, table by table.
        left: rows that it leaves alone.
        sequences: those that stand behind on the follower, with the value that they are set to.
        of_writer: the same of those on the writer.
        more: by table, how many rows differ besides and are not listed.
    """

    source: str
    writer: str
    changes: tuple[Change, ...]
    left: tuple[Left, ...]
    sequences: Mapping[str, int | None]
    more: Mapping[str, int]
    of_writer: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to change."""
        return not (self.changes or self.sequences or self.of_writer)


def check_source(source: str, column: str | None) -> None:
    """Raises ConfigError unless they say which node's rows are right."""
    if source not in SOURCES:
        raise ConfigError(f"source: {source} is none of {', '.join(SOURCES)}")
    if source == "newest" and not column:
        raise ConfigError("newest needs the column that says which of two rows is newer")
    if source != "newest" and column:
        raise ConfigError(f"{column}: only newest takes a column")


def make_plan(pair: Pair, wishes: Wishes, source: str, column: str | None, report: Report | None) -> Plan:
    """Compares both nodes, or looks again at what a report found, and says what a repair would change.

    Args:
        pair: the nodes; both must answer.
        wishes: what to compare, and how.
        source: whose rows are right: ``writer``, ``primary``, ``standby``, or the ``newest``.
        column: of newest.
        report: of an earlier check; rows that differ no longer, or otherwise, are left alone.

    Raises:
        CannotRepair: a table, or the pair as it is, can't be repaired.
        CannotCheck: a node doesn't answer.
        ConfigError: there is no such table or column.
    """
    check_source(source, column)
    if report is not None:
        wishes = replace(wishes, tables=[table.name for table in report.tables if table.total] or None)
    with both_nodes(pair) as both, sessions(wishes.workers) as more:
        if both.inexact:
            raise CannotRepair(f"rows that differ can't be told from those on their way: {both.inexact}; `replstore status` says what to do first")
        found = wished(both, wishes)
        now = compared(both, found, wishes, more, Log("", {}), datetime.now(UTC)) if report is None else _again(both, found, wishes, more, report)
        _refuse(found, now, both)
        planner = _Planner(both, found, source, column)
        for table in now.tables:
            planner.add(table.name, {each.form for each in table.differences})
        gone = [] if report is None else _gone(report, now)
        behind: dict[str, dict[str, int | None]] = {"primary": {}, "standby": {}}
        for each in now.sequences:
            behind[each.behind][each.name] = each.standby if each.behind == "primary" else each.primary
        rest = {table.name: table.total - len(table.differences) for table in now.tables if table.total > len(table.differences)}
        said, left = source if column is None else f"newest {column}", (*planner.left, *gone)
        return Plan(said, both.writer.name, tuple(planner.changes), left, behind[both.follower.name], rest, behind[both.writer.name])


def _again(both: Both, found: Definitions, wishes: Wishes, more: Sessions, report: Report) -> Report:
    """What is left of a report."""
    tables = []
    for table in report.tables:
        if table.total and found.comparable(table.name) and found.primary[table.name].key:
            readers = readers_of(both, found, table.name, wishes, more)
            still = tuple(lasting(readers, table.differences))
            tables.append(replace(table, differences=still, total=table.total - len(table.differences) + len(still)))
        elif table.total:
            tables.append(table)
    return replace(report, tables=tuple(tables), schema=tuple(compare_schema(found, both.writer.node.database)))


def _gone(report: Report, now: Report) -> Iterator[Left]:
    still = {(table.name, each.form) for table in now.tables for each in table.differences}
    for table in report.tables:
        for each in table.differences:
            if (table.name, each.form) not in still:
                yield Left(table.name, each.form, "it has changed since the check")


def _refuse(found: Definitions, report: Report, both: Both) -> None:
    """Raises CannotRepair, with their names, if there are tables that a repair can't make equal."""
    reasons = [f"{each.table}: {each.text}" for each in report.schema]
    for table in report.tables:
        if not table.total:
            continue
        if not found.primary[table.name].key:
            reasons.append(f"{table.name}: it has no primary key, so its rows can't be told apart")
        elif table.name in found.faults:
            reasons.append(found.faults[table.name])
        elif table.name not in found.replicated:
            reasons.append(f"{table.name}: it isn't replicated")
    if reasons:
        remedy = "`replstore migrate` makes tables alike; --exclude leaves them out"
        raise CannotRepair(f"rows alone don't make the nodes equal: {'; '.join(reasons)}: {remedy}")
    if both.writer.state.schema_no != both.follower.state.schema_no:
        raise CannotRepair(f"{both.writer.name} and {both.follower.name} have had other migrations: run `replstore migrate` first")


class _Planner:
    def __init__(self, both: Both, found: Definitions, source: str, column: str | None) -> None:
        self._both, self._found, self._column = both, found, column
        self._source = both.writer.name if source == "writer" else source
        self.changes: list[Change] = []
        self.left: list[Left] = []

    def add(self, name: str, keys: Collection[str]) -> None:
        """Plans the rows of one table."""
        if not keys:
            return
        if self._column is not None and self._column not in self._table("primary", name).data_columns:
            raise ConfigError(f"table {name} has no column {self._column}: leave it out with --exclude, or repair it from a node")
        rows = {side.name: rows_of(side.node, side.connection, self._table(side.name, name), keys) for side in self._both.sides}
        primary, standby = rows["primary"], rows["standby"]
        newer = self._newer(name, [key for key in keys if key in primary and key in standby], primary, standby) if self._column else {}
        for key in sorted(keys):
            here, there = primary.get(key), standby.get(key)
            right = newer.get(key, "primary" if there is None else "standby") if self._column else self._source
            if here == there:
                self.left.append(Left(name, key, "both nodes show it alike"))
            elif not right:
                self.left.append(Left(name, key, f"neither row is newer by {self._column}"))
            elif right == "primary":
                self.changes.append(Change("standby", name, key, there, here))
            else:
                self.changes.append(Change("primary", name, key, here, there))

    def _table(self, node: str, name: str) -> Table:
        return (self._found.primary if node == "primary" else self._found.standby)[name]

    def _newer(self, name: str, keys: Sequence[str], primary: Mapping[str, Row], standby: Mapping[str, Row]) -> dict[str, str]:
        """By key, the node whose row is newer, as the writer's database compares the column's values; empty: neither."""
        side, column = self._both.writer, self._table(self._both.writer.name, name).column(self._column or "")
        replaying, newer = side.node.database.replaying(), dict[str, str]()
        for piece in pieces(keys, COMPARED):
            values = [[replaying.value(column, row[key][column.name]) for row in (primary, standby)] for key in piece]
            each = (f"SELECT {n}, CASE WHEN {a} > {b} THEN 'primary' WHEN {b} > {a} THEN 'standby' ELSE '' END" for n, (a, b) in enumerate(values))
            with reading(side.node):
                found = side.connection.exec_driver_sql(" UNION ALL ".join(each), execution_options={"no_parameters": True})
                newer.update((piece[n], node) for n, node in found)
        return newer


def rows_of(node: Node, connection: Connection, table: Table, keys: Collection[str]) -> dict[str, Row]:
    """The rows of a table that have these keys, each by the form that its own key has: one that is equal to the database may be written otherwise (1.0, 1.00)."""
    found: dict[str, Row] = {}
    with reading(node):
        for piece in pieces(keys):
            found.update((form, json.loads(row)) for form, row in node.database.rows(connection, table, piece))
    return found


def as_dict(change: Change) -> dict[str, Any]:
    """A change as JSON can hold it."""
    return {
        "node": change.node,
        "table": change.table,
        "key": json.loads(change.key),
        "change": change.what,
        "columns": list(change.columns),
        "before": change.before,
        "after": change.after,
    }
