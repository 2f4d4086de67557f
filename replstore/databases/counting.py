"""Sequences of one kind of database, and what they would give next: the interface, a part of ``database.Database``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection

Clash = Literal["refused", "twice", "skipped"]


@dataclass(frozen=True)
class Taken:
    """A value of a sequence that a row holds.

    Attributes:
        table, column: where.
        value: the first one in the sequence's direction.
        clash: what becomes of a row that would get it: an index refuses it, two rows have it, or the database itself gives another one.
    """

    table: str
    column: str
    value: int
    clash: Clash


class Counting(ABC):
    """Sequences of one kind of database; everything runs in the caller's transaction.  Stateless."""

    @abstractmethod
    def jump_sequences(self, connection: Connection, margin: int) -> None:
        """Moves every sequence on, so that keys given by a lost writer aren't given again (HAZARDS 22)."""

    @abstractmethod
    def sequences(self, connection: Connection) -> dict[str, int | None]:
        """The last value of every user sequence; None: never used."""

    @abstractmethod
    def advance_sequences(self, connection: Connection, values: Mapping[str, int | None]) -> None:
        """Moves sequences on to the given values, never back.

        Args:
            values: as ``sequences`` reads them from the other node.
        """

    @abstractmethod
    def lagging_sequences(self, connection: Connection, values: Mapping[str, int | None]) -> dict[str, bool | None]:
        """Which sequences stand before the given values here.

        Args:
            values: as ``sequences`` reads them from the other node.

        Returns:
            By id, whether rows that are here hold values which the sequence would give again; None: no table takes its values from it.
        """

    @abstractmethod
    def next_value(self, connection: Connection, id: str) -> int | None:
        """What the next row gets from a sequence that is here; None: it has come to its end."""

    @abstractmethod
    def taken(self, connection: Connection, id: str, after: int | None, through: int) -> Taken | None:
        """The first row here that holds a value of a sequence.

        Args:
            id: of the sequence.
            after: only values that come after this one; None: all that the sequence can give.
            through: and no later than this one.
        """
