"""A check's report in a sentence, on the screen and as JSON: what is hidden isn't counted, and a key looks the same wherever it stands."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from replstore.cli.check import show
from replstore.errors import ConfigError
from replstore.local import SqlitePair
from replstore.reconcile.origin import Origin
from replstore.reconcile.report import Difference, Report, TableReport
from replstore.store import Store

ORPHANS = TableReport("replstore_orphan", 0, 0, (), 0, 0)


def report(*tables: TableReport) -> Report:
    return Report((*tables, ORPHANS), (), (), "primary", True, ())


def screen(found: Report) -> list[str]:
    console = Console(width=100, highlight=False)
    with console.capture() as capture:
        show(found, console)
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (report(), "Equal: there is no table yet."),
        (report(TableReport("item", 0, 0, (), 0, 0)), "Equal: 0 rows in 1 table."),
        (report(TableReport("item", 1, 1, (), 0, 0)), "Equal: 1 row in 1 table."),
        (report(TableReport("item", 1, 0, (), 0, 1)), "Equal: 1 row in 1 table; 1 row is on the way to the follower."),
        (Report((TableReport("replstore.orphan", 2, 2, (), 0, 0),), (), (), None, True, ()), "Equal: 2 rows in 1 table."),
        (report(TableReport("item", 3, 1, (), 2, 0), TableReport("box", 1000, 1000, (), 0, 0)), "Different: 2 rows in 1 table."),
    ],
)
def test_the_sentence_counts_what_is_shown(found: Report, sentence: str) -> None:
    assert str(found) == sentence
    assert screen(found)[-1] == sentence


def test_without_tables_no_empty_frame_is_shown() -> None:
    assert screen(report()) == ["Equal: there is no table yet."]


def test_a_key_is_the_same_in_the_row_as_by_itself() -> None:
    missing = Difference({"id": 3, "code": "x"}, "missing_on_standby", (), Origin(), {"id": "3", "code": "x", "amount": "7"}, None)
    facts: dict[str, Any] = missing.as_dict()
    assert facts["key"] == {"id": 3, "code": "x"}
    assert facts["primary"] == {"id": 3, "code": "x", "amount": "7"}


def test_no_table_at_all_is_no_comparison(sqlite_pair: SqlitePair) -> None:
    with (
        Store(primary=sqlite_pair.primary_url, standby=sqlite_pair.standby_url, background=False) as store,
        pytest.raises(ConfigError, match="tables names no table"),
    ):
        store.check(tables=[])
