"""Real pairs: two SQLite files, two databases on shared PostgreSQL servers, or two PostgreSQL servers of the test's own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from replstore import local

_numbers = itertools.count(1)

#: The servers come from the wheel, which starts in a moment; REPLSTORE_LOCAL runs the same tests on another source.
_source: local.Source = "auto" if os.environ.get("REPLSTORE_LOCAL") else "wheel"


def plain(url: str, **options: Any) -> psycopg.Connection[Any]:
    """The plain driver's connection to a PostgreSQL node, as any other program has one."""
    return psycopg.connect(url.replace("+psycopg", "", 1), connect_timeout=5, **options)


class FreshPair(local.PostgresPair):
    """A database on each of two servers, made when somebody first asks for its URL or name: an empty one, unless it was made as a copy before.

    Args:
        servers: revived, if a test has left them killed or frozen.
        owner: of the databases, and the role in the URLs; made, as an ordinary role, if there is no such role.

    Attributes:
        made: the nodes whose database is there.
    """

    def __init__(self, servers: local.PostgresPair, owner: str = "postgres") -> None:
        self.primary, self.standby, self.user = servers.primary, servers.standby, owner
        self.name, self.made = f"test_{next(_numbers)}", set[str]()
        for server in (self.primary, self.standby):
            server.revive()
            if owner != "postgres":
                server.create_role(owner)

    @property
    def database(self) -> str:  # type: ignore[override]
        self.url("primary"), self.url("standby")
        return self.name

    def url(self, node: local.Name) -> str:
        self.make(node)
        return self.server(node).url(self.name, self.user)

    def make(self, node: local.Name, template: FreshPair | None = None) -> None:
        """Makes a node's database; of a template, to which nobody may be connected, on the same servers."""
        if node in self.made:
            return
        self.made.add(node)
        server = self.server(node)
        if template is None:
            server.create_database(self.name, self.user)
        else:
            server.execute(f'CREATE DATABASE "{self.name}" OWNER "{self.user}" TEMPLATE "{template.name}" STRATEGY file_copy')

    def close(self) -> None:
        """Drops the databases; the servers stay."""
        for server in (self.primary, self.standby):
            server.revive()
            server.drop_database(self.name)


@pytest.fixture
def sqlite_pair(tmp_path: Path) -> Iterator[local.SqlitePair]:
    """Two SQLite files that don't exist yet."""
    with local.sqlite_pair(tmp_path) as pair:
        yield pair


@pytest.fixture(scope="session")
def postgresql_servers() -> Iterator[local.PostgresPair]:
    """Two servers for the whole run (of each worker, under xdist), without fsync."""
    with local.postgresql_pair(_source, fsync=False) as pair:
        yield pair


@pytest.fixture
def postgresql_pair(postgresql_servers: local.PostgresPair) -> Iterator[local.PostgresPair]:
    """An empty database on each of the two shared servers, with the superuser's URLs. Servers that a test leaves killed or frozen are revived."""
    with FreshPair(postgresql_servers) as pair:
        yield pair


@pytest.fixture
def ordinary_postgresql_pair(postgresql_servers: local.PostgresPair) -> Iterator[local.PostgresPair]:
    """The same, with the URLs of the databases' owner, a role without privileges."""
    with FreshPair(postgresql_servers, owner="ordinary") as pair:
        yield pair


@pytest.fixture
def own_postgresql_pair() -> Iterator[local.PostgresPair]:
    """Two servers of the test's own, with fsync, to be killed, frozen and reconfigured."""
    with local.postgresql_pair(_source) as pair:
        yield pair


@pytest.fixture(params=["sqlite", "postgresql"])
def any_pair(request: pytest.FixtureRequest) -> local.Pair:
    """An empty pair of each kind, in turn."""
    pair: local.Pair = request.getfixturevalue(f"{request.param}_pair")
    return pair


@pytest.fixture
def pair_urls(any_pair: local.Pair) -> tuple[str, str]:
    """The URLs of the primary and the standby of an empty pair of each kind, in turn."""
    return any_pair.primary_url, any_pair.standby_url
