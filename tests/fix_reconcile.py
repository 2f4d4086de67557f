"""Two databases that know nothing of replstore, to be compared: two files, two databases of PostgreSQL servers, or one of each."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
import pytest
from sqlalchemy import make_url

from replstore import local
from replstore.databases.digests import Cut
from replstore.reconcile import Report, Wishes, check_databases, rows
from replstore.reconcile.report import TableReport

BOTH = ("primary", "standby")


class Two:
    """Two databases.

    Args:
        primary, standby: their URLs.
    """

    def __init__(self, primary: str, standby: str) -> None:
        self.urls = {"primary": primary, "standby": standby}

    def connect(self, node: str) -> Any:
        """A plain connection, in autocommit."""
        url = make_url(self.urls[node])
        if url.get_backend_name() == "sqlite":
            return sqlite3.connect(str(url.database), isolation_level=None)
        return psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True)

    def sql(self, node: str, *statements: str) -> list[Any]:
        """Executes statements on one database; the rows of the last one."""
        connection = self.connect(node)
        try:
            rows = []
            for statement in statements:
                cursor = connection.execute(statement)
                rows = cursor.fetchall() if cursor.description else []
            return rows
        finally:
            connection.close()

    def both(self, *statements: str) -> None:
        """Executes statements on both."""
        for node in BOTH:
            self.sql(node, *statements)

    def check(self, **wishes: Any) -> Report:
        """Compares them; without a pause, for nothing is late here unless a test makes it so."""
        return check_databases(self.urls["primary"], self.urls["standby"], Wishes(**{"settle": 0.0, **wishes}))

    def same(self, **wishes: Any) -> bool:
        """Whether no bucket's digest differs: no row is read that could put right what digests have invented."""
        cuts: list[Cut | None] = []
        real = rows.find

        def find(*given: Any, **named: Any) -> Any:
            found = real(*given, **named)
            cuts.append(found.cut)
            return found

        with patch.object(rows, "find", find):
            self.check(**wishes)
        return bool(cuts) and not any(cuts)


def only(report: Report) -> TableReport:
    """The report of the one table that there is."""
    (table,) = report.tables
    return table


def found(report: Report) -> list[tuple[tuple[Any, ...], str, tuple[str, ...]]]:
    """The differences of the one table that there is: the key's values, the kind, the columns."""
    return [(tuple(each.key.values()), each.kind, each.columns) for each in only(report).differences]


@pytest.fixture
def two_files(tmp_path: Path) -> Two:
    """Two empty SQLite files."""
    pair = local.sqlite_pair(tmp_path)
    for node in BOTH:
        sqlite3.connect(pair.path(node)).execute("PRAGMA journal_mode = WAL")
    return Two(pair.primary_url, pair.standby_url)


@pytest.fixture
def two_servers(postgresql_pair: local.PostgresPair) -> Two:
    """An empty database on each of two PostgreSQL servers."""
    return Two(postgresql_pair.primary_url, postgresql_pair.standby_url)


@pytest.fixture(params=["sqlite", "postgresql"])
def two(request: pytest.FixtureRequest) -> Two:
    """Two of each kind, in turn."""
    made: Two = request.getfixturevalue("two_files" if request.param == "sqlite" else "two_servers")
    return made


@pytest.fixture(params=["file first", "server first"])
def unlike(request: pytest.FixtureRequest, two_files: Two, postgresql_pair: local.PostgresPair) -> Two:
    """A file and a server's database, in either order."""
    urls = (two_files.urls["primary"], postgresql_pair.primary_url)
    return Two(*(urls if request.param == "file first" else urls[::-1]))
