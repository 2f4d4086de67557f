"""Making the tables of a PostgreSQL node in a SQLite file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from replstore.databases.catalog import Column, Table, quote, quoted
from replstore.databases.mixed.making import foreign_key, kind, literal, plain_indexes, refuse_parts
from replstore.databases.mixed.names import name_here

_CAST = re.compile(r"::[\w. \"]+(?:\(\d+(?:,\d+)?\))?(?:\[\])?$")


def create_statements(tables: Sequence[Table]) -> list[str]:
    """What makes these tables with their keys, unique constraints, foreign keys and plain indexes.

    Raises:
        CannotReplicate: a table has parts that can't be translated.
    """
    return [statement for table in tables for statement in _statements(table)]


def _statements(table: Table) -> Iterator[str]:
    refuse_parts(table, table)
    counted = _counted(table)
    parts = [_column(table, column, counted) for column in table.columns]
    if counted is None:
        parts.append(f"PRIMARY KEY ({quoted(table.key)})")
    parts += [f"UNIQUE ({quoted(columns)})" for columns in table.unique]
    parts += [foreign_key(table, key, quote(name_here(key.ref_table))) for key in table.foreign_keys]
    name = quote(name_here(table.id))
    yield f"CREATE TABLE {name} ({', '.join(parts)})"
    yield from plain_indexes(table, table, name)


def _counted(table: Table) -> str | None:
    """The key column that takes its values from a sequence."""
    if len(table.key) != 1:
        return None
    column = table.column(table.key[0])
    return column.name if column.generated.startswith("identity") or (column.default or "").startswith("nextval(") else None


def _column(table: Table, column: Column, counted: str | None) -> str:
    words = [quote(column.name)]
    if column.name == counted:
        return f"{words[0]} INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT"
    words.append(kind(column).sqlite_type)
    if not column.nullable:
        words.append("NOT NULL")
    if column.default is not None:
        words.append(f"DEFAULT {literal(table, column, _CAST.sub('', column.default))}")
    return " ".join(words)
