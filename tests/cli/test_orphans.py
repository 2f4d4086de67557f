"""``replstore orphans``: a person looks at what a lost writer had committed alone, and decides, by the command alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.fix_command import Run
from tests.fix_orphans import Parting, customer, order
from tests.fix_shop import sql

Call = Callable[..., str]


@pytest.fixture
def call(run: Run, parting: Parting) -> Call:
    """Runs ``replstore orphans …`` on the pair: what it prints, or the one sentence with which it fails."""

    def call(*arguments: str, code: int = 0) -> str:
        done = run("orphans", *arguments, "--primary", parting.pair.primary_url, "--standby", parting.pair.standby_url, COLUMNS="200")
        assert done.returncode == code, done.stdout + done.stderr
        if code == 2:
            assert done.stdout == ""
            (sentence,) = done.stderr.splitlines()
            return sentence
        assert done.stderr == ""
        return done.stdout

    return call


def facts(call: Call, *arguments: str, code: int = 0) -> Any:
    return json.loads(call(*arguments, "--format", "json", code=code))


def test_the_plan_is_shown_first_and_carried_out_when_a_person_says_so(parting: Parting, call: Call) -> None:
    first, second = parting.lost(customer(1), order(10, customer=1))
    parting.back()
    said = call("replay")
    assert "2 groups would be replayed. Nothing was changed; `--apply` replays it." in said
    assert first[:8] in said
    assert "insert" in said
    assert "is not on record" in said
    assert parting.orders() == {}
    plan = facts(call, "replay")
    assert (plan["applied"], [group["outcome"] for group in plan["groups"]]) == (False, ["replayed"] * 2)
    assert [[tx["id"] for tx in group["transactions"]] for group in plan["groups"]] == [[first], [second]]
    assert "2 groups replayed. It is on both nodes." in call("replay", "--apply")
    assert parting.orders() == {10: "tea"}
    assert "replayed" in call("list")
    assert call("replay", code=2) == "replstore: there are no orphans to decide on: every one is replayed or discarded"
    assert facts(call, "replay", "--apply", first[:8])["groups"][0]["outcome"] == "replayed before"


def test_what_is_withheld_says_why_and_the_exit_code_tells(parting: Parting, call: Call) -> None:
    first, second = parting.lost(order(1, "of the lost writer"), order(2))
    parting.store.run(order(1, "of the new one"))
    parting.back()
    said = call("replay", "--apply", code=1)
    assert "1: the writer had changed row [1] of" in said
    assert f"2: transaction {first} was committed before" in said
    assert "2 groups withheld." in said
    assert "may rest on a row that only a withheld one wrote" in call("replay", "--out-of-order")
    assert "1 group replayed, 1 group withheld." in call("replay", "--out-of-order", "--apply", code=1)
    assert parting.orders() == {1: "of the new one", 2: "tea"}
    done = facts(call, "discard", "--tx", first, "--reason", "placed again", "--apply")
    assert [group["outcome"] for group in done["groups"]] == ["discarded"]
    shown = call("show", facts(call, "list")[-1]["id"])
    assert "It was discarded at" in shown or "It was replayed at" in shown
    assert {record["tx"]: (record["state"], record["reason"]) for record in facts(call, "list")} == {
        first: ("discarded", "placed again"),
        second: ("replayed", None),
    }


def test_discarding_takes_a_reason_and_ids_or_all_and_shows_its_plan_first(parting: Parting, call: Call) -> None:
    (first,) = parting.lost(order(1))
    parting.back()
    assert "a reason is needed" in call("discard", first, code=2)
    assert "name the orphans" in call("discard", "--reason", "why", code=2)
    assert "1 group would be discarded. Nothing was changed; `--apply` discards it." in call("discard", "--all", "--reason", "why")
    assert parting.states() == {"orders [1]": "open"}
    assert "1 group discarded. It is on both nodes." in call("discard", "--all", "--reason", "why", "--apply")
    assert "only `--reopen` takes that back" in call("replay", first, "--apply", code=1)
    assert "by its id only" in call("replay", "--reopen", code=2)
    assert "1 group replayed." in call("replay", first, "--reopen", "--apply", "--reason", "after all")
    assert parting.orders() == {1: "tea"}


def test_bad_input_is_one_sentence(parting: Parting, call: Call, run: Run) -> None:
    assert call("replay", code=2) == "replstore: there are no orphans to decide on: none was ever recorded"
    assert "none was ever recorded" in call("discard", "--all", "--reason", "why", code=2)
    parting.lost(order(1))
    parting.back()
    assert "nobody: no record and no transaction begins with that" in call("replay", "nobody", code=2)
    assert "nobody: no record and no transaction begins with that" in call("discard", "nobody", "--reason", "why", code=2)
    swapped = run("orphans", "replay", "--primary", parting.pair.standby_url, "--standby", parting.pair.primary_url)
    assert (swapped.returncode, len(swapped.stderr.splitlines())) == (2, 1)
    sql(parting.pair.primary_url, f"UPDATE {parting.name('position')} SET eligible_boot = NULL")
    parting.pair.kill("standby")  # the writer, and the other one may not take over
    assert "no node writes now" in call("replay", "--apply", code=2)
    assert "no node writes now" in call("discard", "--all", "--reason", "why", "--apply", code=2)
