"""A table with a column of each type that crosses, and the values that try them."""

from __future__ import annotations

import datetime as dt
import enum
import math
import uuid
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Double,
    Enum,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Text,
    Time,
    Uuid,
    create_engine,
    make_url,
)  # fmt: skip
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Color(enum.Enum):
    red = "red"
    green = "green"


class ThingBase(DeclarativeBase):
    pass


class Thing(ThingBase):
    __tablename__ = "thing"
    id: Mapped[int] = mapped_column(primary_key=True)
    touched: Mapped[int] = mapped_column(Integer, default=0)
    small: Mapped[int | None] = mapped_column(SmallInteger)
    number: Mapped[int | None] = mapped_column(Integer)
    big: Mapped[int | None] = mapped_column(BigInteger)
    flag: Mapped[bool | None] = mapped_column(Boolean)
    ratio: Mapped[float | None] = mapped_column(Double)
    price: Mapped[Decimal | None] = mapped_column(Numeric(15, 4))
    name: Mapped[str | None] = mapped_column(String(10))
    note: Mapped[str | None] = mapped_column(Text)
    day: Mapped[dt.date | None] = mapped_column(Date)
    at: Mapped[dt.datetime | None] = mapped_column(DateTime)
    zoned: Mapped[dt.datetime | None] = mapped_column(DateTime(timezone=True))
    clock: Mapped[dt.time | None] = mapped_column(Time)
    doc: Mapped[Any] = mapped_column(JSON, nullable=True)
    raw: Mapped[bytes | None] = mapped_column(LargeBinary)
    uid: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    color: Mapped[Color | None] = mapped_column(Enum(Color))


UTC = dt.UTC
#: By column, values at and around every edge.
VALUES: dict[str, list[Any]] = {
    "small": [0, 1, -1, 32767, -32768],
    "number": [0, 2147483647, -2147483648],
    "big": [0, 2**53 + 1, 9223372036854775807, -9223372036854775808],
    "flag": [True, False],
    "ratio": [0.0, 0.1, -0.1, 1e308, 5e-324, 1e15, 1e16, 123456789012345680.0, 1 / 3, math.inf, -math.inf, 1.7976931348623157e308],
    "price": [
        Decimal(text) for text in ("0", "0.1", "-0.1", "0.0001", "99999999999.9999", "-99999999999.9999", "12345678901.2345", "1.15", "5", "1e10")
    ],
    "name": ["", " ", "a", "A", "a ", "äöüß€😀", "' \" \\ \n\t\r", "%s ? :x", "0123456789", "NULL", "\\N", "\x01\x7f\x80"],
    "note": ["", "x" * 100_000, "1", "1.0", "1e5", "0x10", " 7 ", "\ufffe\uffff", "👩‍👩‍👧", "e\u0301", "\u00e9", "true", "\\x00"],
    "day": [dt.date(1, 1, 1), dt.date(1582, 10, 10), dt.date(1900, 2, 28), dt.date(2024, 2, 29), dt.date(9999, 12, 31)],
    "at": [
        dt.datetime(1, 1, 1),
        dt.datetime(2024, 2, 29, 23, 59, 59, 999999),
        dt.datetime(9999, 12, 31, 23, 59, 59, 999999),
        dt.datetime(2024, 3, 31, 2, 30),
    ],
    "zoned": [
        dt.datetime(1, 1, 1, tzinfo=UTC),
        dt.datetime(2024, 3, 31, 1, 30, 0, 1, tzinfo=UTC),
        dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ],
    "clock": [dt.time(0), dt.time(23, 59, 59, 999999), dt.time(12, 0, 0, 1)],
    "doc": [
        {},
        [],
        {"b": 1, "a": [1.50, "ä", None, True]},
        "text",
        "5",
        True,
        [1e400],
        {"n": 12345678901234567890123},
        {"z": "\x00 \ud83d"},
        "\u2028",
    ],
    "raw": [b"", b"\0", b"\\x00", bytes(range(256)), b"a" * 100_000, b"NULL", b"\\N"],
    "uid": [
        uuid.UUID(int=0),
        uuid.UUID(int=2**128 - 1),
        uuid.UUID("12345678-1234-5678-1234-567812345678"),
        uuid.UUID("1e500000-0000-0000-0000-000000000000"),
    ],
    "color": list(Color),
}
VALUES["doc"] = [value for value in VALUES["doc"] if value != [1e400]]  # Python writes Infinity, which is no JSON


def things() -> list[dict[str, Any]]:
    """A row for each value, and one of NULLs."""
    rows: list[dict[str, Any]] = [{}]
    rows += [{column: value} for column, values in VALUES.items() for value in values]
    return [{"id": number, "touched": 0, **row} for number, row in enumerate(rows, start=1)]


def found(url: str) -> dict[int, dict[str, Any]]:
    """What a node holds, as SQLAlchemy reads it."""
    engine = create_engine(make_url(url))
    with Session(engine) as session:
        rows = {thing.id: {column.name: getattr(thing, column.name) for column in Thing.__table__.columns} for thing in session.query(Thing)}
    engine.dispose()
    for row in rows.values():
        if row["zoned"] is not None:  # SQLAlchemy drops the zone on SQLite
            row["zoned"] = row["zoned"].replace(tzinfo=UTC) if row["zoned"].tzinfo is None else row["zoned"].astimezone(UTC)
    return rows
