"""Dates and times, which SQLite stores as text in SQLAlchemy's format: years 1 to 9999, up to six places of a second."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any, ClassVar

from replstore.databases.mixed.kinds import CannotCross, Kind, Native

_FRACTION = r"(?:\.(\d{1,6}))?"


def _form(value: str, pattern: str, check: str, length: int, *, strict: bool) -> str:
    """True for text of this form that names an existing moment; SQLite makes another day of 30 February when it adds to it."""
    whole = f"substr({value}, 1, {length})"
    good = f"typeof({value}) = 'text' AND {whole} GLOB '{pattern}' AND {check}({whole}, '+0 days') IS {whole}"
    fraction = f"substr({value}, {length + 1}, 1) = '.' AND substr({value}, {length + 2}) NOT GLOB '*[^0-9]*'"
    if strict:
        return f"{good} AND {fraction} AND length({value}) = {length + 7}"
    return f"{good} AND (length({value}) = {length} OR ({fraction} AND length({value}) BETWEEN {length + 2} AND {length + 7}))"


class Date(Kind):
    """``2024-12-31``."""

    declared = frozenset({"DATE"})
    sqlite_type = "DATE"
    _WRONG: ClassVar[str] = "is no date of the form 2024-12-31, years 0001 to 9999"

    def faults(self, value: str, *, strict: bool) -> Iterator[tuple[str, str]]:
        good = f"typeof({value}) = 'text' AND {value} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]' AND date({value}, '+0 days') IS {value}"
        yield f"NOT ({good} AND substr({value}, 1, 4) > '0000')", self._WRONG

    def fault(self, value: str) -> tuple[str, str] | None:
        return f"NOT ({value} BETWEEN '0001-01-01' AND '9999-12-31')", "it is outside of the years 1 to 9999"

    def out(self, value: str) -> str:
        return f"to_char({value}, 'YYYY-MM-DD')"

    def from_sqlite(self, value: Any) -> Native:
        if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
            raise CannotCross(self._WRONG)
        _exists(date.fromisoformat, value, self._WRONG)
        return value


class Timestamp(Kind):
    """``2024-12-31 23:59:59.000000``; with time zone it is UTC."""

    declared = frozenset({"DATETIME", "TIMESTAMP"})
    sqlite_type = "DATETIME"
    PATTERN: ClassVar[str] = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] [0-9][0-9]:[0-9][0-9]:[0-9][0-9]"
    _WRONG: ClassVar[str] = "is no time of the form 2024-12-31 23:59:59.000000, years 0001 to 9999"

    @property
    def zoned(self) -> bool:
        """Whether it is PostgreSQL's ``timestamp with time zone``."""
        return self.type == "timestamp with time zone"

    def faults(self, value: str, *, strict: bool) -> Iterator[tuple[str, str]]:
        six = " with six places" if strict else ""
        yield f"NOT ({_form(value, self.PATTERN, 'datetime', 19, strict=strict)} AND substr({value}, 1, 4) > '0000')", self._WRONG + six

    def fault(self, value: str) -> tuple[str, str] | None:
        utc = "+00" if self.zoned else ""
        return f"NOT ({value} >= '0001-01-01{utc}' AND {value} < '10000-01-01{utc}')", "it is outside of the years 1 to 9999"

    def out(self, value: str) -> str:
        local = f"({value} AT TIME ZONE 'UTC')" if self.zoned else value
        return f"to_char({local}, 'YYYY-MM-DD HH24:MI:SS.US')" + (" || '+00'" if self.zoned else "")

    def from_sqlite(self, value: Any) -> Native:
        match = re.fullmatch(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)" + _FRACTION, value, re.ASCII) if isinstance(value, str) else None
        if match is None:
            raise CannotCross(self._WRONG)
        _exists(datetime.fromisoformat, match[1], self._WRONG)
        return f"{match[1]}.{match[2] or '':0<6}" + ("+00" if self.zoned else "")

    def to_sqlite(self, value: Any) -> Any:
        return value.removesuffix("+00")


class Time(Kind):
    """``23:59:59.000000``."""

    declared = frozenset({"TIME"})
    sqlite_type = "TIME"
    _WRONG: ClassVar[str] = "is no time of day of the form 23:59:59.000000"

    def faults(self, value: str, *, strict: bool) -> Iterator[tuple[str, str]]:
        six = " with six places" if strict else ""
        yield f"NOT ({_form(value, '[0-9][0-9]:[0-9][0-9]:[0-9][0-9]', 'time', 8, strict=strict)})", self._WRONG + six

    def fault(self, value: str) -> tuple[str, str] | None:
        return f"{value} = '24:00:00'", "24:00:00 is no time of day elsewhere"

    def out(self, value: str) -> str:
        return f"to_char(({value})::interval, 'HH24:MI:SS.US')"

    def from_sqlite(self, value: Any) -> Native:
        match = re.fullmatch(r"(\d\d:\d\d:\d\d)" + _FRACTION, value, re.ASCII) if isinstance(value, str) else None
        if match is None:
            raise CannotCross(self._WRONG)
        _exists(time.fromisoformat, match[1], self._WRONG)
        return f"{match[1]}.{match[2] or '':0<6}"


def _exists(parse: Any, value: str, wrong: str) -> None:
    try:
        parse(value)
    except ValueError:
        raise CannotCross(wrong) from None
