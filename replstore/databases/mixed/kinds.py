"""The types that cross between SQLite and PostgreSQL, each with all that is known of it: ``docs/types.md`` as code.

A value is *native* when both drivers take it as it is: int, float, str or bytes.  ``from_sqlite`` and ``to_sqlite`` translate between what a SQLite file
stores and the native value, ``out`` is the expression under which PostgreSQL gives the native value, and PostgreSQL takes it back as text.  The
*canonical text* of a native value is the same on both nodes exactly when the value is: the check and the keys of the journal are made of it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from struct import pack
from typing import Any, ClassVar

Native = int | float | str | bytes
#: Decimal digits that a double always gives back, which is what SQLite stores a NUMERIC as.
EXACT_DIGITS = 15


class CannotCross(ValueError):
    """The value can't be held by the other database; the text says why."""


class Kind(ABC):
    """One PostgreSQL type and how SQLite stores its values.

    Args:
        type: as PostgreSQL's ``format_type`` prints it.
    """

    #: Declared types of SQLite columns that may hold it, without what is in parentheses.
    declared: ClassVar[frozenset[str]]
    #: May be part of a key or of a unique constraint.
    in_keys: ClassVar[bool] = True

    def __init__(self, type: str) -> None:
        self.type = type

    @property
    @abstractmethod
    def sqlite_type(self) -> str:
        """The declared type of a SQLite column that is made for it."""

    @abstractmethod
    def faults(self, value: str, *, strict: bool) -> Iterator[tuple[str, str]]:
        """Conditions, as SQLite's SQL over the expression ``value``, under which a stored value can't cross, and what is then wrong.

        Args:
            strict: the column is in a key or a unique constraint, where two forms of one value must not be two rows.
        """

    def fault(self, value: str) -> tuple[str, str] | None:
        """The same of PostgreSQL's values over the expression ``value``; None: SQLite holds them all."""
        return None

    def out(self, value: str) -> str:
        """PostgreSQL's expression for the native value."""
        return value

    def text(self, value: str) -> str:
        """PostgreSQL's expression for the canonical text; only of kinds that may be in keys."""
        return self.out(value)

    @abstractmethod
    def from_sqlite(self, value: Any) -> Native:
        """The native value of what a file holds.

        Raises:
            CannotCross: it holds something else.
        """

    def to_sqlite(self, value: Any) -> Any:
        """What a file holds for a native value."""
        return value

    def canonical(self, value: Native) -> str:
        """The canonical text of a native value."""
        return str(value)

    def native(self, canonical: str) -> Native:
        """The native value of a canonical text."""
        return canonical

    def digested(self, value: str) -> str:
        """PostgreSQL's expression for the text of which digests are made."""
        return f"({self.text(value)})::text"

    def digest(self, value: Native) -> str:
        """The same of a native value: mostly the canonical text, unless the server can't write that."""
        return self.canonical(value)

    def key(self, value: Native) -> Any:
        """The value in a key's JSON."""
        return self.canonical(value)


class Integer(Kind):
    """Whole numbers of 16, 32 or 64 bits."""

    declared = frozenset({"INTEGER", "INT", "BIGINT", "SMALLINT", "TINYINT", "MEDIUMINT", "INT2", "INT4", "INT8"})
    BITS: ClassVar[dict[str, int]] = {"smallint": 16, "integer": 32, "bigint": 64}

    @property
    def sqlite_type(self) -> str:
        return self.type.upper()

    @property
    def _limit(self) -> int:
        return 1 << (self.BITS[self.type] - 1)

    def faults(self, value: str, *, strict: bool) -> Iterator[tuple[str, str]]:
        yield f"typeof({value}) <> 'integer'", "is no whole number"
        if self.type != "bigint":
            yield f"{value} NOT BETWEEN {-self._limit} AND {self._limit - 1}", f"is out of the range of type {self.type}"

    def from_sqlite(self, value: Any) -> Native:
        if type(value) is not int:
            raise CannotCross("is no whole number")
        if not -self._limit <= value < self._limit:
            raise CannotCross(f"is out of the range of type {self.type}")
        return value

    def native(self, canonical: str) -> Native:
        return int(canonical)

    def key(self, value: Native) -> Any:
        return value


