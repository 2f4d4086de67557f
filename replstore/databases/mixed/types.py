"""Which types cross: the kind of a PostgreSQL type, and the PostgreSQL type that a SQLite column has where nothing else says it."""

from __future__ import annotations

import re

from replstore.databases.mixed.kinds import EXACT_DIGITS, Blob, Boolean, Enumeration, Float, Integer, Json, Kind, Numeric, Text, Uuid
from replstore.databases.mixed.moments import Date, Time, Timestamp

_BY_NAME: dict[str, type[Kind]] = {
    "smallint": Integer,
    "integer": Integer,
    "bigint": Integer,
    "boolean": Boolean,
    "double precision": Float,
    "json": Json,
    "bytea": Blob,
    "uuid": Uuid,
    "date": Date,
    "timestamp without time zone": Timestamp,
    "timestamp with time zone": Timestamp,
    "time without time zone": Time,
}
#: What a declared type stands for in a file whose partner doesn't have the table yet.
_DEFAULTS: tuple[tuple[frozenset[str], str], ...] = (
    (Integer.declared, "bigint"),
    (Text.declared, "text"),
    (Boolean.declared, "boolean"),
    (Float.declared, "double precision"),
    (Blob.declared, "bytea"),
    (Json.declared, "json"),
    (Date.declared, "date"),
    (Time.declared, "time without time zone"),
    (Timestamp.declared, "timestamp without time zone"),
)
_DECLARED = re.compile(r"\s*([A-Z0-9 ]*[A-Z0-9])\s*(?:\(\s*([\d\s,]+)\))?\s*")


def kind_of(type: str) -> Kind | None:
    """The kind of a PostgreSQL type; None: its values can't cross."""
    if (kind := _BY_NAME.get(type)) is not None:
        return kind(type)
    if Text.PATTERN.fullmatch(type):
        return Text(type)
    if (match := Numeric.PATTERN.fullmatch(type)) is not None:
        return Numeric(type) if 0 <= int(match[2]) <= int(match[1]) <= EXACT_DIGITS else None
    return Enumeration(type) if Enumeration.PATTERN.fullmatch(type) else None


def default_type(declared: str) -> str | None:
    """The PostgreSQL type that a declared type of SQLite stands for by itself; None: none that its values cross to.

    >>> default_type("VARCHAR(20)"), default_type("NUMERIC(10, 2)"), default_type("NUMERIC")
    ('text', 'numeric(10,2)', None)
    """
    match = _DECLARED.fullmatch(declared)
    if match is None:
        return None
    if match[1] in Numeric.declared:
        numbers = [int(number) for number in (match[2] or "").split(",") if number.strip()]
        type = f"numeric({numbers[0]},{numbers[1] if len(numbers) > 1 else 0})" if numbers else ""
        return type if kind_of(type) else None
    return next((type for names, type in _DEFAULTS if match[1] in names), None)


def agree(declared: str, type: str) -> bool:
    """Whether a SQLite column of a declared type can hold a PostgreSQL column's values."""
    match, kind = _DECLARED.fullmatch(declared), kind_of(type)
    if match is None or kind is None or match[1] not in kind.declared:
        return False
    return match[1] != "CHAR" or not isinstance(kind, Uuid) or (match[2] or "").strip() == "32"
