"""The decision table's rows with a witness."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replstore.pair.decide import Acknowledge, Action, NodeView, Policy, Reach, Role, Term, WitnessView, decide
from tests.unit.pair_rows import (
    ASYNC,
    CONTACT,
    FOLLOWER,
    FOLLOWER_REFUSED,
    FOLLOWER_SILENT,
    GRANTED,
    REFUSED,
    SILENT,
    T2,
    UNREACHABLE,
    WITNESS,
    WRITER,
    D,
    check,
    view,
)


@pytest.mark.parametrize("lost", [FOLLOWER_REFUSED, FOLLOWER_SILENT])
def test_witness_allows_solo_without_a_contact(lost: NodeView) -> None:
    check(view(WRITER, lost, witness=WITNESS), Action.GO_SOLO, "primary", "primary", Acknowledge.SOLO, says="if the witness agrees")
    alone = replace(WITNESS, in_sync=frozenset({"primary"}), req=0)
    check(view(replace(WRITER, boot="a1"), lost, witness=alone), Action.GO_SOLO, "primary", "primary", Acknowledge.SOLO)


def test_witness_is_not_asked_before_the_detection_time() -> None:
    check(view(WRITER, replace(FOLLOWER_SILENT, silent_for=D - 0.1), witness=WITNESS), Action.WAIT, None, "primary", Acknowledge.NONE, says="not yet")


@pytest.mark.parametrize(
    "witness", [replace(WITNESS, reach=Reach.SILENT), replace(WITNESS, term=Term(0, "zero")), replace(WITNESS, term=Term(1, "other"))]
)
def test_no_solo_and_no_takeover_against_the_witness(witness: WitnessView) -> None:
    """Not even with proof of death: a pair with a witness has one rule, the witness's."""
    assert decide(view(WRITER, FOLLOWER_REFUSED, contact=CONTACT, witness=witness)).action is Action.WAIT
    check(view(REFUSED, FOLLOWER, witness=witness), Action.WAIT, None, None, Acknowledge.NONE, then="takeover --force standby")


def test_no_solo_where_the_witness_knows_another_writer_of_the_term() -> None:
    seen = view(WRITER, FOLLOWER_REFUSED, contact=CONTACT, witness=replace(WITNESS, writer="standby"))
    check(seen, Action.WAIT, None, None, Acknowledge.NONE, says="knows standby as writer of term 1")


def test_witness_allows_takeover_only_in_sync() -> None:
    check(view(REFUSED, FOLLOWER, witness=WITNESS), Action.TAKE_OVER, "standby", "standby", Acknowledge.SOLO)
    alone = replace(WITNESS, in_sync=frozenset({"primary"}))
    check(view(REFUSED, FOLLOWER, witness=alone), Action.WAIT, None, None, Acknowledge.NONE, says="primary went on without standby")


def test_follower_unknown_to_the_witness_is_resynced() -> None:
    check(
        view(WRITER, FOLLOWER, witness=replace(WITNESS, in_sync=frozenset({"primary"}))),
        Action.RESYNC,
        "standby",
        "primary",
        Acknowledge.REPLICATED,
        says="witness",
    )


@pytest.mark.parametrize(
    "witness",
    [
        WITNESS,
        replace(WITNESS, term=Term(0, "zero"), in_sync=frozenset({"primary"})),  # it speaks of another term
        replace(WITNESS, reach=Reach.SILENT, in_sync=frozenset({"primary"})),
        UNREACHABLE,
    ],
)
def test_witness_that_says_nothing_against_it_lets_writer_and_follower_write(witness: WitnessView) -> None:
    check(view(WRITER, FOLLOWER, witness=witness), Action.WRITE, None, "primary", Acknowledge.REPLICATED)


def test_writer_is_confirmed_by_the_witness_or_without_it_by_a_contact() -> None:
    """Confirmed means: it waits for its follower, and is the writer meanwhile."""
    full = replace(FOLLOWER, reach=Reach.LOCKED_OUT)
    check(view(WRITER, full, witness=WITNESS), Action.WAIT, None, "primary", Acknowledge.NONE)
    check(view(WRITER, full, contact=CONTACT, witness=UNREACHABLE), Action.WAIT, None, "primary", Acknowledge.NONE)
    for other in (replace(WITNESS, writer="standby"), replace(WITNESS, term=Term(1, "other")), UNREACHABLE):
        check(view(WRITER, full, witness=other), Action.WAIT, None, None, Acknowledge.NONE)


@pytest.mark.parametrize("primary", [WRITER, REFUSED, SILENT, replace(WRITER, role=Role.FENCED)])
@pytest.mark.parametrize("policy", [Policy(), Policy(takeover="manual")])
def test_takeover_that_the_witness_granted_is_finished(primary: NodeView, policy: Policy) -> None:
    """Also after the follower restarted: since the grant the old writer can't have gone on alone."""
    for follower in (FOLLOWER, replace(FOLLOWER, boot="b1")):
        check(view(primary, follower, policy, witness=GRANTED), Action.FINISH, "standby", "standby", Acknowledge.SOLO)


@pytest.mark.parametrize("policy", [Policy(), ASYNC])
def test_writer_that_the_witness_has_deposed_takes_no_writes(policy: Policy) -> None:
    seen = view(replace(WRITER, solo=True, solo_boot="a0"), FOLLOWER_SILENT, policy, contact=CONTACT, witness=GRANTED)
    check(seen, Action.WAIT, None, None, Acknowledge.NONE, says="given the pair to standby under term 2")


def test_what_an_unreachable_witness_said_before_deposes_and_grants_nothing() -> None:
    silent = replace(GRANTED, reach=Reach.SILENT)
    solo = replace(WRITER, solo=True, solo_boot="a0")
    check(view(solo, FOLLOWER_SILENT, witness=silent), Action.WRITE, None, "primary", Acknowledge.SOLO)
    check(view(REFUSED, FOLLOWER, witness=silent), Action.WAIT, None, None, Acknowledge.NONE, says="can't be reached")


def test_a_grant_is_finished_by_its_node_only_while_that_follows_an_older_term() -> None:
    new, behind = replace(WRITER, name="standby", term=T2), replace(FOLLOWER, name="primary")
    check(view(behind, new, witness=GRANTED), Action.RESYNC, "primary", "standby", Acknowledge.REPLICATED)  # granted to the other one
    fenced = replace(WRITER, name="standby", role=Role.FENCED)
    check(view(REFUSED, fenced, witness=GRANTED), Action.WAIT, None, None, Acknowledge.NONE)  # a former writer takes nothing over
    check(
        view(replace(WRITER, term=T2), replace(FOLLOWER, term=T2, stream_term=T2), witness=GRANTED),
        Action.WRITE,
        None,
        "primary",
        Acknowledge.REPLICATED,
    )
