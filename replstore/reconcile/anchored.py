"""The check of a pair whose database copies itself, anchored in the write-ahead log, while writes go on.

No journal says what is on its way.  So every row that differs is read again: on the writer; then, once the follower has replayed all that the writer had at that
moment, on the follower.  Each version of a row is told from all others by its transaction and its place, which are the same on both nodes.  If neither node's
version has changed between two such rounds, and they still differ, the follower will never have the writer's: no write is on its way to that row.

One thing must be looked at besides: a commit that waits for a synchronous standby is in the log, and so on the follower, before the writer shows it.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from replstore.databases.base import Fault
from replstore.databases.catalog import Table
from replstore.databases.digests import Recipe, Version
from replstore.errors import CannotCheck, ConfigError
from replstore.node import Node, one_line
from replstore.reconcile.reading import Sessions, sessions
from replstore.reconcile.report import About, Difference, Kind, Report, SchemaDifference, SequenceDifference, TableReport, Values
from replstore.reconcile.resuming import Log
from replstore.reconcile.rows import BATCH, compare_rows, readers_of
from replstore.reconcile.schema import Definitions, chosen, compare_schema, without_key
from replstore.reconcile.sequences import differences, missing_sequences, of_tables, read_sequences
from replstore.reconcile.settling import AT_LEAST, in_both
from replstore.reconcile.snapshots import Both, Side, end_of, in_order, observed, reading
from replstore.reconcile.wishes import Wishes

if TYPE_CHECKING:
    from replstore.pair.pair import Pair

#: How often a table is compared anew: a standby ends what reads in its way, or more rows change than are read again.
ATTEMPTS = 5
#: s for which a row is read again that changes all the time, and between two rounds at most.
PATIENCE, PAUSE = 5.0, 0.2
#: s for the follower to replay what the writer has.
REPLAY = 60.0
#: Comparisons of a table without a key in all of which a row must differ.
TIMES = 3


def check_anchored(pair: Pair, wishes: Wishes) -> Report:
    """See ``compare.check``; of a pair of native replication."""
    if wishes.since:
        raise ConfigError(
            "since: keys that changed since the last check are known by a journal, which native replication has none of; every row is compared"
        )
    began = datetime.now(UTC)
    states = observed(pair)
    follower, writer = (pair.nodes[name] for name in in_order(states))
    ahead, behind = states[writer.name], states[follower.name]
    inexact = ""
    if ahead.role != "writer":
        inexact = "neither node writes"
    elif behind.role == "writer":
        inexact = f"both nodes write, {writer.name} on timeline {ahead.term_no}, {follower.name} on timeline {behind.term_no}"
    elif (ahead.term_no, ahead.term_uuid) != (behind.term_no, behind.term_uuid):
        inexact = f"{follower.name} has timeline {behind.term_no} and {writer.name} writes on {ahead.term_no}"
    check = _Check(pair, writer, follower, wishes, inexact)
    with Log(wishes.resume, wishes.identity(ahead.pair)).done() as log:
        return check.run(log, began)


class Round(NamedTuple):
    """Some keys of a table, read on the writer and then, when the follower had all of that, on the follower.

    Attributes:
        writer, follower: by key, the versions.
        running: numbers of the transactions that ran on the writer, and the next one's.
    """

    writer: dict[str, list[Version]]
    follower: dict[str, list[Version]]
    running: frozenset[int]
    next: int


@dataclass
class _Check:
    pair: Pair
    writer: Node
    follower: Node
    wishes: Wishes
    inexact: str
    places: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def run(self, log: Log, began: datetime) -> Report:
        found, schema = self._definitions()
        sequences = self._sequences(found)
        names = [name for name in found.names if name in found.primary and name in found.standby]
        tables = tuple(self._table(found, name, log) for name in names)
        notes = (*self.wishes.notes(), *log.notes(), *self._anchor(), *without_key(found), *self.notes)
        about = About.since(began, {node.name: node.url for node in self.pair.nodes.values()})
        writer = self.writer.name if self.inexact != "neither node writes" else None
        return Report(tables, tuple(schema), tuple(sequences), writer, not self.inexact, notes, about=about, physical=True)

    def _anchor(self) -> Iterator[str]:
        if self.inexact:
            yield f"{self.inexact}: they were compared as they are, and nothing counts as on its way"
        elif self.places:
            lead, first, last = self.pair.lead, self.places[0], self.places[-1]
            where = first if first == last else f"{first} to {last}"
            timeline = f" of timeline {lead.term.number}" if lead is not None else ""
            yield f"{self.follower.name} was compared at {where}{timeline}; what differed was read again once it had replayed all that {self.writer.name} had then"

    def _ship(self) -> None:
        """Returns when the follower has replayed what the writer has."""
        if self.inexact:
            return
        try:
            self.pair.ship_from(self.writer, time.monotonic() + REPLAY)
        except Exception as error:
            raise CannotCheck(f"{self.follower.name} doesn't get to where {self.writer.name} is: {one_line(error)}") from error

    @contextmanager
    def _snapshots(self) -> Iterator[tuple[Both, Sessions]]:
        """Both nodes, the follower first, which has had all of the writer's a moment ago."""
        self._ship()
        with ExitStack() as stack:
            follower, writer = (_side(stack, node) for node in (self.follower, self.writer))
            if follower.known is not None and follower.known.position is not None:
                self.places.append(follower.known.position)
            with sessions(self.wishes.workers) as more:
                yield Both(writer, follower, "", {}, copying=False), more

    # -- definitions and sequences

    def _definitions(self) -> tuple[Definitions, list[SchemaDifference]]:
        """What the nodes have, and in what it differs for good: a migration may be on its way."""
        before: list[SchemaDifference] | None = None
        while True:
            with self._snapshots() as (both, _):
                primary, standby = (_tables(side) for side in both.sides)
                found = chosen(primary, standby, self.wishes.tables, self.wishes.exclude)
                schema = compare_schema(found, self.writer.database)
                if self.wishes.tables is None:
                    standing = {side.name: read_sequences(side) for side in both.sides}
                    schema += missing_sequences(standing["primary"], standing["standby"])
            if not schema or schema == before:
                return found, schema
            before = schema

    def _sequences(self, found: Definitions) -> list[SequenceDifference]:
        """A follower that has replayed what the writer had must not stand behind it; it may be ahead, since the log has some values in advance."""
        with self._snapshots() as (both, _):
            ahead = read_sequences(both.writer)
            if self.wishes.tables is not None:
                ahead = of_tables(found, ahead)
            self._ship()
            with reading(self.follower):
                behind = [id for id, used in self.follower.database.lagging_sequences(both.follower.connection, ahead).items() if used is not False]
            return differences(both.follower, both.writer, sorted(behind), ahead)

    # -- rows

    def _table(self, found: Definitions, name: str, log: Log) -> TableReport:
        if not found.comparable(name):
            return TableReport(name, None, None, (), 0, 0)
        return log.part(found, name, "", lambda: self._patiently(found, name, log))

    def _patiently(self, found: Definitions, name: str, log: Log) -> TableReport:
        """One table; a standby may have ended the reading, for what it had to replay."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                report, more = self._compared(found, name, log)
            except CannotCheck as error:
                ended = error.__cause__ is not None and self.follower.database.classify(error.__cause__) in (Fault.TRANSIENT, Fault.LOST_CONNECTION)
                if not ended or attempt == ATTEMPTS:
                    hint = f"; {self.follower.name} ends what reads in its way: set hot_standby_feedback = on there, or a longer max_standby_streaming_delay"
                    raise CannotCheck(f"{error}{hint if ended else ''}") from error.__cause__
                continue
            if not more:
                return report
        self.notes.append(
            f"of table {name} {more:,} rows differed at first and weren't read again, because they change too fast; they count as on their way"
        )
        return replace(report, waiting=report.waiting + more)

    def _compared(self, found: Definitions, name: str, log: Log) -> tuple[TableReport, int]:
        """One table with the differences that last, and how many of those that don't last for sure weren't read again."""
        wishes = replace(self.wishes, limit=max(self.wishes.limit, AT_LEAST))
        with self._snapshots() as (both, more):
            report = compare_rows(both, found, name, wishes, more, log if wishes.resume else None)
            recipe = readers_of(both, found, name, wishes, more)[0].recipe
        if not report.differences or self.inexact:
            return replace(report, differences=report.differences[: self.wishes.limit]), 0
        if recipe.key:
            last, busy = self._lasting(found, name, recipe, report.differences)
        else:
            last, busy = self._lasting_without_key(found, name, wishes, report.differences), 0
        left = report.total - len(report.differences)
        if left and len(last) == len(report.differences):  # nothing is late here: neither is the rest
            return replace(report, differences=tuple(last[: self.wishes.limit])), 0
        assert report.map is not None
        kept = {(each.form, each.kind) for each in last}
        gone = ((each.position, each.kind) for each in report.differences if (each.form, each.kind) not in kept)
        settled = replace(report, differences=tuple(last[: self.wishes.limit]), total=len(last), waiting=busy, map=report.map.marked(gone, -1))
        return (settled if settled.total else replace(settled, map=None)), left

    def _lasting_without_key(self, found: Definitions, name: str, wishes: Wishes, differences: Sequence[Difference]) -> list[Difference]:
        last = list(differences)
        for _ in range(TIMES - 1):
            if last:
                with self._snapshots() as (both, more):
                    last = list(in_both(last, compare_rows(both, found, name, wishes, more).differences))
        return last

    def _lasting(self, found: Definitions, name: str, recipe: Recipe, differences: Sequence[Difference]) -> tuple[list[Difference], int]:
        """The differences that are none of a write on its way, and how many rows change too fast to tell."""
        tables = {self.pair.primary.name: found.primary[name], self.pair.standby.name: found.standby[name]}
        lasting: list[Difference] = []
        busy = 0
        left = iter(differences)
        while batch := list(islice(left, BATCH)):
            decided = self._decided(tables, recipe, {each.form for each in batch})
            busy += sum(1 for each in batch if decided.get(each.form, None) is None and each.form in decided)
            lasting += [_as_now(each, recipe, *rows) for each in batch if (rows := decided.get(each.form)) is not None]
        return lasting, busy

    def _decided(self, tables: dict[str, Table], recipe: Recipe, keys: set[str]) -> dict[str, tuple[Values | None, Values | None] | None]:
        """By key: the rows of primary and standby that differ for good; None: they change all the time.  What has become equal is left out."""
        found: dict[str, tuple[Values | None, Values | None] | None] = {}
        before, pause, deadline = self._round(tables, recipe, keys), 0.0, time.monotonic() + PATIENCE
        while True:
            keys = {key for key in keys if _rows(before.writer, key) != _rows(before.follower, key)}
            if not keys:
                return found
            if time.monotonic() >= deadline:
                return {**found, **dict.fromkeys(keys)}
            time.sleep(pause)
            now = self._round(tables, recipe, keys)
            for key in list(keys):
                if _rows(now.writer, key) != _rows(now.follower, key) and is_settled(before, now, key):
                    sides = {self.writer.name: _first(now.writer, key), self.follower.name: _first(now.follower, key)}
                    found[key] = sides["primary"], sides["standby"]
                    keys.discard(key)
            before, pause = now, min(PAUSE, 2 * pause + 0.01)

    def _round(self, tables: dict[str, Table], recipe: Recipe, keys: set[str]) -> Round:
        with reading(self.writer), self.writer.snapshot() as connection:
            running, following = self.writer.database.running(connection)
            writer = self.writer.database.digests(connection, tables[self.writer.name], recipe).versions(keys)
        self._ship()
        with reading(self.follower), self.follower.snapshot() as connection:
            follower = self.follower.database.digests(connection, tables[self.follower.name], recipe).versions(keys)
        return Round(_by_key(writer), _by_key(follower), running, following)


def is_settled(before: Round, now: Round, key: str) -> bool:
    """Whether no write is on its way to a key's row: in neither node has anything happened to it, and on the writer nothing is about to be shown."""
    for earlier, later in ((before.writer, now.writer), (before.follower, now.follower)):
        if _identity(earlier, key) != _identity(later, key):
            return False
    ending = any(version.ended in now.running or 0 <= version.ended - now.next < 2**20 for version in now.writer.get(key, ()))
    made = any(version.by in now.running for version in now.follower.get(key, ()))
    return not (ending or made)


