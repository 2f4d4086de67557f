"""replstore check URL URL: two databases that need no replstore."""

from __future__ import annotations

import io
import json
import re
import time

import pytest
from rich.console import Console

from replstore.cli import progress
from tests.cli.fix_command import Run
from tests.fix_check import behind_the_guard
from tests.fix_reconcile import Two
from tests.fix_stores import Lab, insert


@pytest.fixture
def filled(two_files: Two) -> Two:
    two_files.both("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)", "INSERT INTO item VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    return two_files


def urls(two: Two) -> tuple[str, str]:
    return two.urls["primary"], two.urls["standby"]


def test_equal_databases_end_with_0_and_a_sentence(filled: Two, run: Run) -> None:
    done = run("check", *urls(filled))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().endswith("Equal: 3 rows in 1 table.")


def test_differences_end_with_1_and_are_shown(filled: Two, run: Run) -> None:
    filled.sql("standby", "UPDATE item SET name = 'z' WHERE id = 2", "DELETE FROM item WHERE id = 3")
    done = run("check", *urls(filled), "--settle", "0", COLUMNS="120")
    assert (done.returncode, done.stderr) == (1, "")
    words = " ".join(done.stdout.split())
    assert "id=2 name 'b' 'z'" in words
    assert "row on primary only" in words
    assert words.endswith("Different: 2 rows in 1 table.")
    assert "behind the guard" not in words
    facts = json.loads(run("check", *urls(filled), "--settle", "0", "--format", "json").stdout)
    assert [each["kind"] for each in facts["tables"][0]["differences"]] == ["changed", "missing_on_standby"]


def test_options_choose_what_is_compared(filled: Two, run: Run) -> None:
    filled.both("CREATE TABLE other (id INTEGER PRIMARY KEY)")
    filled.sql("standby", "DELETE FROM item WHERE id = 3", "INSERT INTO other VALUES (1)")
    assert run("check", *urls(filled), "--settle", "0", "--exclude", "item", "--exclude", "other").returncode == 0
    assert run("check", *urls(filled), "--settle", "0", "--exclude", "other", "--where", "id < 3").returncode == 0
    assert run("check", *urls(filled), "--settle", "0", "--tables", "other", "--where", "id < 3").returncode == 1
    assert run("check", *urls(filled), "--settle", "0", "--sample", "50", "--max-load", "90", "--workers", "1").returncode in (0, 1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("sqlite:///one.db",), "check takes two URLs"),
        (("sqlite:///one.db", "sqlite:///other.db", "--primary", "sqlite:///one.db"), "check takes two URLs"),
        (("sqlite:///one.db", "nonsense"), "not a database URL"),
        (("sqlite:////nowhere/one.db", "sqlite:////nowhere/other.db"), "standby can't be read: "),
        (("sqlite:///one.db", "sqlite:///other.db", "--sample", "0"), "--sample: 0 is no percentage above 0 and up to 100"),
        (("sqlite:///one.db", "sqlite:///other.db", "--max-load", "101"), "--max-load: 101 is no percentage above 0 and up to 100"),
        (("sqlite:///one.db", "sqlite:///other.db", "--exclude", ","), "--exclude names no table: give at least one, or leave it out"),
    ],
)
def test_what_can_t_be_compared_ends_with_2_and_one_sentence(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    done = run("check", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"replstore: {sentence}")
    assert len(done.stderr.splitlines()) == 1


def test_a_condition_that_is_no_sql_ends_with_2(filled: Two, run: Run) -> None:
    done = run("check", *urls(filled), "--where", "nonsense >")
    assert (done.returncode, done.stdout) == (2, "")
    assert "can't be read: " in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_urls_of_a_pair_are_compared_as_a_pair(sqlite_lab: Lab, run: Run) -> None:
    store = sqlite_lab.migrated(background=False, detection_time=1.5)
    sqlite_lab.sql("primary", insert(1))
    store.sync()
    store.close()
    sqlite_lab.sql("primary", insert(2))
    given = (sqlite_lab.pair.primary_url, sqlite_lab.pair.standby_url)
    done = run("check", *given)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().endswith("Equal: 2 rows in 1 table; 1 row is on the way to the follower.")
    behind_the_guard(sqlite_lab, "standby", "DELETE FROM account")
    assert run("check", *given).returncode == 1


def test_a_terminal_shows_table_rows_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(progress, "console", lambda stderr: Console(file=out, force_terminal=True, width=120))
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with progress.Bar() as bar:
        bar.callbacks["expected"]("public.item", 1000)
        for rows in (0, 100, 250):
            time.sleep(0.02)
            bar.callbacks["progress"]("public.item", rows)
        bar._shown.refresh()
    shown = out.getvalue()
    assert "comparing public.item" in shown
    assert "250 rows" in shown
    assert "rows/s" in shown
    assert re.search(r"\d\d:\d\d", shown)


def test_nothing_is_shown_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    with progress.Bar() as bar:
        assert bar.callbacks == {}
