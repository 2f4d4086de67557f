"""`decide` and `may_acknowledge` in every situation that two nodes and two processes can get into, up to a bound.

`pair_model` builds the situations and carries the decisions out by the comparisons that the real acts make; `search` looks at all of them.
Two claims:

* with all rules, no reachable situation loses an acknowledged write (`test_no_acknowledged_write_is_lost`);
* each rule taken out gives a trace that loses one (`test_each_rule_is_needed`), so the first claim is not empty.

How a rule is taken out, production code having no switches:

* a rule that is a comparison of an act (``req``, boot, position, term, heartbeat, the witness's row, the order of a resync) is left out of that act;
* a rule inside `decide` is neutralised by the one fact that it asks for, which the view then pretends: ``eligible boot`` shows
  ``eligible_boot == boot``, ``recent contact`` a contact of age 0, ``contact with this boot`` a contact with the boot that runs now,
  ``heartbeat stands still`` a heartbeat that does, ``in sync at the witness`` both nodes in sync;
* a rule about the order of readings (``verdict last``, ``solo read after the commit``) is taken out by letting a process remember the older reading;
* ``acknowledged under its own term`` compares the commit's term with itself.

Three rules are not in the list, since the model holds no situation in which they alone matter: a solo state ends with the boot, a fenced node
acknowledges nothing, and the witness compares the term.  They guard against restored files and forced decisions, and are tested in `test_decide`.

A bound is (crashes, cuts, writes, terms, switchovers).  ``python -m tests.unit.test_decide_search`` prints every search, at larger bounds too; with
REPLSTORE_SEARCH=large the tests use these.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import pytest

from tests.unit.pair_model import Model
from tests.unit.pair_states import RULES, WITNESS_RULES, State, Witness, key
from tests.unit.search import Result, search


class Bound(NamedTuple):
    crashes: int
    cuts: int
    writes: int = 1
    terms: int = 2
    switchovers: int = 0
    witness: bool = False
    both_freeze: bool = False


BOUNDS = [
    Bound(crashes=2, cuts=0, terms=3),
    Bound(crashes=1, cuts=1),
    Bound(crashes=1, cuts=0, writes=2),
    Bound(crashes=1, cuts=0, switchovers=1),
    Bound(crashes=1, cuts=1, witness=True),
]
LARGE = [
    Bound(crashes=1, cuts=0, terms=3, switchovers=1),
    Bound(crashes=2, cuts=0, writes=2, terms=3),
    Bound(crashes=2, cuts=1),
    Bound(crashes=1, cuts=2),
    Bound(crashes=1, cuts=1, writes=2),
    Bound(crashes=2, cuts=0, terms=3, switchovers=1),
    Bound(crashes=1, cuts=1, terms=3, switchovers=1),
    Bound(crashes=2, cuts=1, witness=True),
    Bound(crashes=1, cuts=1, terms=3, witness=True),
    Bound(crashes=1, cuts=0, both_freeze=True),
    Bound(crashes=2, cuts=0, both_freeze=True),
    Bound(crashes=1, cuts=1, both_freeze=True),
    Bound(crashes=1, cuts=1, both_freeze=True, witness=True),
]

#: The smallest bound at which each missing rule shows; all lie within BOUNDS.
TWO_CRASHES, THREE_TERMS, CUT = Bound(crashes=2, cuts=0), Bound(crashes=2, cuts=0, terms=3), Bound(crashes=1, cuts=1)
NEEDED = {
    "contact with this boot": TWO_CRASHES,
    "recent contact": CUT,
    "verdict last": TWO_CRASHES,
    "req compared for solo": TWO_CRASHES,
    "boot as seen": TWO_CRASHES,
    "eligible boot": TWO_CRASHES,
    "heartbeat stands still": CUT,
    "heartbeat compared": TWO_CRASHES,
    "term compared at takeover": THREE_TERMS,
    "follower required first": TWO_CRASHES,
    "boot compared by the batch": TWO_CRASHES,
    "position compared by the batch": Bound(crashes=1, cuts=0),
    "rejoined is not eligible": THREE_TERMS,
    "acknowledged under its own term": THREE_TERMS,
    "solo read after the commit": TWO_CRASHES,
}


def run(bound: Bound, without: str = "") -> Result:
    model = Model(without=frozenset({without} - {""}), writes=bound.writes, terms=bound.terms, both_freeze=bound.both_freeze)
    start = State(witness=Witness() if bound.witness else None, crashes=bound.crashes, cuts=bound.cuts, switchovers=bound.switchovers)
    return search(start, model.steps, normal=model.normal, key=key)


@pytest.mark.parametrize(
    "bound",
    LARGE if os.environ.get("REPLSTORE_SEARCH") == "large" else BOUNDS,
    ids=lambda bound: " ".join(f"{k}={v}" for k, v in bound._asdict().items() if v),
)
def test_no_acknowledged_write_is_lost(bound: Bound) -> None:
    result = run(bound)
    assert result.exhausted, f"\n{result}"
    assert result.states > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_each_rule_is_needed(rule: str) -> None:
    result = run(NEEDED[rule], rule)
    print(f"without '{rule}' ({RULES[rule]}):\n{result}")
    assert result.trace, f"nothing is lost without the rule that {RULES[rule]!r}: {result}"
    assert "which was acknowledged" in result.trace[-1]


@pytest.mark.slow
@pytest.mark.parametrize("rule", WITNESS_RULES)
def test_each_rule_of_the_witness_is_needed(rule: str) -> None:
    result = run(CUT._replace(witness=True), rule)
    print(f"without '{rule}' ({WITNESS_RULES[rule]}):\n{result}")
    assert result.trace, f"nothing is lost without the rule that {WITNESS_RULES[rule]!r}: {result}"
    assert "which was acknowledged" in result.trace[-1]


if __name__ == "__main__":
    for rule in RULES:
        print(f"without '{rule}': {RULES[rule]}\n{run(NEEDED[rule], rule)}\n", flush=True)
    for rule in WITNESS_RULES:
        print(f"without '{rule}': {WITNESS_RULES[rule]}\n{run(CUT._replace(witness=True), rule)}\n", flush=True)
    for bound in BOUNDS + LARGE:
        print(f"{bound}: {run(bound)}", flush=True)
