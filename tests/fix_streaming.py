"""A PostgreSQL primary and its hot standby: one pair for the whole run, brought back into order for each test, or one of the test's own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from replstore import local
from replstore.errors import ConfigError
from replstore.local.programs import bindir

_numbers = itertools.count(1)

_source: local.LocalSource = "path" if os.environ.get("REPLSTORE_LOCAL") == "path" else "auto"


@pytest.fixture(scope="session")
def streaming_servers() -> Iterator[local.StreamingPair]:
    """A primary and its standby for the whole run (of each worker, under xdist), without fsync."""
    with local.streaming_pair(_source, fsync=False, segment=1) as pair:
        yield pair


@pytest.fixture(scope="session")
def installed_servers() -> Iterator[local.StreamingPair]:
    """The same from the programs that are installed on the machine, which is often an older PostgreSQL."""
    try:
        bindir("path")
    except ConfigError as reason:
        pytest.skip(str(reason))
    with local.streaming_pair("path", fsync=False, segment=1) as pair:
        yield pair


@pytest.fixture
def streaming_pair(request: pytest.FixtureRequest) -> Iterator[local.StreamingPair]:
    """A new database, with the URLs of its owner ``app``: an ordinary role that may promote. The primary writes, the standby follows, whatever the last test did."""
    servers: local.StreamingPair = request.getfixturevalue(getattr(request, "param", "streaming_servers"))
    with servers.fresh(f"streaming_{next(_numbers)}", "app") as pair:
        yield pair


#: For a test whose answer hangs on the server's version: on the wheel's PostgreSQL, and on an installed one.
on_an_installed_server_too = pytest.mark.parametrize(
    "streaming_pair", ["streaming_servers", "installed_servers"], ids=["wheel", "installed"], indirect=True
)


@pytest.fixture
def own_streaming_pair() -> Iterator[local.StreamingPair]:
    """A primary and its standby of the test's own, with fsync, to be reconfigured; the URLs are the superuser's."""
    with local.streaming_pair(_source) as pair:
        yield pair
