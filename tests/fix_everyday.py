"""What a run of every day leaves out: most cases of the tests that have many, and tests marked ``slow``.  ``REPLSTORE_TESTS=all`` leaves out nothing.

Cases of one test differ in their values only; two of them, the first and the last, show on each kind of database that the rule holds at all.  Whoever asks
for tests by name, or with ``-k`` or ``-m``, gets all that he asked for.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict

import pytest

#: Whether everything is run, as in CI.
ALL = os.environ.get("REPLSTORE_TESTS") == "all"

_KINDS = ("sqlite", "postgresql", "mixed", "wheel", "installed")

_left_out = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if ALL or config.option.keyword or config.option.markexpr or any("::" in argument for argument in config.args):
        return
    cases = defaultdict[object, list[pytest.Item]](list)
    for item in items:
        cases[_group(item)].append(item)
    kept = {item for group in cases.values() for item in ({group[0], group[-1]} if _many(group) else group) if not item.get_closest_marker("slow")}
    out = [item for item in items if item not in kept]
    config.stash[_left_out] = len(out)
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item in kept]


def pytest_report_header(config: pytest.Config) -> str:
    return "tests: all" if ALL else "tests: of every day (REPLSTORE_TESTS=all or `make test-all`: all)"


def _group(item: pytest.Item) -> tuple[str, ...]:
    """A test on one kind of database; its cases have this in common."""
    test, _, case = item.nodeid.partition("[")
    return test, *sorted(set(re.split(r"[^a-z]", case)) & set(_KINDS))


def _many(group: list[pytest.Item]) -> bool:
    """What needs no database is quick enough."""
    return "/unit/" not in group[0].nodeid
