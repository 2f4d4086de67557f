"""A pair of one SQLite file and one PostgreSQL database, either of them the primary."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from replstore import local
from replstore.local.pairs import Name
from replstore.node import Node
from tests.fix_pairs import FreshPair
from tests.fix_stores import Lab


class MixedPair(local.Pair):
    """A file and a database.

    Args:
        files, servers: pairs of which this one takes a node each.
        primary: which kind of database the primary is.
    """

    def __init__(self, files: local.SqlitePair, servers: local.PostgresPair, primary: str) -> None:
        kinds: dict[Name, local.Pair] = {"primary": files, "standby": servers} if primary == "sqlite" else {"primary": servers, "standby": files}
        self.kinds = kinds

    def url(self, node: Name) -> str:
        return self.kinds[node].url(node)

    def kill(self, node: Name) -> None:
        self.kinds[node].kill(node)

    def stop(self, node: Name) -> None:
        self.kinds[node].stop(node)

    def start(self, node: Name) -> None:
        self.kinds[node].start(node)

    def close(self) -> None:
        """Both are the fixtures' own."""


class MixedLab(Lab):
    """A mixed pair under test.

    Attributes:
        sqlite, server: names of the two nodes.
    """

    def __init__(self, pair: MixedPair) -> None:
        super().__init__(pair)
        names: tuple[Name, Name] = ("primary", "standby")
        self.server: Name = next(name for name in names if isinstance(pair.kinds[name], local.PostgresPair))
        self.sqlite: Name = "standby" if self.server == "primary" else "primary"

    def _node(self, name: Name) -> Node:
        other: Name = "standby" if name == "primary" else "primary"
        return Node(name, make_url(self.pair.url(name)), seconds=2.0, beside=make_url(self.pair.url(other)))

    def connect(self, node: str) -> Any:
        self.postgresql = node == self.server
        return super().connect(node)

    def sql(self, node: str, *statements: str) -> list[tuple[Any, ...]]:
        self.postgresql = node == self.server
        return super().sql(node, *statements)

    def replace(self, node: str) -> None:
        self.postgresql = node == self.server
        super().replace(node)

    def name(self, table: str, node: str = "primary") -> str:
        return self.nodes[node].database.control.name(table)

    def markers(self, node: str) -> dict[str, str]:
        return dict(self.sql(node, f"SELECT id, outcome FROM {self.name('marker', node)}"))


@contextlib.contextmanager
def mixed(directory: Path, servers: local.PostgresPair, primary: str) -> Iterator[MixedLab]:
    """A lab on an empty mixed pair."""
    with FreshPair(servers) as fresh, contextlib.closing(MixedLab(MixedPair(local.SqlitePair(directory), fresh, primary))) as lab:
        yield lab


@pytest.fixture(params=["sqlite", "postgresql"])
def mixed_lab(request: pytest.FixtureRequest, tmp_path: Path, postgresql_servers: local.PostgresPair) -> Iterator[MixedLab]:
    """A mixed pair, with each kind of database as the primary in turn."""
    with mixed(tmp_path, postgresql_servers, request.param) as lab:
        yield lab


@pytest.fixture
def file_first(tmp_path: Path, postgresql_servers: local.PostgresPair) -> Iterator[MixedLab]:
    """A mixed pair whose primary is the SQLite file."""
    with mixed(tmp_path, postgresql_servers, "sqlite") as lab:
        yield lab


@pytest.fixture
def server_first(tmp_path: Path, postgresql_servers: local.PostgresPair) -> Iterator[MixedLab]:
    """A mixed pair whose primary is the PostgreSQL database."""
    with mixed(tmp_path, postgresql_servers, "postgresql") as lab:
        yield lab
