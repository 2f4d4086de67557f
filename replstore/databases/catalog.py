"""What a node's tables are, exactly: data types that every database's catalog module fills, and their comparison.

The definitions are values: two nodes hold the same table when the values are equal, and they travel through a control table as JSON.
Reading them is ``postgresql/catalog.py``'s and ``sqlite/catalog.py``'s part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from sqlalchemy import Connection

#: What the names of replstore's own triggers on user tables begin with; they are no part of a table's definition.
TRIGGER_PREFIX = "replstore_"
#: The widest key that a table may have and still be replicated by journal.
MAX_KEY_COLUMNS = 16
_ID = re.compile(r'("(?:[^"]|"")*"|[^.]*)\.(.*)', re.DOTALL)


@dataclass(frozen=True)
class Column:
    """A column as the database prints it."""

    name: str
    type: str
    """``format_type`` on PostgreSQL, the declared type in upper case on SQLite."""
    nullable: bool
    default: str | None
    """The default's expression, or that of a generated column."""
    generated: str
    """'', 'stored', 'virtual', 'identity always' or 'identity by default'."""
    collation: str | None
    """Only where it isn't the type's own."""


@dataclass(frozen=True)
class ForeignKey:
    """A reference from one table to another."""

    name: str
    columns: tuple[str, ...]
    ref_table: str
    """The id of the table that is referred to."""
    ref_columns: tuple[str, ...]
    definition: str


@dataclass(frozen=True)
class Table:
    """A user's table.

    Foreign keys and triggers may be taken off a follower (HAZARDS 7): ``Database.whole`` gives the table with them.
    """

    schema: str | None
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    """Primary key columns in key order; empty when there is none."""
    kind: str = "ordinary"
    """'ordinary' or 'partitioned', or what makes it another thing: 'unlogged', 'foreign', 'virtual', …"""
    options: tuple[str, ...] = ()
    """Storage parameters on PostgreSQL (and 'rules', if it has any); 'without_rowid', 'strict', 'autoincrement' on SQLite."""
    unique: tuple[tuple[str, ...], ...] = ()
    """Columns of each unique index or constraint other than the primary key, where plain equality of the columns decides."""
    partial_unique: tuple[tuple[str, ...], ...] = ()
    """The same of unique indexes that hold for some rows only."""
    expression_unique: tuple[str, ...] = ()
    """Names of unique indexes over expressions, or under another collation than their columns'."""
    constraints: tuple[str, ...] = ()
    """Those that foreign_keys doesn't hold, as text that is equal for equal constraints."""
    indexes: tuple[str, ...] = ()
    """Statements that make the indexes which belong to no constraint."""
    foreign_keys: tuple[ForeignKey, ...] = ()
    triggers: tuple[tuple[str, str], ...] = ()
    """Name of each of the user's triggers, and the statement that makes it."""
    sequences: tuple[str, ...] = ()
    """Ids of the sequences that the table owns or takes its defaults from."""
    partition_by: str = ""
    """How it is divided into partitions, if it is."""
    parent: str = ""
    """Of a partition: the id of the table that it is a part of."""
    bound: str = ""
    """Of a partition: which rows are its own."""
    partitions: tuple[Self, ...] = ()
    """The partitions on every level, a parent before its parts; they are part of this table, and none by themselves."""
    born: int = field(default=0, compare=False)
    """Of a partition: the number of the migration that found it new."""

    @property
    def members(self) -> tuple[Self, ...]:
        """The table itself and its partitions: everything that a statement can name to change its rows."""
        return (self, *self.partitions)

    @property
    def id(self) -> str:
        """``public.orders`` where the database has schemas, else ``orders``."""
        return table_id(self.schema, self.name)

    @property
    def data_columns(self) -> tuple[str, ...]:
        """Names of the columns whose values are shipped: all but those that each node computes by itself."""
        return tuple(column.name for column in self.columns if not _computed(column))

    def column(self, name: str) -> Column:
        """The column of that name.

        Raises:
            KeyError: there is none.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def to_json(self) -> str:
        """The definition as one line of JSON; equal definitions give equal text."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The definition that ``to_json`` wrote."""
        return cls._from_values(json.loads(text))

    @classmethod
    def _from_values(cls, stored: dict[str, Any]) -> Self:
        values: dict[str, Any] = {name: _tuples(value) for name, value in stored.items()}
        values["columns"] = tuple(Column(**column) for column in values["columns"])
        values["foreign_keys"] = tuple(ForeignKey(**{k: _tuples(v) for k, v in key.items()}) for key in values["foreign_keys"])
        values["partitions"] = tuple(cls._from_values(each) for each in values.get("partitions", ()))
        return cls(**values)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def table_id(schema: str | None, name: str) -> str:
    """The id of a table, sequence or type; a part that holds a dot or a quote is put in double quotes, so that no two ids are alike.

    >>> table_id("public", "orders"), table_id("a.b", "c"), table_id(None, "orders")
    ('public.orders', '"a.b".c', 'orders')
    """
    return name if schema is None else f"{_part(schema)}.{_part(name)}"


def _part(name: str) -> str:
    return quote(name) if "." in name or '"' in name else name


def split_id(id: str) -> tuple[str, str]:
    """Schema and name of an id that ``table_id`` made from both.

    >>> split_id('"a.b".c')
    ('a.b', 'c')
    """
    match = _ID.fullmatch(id)
    if match is None:
        raise ValueError(f"not the id of a table in a schema: {id}")
    return _unquote(match[1]), _unquote(match[2])


