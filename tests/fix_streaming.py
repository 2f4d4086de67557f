"""A PostgreSQL primary and its hot standby: one pair for the whole run, brought back into order for each test, or one of the test's own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from replstore import local

_numbers = itertools.count(1)

_source: local.LocalSource = "path" if os.environ.get("REPLSTORE_LOCAL") == "path" else "auto"


@pytest.fixture(scope="session")
def streaming_servers() -> Iterator[local.StreamingPair]:
    """A primary and its standby for the whole run (of each worker, under xdist), without fsync."""
    with local.streaming_pair(_source, fsync=False, segment=1) as pair:
        yield pair


@pytest.fixture
def streaming_pair(streaming_servers: local.StreamingPair) -> Iterator[local.StreamingPair]:
    """A new database, with the URLs of its owner ``app``: an ordinary role that may promote. The primary writes, the standby follows, whatever the last test did."""
    with streaming_servers.fresh(f"streaming_{next(_numbers)}", "app") as pair:
        yield pair


@pytest.fixture
def own_streaming_pair() -> Iterator[local.StreamingPair]:
    """A primary and its standby of the test's own, with fsync, to be reconfigured; the URLs are the superuser's."""
    with local.streaming_pair(_source) as pair:
        yield pair
