"""What both directions of making a table anew share: what is refused, because it can't be said in the other database's words without doubt.

A table that is refused here can still be replicated: make it on both nodes by metadata or an Alembic environment, each in its own words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from replstore.databases.catalog import Column, ForeignKey, Table, quote, quoted
from replstore.databases.mixed.kinds import Boolean, Enumeration, Float, Integer, Json, Kind, Numeric, Text
from replstore.databases.mixed.moments import Date
from replstore.databases.mixed.types import kind_of
from replstore.errors import CannotReplicate

_REMEDY = "make it there by metadata or an Alembic environment, and run `replstore migrate` again"
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?")
_STRING = re.compile(r"'((?:[^']|'')*)'")
_INDEX = re.compile(
    r'CREATE INDEX (?:IF NOT EXISTS )?(?P<name>"[^"]+"|\w+) ON (?P<table>[^(]+?)\s*(?:USING btree )?\((?P<columns>[^()]+)\)', re.IGNORECASE
)
_ACTIONS = re.compile(
    r"REFERENCES .*?\([^)]*\)((?: ON (?:UPDATE|DELETE) (?:CASCADE|RESTRICT|NO ACTION|SET NULL|SET DEFAULT))*(?: DEFERRABLE)?(?: INITIALLY DEFERRED)?)"
)


def refuse(table: Table, what: str) -> CannotReplicate:
    """The error of a table that can't be made on the other node."""
    return CannotReplicate(f"table {table.name} can't be made on the other kind of database: {what}; {_REMEDY}")


def refuse_parts(table: Table, own: Table) -> None:
    """Refuses a table with parts that can't be translated.

    Args:
        table: as both nodes compare it.
        own: as its own database has it.
    """
    if computed := [column.name for column in own.columns if column.generated in ("stored", "virtual")]:
        raise refuse(table, f"column {computed[0]} is computed")
    if checks := [text for text in own.constraints if "CHECK" in text]:
        raise refuse(table, f"it has a check ({checks[0]})")
    if own.triggers:
        raise refuse(table, f"it has a trigger ({own.triggers[0][0]})")


def literal(table: Table, column: Column, default: str) -> str:
    """A default as both databases read it; booleans are TRUE and FALSE.

    Args:
        column: as both nodes compare it.
        default: in the words of its own database, without a cast.
    """
    kind = kind_of(column.type)
    assert kind is not None
    words, string = default.strip().strip("()"), _STRING.fullmatch(default.strip())
    if words.upper() == "NULL":
        return "NULL"
    if isinstance(kind, Boolean) and words.lower() in ("0", "1", "true", "false"):
        return "TRUE" if words.lower() in ("1", "true") else "FALSE"
    if isinstance(kind, Integer | Float | Numeric) and _NUMBER.fullmatch(string[1] if string else words):
        return string[1] if string else words
    if isinstance(kind, Text | Enumeration | Json | Date) and string:
        return string[0]
    if column.type == "timestamp with time zone" and words.lower() in ("now", "now()", "current_timestamp"):
        return "CURRENT_TIMESTAMP"
    raise refuse(table, f"the default of column {column.name} ({default}) is no plain value")


def foreign_key(table: Table, key: ForeignKey, refers_to: str) -> str:
    """A foreign key's clause.

    Args:
        refers_to: the other table's name, quoted.
    """
    definition = key.definition.removesuffix(" NOT ENFORCED").removesuffix(" NOT VALID")
    actions = _ACTIONS.search(definition)
    if actions is None or actions.end() != len(definition):
        raise refuse(table, f"its foreign key ({key.definition}) has no like there")
    return f"FOREIGN KEY ({quoted(key.columns)}) REFERENCES {refers_to} ({quoted(key.ref_columns)}){actions[1]}"


def plain_indexes(table: Table, own: Table, name: str) -> Iterator[str]:
    """The statements that make those of its indexes that are over columns alone; others only make queries faster, and are left out."""
    names = {column.name for column in table.columns}
    for statement in own.indexes:
        match = _INDEX.fullmatch(" ".join(statement.split()))
        columns = [column.strip().strip('"') for column in match["columns"].split(",")] if match else []
        if match and set(columns) <= names:
            yield f"CREATE INDEX {quote(match['name'].strip(chr(34)))} ON {name} ({quoted(columns)})"


def kind(column: Column) -> Kind:
    """The kind of a column of a table that was not refused."""
    found = kind_of(column.type)
    assert found is not None
    return found
