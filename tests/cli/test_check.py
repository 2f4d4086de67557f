"""replstore check as a command: what it prints, and how it ends."""

from __future__ import annotations

import json

import pytest

from tests.cli.fix_command import Run
from tests.fix_check import behind_the_guard
from tests.fix_reconcile import Two
from tests.fix_stores import Lab, insert


@pytest.fixture
def pair(sqlite_lab: Lab) -> Lab:
    """Two SQLite files with a few rows, not open anywhere."""
    store = sqlite_lab.migrated(background=False, detection_time=1.5)
    for id in range(5):
        sqlite_lab.sql("primary", insert(id))
    store.sync()
    store.close()
    return sqlite_lab


def urls(lab: Lab) -> tuple[str, ...]:
    return ("--primary", lab.pair.primary_url, "--standby", lab.pair.standby_url)


def test_equal_nodes_end_with_0_and_a_sentence(pair: Lab, run: Run) -> None:
    done = run("check", *urls(pair))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().endswith("Equal: 5 rows in 1 table.")
    assert "replstore_orphan" not in done.stdout
    assert "\x1b" not in done.stdout


def test_rows_on_their_way_are_told_and_end_with_0(pair: Lab, run: Run) -> None:
    pair.sql("primary", insert(7))
    done = run("check", *urls(pair))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().endswith("Equal: 6 rows in 1 table; 1 row is on the way to the follower.")


def test_differences_end_with_1_and_are_shown_with_both_values(pair: Lab, run: Run) -> None:
    behind_the_guard(
        pair, "standby", "UPDATE account SET amount = 77, owner = 'm' || char(27) || '[31m' WHERE id = 2", "DELETE FROM account WHERE id = 3"
    )
    pair.sql("standby", "CREATE INDEX by_amount ON account (amount)", "CREATE TABLE extra (id INTEGER PRIMARY KEY)")
    for width in ("80", "120"):
        done = run("check", *urls(pair), COLUMNS=width)
        assert (done.returncode, done.stderr) == (1, "")
        assert all(len(line) <= int(width) for line in done.stdout.splitlines())
        words = " ".join(done.stdout.split())
        assert "'owner 2' 'm\\x1b[31m'" in words
        assert "amount 0 77" in words
        assert "no row" in words
        assert "extra: on standby only" in words
        assert "by_amount" in words
        assert words.endswith("Different: 2 rows in 1 table, the schema in 2 places.")


def test_json_is_the_report_on_stdout_and_nothing_else(pair: Lab, run: Run) -> None:
    done = run("check", *urls(pair), "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["equal"] is True
    behind_the_guard(pair, "primary", "UPDATE account SET owner = CAST(x'ff' AS TEXT) WHERE id = 2")
    done = run("check", *urls(pair), "--format", "json")
    assert (done.returncode, done.stderr) == (1, "")
    facts = json.loads(done.stdout)
    (account,) = (each for each in facts["tables"] if each["name"] == "account")
    assert facts["equal"] is False
    assert account["rows"] == {"primary": 5, "standby": 5}
    (difference,) = account["differences"]
    assert {name: difference[name] for name in ("key", "kind", "columns", "cause")} == {
        "key": {"id": 2},
        "kind": "changed",
        "columns": ["owner"],
        "cause": "behind_guard",
    }
    assert difference["primary"] == {"owner": "'\\xff'"}


def test_the_screen_lists_as_many_differences_as_are_asked_for(pair: Lab, run: Run) -> None:
    behind_the_guard(pair, "standby", "DELETE FROM account")
    done = run("check", *urls(pair), "--limit", "2", COLUMNS="120")
    assert done.stdout.count("row on primary only") == 2
    assert "and 3 more in account" in done.stdout
    assert "Different: 5 rows in 1 table." in done.stdout
    assert len(json.loads(run("check", *urls(pair), "--format", "json", "--limit", "2").stdout)["tables"][0]["differences"]) == 2


def test_tables_are_chosen_by_name(pair: Lab, run: Run) -> None:
    behind_the_guard(pair, "standby", "DELETE FROM account")
    assert run("check", *urls(pair), "--tables", "account").returncode == 1
    assert run("check", *urls(pair), "--tables", "replstore_orphan").returncode == 0
    done = run("check", *urls(pair), "--tables", "account,nobody")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("replstore: table nobody: no table has this name; there are account")


@pytest.mark.parametrize("node", ["primary", "standby"])
def test_a_node_that_is_not_there_ends_with_2_and_its_name(pair: Lab, run: Run, node: str) -> None:
    pair.kill(node)
    done = run("check", *urls(pair))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"replstore: a check reads both nodes; {node}: ")
    assert len(done.stderr.splitlines()) == 1


def test_databases_that_are_no_pair_end_with_2(sqlite_lab: Lab, run: Run) -> None:
    for node in ("primary", "standby"):
        sqlite_lab.sql(node, "CREATE TABLE account (id INTEGER PRIMARY KEY)")
    done = run("check", *urls(sqlite_lab))
    assert (done.returncode, done.stdout) == (2, "")
    assert "replstore migrate" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_empty_list_of_tables_is_refused(run: Run, pair: Lab) -> None:
    done = run("check", "--tables", " , ", *urls(pair))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "replstore: --tables names no table: give at least one, or leave it out to compare all\n"


def test_since_last_compares_what_has_changed_or_ends_with_2_and_the_command_that_is_needed(pair: Lab, run: Run) -> None:
    done = run("check", *urls(pair), "--since", "last")
    assert (done.returncode, done.stdout) == (2, "")
    assert "run `replstore check`, which compares every row" in done.stderr
    assert run("check", *urls(pair)).returncode == 0
    pair.sql("primary", insert(7))
    assert run("sync", *urls(pair)).returncode == 0
    done = run("check", *urls(pair), "--since", "last")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Equal: 1 row in 1 table that changed since 20" in " ".join(done.stdout.split())
    assert "only found by a check without --since" in " ".join(done.stdout.split())
    facts = json.loads(run("check", *urls(pair), "--since", "last", "--format", "json").stdout)
    assert [each["changed"] for each in facts["tables"]] == [0, 0]
    assert facts["since"].startswith("20")
    for wrong, sentence in ((("--since", "yesterday"), "only last is"), (("--since", "last", "--where", "id = 1"), "doesn't go together with since")):
        done = run("check", *urls(pair), *wrong)
        assert done.returncode == 2
        assert sentence in " ".join(done.stderr.split())


def test_two_databases_that_are_no_pair_have_no_last_check(two_files: Two, run: Run) -> None:
    two_files.both("CREATE TABLE a (id INTEGER PRIMARY KEY)")
    done = run("check", *two_files.urls.values(), "--since", "last")
    assert done.returncode == 2
    assert "leave --since out" in " ".join(done.stderr.split())


def test_causes_stand_beside_the_rows(pair: Lab, run: Run) -> None:
    assert run("check", *urls(pair)).returncode == 0
    behind_the_guard(pair, "standby", "UPDATE account SET amount = 77 WHERE id = 2")
    words = " ".join(run("check", *urls(pair), COLUMNS="160").stdout.split())
    assert "written past the triggers, after the check of 20" in words
