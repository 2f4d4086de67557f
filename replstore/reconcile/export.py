"""What only a former primary of native replication has, row by row, in a file: before a rewind throws it away.

Its write-ahead log names the transactions; a comparison with the writer gives the rows, with both versions of each.  A row counts as one of theirs by
the transaction that made it there; one that is gone there, if the writer had it before it was promoted.  What the writer has changed since is no part of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection
from sqlalchemy.engine import URL

from replstore.databases.catalog import Table
from replstore.databases.digests import agreed
from replstore.databases.native.state import lsn
from replstore.errors import ReplstoreError
from replstore.local.isolated import PORT, isolated
from replstore.local.lost_log import Lost, fork, latest
from replstore.node import Node
from replstore.pair.former import EXPORT, Former, follows_already, former_of
from replstore.reconcile.report import Difference, Report, TableReport
from replstore.reconcile.rows import BATCH
from replstore.reconcile.strangers import check_nodes, strangers
from replstore.reconcile.wishes import Wishes

if TYPE_CHECKING:
    from replstore.pair.pair import Pair

#: Rows of a table that differ and are looked at.
MOST = 100_000
#: Markers of the former primary's that belong to transactions, by their numbers.
MARKERS = """
SELECT xmin::text::bigint AS xid, id, key, fn, result, durability, at::text AS at FROM replstore.marker
WHERE outcome = 'committed' AND xmin::text = ANY (%s)"""
KNOWN = "SELECT id, outcome FROM replstore.marker WHERE id = ANY (%s)"
#: The first transaction of the writer's after it had left the former primary's history.
FIRST = "SELECT xmin::text::bigint FROM replstore.timeline WHERE no > %s ORDER BY no LIMIT 1"


@dataclass
class Exported:
    """What an export found.

    Attributes:
        former, writer: the nodes' names.
        transactions: that only the former primary has.
        tables: rows of these transactions, by table.
        notes: what else a person should know, a sentence each.
        complete: everything that only the former primary has is here, or named by its transaction.
        place: where the histories part, as the server writes it; None: that can't be told.
    """

    former: str
    writer: str
    transactions: list[dict[str, Any]] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    complete: bool = True
    place: str | None = None

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(map(len, self.tables.values()))

    @property
    def nothing(self) -> bool:
        """Whether the former primary has nothing of its own."""
        return self.complete and not self.transactions and not self.rows

    def summary(self) -> dict[str, Any]:
        """Of what it is, and the transactions, as JSON takes it."""
        return {
            "former": self.former,
            "writer": self.writer,
            "parted_at": self.place,
            "complete": self.complete,
            "notes": self.notes,
            "transactions": self.transactions,
        }

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON takes it."""
        return {
            "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
            **self.summary(),
            "tables": [{"name": name, "rows": rows} for name, rows in sorted(self.tables.items())],
        }


def export(pair: Pair) -> tuple[Former, Exported, int]:
    """Reads what only a former primary has; its server is stopped before and after, unless it follows as it should.

    Returns:
        The former primary, what it has, and how far its log was read, for :meth:`~replstore.pair.former.Former.remember`.

    Raises:
        NodeLost: nobody writes, the data directory isn't here, or its server doesn't start.
        CannotCheck: the two can't be compared.
    """
    former = former_of(pair, what=EXPORT)
    found = Exported(former.node.name, former.writer.name)
    if follows_already(pair, former.node):
        return former, found, 0
    former.directory.stop()
    lost, first = _lost(former, found)
    if lost == []:
        return former, found, 0
    with isolated(former.directory) as host, strangers(_alone(former.node.url, host), former.writer.url) as nodes:
        report = check_nodes(nodes, Wishes(settle=0.0, limit=MOST))
        _Reading(nodes, found, lost, first).read(report)
    return former, found, latest(lost or ())


def _lost(former: Former, found: Exported) -> tuple[list[Lost] | None, int | None]:
    """The transactions, and the number of the writer's first one of its own; None: that can't be told."""
    try:
        parted = fork(former.directory, former.timelines)
        if parted is None:
            return [], None
        found.place = f"{lsn(parted[1])} on timeline {parted[0]}"
        with former.writer.snapshot() as connection:
            first = connection.exec_driver_sql(FIRST, (parted[0],)).scalar()
        return former.lost, first
    except ReplstoreError as error:
        found.complete = False
        found.notes.append(
            f"{error}: every row that differs is here, also those that {former.writer.name} has changed since, and no transaction is named"
        )
        return None, None


def _alone(url: URL, host: str) -> URL:
    return url.set(host=None, port=None, password=None, query={"host": host, "port": str(PORT)})


