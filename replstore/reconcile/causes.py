"""Where a difference comes from, as far as it can be proved.  What isn't known is said to be unknown.

- An *orphan*: it is on record, or the former writer's journal names the row after the other node took over.
- *conversion*: a column that differs holds what the other kind of database can't; guards refuse that, so they were off.
- *capture_missing*: the table's changes aren't, or weren't, captured.
- *behind_guard*: an earlier check found the row equal on both nodes, and the journal hasn't named it since.  So it was written past the triggers: while they
  were switched off, by a session that acts as a replica, on the files, or by a backup that was brought back.  On which node, PostgreSQL's row versions may
  tell: of two versions one is older than that check, and the other is not.
- *restored*: one of the nodes went back in time (``restored.py``), and no journal has named the row since: not after a transaction that the other node has
  too.  So one has it as it was in the backup, and the other what came after.

Beside the cause stands the last change of the row that a journal names, whatever it has to do with the difference.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from sqlalchemy import select

from replstore.databases.base import Entry
from replstore.databases.catalog import Table
from replstore.reconcile.origin import Change, Origin, Restored
from replstore.reconcile.pairing import Differing
from replstore.reconcile.schema import Definitions
from replstore.reconcile.snapshots import Both, Side, reading
from replstore.replication.journal.verified import Mark

#: An orphan's key where a whole table was concerned.
WHOLE_TABLE = "*"
#: Transactions that one statement asks for.
CHUNK = 500
NOTHING = Origin()
Tables = tuple[tuple[Side, Table], tuple[Side, Table]]


@dataclass(frozen=True)
class Causes:
    """What is known of the differences of one table.

    Attributes:
        orphans: by key, the transaction of the orphan that was found there.
        strange: by key and column, why the other node can't hold what stands there.
        captured: whether its changes are captured on both nodes.
        past: by key, of rows that were written past the triggers, when the check began that found them equal, and on which node, where that is certain.
        last: by key, the last change that a journal names.
        restored: the node that went back in time.
        older: keys that its journal names, but not since.
    """

    orphans: Mapping[str, Change] = field(default_factory=dict)
    strange: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    captured: bool = True
    past: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    last: Mapping[str, Change] = field(default_factory=dict)
    restored: Restored | None = None
    older: Collection[str] = ()

    def of(self, key: str, columns: Collection[str] = ()) -> Origin:
        """Where a row's difference comes from.

        Args:
            key: the row's.
            columns: those that differ.
        """
        last = self.last.get(key)
        for name in (key, WHOLE_TABLE):
            if name in self.orphans:
                return Origin("orphan", self.orphans[name], last=last)
        wrong = [f"{column}{why}" for column, why in self.strange.get(key, {}).items() if column in columns]
        if wrong:
            return Origin("conversion", reason=", ".join(wrong), last=last)
        if not self.captured:
            return Origin("capture_missing", last=last)
        if key in self.past:
            after, node = self.past[key]
            return Origin("behind_guard", Change(None, None, node), after, last=last)
        if self.restored and (last is None or key in self.older):
            return Origin("restored", Change(None, None, self.restored.node), reason=str(self.restored), last=last, restored=self.restored)
        return Origin(last=last) if last else NOTHING


def causes(both: Both, tables: Definitions, name: str, found: Collection[Differing]) -> Causes:
    """What is known of those differences of a table that are to be listed."""
    sides = ((both.sides[0], tables.primary[name]), (both.sides[1], tables.standby[name]))
    if not found or not sides[0][1].key:
        return Causes()
    keys = [each.key for each in found]
    strange = _strange(sides, keys)
    if both.strangers or not both.writer.node.database.captures:  # no journal has recorded anything
        return Causes(strange=strange)
    captured = name not in tables.faults
    past = _past_the_triggers(both, sides, name, found) if captured and name in both.marks else {}
    entries = _last_entries(both, sides, keys)
    last = {key: Change(entry.tx, entry.at, node) for key, (node, entry) in entries.items()}
    return Causes(_orphans(both, sides, name), strange, captured, past, last, both.restored, _older(both, entries))


def _strange(sides: Tables, keys: Collection[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for side, table in sides:
        with reading(side.node):
            for key, columns in side.node.database.uncrossable(side.connection, table, _lookable(side, table, keys)).items():
                found.setdefault(key, {}).update(columns)
    return found


# -- written past the triggers


def _past_the_triggers(both: Both, sides: Tables, name: str, found: Collection[Differing]) -> dict[str, tuple[str, str | None]]:
    """The keys of rows that were equal when a check found them so, and that no journal names since; when that check began, and the node."""
    mark, keys = both.marks[name], {each.key for each in found}
    table = next(table for side, table in sides if side is both.writer)
    with reading(both.writer.node):
        keys &= {*_lookable(both.writer, table, keys)}
        keys -= both.writer.node.database.replaying().named(both.writer.connection, table, keys, mark.position)
    fresh = [each for each in found if each.key in keys and each.key not in mark.keys]
    nodes = _written(both, sides, mark, fresh) if fresh else {}
    proved = {key: proof for key in keys if (proof := mark.keys.get(key)) is not None}  # by an earlier check, which found it different
    return {**proved, **{each.key: (mark.at, nodes.get(each.key)) for each in fresh}}


def _written(both: Both, sides: Tables, mark: Mark, found: Collection[Differing]) -> dict[str, str]:
    """On which node, by the age of the row's version there: of a row that one node lacks only that it was removed there, by the other's being old."""
    since = {both.writer.name: mark.position, both.follower.name: mark.here}
    keys = [each.key for each in found]
    fresh: dict[str, Mapping[str, bool]] = {}
    for side, table in sides:
        with reading(side.node):
            fresh[side.name] = side.node.database.written_since(side.connection, table, _lookable(side, table, keys), since[side.name])
    nodes = {}
    for key, kind, _ in found:
        for node, other in (("primary", "standby"), ("standby", "primary")):
            here = fresh[node].get(key) if kind == "changed" else kind == f"missing_on_{node}"
            if here and fresh[other].get(key) is False:
                nodes[key] = node
    return nodes


def _last_entries(both: Both, sides: Tables, keys: Collection[str]) -> dict[str, tuple[str, Entry]]:
    """By key, the node and the entry; the writer's journal has the last word."""
    found: dict[str, tuple[str, Entry]] = {}
    for side, table in sorted(sides, key=lambda each: each[0] is both.writer):
        with reading(side.node):
            entries = side.node.database.last_changes(side.connection, table, _lookable(side, table, keys))
        found.update((key, (side.name, entry)) for key, entry in entries.items())
    return found


