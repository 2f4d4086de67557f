"""The rows of one table: digests say where it differs, and only rows that differ are read; in memory that is bounded by the limit, not by the table."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from itertools import chain, islice
from operator import add

from replstore.databases.catalog import Table
from replstore.databases.digests import Cut, Forms, Recipe, Row, agreed
from replstore.reconcile.buckets import Found, Within, expected, find, stretches
from replstore.reconcile.causes import NOTHING, Causes, causes
from replstore.reconcile.pairing import Differing, differing
from replstore.reconcile.reading import Meter, Progress, Reader, Sessions, at_once
from replstore.reconcile.report import Difference, TableReport, Values, key_values
from replstore.reconcile.resuming import Log
from replstore.reconcile.schema import Definitions
from replstore.reconcile.snapshots import Both, Side, reading, together
from replstore.reconcile.wishes import Wishes

__all__ = ["Progress", "compare_rows"]

#: Keys whose rows are read in one statement.
BATCH = 500
#: Rows of differing buckets that are read at once; more are streamed.
FEW = 50_000


def compare_rows(both: Both, tables: Definitions, name: str, wishes: Wishes, sessions: Sessions, log: Log | None = None) -> TableReport:
    """Compares a table that both nodes have under the same key, or both without one.

    Args:
        both: the nodes.
        tables: the definitions on both.
        name: the table's id.
        wishes: what to compare, and how.
        sessions: of the check.
        log: keeps what was found of each stretch of a large table; None: nothing is kept.

    Raises:
        CannotCheck: a node was lost.
    """
    meter = Meter(name, wishes.progress, wishes.expected, wishes.max_load)
    meter.tell(0)
    readers = readers_of(both, tables, name, wishes, sessions)
    rows = expected(readers, sessions)
    meter.expect(rows)
    compare = partial(_compared, both, tables, readers, wishes, sessions, meter, rows)
    found = stretches(readers, sessions, rows) if log is not None and wishes.sample >= 1 else []
    if log is None or not found:
        return _whole(compare(None))
    parts = [log.part(tables, name, f"{within[0]}:{min(within[1])}", partial(compare, within)) for within in found]
    counts = zip(*((part.primary or 0, part.standby or 0, part.total, part.waiting) for part in parts), strict=True)
    primary, standby, total, waiting = map(sum, counts)
    kept = tuple(islice((difference for part in parts for difference in part.differences), wishes.limit))
    maps = [part.map for part in parts if part.map]
    return _whole(TableReport(name, primary, standby, kept, total, waiting, map=reduce(add, maps) if maps else None))


def _whole(report: TableReport) -> TableReport:
    """A table's report, without a map of no differences."""
    return report if report.total else replace(report, map=None)


def _compared(
    both: Both, tables: Definitions, readers: tuple[Reader, Reader], wishes: Wishes, sessions: Sessions, meter: Meter, rows: int, within: Within
) -> TableReport:
    """The rows of one table, or of a part of it."""
    name = readers[0].table.id
    found = find(readers, sessions, meter, rows, share=wishes.sample, within=within)
    waiting_keys = waiting_keys_of(both, tables, name) if found.cut else set()
    told = _Told(waiting_keys, wishes.limit)
    map = found.map.marked(told.differing(_differing(readers, sessions, found))) if found.map else None
    kept = list(_named(readers, told.named, causes(both, tables, name, told.named))) if told.named else []
    if map:
        equal = Counter((each.position, each.kind) for each in told.named)  # what their values say after all
        equal.subtract((each.position, each.kind) for each in kept)
        map = map.marked(equal.elements(), -1)
    meter.add(max(found.primary, found.standby))
    return TableReport(name, found.primary, found.standby, tuple(kept), sum(map.kinds.values()) if map else 0, told.waiting, map=map)


@dataclass
class _Told:
    """Counts rows that are on their way, and keeps the first ones of those that differ."""

    waiting_keys: set[str] | None
    limit: int
    named: list[Differing] = field(default_factory=list)
    waiting: int = 0

    def differing(self, found: Iterable[Differing]) -> Iterator[tuple[int, str]]:
        """Position and kind of each that differs."""
        for each in found:
            if self.waiting_keys is None or each.key in self.waiting_keys:
                self.waiting += 1
                continue
            if len(self.named) < self.limit:
                self.named.append(each)
            yield each.position, each.kind


def readers_of(both: Both, tables: Definitions, name: str, wishes: Wishes, sessions: Sessions) -> tuple[Reader, Reader]:
    """What reads a table on the primary and on the standby."""
    primary, standby = tables.primary[name], tables.standby[name]
    here, there = together(_forms, zip(both.sides, (primary, standby), strict=True))
    recipe = agreed(here, there, primary.key, wishes.where)
    return Reader(both.sides[0], primary, recipe, sessions), Reader(both.sides[1], standby, recipe, sessions)


def _forms(of: tuple[Side, Table]) -> Forms:
    side, table = of
    with reading(side.node):
        return side.node.database.forms(side.connection, table)


