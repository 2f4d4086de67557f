"""replstore check --html FILE: the page is written whole or not at all, and never over something else."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest

from tests.cli.fix_command import Run
from tests.fix_reconcile import Two


@pytest.fixture
def filled(two_files: Two) -> Two:
    two_files.both("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)")
    connection = two_files.connect("primary")
    connection.execute("WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 1200) INSERT INTO item SELECT i, 'n' || i FROM s")
    connection.close()
    return two_files


def urls(two: Two) -> tuple[str, ...]:
    return (two.urls["primary"], two.urls["standby"], "--settle", "0")


def test_the_page_is_written_beside_what_is_printed(filled: Two, run: Run, tmp_path: Path) -> None:
    done = run("check", *urls(filled), "--html", "page.html")
    assert (done.returncode, done.stderr) == (1, "")
    html = (tmp_path / "page.html").read_text()
    assert html.startswith("<!doctype html>")
    assert "Different: 1,200 rows in 1 table." in html
    assert html.count('<tbody class="missing_on_standby">') == 1000
    assert "200 rows more differ" in html
    assert done.stdout.count("row on primary only") == 20
    assert not list(tmp_path.glob("*.part"))


def test_a_limit_is_for_both(filled: Two, run: Run, tmp_path: Path) -> None:
    done = run("check", *urls(filled), "--html", "page.html", "--limit", "30")
    assert (tmp_path / "page.html").read_text().count('<tbody class="missing_on_standby">') == 30
    assert done.stdout.count("row on primary only") == 30


def test_json_and_a_page_are_one_check(filled: Two, run: Run, tmp_path: Path) -> None:
    done = run("check", *urls(filled), "--html", "page.html", "--format", "json", "--limit", "2")
    assert done.returncode == 1
    assert json.loads(done.stdout)["tables"][0]["total"] == 1200
    assert "1,200 rows" in (tmp_path / "page.html").read_text()


def test_a_page_of_an_equal_pair_ends_with_0_and_replaces_the_last_one(filled: Two, run: Run, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<!DOCTYPE html><title>the last one</title>")
    done = run("check", *urls(filled), "--where", "id < 0", "--html", "page.html")
    assert (done.returncode, done.stderr) == (0, "")
    html = (tmp_path / "page.html").read_text()
    assert "Equal: 0 rows in 1 table." in html
    assert "Only rows were compared for which id &lt; 0." in html
    assert "the last one" not in html


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("nowhere/page.html", "--html: there is no directory nowhere"),
        ("shop.db", "--html: shop.db is there and is no page of HTML: give another file, or remove it"),
        (".", "--html: . is there and is no page of HTML: give another file, or remove it"),
        ("/dev/null", "--html: /dev/null is there and is no page of HTML: give another file, or remove it"),
    ],
)
def test_a_file_that_can_t_be_the_page_is_refused_before_the_check(filled: Two, run: Run, tmp_path: Path, file: str, sentence: str) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE t (k)")
    before = (tmp_path / "shop.db").read_bytes()
    done = run("check", *urls(filled), "--html", file, "--where", "nonsense >")  # which the check would say
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"replstore: {sentence}\n"
    assert (tmp_path / "shop.db").read_bytes() == before


def test_a_page_that_breaks_off_leaves_the_last_one(filled: Two, run: Run, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<!doctype html>the last one")
    full = "import replstore.reconcile.page as p\ndef page(report): raise OSError(28, 'No space left on device')\np.page = page"
    done = run("check", *urls(filled), "--html", "page.html", before=full)
    assert done.returncode == 2
    assert done.stderr == "replstore: --html: page.html can't be written: No space left on device\n"
    assert "Different: 1,200 rows in 1 table." in done.stdout
    assert sorted(os.listdir(tmp_path)).count("page.html.part") == 0
    assert (tmp_path / "page.html").read_text() == "<!doctype html>the last one"