class Boolean(Kind):
    """0 and 1 on SQLite."""

    declared = frozenset({"BOOLEAN", "BOOL"})
    sqlite_type = "BOOLEAN"

    def faults(self, value: str, *, strict: bool) -> Iterator[tuple[str, str]]:
        yield f"typeof({value}) <> 'integer' OR {value} NOT IN (0, 1)", "is neither 0 nor 1"

    def out(self, value: str) -> str:
        return f"({value})::text"

    def from_sqlite(self, value: Any) -> Native:
        if type(value) is not int or value not in (0, 1):
            raise CannotCross("is neither 0 nor 1")
        return "true" if value else "false"

    def to_sqlite(self, value: Any) -> Any:
        return int(value == "true")


class Float(Kind):
    """Doubles; SQLite stores no NaN and no sign of a zero."""

    declared = frozenset({"FLOAT", "REAL", "DOUBLE", "DOUBLE PRECISION"})
    sqlite_type = "DOUBLE"
    in_keys = False

    def faults(self, value: str, *, strict: bool) -> Iterator[tuple[str, str]]:
        yield f"typeof({value}) <> 'real'", "is no number"

    def fault(self, value: str) -> tuple[str, str] | None:
        return f"{value} = 'NaN' OR {value}::text = '-0'", "NaN and a negative zero can't be stored by SQLite"

    def from_sqlite(self, value: Any) -> Native:
        if type(value) is not float:
            raise CannotCross("is no number")
        return value

    def canonical(self, value: Native) -> str:
        return repr(value)

    def digested(self, value: str) -> str:
        return f"encode(float8send({value}), 'hex')"

    def digest(self, value: Native) -> str:
        return pack(">d", value).hex()

    def native(self, canonical: str) -> Native:
        return float(canonical)


class Numeric(Kind):
    """Decimals of up to 15 digits: SQLite stores the nearest double, from which they come back digit by digit."""

    declared = frozenset({"NUMERIC", "DECIMAL"})
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(r"numeric\((\d+),(\d+)\)")

    def __init__(self, type: str) -> None:
        super().__init__(type)
        match = self.PATTERN.fullmatch(type)
        assert match is not None
        self.precision, self.scale = int(match[1]), int(match[2])

    @property
    def sqlite_type(self) -> str:
        return f"NUMERIC({self.precision}, {self.scale})"

    @property
    def _wrong(self) -> str:
        return f"is no decimal of {self.precision} digits with {self.scale} places (round() makes it one)"

    def faults(self, value: str, *, strict: bool) -> Iterator[tuple[str, str]]:
        fits = f"abs({value}) < 1e{self.precision - self.scale} AND round({value}, {self.scale}) = {value}"
        yield f"typeof({value}) NOT IN ('integer', 'real') OR NOT ({fits})", self._wrong

    def fault(self, value: str) -> tuple[str, str] | None:
        return f"{value} = 'NaN'", "NaN can't be stored by SQLite"

    def out(self, value: str) -> str:
        return f"({value})::text"

    def from_sqlite(self, value: Any) -> Native:
        if type(value) not in (int, float):
            raise CannotCross(self._wrong)
        if abs(value) >= 10 ** (self.precision - self.scale):
            raise CannotCross(self._wrong)
        text = format(value, f".{self.scale}f")
        if float(text) != value:
            raise CannotCross(self._wrong)
        return text.removeprefix("-") if float(text) == 0 else text

    def to_sqlite(self, value: Any) -> Any:
        return float(value)


class Text(Kind):
    """Text without NUL; lengths count characters."""

    declared = frozenset({"TEXT", "VARCHAR", "CLOB", "CHAR", "CHARACTER", "NVARCHAR", "NCHAR", "VARYING CHARACTER", "CHARACTER VARYING"})
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(r"text|character varying(?:\((\d+)\))?")

    def __init__(self, type: str) -> None:
        super().__init__(type)
        match = self.PATTERN.fullmatch(type)
        self.length = int(match[1]) if match and match[1] else None

    @property
    def sqlite_type(self) -> str:
        return "TEXT" if self.type == "text" else f"VARCHAR({self.length})" if self.length else "VARCHAR"

    def faults(self, value: str, *, strict: bool) -> Iterator[tuple[str, str]]:
        yield f"typeof({value}) <> 'text'", "is no text"
        yield f"instr({value}, char(0)) > 0", "holds a NUL character, which PostgreSQL can't store"
        if self.length is not None:
            yield f"length({value}) > {self.length}", f"is longer than {self.length} characters"

    def from_sqlite(self, value: Any) -> Native:
        if not isinstance(value, str):
            raise CannotCross("is no text")
        if "\0" in value:
            raise CannotCross("holds a NUL character, which PostgreSQL can't store")
        if not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value):
            raise CannotCross("is no valid UTF-8")
        if self.length is not None and len(value) > self.length:
            raise CannotCross(f"is longer than {self.length} characters")
        return value