def _differing(readers: tuple[Reader, Reader], sessions: Sessions, found: Found) -> Iterator[Differing]:
    cut = found.cut
    if cut is None:
        return iter(())
    if found.left <= FEW:
        return differing(*map(sorted, _unlike(*at_once(readers, sessions, lambda reader: reader.rows(cut)))))
    streams = [_rows(reader, cut) for reader in readers]
    # the first row comes when a server has sorted them all
    firsts = at_once(readers, sessions, lambda reader: list(islice(streams[readers.index(reader)], 1)))
    return differing(*(chain(first, stream) for first, stream in zip(firsts, streams, strict=True)))


def _unlike(primary: Sequence[Row], standby: Sequence[Row]) -> tuple[Collection[Row], Collection[Row]]:
    """Rows without those that both nodes have, which are nearly all of them; all, where a row may be there twice."""
    here, there = set(primary), set(standby)
    if len(here) < len(primary) or len(there) < len(standby):
        return primary, standby
    return here - there, there - here


def _rows(reader: Reader, cut: Cut) -> Iterator[Row]:
    with reading(reader.side.node):
        yield from reader.digests.rows(cut)


def waiting_keys_of(both: Both, tables: Definitions, name: str) -> set[str] | None:
    """The keys that are on their way, under every form that a node has for them; None: the whole table is."""
    if both.copying:
        return None
    keys = both.pending.get(name, set())
    return None if keys is None else forms_of(both, tables, name, keys)


def forms_of(both: Both, tables: Definitions, name: str, keys: Collection[str]) -> set[str]:
    """Under which keys rows may be there that are equal to these, to the database of either node."""

    def same(of: tuple[Side, Table]) -> Collection[str]:
        side, table = of
        with reading(side.node):
            return side.node.database.same_keys(side.connection, table, keys)

    if not keys:
        return set()
    return set(keys).union(*together(same, zip(both.sides, (tables.primary[name], tables.standby[name]), strict=True)))


def _named(readers: tuple[Reader, Reader], found: Sequence[Differing], known: Causes) -> Iterator[Difference]:
    """The differences with both rows, as each database prints them."""
    left = iter(found)
    recipe = readers[0].recipe
    while batch := list(islice(left, BATCH)):
        if not recipe.key:
            yield from (_without_key(each, recipe) for each in batch)
            continue
        keys = {each.key for each in batch}
        primary, standby = together(partial(values_of, keys=keys), readers)
        for key in keys:
            if len(primary[key]) + len(standby[key]) > 2:
                primary[key], standby[key] = _apart(primary[key], standby[key])
        for each in batch:
            mine = _next(primary, each.key) if each.kind != "missing_on_primary" else None
            theirs = _next(standby, each.key) if each.kind != "missing_on_standby" else None
            if mine != theirs:
                yield difference(each, recipe, mine, theirs, known)


def values_of(reader: Reader, keys: Collection[str]) -> dict[str, list[Values]]:
    """By key, the rows that have it."""
    found: dict[str, list[Values]] = defaultdict(list)
    for key, row in texts_of(reader, keys):
        found[key].append(values_in(row, reader.recipe))
    return found


def texts_of(reader: Reader, keys: Collection[str]) -> list[tuple[str, str]]:
    """Rows by their keys, as JSON: equal ones have equal texts where both databases are of one kind."""
    with reading(reader.side.node):
        return reader.digests.values(keys)


def values_in(row: str, recipe: Recipe) -> Values:
    """The values in a row that is JSON."""
    values = json.loads(row)
    return {name: values[name] for name in recipe.columns if name in values}


def _apart(one: list[Values], other: list[Values]) -> tuple[list[Values], list[Values]]:
    """Rows under one key, as there may be where it holds NULL, without those that both nodes have."""

    def text(row: Values) -> str:
        return json.dumps(row, sort_keys=True)

    def without(rows: list[Values], common: Counter[str]) -> list[Values]:
        kept = list[Values]()
        for row in rows:
            if common[text(row)]:
                common[text(row)] -= 1
            else:
                kept.append(row)
        return kept

    common = Counter(map(text, one)) & Counter(map(text, other))
    return without(one, common.copy()), without(other, common.copy())


def _next(rows: dict[str, list[Values]], key: str) -> Values:
    """One of the rows under a key; without values where the database can't look the key up, as a text in a column of numbers."""
    return rows[key].pop() if rows[key] else {}


def _without_key(found: Differing, recipe: Recipe) -> Difference:
    values = json.loads(found.key)
    row = {name: values[name] for name in recipe.columns}
    primary, standby = (None, row) if found.kind == "missing_on_primary" else (row, None)
    return Difference({}, found.kind, (), NOTHING, primary, standby, found.key, position=found.position)


def difference(found: Differing, recipe: Recipe, primary: Values | None, standby: Values | None, known: Causes) -> Difference:
    """A row that differs, as it is reported."""
    key = dict(zip(recipe.key, key_values(found.key), strict=True))
    if primary is None or standby is None:
        there = known.of(found.key, recipe.columns)
        return Difference(key, found.kind, (), there, primary, standby, found.key, position=found.position)
    changed = tuple(name for name in primary if primary[name] != standby.get(name))
    mine, theirs = ({name: row.get(name) for name in changed} for row in (primary, standby))
    same = {name: value for name, value in primary.items() if name not in changed}
    return Difference(key, "changed", changed, known.of(found.key, changed), mine, theirs, found.key, same, found.position)