def _unquote(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part


def quote(name: str) -> str:
    """An identifier in double quotes, as PostgreSQL and SQLite read it."""
    return '"' + name.replace('"', '""') + '"'


def quoted(names: Iterable[str]) -> str:
    """Identifiers in double quotes, separated by commas."""
    return ", ".join(quote(name) for name in names)


def execute(connection: Connection, statements: Iterable[str]) -> None:
    """Executes statements as they stand: a percent sign or a colon in them means nothing to the driver."""
    for statement in statements:
        connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


@dataclass(frozen=True)
class Difference:
    """One thing in which a table differs between two nodes."""

    text: str
    ships: bool
    """Whether rows can be shipped all the same."""

    def __str__(self) -> str:
        return self.text


def differences(a: Table | None, b: Table | None, names: tuple[str, str] = ("primary", "standby")) -> list[Difference]:
    """In what a table differs between two nodes, as short sentences; the order of columns doesn't count.

    Args:
        a: the table on the first node, None when it lacks it.
        b: the same on the second node.
        names: what the nodes are called.

    Returns:
        Nothing when rows can be shipped and constraints, indexes and triggers are the same.
    """
    if a is None or b is None:
        present = a or b
        return [Difference(f"table {present.id}: on {names[0] if a else names[1]} only", ships=False)] if present else []
    found = [*_kind(a, b, names), *_columns(a, b, names)]
    if a.key != b.key:
        found.append(Difference(f"primary key: {_list(a.key)} on {names[0]}, {_list(b.key)} on {names[1]}", ships=False))
    found += _sets("", a.constraints, b.constraints, names)
    found += _sets("", a.indexes, b.indexes, names)
    found += _sets("foreign key ", _foreign_keys(a), _foreign_keys(b), names)
    found += _sets("", _triggers(a), _triggers(b), names)
    found += _sets("sequence ", a.sequences, b.sequences, names)
    return found + _partitions(a, b, names)


def _partitions(a: Table, b: Table, names: tuple[str, str]) -> list[Difference]:
    left, right = {each.id: each for each in a.partitions}, {each.id: each for each in b.partitions}
    found = []
    for name in dict.fromkeys([*left, *right]):
        if name not in left or name not in right:
            found.append(Difference(f"partition {name}: on {names[0] if name in left else names[1]} only", ships=False))
            continue
        place, other = (f"{each.bound} of {each.parent}" for each in (left[name], right[name]))
        if place != other:
            found.append(Difference(f"partition {name}: {place} on {names[0]}, {other} on {names[1]}", ships=False))
        found += [Difference(f"partition {name}: {each}", each.ships) for each in differences(left[name], right[name], names)]
    return found


def _list(columns: tuple[str, ...]) -> str:
    return f"({', '.join(columns)})" if columns else "none"


def _kind(a: Table, b: Table, names: tuple[str, str]) -> list[Difference]:
    found = []
    if a.kind != b.kind:
        found.append(Difference(f"kind of table: {a.kind} on {names[0]}, {b.kind} on {names[1]}", ships=False))
    if a.partition_by != b.partition_by:
        found.append(
            Difference(f"partitioned by: {a.partition_by or 'nothing'} on {names[0]}, {b.partition_by or 'nothing'} on {names[1]}", ships=False)
        )
    return found + _sets("option ", a.options, b.options, names)


def _columns(a: Table, b: Table, names: tuple[str, str]) -> list[Difference]:
    left, right = {column.name: column for column in a.columns}, {column.name: column for column in b.columns}
    found = []
    for name in dict.fromkeys([*left, *right]):
        if name in left and name in right:
            found += _column(left[name], right[name], names)
        else:  # a column that each node computes by itself is none of the shipper's business
            column, node = (left[name], names[0]) if name in left else (right[name], names[1])
            found.append(Difference(f"column {name}: on {node} only", ships=_computed(column)))
    return found


def _column(a: Column, b: Column, names: tuple[str, str]) -> list[Difference]:
    def say(one: str, other: str, ships: bool = True) -> list[Difference]:
        return [] if one == other else [Difference(f"column {a.name}: {one} on {names[0]}, {other} on {names[1]}", ships)]

    return [
        *say(a.type, b.type, ships=False),
        *say(a.generated or "not generated", b.generated or "not generated", ships=_computed(a) == _computed(b)),
        *say("nullable" if a.nullable else "NOT NULL", "nullable" if b.nullable else "NOT NULL"),
        *say(_default(a), _default(b)),
        *say(_collation(a), _collation(b)),
    ]


def _computed(column: Column) -> bool:
    return column.generated in ("stored", "virtual")


def _default(column: Column) -> str:
    return "no default" if column.default is None else f"default {column.default}"


def _collation(column: Column) -> str:
    return f"collation {column.collation}" if column.collation else "the type's collation"


def _foreign_keys(table: Table) -> list[str]:
    # a follower's foreign keys may be switched off, and on again without a scan: both say nothing about the definition
    return [f"{key.name} {key.definition.removesuffix(' NOT ENFORCED').removesuffix(' NOT VALID')}" for key in table.foreign_keys]


def _triggers(table: Table) -> list[str]:
    return [definition for _, definition in table.triggers]


def _sets(what: str, a: Collection[str], b: Collection[str], names: tuple[str, str]) -> list[Difference]:
    left, right = ([" ".join(text.split()) for text in texts] for texts in (a, b))
    only = [(text, names[0]) for text in left if text not in right] + [(text, names[1]) for text in right if text not in left]
    return [Difference(f"{what}{text}: on {node} only", ships=True) for text, node in only]
