"""What a check found, as values; ``as_dict`` is the form that other programs rely on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy.engine import URL

from replstore.reconcile.keymap import KeyMap
from replstore.reconcile.origin import Cause, Origin, Restored
from replstore.urls import shown

Kind = Literal["missing_on_standby", "missing_on_primary", "changed"]
#: The replicated control table, by its id on each database.
OURS = ("replstore_orphan", "replstore.orphan")
Values = dict[str, str | None]


@dataclass(frozen=True)
class Difference:
    """One row that differs and is not on its way.

    Attributes:
        key: its key, by column. Numbers that a float can't hold are text; bytes are ``{"blob": hex}``.
        kind: what is the matter.
        columns: the columns that differ; empty where one node lacks the row.
        origin: where it comes from, as far as it is known.
        primary, standby: the values of these columns as each database prints them, of all columns where the other lacks the row; None: no such row.
        form: the key as the databases' own reading names it.
        same: the values of all other columns that both nodes have, which are the same on both; empty where one lacks the row.
        position: of the key (``KeyMap``).
    """

    key: dict[str, Any]
    kind: Kind
    columns: tuple[str, ...]
    origin: Origin
    primary: Values | None
    standby: Values | None
    form: str = field(default="", compare=False)
    same: Values = field(default_factory=dict, compare=False)
    position: int = field(default=0, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """The difference as JSON can hold it."""
        return {
            "key": {name: _shown(value) for name, value in self.key.items()},
            "kind": self.kind,
            "columns": list(self.columns),
            **self.origin.as_dict(),
            "primary": self._row(self.primary),
            "standby": self._row(self.standby),
        }

    @property
    def cause(self) -> Cause | None:
        """What is proved of its origin; None: nothing."""
        return self.origin.cause

    @property
    def tx(self) -> str | None:
        """Id of the marker of the transaction that made it, where that is known."""
        return self.origin.change.tx if self.origin.change else None

    @property
    def common(self) -> dict[str, Any]:
        """The columns that don't differ, without those of the key, as ``as_dict`` has values."""
        return {name: value for name, value in (self._row(self.same) or {}).items() if name not in self.key}

    def _row(self, values: Values | None) -> dict[str, Any] | None:
        """A row's values; those of the key as ``key`` has them."""
        return None if values is None else {name: _shown(self.key.get(name, value)) for name, value in values.items()}


@dataclass(frozen=True)
class TableReport:
    """One table that both nodes have.

    Attributes:
        name: its id.
        primary, standby: how many rows each node has; None: they weren't compared, because the keys differ (``Report.schema`` says how).
        differences: the first ones, in the order of the comparison.
        total: how many there are.
        waiting: how many rows differ only because they are on their way to the follower.
        settled: how many differed at first and not any more, or otherwise, when they were read again; only of databases that aren't a pair.
        map: where the differences lie; None: there are none, or only rows that have changed were compared.
        changed: how many keys were compared, because they had changed since an earlier check; None: all rows were compared.
    """

    name: str
    primary: int | None
    standby: int | None
    differences: tuple[Difference, ...]
    total: int
    waiting: int
    settled: int = 0
    map: KeyMap | None = None
    changed: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The table as JSON can hold it."""
        return {
            "name": self.name,
            "rows": {"primary": self.primary, "standby": self.standby},
            "differences": [difference.as_dict() for difference in self.differences],
            "total": self.total,
            "waiting": self.waiting,
            "settled": self.settled,
            "map": self.map.as_dict() if self.map and self.total else None,
            "changed": self.changed,
        }


@dataclass(frozen=True)
class SchemaDifference:
    """A table, or a part of one, that isn't the same on both nodes.

    Attributes:
        table: the table's id, or the sequence's.
        text: in what it differs.
    """

    table: str
    text: str


@dataclass(frozen=True)
class SequenceDifference:
    """A sequence that stands behind values which were given out.

    Attributes:
        name: its id.
        primary, standby: the last value given on each node; None: none was ever given.
        behind: name of the node on which it stands behind.
        next: what the next row gets there; None: the sequence has come to its end, or it isn't known.
        taken: the first value after that which a row holds; None: none does.
        effect: what that means for the next row, for people; empty: not known.
    """

    name: str
    primary: int | None
    standby: int | None
    behind: str
    next: int | None = None
    taken: int | None = None
    effect: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The sequence as JSON can hold it."""
        return {
            "name": self.name,
            "primary": self.primary,
            "standby": self.standby,
            "kind": f"behind_on_{self.behind}",
            "cause": "sequence_behind",
            "node": self.behind,
            "next": self.next,
            "taken": self.taken,
            "effect": self.effect,
        }

    @property
    def sentence(self) -> str:
        """What is the matter, without the values on both nodes."""
        return f"{self.behind} is behind: {self.effect or 'it would give out values that were given before'}"


