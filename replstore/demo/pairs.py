"""The two kinds of throw-away pair that the demo runs on: two SQLite files, two PostgreSQL servers."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from contextlib import closing
from typing import Any, ClassVar

from replstore import local
from replstore.demo.verdict import QUERIES, Rows
from replstore.local import Name, Pair


class DemoPair(ABC):
    """A pair, and the words for it.

    Attributes:
        made, killed, back: sentences.
        local: the pair itself, once it is open.
    """

    made: ClassVar[str]
    killed: ClassVar[str]
    back: ClassVar[str]
    local: Pair

    @abstractmethod
    def open(self) -> None:
        """Makes the pair."""

    @abstractmethod
    def rows(self, node: Name) -> Rows:
        """What a node holds, read by the plain driver, past replstore."""


class SqliteDemo(DemoPair):
    """Two files in a temporary directory."""

    made = "Two SQLite files are the pair."
    killed = "The primary's file is moved away."
    back = "The primary's file is back."

    def open(self) -> None:
        self.local = self._files = local.sqlite_pair()

    def rows(self, node: Name) -> Rows:
        with closing(sqlite3.connect(f"file:{self._files.path(node)}?mode=ro", uri=True)) as connection:
            return {table: connection.execute(query).fetchall() for table, query in QUERIES.items()}


class PostgresqlDemo(DemoPair):
    """Two servers."""

    made = "Two PostgreSQL servers are the pair."
    killed = "The primary's server is killed (kill -9)."
    back = "The primary's server is started again."

    def open(self) -> None:
        self.local = local.postgresql_pair()

    def rows(self, node: Name) -> Rows:
        import psycopg

        with psycopg.connect(self.local.url(node).replace("+psycopg", "", 1)) as connection:
            return {table: self._all(connection, query) for table, query in QUERIES.items()}

    def _all(self, connection: Any, query: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = connection.execute(query).fetchall()
        return found


KINDS: dict[str, type[DemoPair]] = {"sqlite": SqliteDemo, "postgresql": PostgresqlDemo}
