"""The rows of one table: both nodes' ordered streams joined, in memory that is bounded by the limit, not by the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from replstore.databases.catalog import Table
from replstore.reconcile.causes import Causes, causes
from replstore.reconcile.report import Difference, Kind, TableReport, Values, key_values
from replstore.reconcile.schema import Definitions
from replstore.reconcile.snapshots import Both, Side, reading
from replstore.replication.merge import merge

#: Called now and then with a table's id and how many of its rows were compared.
Progress = Callable[[str, int], None]
STEP = 5_000


@dataclass(frozen=True)
class _Columns:
    """The columns that both nodes have, and where they stand in each node's rows."""

    names: tuple[str, ...]
    primary: tuple[int, ...]
    standby: tuple[int, ...]

    def pick(self, places: tuple[int, ...], values: tuple[str | None, ...]) -> tuple[str | None, ...]:
        return tuple(values[place] for place in places)


def compare_rows(both: Both, tables: Definitions, name: str, *, limit: int, progress: Progress | None = None) -> TableReport:
    """Compares a table that both nodes have under the same key.

    Args:
        both: the nodes.
        tables: the definitions on both.
        name: the table's id.
        limit: how many differences to keep.
        progress: told how far it is.

    Raises:
        CannotCheck: a node was lost.
    """
    primary, standby = tables.primary[name], tables.standby[name]
    columns = _columns(primary, standby)
    waiting_keys = _waiting(both, tables, name)
    known: Causes | None = None
    rows = [0, 0]
    total = waiting = 0
    kept: list[Difference] = []
    sides = both.sides
    for number, (key, here, there) in enumerate(merge(_stream(sides[0], primary), _stream(sides[1], standby))):
        if progress is not None and number % STEP == 0:
            progress(name, number)
        rows[0] += here is not None
        rows[1] += there is not None
        mine = None if here is None else columns.pick(columns.primary, here)
        theirs = None if there is None else columns.pick(columns.standby, there)
        if mine == theirs:
            continue
        if waiting_keys is None or key in waiting_keys:
            waiting += 1
            continue
        total += 1
        if len(kept) < limit:
            known = known or causes(both, tables, name)
            kept.append(_difference(primary, key, columns.names, mine, theirs, known))
    if progress is not None:
        progress(name, max(rows))
    return TableReport(name, rows[0], rows[1], tuple(kept), total, waiting)


def _stream(side: Side, table: Table) -> Iterator[Any]:
    with reading(side.node):
        yield from side.node.database.stream(side.connection, table)


def _columns(primary: Table, standby: Table) -> _Columns:
    names = tuple(name for name in primary.data_columns if name in standby.data_columns)
    return _Columns(names, tuple(map(primary.data_columns.index, names)), tuple(map(standby.data_columns.index, names)))


def _waiting(both: Both, tables: Definitions, name: str) -> set[str] | None:
    """The keys that are on their way, under every form that a node has for them; None: the whole table is."""
    if both.copying:
        return None
    keys = both.pending.get(name, set())
    if keys is None:
        return None
    forms = set(keys)
    for side, table in zip(both.sides, (tables.primary[name], tables.standby[name]), strict=True):
        with reading(side.node):
            forms |= set(side.node.database.same_keys(side.connection, table, keys))
    return forms


def _difference(
    table: Table, key: str, names: tuple[str, ...], primary: tuple[str | None, ...] | None, standby: tuple[str | None, ...] | None, known: Causes
) -> Difference:
    cause, tx = known.of(key)
    values = dict(zip(table.key, key_values(key), strict=True))
    if primary is None or standby is None:
        kind: Kind = "missing_on_primary" if primary is None else "missing_on_standby"
        return Difference(values, kind, (), cause, tx, _named(names, primary), _named(names, standby))
    changed = tuple(name for name, a, b in zip(names, primary, standby, strict=True) if a != b)
    mine, theirs = ({name: value for name, value in zip(names, row, strict=True) if name in changed} for row in (primary, standby))
    return Difference(values, "changed", changed, cause, tx, mine, theirs)


def _named(names: tuple[str, ...], row: tuple[str | None, ...] | None) -> Values | None:
    return None if row is None else dict(zip(names, row, strict=True))
