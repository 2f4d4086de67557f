"""The check of two databases that know nothing of replstore, or not of one another.

There is no journal that says what is on its way from one to the other, so rows that differ are read again after a while, in new snapshots.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import select
from sqlalchemy.engine import URL

from replstore.databases.catalog import Table
from replstore.errors import ConfigError
from replstore.node import Node
from replstore.reconcile.reading import Sessions, sessions
from replstore.reconcile.report import About, Difference, Report, TableReport
from replstore.reconcile.resuming import Log
from replstore.reconcile.rows import compare_rows, readers_of
from replstore.reconcile.schema import Definitions, chosen, compare_schema, without_key
from replstore.reconcile.sequences import Standing, compare_sequences, missing_sequences, read_sequences
from replstore.reconcile.settling import AT_LEAST, in_both, lasting
from replstore.reconcile.snapshots import Both, Side, end_of, reading, together
from replstore.reconcile.wishes import Wishes
from replstore.urls import parse, same_database, shown

#: s for connecting, and for a lock on a table.
SECONDS = 5.0


def check_databases(primary: str | URL, standby: str | URL, wishes: Wishes) -> Report:
    """Compares two databases.

    Args:
        primary, standby: their URLs, and what the report calls them.
        wishes: what to compare, and how.

    Raises:
        CannotCheck: one doesn't answer, or was lost meanwhile.
        ConfigError: a URL can't be used, both are of one database, or there is no such table.
    """
    with strangers(primary, standby) as nodes:
        return check_nodes(nodes, wishes)


def check_nodes(nodes: tuple[Node, Node], wishes: Wishes) -> Report:
    """The same of two databases that ``strangers`` gave."""
    if wishes.since:
        raise ConfigError("what has changed since the last check is known of the two nodes of a pair only: leave --since out")
    return _Check(nodes, wishes).run()


@contextmanager
def strangers(primary: str | URL, standby: str | URL) -> Iterator[tuple[Node, Node]]:
    """Two databases by their URLs."""
    urls = parse(primary), parse(standby)
    if same_database(*urls):
        raise ConfigError("both URLs name the same database")
    with ExitStack() as stack:
        nodes = Node("primary", urls[0], seconds=SECONDS, beside=urls[1]), Node("standby", urls[1], seconds=SECONDS, beside=urls[0])
        for node in nodes:
            stack.callback(node.close)
        yield nodes


def are_a_pair(nodes: tuple[Node, Node]) -> bool:
    """Whether both have replstore's control tables, and are the two nodes of one pair."""
    pairs = together(_pair_of, nodes)
    return pairs[0] is not None and pairs[0] == pairs[1]


def _pair_of(node: Node) -> str | None:
    """The pair to which a database belongs, whichever kind of replication it has; None: it belongs to none, or can't be asked."""
    try:
        with node.snapshot() as connection:
            return connection.execute(select(node.database.control.node.c.pair)).scalar()
    except Exception:  # what is wrong with it, the check says
        return None


