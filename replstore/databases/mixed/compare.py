"""What must be the same on both nodes of a mixed pair, and which tables can't be there.

Compared are columns, types, NOT NULL, keys and unique constraints: what decides whether a row that one node took can be stored on the other.  Defaults,
checks, foreign keys, plain indexes and triggers are each node's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from replstore.databases.catalog import Column, Difference, Table
from replstore.databases.mixed.kinds import Integer
from replstore.databases.mixed.types import kind_of
from replstore.errors import CannotReplicate

COMPUTED = ("stored", "virtual")
#: Bytes of a name that PostgreSQL keeps.
NAME_LENGTH = 63


def differences(a: Table | None, b: Table | None, names: tuple[str, str]) -> list[Difference]:
    """In what a table differs between the nodes of a mixed pair."""
    if a is None or b is None:
        present = a or b
        return [Difference(f"table {present.id}: on {names[0] if a else names[1]} only", ships=False)] if present else []
    found = list(_columns(a, b, names))
    for what, mine, theirs in (("primary key", [a.key], [b.key]), ("unique", sorted(map(sorted, a.unique)), sorted(map(sorted, b.unique)))):
        if mine != theirs:
            found.append(Difference(f"{what}: {_list(mine)} on {names[0]}, {_list(theirs)} on {names[1]}", ships=False))
    return found


def _columns(a: Table, b: Table, names: tuple[str, str]) -> Iterator[Difference]:
    left, right = ({column.name: column for column in table.columns} for table in (a, b))
    for name in dict.fromkeys([*left, *right]):
        mine, theirs = left.get(name), right.get(name)
        if mine is None or theirs is None:
            only = mine or theirs
            yield Difference(f"column {name}: on {names[0] if mine else names[1]} only", ships=only is not None and only.generated in COMPUTED)
        elif _computed(mine) != _computed(theirs):
            yield Difference(f"column {name}: computed on {names[0] if _computed(mine) else names[1]} only", ships=False)
        elif not _computed(mine):
            yield from _say(name, mine.type, theirs.type, names)
            yield from _say(name, _null(mine), _null(theirs), names)


def _say(name: str, one: str, other: str, names: tuple[str, str]) -> Iterator[Difference]:
    if one != other:
        yield Difference(f"column {name}: {one} on {names[0]}, {other} on {names[1]}", ships=False)


def _computed(column: Column) -> bool:
    return column.generated in COMPUTED


def _null(column: Column) -> str:
    return "nullable" if column.nullable else "NOT NULL"


def _list(groups: object) -> str:
    return ", ".join(f"({', '.join(columns)})" for columns in groups) or "none"  # type: ignore[attr-defined]


def crossing(table: Table) -> Table:
    """The table with those columns whose values cross."""
    return replace(table, columns=tuple(column for column in table.columns if kind_of(column.type) is not None))


def counts(table: Table) -> bool:
    """Whether the table has a key of one whole number, which a database may count up."""
    return len(table.key) == 1 and isinstance(kind_of(table.column(table.key[0]).type), Integer)


def counters(table: Table) -> tuple[str, ...]:
    """Ids of the table's sequences, as both nodes compare them: one for a key that is counted, under the table's own id."""
    return (table.id,) if counts(table) else ()


def strange(table: Table, column: Column, declared: str) -> CannotReplicate:
    """The error of a column whose types on the two nodes don't go together.

    Args:
        column: as PostgreSQL has it.
        declared: its type in the file.
    """
    return CannotReplicate(
        f"table {table.name} can't be replicated between SQLite and PostgreSQL: column {column.name} is of type {declared or 'none'} in the file and "
        f"{column.type} on the server, whose values aren't the same ones (docs/types.md has what goes together)"
    )


def refusal(table: Table, shown: dict[str, str]) -> str | None:
    """Why a table can't be in a mixed pair, in one sentence that says what to change; None: it can.

    Args:
        table: with PostgreSQL's types.
        shown: by column, its type as its own database has it.
    """
    return next(_refusals(table, shown), None)


def _refusals(table: Table, shown: dict[str, str]) -> Iterator[str]:
    where = f"table {table.name} can't be replicated between SQLite and PostgreSQL: "
    if table.kind != "ordinary":
        yield where + f"it is {table.kind}"
    if table.schema not in ("public", "replstore"):
        yield where + f"SQLite has no schemas; move it out of {table.schema} into public"
    for name in (table.name, *(column.name for column in table.columns)):
        if len(name.encode()) > NAME_LENGTH:
            yield where + f"the name {name} is longer than PostgreSQL's {NAME_LENGTH} bytes"
    lower = [column.name.lower() for column in table.columns]
    if twins := sorted({name for name in lower if lower.count(name) > 1}):
        yield where + f"SQLite doesn't tell columns apart by case ({', '.join(twins)})"
    for column in table.columns:
        if column.name in table.data_columns and kind_of(column.type) is None:
            yield (
                where
                + f"column {column.name} is of type {shown[column.name] or 'none'}, which doesn't cross exactly (docs/types.md has those that do)"
            )
    for name in {name for columns in (table.key, *table.unique) for name in columns}:
        column, kind = table.column(name), kind_of(table.column(name).type)
        if kind is not None and not kind.in_keys:
            yield where + f"column {name} is in a key or unique, and values of type {shown[name]} aren't told apart alike on both"
        if column.collation is not None and column.collation not in ('"C"', '"POSIX"', 'pg_catalog."C"'):
            yield where + f"column {name} is in a key or unique under collation {column.collation}, which may take two values for one"
    if table.partial_unique or table.expression_unique:
        yield where + "it has a unique index over an expression or for some rows only, which can't be compared"
    if odd := [text for text in table.constraints if " EXCLUDE " in text or "NULLS NOT DISTINCT" in text]:
        yield where + f"SQLite has nothing like {odd[0]}"
