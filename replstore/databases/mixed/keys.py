"""Keys as JSON, the same on both nodes: whole numbers as numbers, everything else as its canonical text; written as PostgreSQL prints ``jsonb``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from replstore.databases.catalog import Table, quote
from replstore.databases.mixed.kinds import CannotCross, Integer, Kind
from replstore.databases.mixed.types import kind_of


def kinds(table: Table, columns: Sequence[str]) -> list[Kind]:
    """The kinds of columns of a table that was not refused."""
    found = [kind_of(table.column(column).type) for column in columns]
    if None in found:
        raise CannotCross(f"table {table.id} has a column whose type doesn't cross: run `replstore migrate`")
    return [kind for kind in found if kind is not None]


def key_of_sqlite(values: Sequence[Any], of: Sequence[Kind]) -> str:
    """The JSON of a key that a SQLite file holds."""
    return json.dumps([_key(value, kind) for value, kind in zip(values, of, strict=True)], ensure_ascii=False)


def _key(value: Any, kind: Kind) -> Any:
    try:
        return kind.key(kind.from_sqlite(value))
    except CannotCross:
        return odd(value)


def crosses(values: Sequence[Any], of: Sequence[Kind]) -> bool:
    """Whether the other database can hold this key."""
    try:
        for value, kind in zip(values, of, strict=True):
            kind.from_sqlite(value)
    except CannotCross:
        return False
    return True


def odd(value: Any) -> str:
    """A text for a value that is none of its column's type; no value of the type has it."""
    shown = value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") if isinstance(value, str) else value
    return f"{type(value).__name__}: {shown!r}"


def natives(key: str, of: Sequence[Kind]) -> list[Any]:
    """What a SQLite file holds for a key's JSON."""
    return [kind.to_sqlite(_native(value, kind)) for value, kind in zip(json.loads(key), of, strict=True)]


def _native(value: Any, kind: Kind) -> Any:
    if isinstance(kind, Integer):
        return value
    text = str(value)
    return bytes.fromhex(text[2:]) if kind.type == "bytea" else text


def postgresql_key(table: Table, row: str) -> str:
    """PostgreSQL's expression for the JSON of a key.

    Args:
        row: alias of the row.
    """
    columns = zip(table.key, kinds(table, table.key), strict=True)
    return f"jsonb_build_array({', '.join(kind.text(f'{row}.{quote(name)}') for name, kind in columns)})"


def postgresql_columns(table: Table, key: str) -> str:
    """The columns k0, k1, … of a key's JSON array, each of its column's type.

    Args:
        key: expression of the array.
    """
    return ", ".join(f"({key}->>{number})::{table.column(name).type} AS k{number}" for number, name in enumerate(table.key))


def on(table: Table, row: str = "t", key: str = "j") -> str:
    """The condition that a row has a key that ``postgresql_columns`` gives."""
    return " AND ".join(f"{row}.{quote(column)} = {key}.k{number}" for number, column in enumerate(table.key))