def _identity(versions: dict[str, list[Version]], key: str) -> list[tuple[int, str]]:
    return sorted((version.by, version.place) for version in versions.get(key, ()))


def _by_key(versions: Sequence[Version]) -> dict[str, list[Version]]:
    found: dict[str, list[Version]] = defaultdict(list)
    for version in versions:
        found[version.key].append(version)
    return found


def _rows(versions: dict[str, list[Version]], key: str) -> list[str]:
    return sorted(version.row for version in versions.get(key, ()))


def _first(versions: dict[str, list[Version]], key: str) -> Values | None:
    found = versions.get(key)
    return None if not found else json.loads(found[0].row)


def _as_now(found: Difference, recipe: Recipe, primary: Values | None, standby: Values | None) -> Difference:
    """A difference with the rows as they were read last."""
    if primary is None or standby is None:
        kind: Kind = "missing_on_primary" if primary is None else "missing_on_standby"
        return replace(found, kind=kind, columns=(), primary=_of(primary, recipe), standby=_of(standby, recipe), same={})
    changed = tuple(name for name in recipe.columns if primary.get(name) != standby.get(name))
    mine, theirs = ({name: row.get(name) for name in changed} for row in (primary, standby))
    same = {name: value for name, value in primary.items() if name not in changed}
    return replace(found, kind="changed", columns=changed, primary=mine, standby=theirs, same=same)


def _of(row: Values | None, recipe: Recipe) -> Values | None:
    return None if row is None else {name: row[name] for name in recipe.columns if name in row}


def _tables(side: Side) -> dict[str, Table]:
    with reading(side.node):
        return {table.id: table for table in side.node.database.tables(side.connection)}


def _side(stack: ExitStack, node: Node) -> Side:
    with reading(node):
        connection = stack.enter_context(node.snapshot())
        stack.push(end_of(connection))
        return Side(node, connection, node.database.state(connection))