@dataclass
class _Reading:
    """Puts together what belongs to the lost transactions."""

    nodes: tuple[Node, Node]
    found: Exported
    lost: list[Lost] | None
    first: int | None

    def read(self, report: Report) -> None:
        with ExitStack() as stack:
            former, writer = (stack.enter_context(node.snapshot()) for node in self.nodes)
            tables = {table.id: table for table in self.nodes[0].database.tables(former)}
            for each in report.tables:
                if rows := list(self._rows(each, former, writer, tables[each.name])):
                    self.found.tables[each.name] = rows
            for name in sorted(set(tables) - {each.name for each in report.tables}):
                self._only_there(former, tables[name])
            self._transactions(former, writer)
        self.found.notes += [f"{each.table}: {each.text}" for each in report.schema]

    def _rows(self, report: TableReport, former: Connection, writer: Connection, table: Table) -> Iterator[dict[str, Any]]:
        if report.primary is None or report.total > len(report.differences):
            self.found.complete = False
            how = (
                "its keys differ" if report.primary is None else f"{report.total:,} rows of it differ, and {len(report.differences):,} were looked at"
            )
            self.found.notes.append(f"table {report.name}: {how}")
        left = iter(report.differences)
        while batch := list(islice(left, BATCH)):
            there = self._made(self.nodes[0], former, writer, table, batch) if table.key else {}
            here = self._made(self.nodes[1], former, writer, table, batch) if table.key else {}
            for each in batch:
                belongs, xid = self._belongs(each, there.get(each.form), here.get(each.form))
                if belongs:
                    yield _row(each, xid)

    def _made(self, node: Node, former: Connection, writer: Connection, table: Table, rows: list[Difference]) -> dict[str, int]:
        """By key, the number of the transaction that made a node's version."""
        database, connection = node.database, former if node is self.nodes[0] else writer
        recipe = agreed(database.forms(former, table), database.forms(writer, table), table.key)
        digests = database.digests(connection, table, recipe)
        return {version.key: version.by for version in digests.versions({each.form for each in rows})}

    def _belongs(self, found: Difference, there: int | None, here: int | None) -> tuple[bool, int | None]:
        """Whether a difference is the lost transactions' doing, and whose."""
        if self.lost is None:
            return found.kind != "missing_on_primary", None
        if found.kind == "missing_on_primary":  # deleted there, or made here
            return here is not None and self.first is not None and _precedes(here, self.first), None
        xid = next((each.xids[0] for each in self.lost if there in each.xids), None)
        return xid is not None or there is None, xid

    def _only_there(self, former: Connection, table: Table) -> None:
        rows = self.nodes[0].database.rows(former, table)
        self.found.tables[table.id] = [
            {"key": json.loads(key), "kind": "only_on_former", "transaction": None, "former": json.loads(row), "writer": None} for key, row in rows
        ]

    def _transactions(self, former: Connection, writer: Connection) -> None:
        if self.lost is None:
            return
        numbers = [str(xid) for each in self.lost for xid in each.xids]
        markers = {row.xid: row for row in former.exec_driver_sql(MARKERS, (numbers,))}
        known = {row.id: row.outcome for row in writer.exec_driver_sql(KNOWN, ([row.id for row in markers.values()],))}
        seen = {row["transaction"] for rows in self.found.tables.values() for row in rows}
        for each in self.lost:
            marker = next((markers[xid] for xid in each.xids if xid in markers), None)
            facts = {name: getattr(marker, name, None) for name in ("id", "key", "fn", "result", "durability")}
            known_here = known.get(marker.id) if marker is not None else None
            self.found.transactions.append({"transaction": each.xids[0], "at": each.at, **facts, "known_by_writer": known_here})
        if hidden := sum(1 for each in self.lost if each.xids[0] not in seen):
            what = "1 transaction has" if hidden == 1 else f"{hidden:,} transactions have"
            self.found.notes.append(f"{what} no row here: it deleted, what it changed was changed again, or it was in another database of the server")


def _row(found: Difference, xid: int | None) -> dict[str, Any]:
    facts = found.as_dict()
    former, writer = facts["primary"], facts["standby"]
    kinds = {"missing_on_standby": "only_on_former", "missing_on_primary": "only_on_writer", "changed": "changed"}
    common = found.common if found.kind == "changed" else {}
    versions = {name: None if row is None else {**common, **row} for name, row in (("former", former), ("writer", writer))}
    return {"key": facts["key"], "kind": kinds[found.kind], "transaction": xid, **versions}


def _precedes(one: int, other: int) -> bool:
    """Whether a transaction's number is older than another one's; they go round."""
    return one < 3 or (one - other) % 2**32 >= 2**31
