"""The kinds of throw-away pair that the demo runs on: two SQLite files, two PostgreSQL servers, a PostgreSQL primary with its streaming standby."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from contextlib import closing, suppress
from typing import Any, ClassVar

from replstore import local
from replstore.demo.verdict import QUERIES, Rows
from replstore.errors import ReplstoreError
from replstore.local import Name, Pair
from replstore.store import Store


class DemoPair(ABC):
    """A pair, and the words for it.

    Attributes:
        made, killed, back: sentences.
        term: what a writer's time is called.
        alone: a writer without its follower acknowledges.
        orphans: what becomes of what only the lost primary had.
        local: the pair itself, once it is open.
    """

    made: ClassVar[str]
    killed: ClassVar[str]
    back: ClassVar[str]
    term: ClassVar[str] = "term"
    alone: ClassVar[bool] = True
    orphans: ClassVar[str] = "rows only the lost primary had: kept aside"
    local: Pair

    @property
    def settings(self) -> dict[str, Any]:
        """Of each Store, besides the URLs."""
        return {}

    @abstractmethod
    def open(self) -> None:
        """Makes the pair."""

    def close(self) -> None:
        """Removes it."""
        self.local.close()

    def bring_back(self, store: Store) -> int:
        """Brings the killed primary back; whatever it lacks to follow, the running Stores do.

        Returns:
            How many transactions that only it had are gone.
        """
        self.local.start("primary")
        return 0

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


class NativeDemo(PostgresqlDemo):
    """A primary and the standby that streams from it; the data directories are here, so replstore rewinds and changes roles by itself."""

    made = "A PostgreSQL primary and its streaming standby are the pair."
    back = "The former primary is rewound and follows (rejoin)."
    term = "timeline"
    alone = False
    orphans = "transactions only the lost primary had, none acknowledged: rewound"

    def open(self) -> None:
        self.local = self._streaming = local.streaming_pair(segment=1)

    @property
    def settings(self) -> dict[str, Any]:
        directories = {f"{name}_data": str(self._streaming.data(name).path) for name in NODES}
        bindir = str(self._streaming.primary.bindir)
        return {"replication": "native", "promote": True, "durability": "replicated", "postgresql_bin": bindir, **directories}

    def bring_back(self, store: Store) -> int:
        return store.rejoin(discard=True)  # an order without the standby's proof was acknowledged to nobody

    def close(self) -> None:
        for name in NODES:  # servers that rejoin and switchover have started
            with suppress(ReplstoreError):
                self._streaming.data(name).stop("immediate")
        super().close()


NODES: tuple[Name, ...] = ("primary", "standby")
KINDS: dict[str, type[DemoPair]] = {"sqlite": SqliteDemo, "postgresql": PostgresqlDemo, "native": NativeDemo}
