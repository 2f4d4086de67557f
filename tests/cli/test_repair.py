"""replstore repair as a command: what it prints, and how it ends."""

from __future__ import annotations

import json

import pytest

from replstore import local
from tests.cli.fix_command import Run
from tests.fix_check import behind_the_guard
from tests.fix_stores import Lab, insert


def urls(pair: local.Pair) -> tuple[str, ...]:
    return "--primary", pair.primary_url, "--standby", pair.standby_url


@pytest.fixture
def pair(lab: Lab) -> local.Pair:
    """A pair whose standby has one row changed and one too many."""
    with lab.migrated(background=False) as store:
        store.run(lambda session: session.connection().exec_driver_sql(insert(1)))
    behind_the_guard(lab, "standby", "UPDATE account SET amount = 7 WHERE id = 1", insert(2))
    return lab.pair


def test_the_plan_comes_first_then_the_repair_and_its_undo(lab: Lab, pair: local.Pair, run: Run) -> None:
    done = run("repair", *urls(pair), COLUMNS="160")
    assert (done.returncode, done.stderr) == (0, "")
    assert "amount=7" in done.stdout
    assert done.stdout.endswith("2 rows would be changed. Nothing was changed; `--apply` repairs it.\n")
    assert run("check", *urls(pair)).returncode == 1

    done = run("repair", "--apply", *urls(pair), COLUMNS="160")
    assert (done.returncode, done.stderr) == (0, "")
    assert run("check", *urls(pair)).returncode == 0
    assert run("repair", *urls(pair)).stdout == "There is nothing to repair.\n"

    (kept,) = json.loads(run("repair", "--list", *urls(pair), "--format", "json").stdout)
    assert (kept["node"], kept["source"], kept["rows"], kept["undone"]) == ("standby", "writer", 2, 0)
    assert kept["id"] in run("repair", "--list", *urls(pair), COLUMNS="160").stdout
    assert f"`replstore repair --undo {kept['id']}`" in done.stdout

    done = run("repair", "--undo", kept["id"][:6], *urls(pair))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("2 rows brought back; `replstore check` says how the nodes compare now.\n")
    assert lab.accounts("standby") == {1: 7, 2: 0}
    done = run("repair", "--undo", kept["id"], *urls(pair))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"replstore: repair {kept['id']} was undone already\n")


def test_json_has_every_row_with_what_it_was_and_becomes(lab: Lab, pair: local.Pair, run: Run) -> None:
    done = run("repair", pair.primary_url, pair.standby_url, "--from", "newest", "amount", "--format", "json")
    facts = json.loads(done.stdout)
    (update, put) = sorted(facts.pop("changes"), key=lambda change: change["key"])
    assert (update["node"], update["change"], update["columns"]) == ("primary", "update", ["amount"])
    assert (update["before"]["amount"], update["after"]["amount"]) == ("0", "7")
    assert (put["node"], put["key"], put["change"], put["before"]) == ("primary", [2], "insert", None)
    assert facts == {
        "applied": False,
        "complete": False,
        "id": None,
        "source": "newest amount",
        "writer": "primary",
        "left": [],
        "sequences": {},
        "sequences_of_writer": {},
        "not_listed": {},
    }


def test_a_row_that_can_t_be_written_is_told_by_the_exit_code(lab: Lab, pair: local.Pair, run: Run) -> None:
    behind_the_guard(lab, "standby", "DELETE FROM account WHERE id = 2", "UPDATE account SET owner = 'x' WHERE id = 1")
    with lab.store(background=False) as store:
        store.run(lambda session: session.connection().exec_driver_sql(insert(3)))
    behind_the_guard(lab, "primary", "UPDATE account SET owner = 'x' WHERE id = 3")
    done = run("repair", "--from", "standby", "--tables", "account", "--where", "id = 1", "--apply", *urls(pair))
    assert done.returncode == 1, done.stderr
    assert "Left as it is: row [1] of " in done.stdout
    assert done.stdout.endswith("No row was changed.\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--from", "newest"), "--from newest needs the one column"),
        (("amount",), "amount: only `--from newest` takes a column"),
        (("--from", "newest", "nothing"), "has no column nothing"),
        (("--undo", "nix"), "nix: no repair begins with that"),
        (("--undo", ""), "no repair begins with that"),
        (("--list", "--apply"), "three things"),
        (("--tables", "nobody"), "table nobody: no table has this name"),
        (("sqlite:///a.db",), "both of its URLs"),
        (("--from", "me"), "'me'"),
    ],
)
def test_bad_input_is_one_sentence(pair: local.Pair, run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    done = run("repair", *arguments, *urls(pair))
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_two_databases_that_are_no_pair_are_refused(sqlite_pair: local.SqlitePair, run: Run) -> None:
    for node in ("primary", "standby"):
        local_file = sqlite_pair.path(node)  # type: ignore[arg-type]
        local_file.touch()
    done = run("repair", sqlite_pair.primary_url, sqlite_pair.standby_url)
    assert (done.returncode, done.stdout) == (2, "")
    assert "are no pair" in done.stderr