class Enumeration(Text):
    """Labels of a PostgreSQL enumeration; its type is written ``schema.name enum('a', 'b')``."""

    in_keys = False
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(r".* enum\((.*)\)", re.DOTALL)

    def __init__(self, type: str) -> None:
        Kind.__init__(self, type)
        self.length = None
        match = self.PATTERN.fullmatch(type)
        assert match is not None
        self._labels = match[1]

    @property
    def sqlite_type(self) -> str:
        return "VARCHAR"

    def faults(self, value: str, *, strict: bool) -> Iterator[tuple[str, str]]:
        yield f"typeof({value}) <> 'text' OR {value} NOT IN ({self._labels})", f"is none of {self._labels}"

    def out(self, value: str) -> str:
        return f"({value})::text"


class Json(Kind):
    """JSON, letter by letter as it was written.  Not a number alone: SQLite would make it an INTEGER or REAL of its own."""

    declared = frozenset({"JSON"})
    sqlite_type = "JSON"
    in_keys = False

    def faults(self, value: str, *, strict: bool) -> Iterator[tuple[str, str]]:
        yield f"typeof({value}) <> 'text'", "is a number alone, or no text, in a JSON column"
        yield f"instr({value}, char(0)) > 0 OR NOT json_valid({value})", "is no valid JSON"

    def fault(self, value: str) -> tuple[str, str] | None:
        return f"json_typeof({value}) = 'number'", "a JSON value that is a number alone can't be stored exactly by SQLite"

    def out(self, value: str) -> str:
        return f"({value})::text"

    def from_sqlite(self, value: Any) -> Native:
        if not isinstance(value, str):
            raise CannotCross("is a number alone, or no text, in a JSON column")
        if "\0" in value or (not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value)):
            raise CannotCross("is no valid UTF-8 text without NUL")
        return value


class Blob(Kind):
    """Bytes."""

    declared = frozenset({"BLOB"})
    sqlite_type = "BLOB"

    def faults(self, value: str, *, strict: bool) -> Iterator[tuple[str, str]]:
        yield f"typeof({value}) <> 'blob'", "is no blob"

    def text(self, value: str) -> str:
        return f"'\\x' || encode({value}, 'hex')"

    def from_sqlite(self, value: Any) -> Native:
        if not isinstance(value, bytes):
            raise CannotCross("is no blob")
        return value

    def canonical(self, value: Native) -> str:
        assert isinstance(value, bytes)
        return "\\x" + value.hex()

    def native(self, canonical: str) -> Native:
        return bytes.fromhex(canonical[2:])


class Uuid(Kind):
    """32 lower-case hexadecimal digits on SQLite, as SQLAlchemy stores them."""

    declared = frozenset({"CHAR"})
    sqlite_type = "CHAR(32)"
    _WRONG: ClassVar[str] = "is no UUID of 32 lower-case hexadecimal digits"

    def faults(self, value: str, *, strict: bool) -> Iterator[tuple[str, str]]:
        yield f"typeof({value}) <> 'text' OR length({value}) <> 32 OR {value} GLOB '*[^0-9a-f]*'", self._WRONG

    def out(self, value: str) -> str:
        return f"({value})::text"

    def from_sqlite(self, value: Any) -> Native:
        if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{32}", value):
            raise CannotCross(self._WRONG)
        return f"{value[:8]}-{value[8:12]}-{value[12:16]}-{value[16:20]}-{value[20:]}"

    def to_sqlite(self, value: Any) -> Any:
        return value.replace("-", "")
