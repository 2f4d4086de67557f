"""What the tests of a module share is made anew after one of them has failed: whoever comes next, a second attempt too, finds nothing of it."""

from __future__ import annotations

from collections.abc import Generator

import pytest

_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when != "teardown":
        item.stash[_FAILED] = report.failed or (report.when == "call" and item.stash[_FAILED])
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    try:
        yield
    finally:
        if item.stash.get(_FAILED, False):
            _end_shared(item)


def _end_shared(item: pytest.Item) -> None:
    """Ends each fixture of the test's that is its module's; the next test that asks for it makes it again."""
    names = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    for definition in [each for definitions in names.values() for each in definitions]:
        if definition.scope == "module":
            definition.finish(item._request)  # type: ignore[attr-defined]
