"""What a database does differently when rows are put back that a former writer had: the interface, and the SQL that is the same everywhere.

Rows and keys come from records of orphans: a value is the text that ``Database.rows`` gave it, a key the JSON that it gave.  Everything runs in the
caller's transaction on the writer, under the guard and captured like any other change.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager

from sqlalchemy import Connection

from replstore.databases.catalog import Column, Table, quote

#: Keys in one condition.
PIECE = 500


class Replaying(ABC):
    """One kind of database's part in replay.  Stateless."""

    @abstractmethod
    def reading(self, connection: Connection) -> AbstractContextManager[None]:
        """Lets this transaction read tables and values as the records have them."""

    @abstractmethod
    def quiet(self, connection: Connection, tables: Sequence[Table]) -> None:
        """Takes the user's triggers off these tables, and lets constraints that can wait wait; until ``loud``, or the end of the transaction."""

    @abstractmethod
    def loud(self, connection: Connection, tables: Sequence[Table]) -> None:
        """Brings the triggers back, exactly as they were; constraints that waited are checked first."""

    def name(self, table: Table) -> str:
        """A table's name in SQL."""
        return f"{quote(table.schema)}.{quote(table.name)}" if table.schema else quote(table.name)

    @abstractmethod
    def value(self, column: Column, shown: str | None) -> str:
        """A value as an SQL expression of the column's own type.

        Args:
            shown: as ``Database.rows`` gives it; None for NULL.
        """

    @abstractmethod
    def among(self, table: Table, keys: Collection[str], alias: str) -> str:
        """The condition that a row's key is one of these, as the database compares keys.

        Args:
            alias: what the statement calls the table.
        """

    @abstractmethod
    def named(self, connection: Connection, table: Table, keys: Collection[str], since: str) -> set[str]:
        """Which of these keys the journal names after a position, as the database compares keys: all if it names the whole table."""

    @abstractmethod
    def keys(self, connection: Connection, table: Table, rest: str = "") -> set[str]:
        """Keys of the table's rows, in the form that ``Database.rows`` gives them.

        Args:
            rest: the end of a statement that calls the table ``t``: ``JOIN … ON … WHERE …``.
        """

    @abstractmethod
    def identity_override(self, table: Table) -> str:
        """What an INSERT that gives every value itself says before VALUES."""


def pieces(keys: Collection[str], size: int = PIECE) -> list[list[str]]:
    """Keys in portions that fit into one statement."""
    ordered = sorted(keys)
    return [ordered[begin : begin + size] for begin in range(0, len(ordered), size)]


def equal(columns: Sequence[str], alias: str, others: Sequence[str], other: str) -> str:
    """The condition that columns of two tables are equal, one by one."""
    return " AND ".join(f"{alias}.{quote(a)} = {other}.{quote(b)}" for a, b in zip(columns, others, strict=True))
