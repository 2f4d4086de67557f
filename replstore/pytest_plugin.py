"""Fixtures for the tests of programs that use replstore; they are there as soon as replstore is installed.

``replstore_sqlite_pair`` gives a :class:`replstore.local.SqlitePair`, ``replstore_postgresql_pair`` a :class:`replstore.local.PostgresPair`,
``replstore_streaming_pair`` a :class:`replstore.local.StreamingPair`::

    def test_orders_survive(replstore_postgresql_pair):
        pair = replstore_postgresql_pair
        store = Store(primary=pair.primary_url, standby=pair.standby_url)
        ...
        pair.kill("primary")

PostgreSQL needs the extra ``local`` or a server of your own: see :mod:`replstore.local`.  Nothing is imported before a test asks for a pair.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from replstore.local import PostgresPair, SqlitePair, StreamingPair

_numbers = itertools.count(1)


@pytest.fixture
def replstore_sqlite_pair(tmp_path: Path) -> Iterator[SqlitePair]:
    """Two SQLite files in the test's temporary directory; they don't exist yet."""
    from replstore import local

    with local.sqlite_pair(tmp_path) as pair:
        yield pair


@pytest.fixture(scope="session")
def replstore_postgresql_servers() -> Iterator[PostgresPair]:
    """The two PostgreSQL servers of this test run (of each worker, under pytest-xdist), without fsync."""
    from replstore import local

    with local.postgresql_pair(fsync=False) as pair:
        yield pair


@pytest.fixture
def replstore_postgresql_pair(replstore_postgresql_servers: PostgresPair) -> Iterator[PostgresPair]:
    """An empty database on each of two real servers. A server that the test killed, stopped or froze is started again for the next one."""
    with replstore_postgresql_servers.fresh(f"replstore_{next(_numbers)}") as pair:
        yield pair


@pytest.fixture(scope="session")
def replstore_streaming_servers() -> Iterator[StreamingPair]:
    """The PostgreSQL primary and its hot standby of this test run (of each worker, under pytest-xdist), without fsync."""
    from replstore import local

    with local.streaming_pair(fsync=False, segment=1) as pair:
        yield pair


@pytest.fixture
def replstore_streaming_pair(replstore_streaming_servers: StreamingPair) -> Iterator[StreamingPair]:
    """A new database on a primary and its standby, with the URLs of its owner ``app``, who may promote; in order, whatever the last test did."""
    with replstore_streaming_servers.fresh(f"replstore_{next(_numbers)}", "app") as pair:
        yield pair
