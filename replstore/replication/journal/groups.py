"""Which orphans belong together, and in which order the former writer committed them.  Pure: from the records alone.

Transactions that changed the same row form a **group**: it is replayed or discarded whole.  Groups are the connected components over shared rows, within
what one node committed in one term.  A transaction's *place* is its position in the former writer's commit order, as far as it can be known (docs/semantics.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from sys import intern
from typing import Any, Self

#: An orphan's key where a whole table was concerned.
WHOLE_TABLE = "*"
#: The table's name in the row that is no orphan but the mark of a recording in several pieces.
NO_TABLE = ""
#: A term and the node that wrote in it.
History = tuple[int, str]


class Recording(StrEnum):
    """What the mark of a recording says in place of a state."""

    UNDER_WAY = "recording"
    DONE = "recorded"


class State(StrEnum):
    """What became of an orphan."""

    OPEN = "open"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


@dataclass(frozen=True)
class Change:
    """A transaction of a former writer.

    Attributes:
        place: in its commit order.
        tx: its marker's id; None: it was written without a Store.
        at: when, by that node's clock.
        maybe_acknowledged: its caller may have been told that it committed.
        known: how the new writer knew it when it was recorded: 'committed', 'lost', 'key' or None.
        key, fn, result, durability: the marker's.
    """

    place: int
    tx: str | None = None
    at: str | None = None
    maybe_acknowledged: bool = True
    known: str | None = None
    key: str | None = None
    fn: str | None = None
    result: str | None = None
    durability: str = "async"

    def as_json(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {name: value for name, value in vars(self).items() if value != getattr(type(self), name, ...)}


@lru_cache(1000)
def _changes(text: str) -> tuple[Change, ...]:
    """The transactions that a record names; a transaction can have a million of records, which name the same."""
    return tuple(Change(**facts) for facts in json.loads(text))


@dataclass(frozen=True, slots=True)
class Record:
    """One recorded row, as the orphan table has it."""

    id: str
    node: str
    term_no: int
    table: str
    key: str
    former_row: dict[str, str | None] | None
    writer_row: dict[str, str | None] | None
    changes: tuple[Change, ...]
    common: str | None
    common_term: str | None
    touched: bool | None
    shape: str | None
    state: State
    decided_at: str | None
    reason: str | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """A record from its row."""
        return cls(
            id=row["id"],
            node=intern(row["node"]),
            term_no=row["term_no"],
            table=intern(row["tbl"]),
            key=row["key"],
            former_row=None if row["former_row"] is None else json.loads(row["former_row"]),
            writer_row=None if row["writer_row"] is None else json.loads(row["writer_row"]),
            changes=_changes(row["changed_by"] or "[]"),
            common=intern(row["common"]) if row["common"] else None,
            common_term=intern(row["common_term"]) if row["common_term"] else None,
            touched=row["touched"],
            shape=intern(row["shape"]) if row["shape"] else None,
            state=State(row["state"]),
            decided_at=row["decided_at"],
            reason=row["reason"],
        )

    @property
    def whole(self) -> bool:
        """The table was emptied as a whole."""
        return self.key == WHOLE_TABLE

    def what(self) -> str:
        """What replay does to the row."""
        if self.whole:
            return "empty the table"
        if self.former_row is None:
            return "delete"
        return "insert" if self.writer_row is None else "update"


@dataclass(frozen=True)
class Group:
    """Transactions that are replayed or discarded together, and their rows."""

    records: tuple[Record, ...]

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """The transactions, in commit order."""
        named = {id(record.changes): record.changes for record in self.records}  # mostly the same for many
        found = {(change.place, change.tx): change for changes in named.values() for change in changes}
        return tuple(found[key] for key in sorted(found, key=lambda key: (key[0], key[1] or "")))

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Ids of the transactions that have one."""
        return tuple(dict.fromkeys(change.tx for change in self.changes if change.tx is not None))

    @property
    def history(self) -> History:
        """The term and the node that committed them."""
        return self.records[0].term_no, self.records[0].node

    @cached_property
    def first(self) -> int | None:
        """Place of the first transaction; None: no transaction is known."""
        return min((change.place for change in self.changes), default=None)

    @cached_property
    def last(self) -> int | None:
        """Place of the last one."""
        return max((change.place for change in self.changes), default=None)

    @property
    def state(self) -> State:
        """What had become of it when the records were read."""
        return self.now({})

    @cached_property
    def undecided(self) -> bool:
        """Whether nobody had decided on one of its rows."""
        return any(record.state is State.OPEN for record in self.records)

    def now(self, states: Mapping[str, State]) -> State:
        """Discarded if any row is; replayed if all are.

        Args:
            states: by id of the record, what became of it in the meantime.
        """
        found = {states.get(record.id, record.state) for record in self.records}
        if State.DISCARDED in found:
            return State.DISCARDED
        return State.REPLAYED if found == {State.REPLAYED} else State.OPEN

    def rows(self) -> dict[str, set[str]]:
        """By table, the keys of its rows."""
        found: dict[str, set[str]] = {}
        for record in self.records:
            found.setdefault(record.table, set()).update(() if record.whole else (record.key,))
        return found

    def name(self) -> str:
        """What a sentence calls it."""
        if len(self.ids) == 1:
            return f"transaction {self.ids[0]}"
        if self.ids:
            return f"the group of transaction {self.ids[0]}"
        return f"the change of {self.records[0].table} {self.records[0].key}"


def groups(records: Iterable[Record]) -> list[Group]:
    """The connected components, in the order of their first transactions; those without a known transaction come last, row by row."""
    by_row: dict[tuple[Any, ...], list[Record]] = {}
    links: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def root(name: tuple[Any, ...]) -> tuple[Any, ...]:
        while links.setdefault(name, name) != name:
            links[name] = name = links[links[name]]
        return name

    for record in records:
        history = (record.term_no, record.node)
        row = ("row", *history, record.table, record.key, "" if record.changes else record.id)
        by_row.setdefault(row, []).append(record)
        for change in record.changes:
            links[root(("place", *history, change.place))] = root(row)
    for row, held in by_row.items():
        if held[0].whole and held[0].changes:  # an emptied table has to do with each of its rows
            for other in by_row:
                if other[:4] == row[:4] and by_row[other][0].changes:
                    links[root(other)] = root(row)
    joined: dict[tuple[Any, ...], list[Record]] = {}
    for row, held in by_row.items():
        joined.setdefault(root(row), []).extend(held)
    return sorted((Group(tuple(held)) for held in joined.values()), key=order)


def merged(found: Sequence[Group]) -> list[Group]:
    """Joins groups whose transactions were committed between one another's: in strict order neither can go before the other."""
    joined: list[Group] = []
    for group in sorted(found, key=order):
        before = joined[-1] if joined else None
        if before is None or before.history != group.history or group.first is None or before.last is None or group.first > before.last:
            joined.append(group)
        else:
            joined[-1] = Group((*before.records, *group.records))
    return joined


def order(group: Group) -> tuple[Any, ...]:
    """What groups are sorted by: term and node, then the first transaction's place; those without one come last."""
    return group.first is None, *group.history, group.first or 0, group.records[0].table, group.records[0].key
