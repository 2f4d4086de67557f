"""What a run of every day leaves out: all but one case of the tests that have many, and tests marked ``slow``.  ``REPLSTORE_TESTS=all`` leaves out nothing.

The cases of one test differ in their database or their values: one of them shows that the rule holds at all.  Which one, the test's name decides, so that it is
always the same and each kind of database has its share.  Whoever asks for tests by name, or with ``-k`` or ``-m``, gets all that he asked for.
"""

from __future__ import annotations

import functools
import os
import zlib
from collections import defaultdict

import pytest

from replstore.errors import ConfigError
from replstore.local.programs import bindir

#: Whether everything is run, as in CI.
ALL = os.environ.get("REPLSTORE_TESTS") == "all"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if ALL or config.option.keyword or config.option.markexpr or any("::" in argument for argument in config.args):
        return
    cases = defaultdict[str, list[pytest.Item]](list)
    for item in items:
        if not item.get_closest_marker("slow"):
            cases[item.nodeid.partition("[")[0]].append(item)
    kept = {item for test, group in cases.items() for item in _sample(test, group)}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def pytest_report_header() -> str:
    return "tests: every case" if ALL else "tests: one case of each; `make test-all` (REPLSTORE_TESTS=all) runs every case"


def _sample(test: str, cases: list[pytest.Item]) -> list[pytest.Item]:
    """What needs no database is quick enough."""
    if "/unit/" in test:
        return cases
    here = [case for case in cases if _installed() or "installed" not in case.nodeid.partition("[")[2]]
    return [here[zlib.crc32(test.encode()) % len(here)]]


@functools.cache
def _installed() -> bool:
    """Whether the machine has PostgreSQL; a test that also runs on the wheel's is run there instead."""
    try:
        return bindir("path").is_dir()
    except ConfigError:
        return False