# -- restored from a backup


def _older(both: Both, last: Mapping[str, tuple[str, Entry]]) -> Collection[str]:
    """The keys that the node which went back in time had changed before: what it changed since has numbers behind any that the other node has, too."""
    if both.restored is None:
        return ()
    node, through = both.restored.node, _shared(both)
    return {key for key, (name, entry) in last.items() if name == node and entry.place is not None and entry.place <= through}


def _shared(both: Both) -> int:
    """The highest number in the journal of the node that went back in time of a transaction that the other node has; -1: there is none."""
    (back,), (other,) = ([side for side in both.sides if (side.name == (both.restored and both.restored.node)) is mine] for mine in (True, False))
    marker = other.node.database.control.marker.c
    with reading(back.node):
        transactions = back.node.database.last_transactions(back.connection)
        while some := list(islice(transactions, CHUNK)):
            with reading(other.node):
                known = set(
                    other.connection.execute(select(marker.id).where(marker.id.in_({id for id, _ in some}), marker.outcome == "committed")).scalars()
                )
            if known:
                return max(number for id, number in some if id in known)
    return -1


def _lookable(side: Side, table: Table, keys: Collection[str]) -> Collection[str]:
    return side.node.database.lookable(table, keys)


# -- orphans


def _orphans(both: Both, sides: Tables, name: str) -> dict[str, Change]:
    found: dict[str, Change] = {}
    for side in both.sides:
        orphans = dict(_recorded(side, name))
        if side is both.follower:
            orphans.update(_not_yet_recorded(both, name))
        for other, table in sides:
            found.update(_as_streamed(other, table, orphans))
    return found


def _recorded(side: Side, name: str) -> Iterator[tuple[str, Change]]:
    orphan = side.node.database.control.orphan.c
    with reading(side.node):
        rows = side.connection.execute(select(orphan.key, orphan.tx, orphan.tx_at, orphan.node).where(orphan.tbl == name)).all()
    yield from ((key, Change(*change)) for key, *change in rows)


def _not_yet_recorded(both: Both, name: str) -> Iterable[tuple[str, Change]]:
    """What a former writer that waits to rejoin has committed since the other node took over."""
    writer, former = both.writer.state, both.follower
    if former.state.role == "follower" or writer.former_node != former.state.node or writer.former_position is None:
        return []
    with reading(former.node):
        entries = former.node.database.entries(former.connection, writer.former_position)
        return [(entry.key or WHOLE_TABLE, Change(entry.tx, entry.at, former.name)) for entry in entries if entry.table == name]


def _as_streamed(side: Side, table: Table, orphans: Mapping[str, Change]) -> dict[str, Change]:
    keys = [key for key in orphans if key != WHOLE_TABLE]
    with reading(side.node):
        same = side.node.database.same_keys(side.connection, table, keys)
    whole = {WHOLE_TABLE: orphans[WHOLE_TABLE]} if WHOLE_TABLE in orphans else {}
    return whole | {form: orphans[given] for form, given in same.items()}