@dataclass(frozen=True)
class About:
    """Which databases were compared, and when.

    Attributes:
        urls: by node, without passwords.
        began: in UTC.
        seconds: how long it took.
    """

    urls: Mapping[str, str] = field(default_factory=dict)
    began: datetime | None = None
    seconds: float | None = None

    @classmethod
    def since(cls, began: datetime, urls: Mapping[str, URL]) -> About:
        """A check that ends now."""
        return cls({name: shown(url) for name, url in sorted(urls.items())}, began, (datetime.now(UTC) - began).total_seconds())


@dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes:
        tables: the tables that both nodes have.
        schema: in what tables differ.
        sequences: sequences that stand behind.
        writer: name of the node that writes; None: there is none.
        exact: what is on its way was told apart from what differs; else nothing counts as on its way, and ``notes`` say why.
        notes: what else a person should know, a sentence each.
        pair: whether they are the nodes of a pair; else what is on its way was told apart by reading it again.
        about: of which databases, when.
        since: when the earlier check began since which changed rows were compared; None: all rows were.
        physical: whether one node is a physical copy of the other one, which no journal has filled.
        restored: the node that went back in time; None: neither, as far as that can be told.
    """

    tables: tuple[TableReport, ...]
    schema: tuple[SchemaDifference, ...]
    sequences: tuple[SequenceDifference, ...]
    writer: str | None
    exact: bool
    notes: tuple[str, ...]
    pair: bool = True
    about: About = field(default_factory=About)
    since: str | None = None
    physical: bool = False
    restored: Restored | None = None

    @property
    def unexplained(self) -> str:
        """What is known of a difference that has no cause."""
        if self.physical:
            return "a fault of disk, memory or server, or somebody's hand in the files of a physical copy: `replstore rejoin --copy` makes it anew"
        return "written behind the guard, or while capture was off"

    @property
    def equal(self) -> bool:
        """Whether the nodes hold the same, but for rows that are on their way."""
        return not (self.schema or self.sequences or any(table.total for table in self.tables))

    @property
    def total(self) -> int:
        """How many rows differ."""
        return sum(table.total for table in self.tables)

    @property
    def waiting(self) -> int:
        """How many rows are on their way."""
        return sum(table.waiting for table in self.tables)

    @property
    def shown(self) -> tuple[TableReport, ...]:
        """The tables that a person asked for: the user's, and replstore's own orphans where there are any."""
        return tuple(each for each in self.tables if each.name not in OURS or each.primary or each.standby or each.total)

    def listing(self, limit: int) -> Report:
        """The report with no more than so many differences of each table."""
        return replace(self, tables=tuple(replace(each, differences=each.differences[:limit]) for each in self.tables))

    def __str__(self) -> str:
        """What was found, in a sentence."""
        waiting = f"; {_count(self.waiting, 'row is', 'rows are')} on the way to the follower" if self.waiting else ""
        if not self.equal:
            different = sum(1 for table in self.tables if table.total)
            parts = [f"{_count(self.total, 'row', 'rows')} in {_count(different, 'table', 'tables')}"] if self.total else []
            parts += [f"the schema in {_count(len(self.schema), 'place', 'places')}"] if self.schema else []
            parts += [_count(len(self.sequences), "sequence", "sequences")] if self.sequences else []
            return f"Different: {', '.join(parts)}{waiting}."
        if not self.shown:
            return f"Equal: there is no table yet{waiting}."
        compared = [table for table in self.shown if table.primary is not None]
        if self.since is not None:
            changed = sum(table.changed if table.changed is not None else max(table.primary or 0, table.standby or 0) for table in compared)
            return f"Equal: {_count(changed, 'row', 'rows')} in {_count(len(compared), 'table', 'tables')} that changed since {self.since}{waiting}."
        rows = sum(max(table.primary or 0, table.standby or 0) for table in compared)
        return f"Equal: {_count(rows, 'row', 'rows')} in {_count(len(compared), 'table', 'tables')}{waiting}."

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it; the same databases always give the same text, so the time is no part of it."""
        return {
            "equal": self.equal,
            "pair": self.pair,
            "urls": dict(self.about.urls),
            "writer": self.writer,
            "exact": self.exact,
            "since": self.since,
            "tables": [table.as_dict() for table in self.tables],
            "schema": [{"table": each.table, "difference": each.text} for each in self.schema],
            "sequences": [each.as_dict() for each in self.sequences],
            "restored": self.restored and self.restored.as_dict(),
            "notes": list(self.notes),
        }


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def key_values(key: str) -> list[Any]:
    """The values of a key's JSON array; a number that Python's float would change stays text."""
    return list(json.loads(key, parse_float=lambda number: float(number) if repr(float(number)) == number else number))


def _shown(value: Any) -> Any:
    """A value that every JSON reader and every terminal's encoding takes."""
    if isinstance(value, str):  # SQLite's text may be no UTF-8
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
