"""Tests marked ``containers`` run where a Docker engine answers, and are skipped, visibly, where none does."""

from __future__ import annotations

import functools

import pytest

from replstore.local.docker import engine_answers

_answers = functools.cache(engine_answers)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("containers") and not _answers():
        pytest.skip("no Docker engine answers")