@dataclass(frozen=True)
class _Check:
    nodes: tuple[Node, Node]
    wishes: Wishes

    def run(self) -> Report:
        began = datetime.now(UTC)
        urls = (shown(node.url) for node in self.nodes)
        with self._snapshots() as (both, more), Log(self.wishes.resume, self.wishes.identity(*urls)).done() as log:
            since = time.monotonic()
            read = together(_catalog, both.sides)
            found = chosen(*self._beside(*(tables for tables, _ in read)), self.wishes.tables, self.wishes.exclude)
            schema = compare_schema(found, self.nodes[0].database)
            standing = {side.name: sequences for side, (_, sequences) in zip(both.sides, read, strict=True)}
            if self.wishes.tables is None:
                schema += missing_sequences(standing["primary"], standing["standby"])
            rows = _crossing(found, self.nodes)
            tables = [self._table(both, rows, name, more, since, log) for name in found.names if name in found.primary and name in found.standby]
            sequences = [
                each
                for way in (both, replace(both, writer=both.follower, follower=both.writer))
                for each in compare_sequences(way, found, standing[way.writer.name], chosen=self.wishes.tables is not None, settle=self.wishes.settle)
            ]
        return Report(
            tuple(tables),
            tuple(schema),
            tuple(sequences),
            None,
            False,
            (*self.wishes.notes(), *log.notes(), *without_key(rows), *self._notes(tables)),
            pair=False,
            about=About.since(began, {node.name: node.url for node in self.nodes}),
        )

    @contextmanager
    def _snapshots(self) -> Iterator[tuple[Both, Sessions]]:
        with ExitStack() as stack:
            standby, primary = together(partial(_side, stack), reversed(self.nodes))
            with sessions(self.wishes.workers) as more:
                yield Both(primary, standby, "", {}, copying=False), more

    def _beside(self, primary: list[Table], standby: list[Table]) -> tuple[dict[str, Table], dict[str, Table]]:
        """By id, the tables of each node as they can be compared with the other's."""
        here = self.nodes[0].database.beside(primary, standby), self.nodes[1].database.beside(standby, primary)
        return {table.id: table for table in here[0]}, {table.id: table for table in here[1]}

    def _table(self, both: Both, found: Definitions, name: str, more: Sessions, since: float, log: Log) -> TableReport:
        if not found.comparable(name):
            return TableReport(name, None, None, (), 0, 0)
        return log.part(found, name, "", lambda: self._lasting(both, found, name, more, since, log))

    def _lasting(self, both: Both, found: Definitions, name: str, more: Sessions, since: float, log: Log) -> TableReport:
        """One table, with the differences that last."""
        wishes = replace(self.wishes, limit=max(self.wishes.limit, AT_LEAST))
        report = compare_rows(both, found, name, wishes, more, log if wishes.resume else None)
        if not report.differences:
            return report
        time.sleep(max(0.0, since + wishes.settle - time.monotonic()))
        with self._snapshots() as (later, more_later):
            readers = readers_of(later, found, name, wishes, more_later)
            if readers[0].recipe.key:
                last = list(lasting(readers, report.differences))
            else:
                last = list(in_both(report.differences, compare_rows(later, found, name, wishes, more_later).differences))
        settled = len(report.differences) - len(last)
        assert report.map is not None
        return replace(
            report,
            differences=tuple(last[: self.wishes.limit]),
            total=report.total - settled,
            settled=settled,
            map=report.map.marked(_gone(report.differences, last), -1),
        )

    def _notes(self, tables: list[TableReport]) -> Iterator[str]:
        seconds = f"{self.wishes.settle:g} s"
        for each in tables:
            if each.settled:
                rows = "1 row" if each.settled == 1 else f"{each.settled:,} rows"
                yield f"{rows} of table {each.name} differed at first, and no longer in the same way {seconds} later"
            if each.total > AT_LEAST and each.total > self.wishes.limit:
                yield f"of table {each.name} no more than {max(AT_LEAST, self.wishes.limit):,} rows that differ were read again after {seconds}"


def _gone(found: Sequence[Difference], last: Sequence[Difference]) -> Iterator[tuple[int, str]]:
    kept = {id(each) for each in last}
    return ((each.position, each.kind) for each in found if id(each) not in kept)


def _side(stack: ExitStack, node: Node) -> Side:
    with reading(node):
        connection = stack.enter_context(node.snapshot())
        stack.push(end_of(connection))
    return Side(node, connection, None)


def _catalog(side: Side) -> tuple[list[Table], Standing]:
    with reading(side.node):
        tables = side.node.database.tables(side.connection)
    return tables, read_sequences(side)


def _crossing(found: Definitions, nodes: tuple[Node, Node]) -> Definitions:
    """The tables with those columns whose values can be compared."""
    primary, standby = (
        {name: node.database.crossing(table) for name, table in tables.items()}
        for node, tables in zip(nodes, (found.primary, found.standby), strict=True)
    )
    return replace(found, primary=primary, standby=standby)
