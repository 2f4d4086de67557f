"""The decision table, row by row, and what each hazard asks of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replstore.pair.decide import (
    Acknowledge,
    Action,
    Contact,
    Decision,
    NodeView,
    Policy,
    Reach,
    Role,
    Term,
    View,
    WitnessView,
    decide,
    may_acknowledge,
)

T1, T2, T3 = Term(1, "one"), Term(2, "two"), Term(3, "three")
D = 1.5

WRITER = NodeView("primary", node="A", role=Role.WRITER, term=T1, boot="a0")
FOLLOWER = NodeView(
    "standby", node="B", role=Role.FOLLOWER, term=T1, boot="b0", source="A", stream_term=T1, eligible_boot="b0", batch=7, heartbeat=40
)
REFUSED = replace(WRITER, reach=Reach.REFUSED, error="connection refused")
SILENT = replace(WRITER, reach=Reach.SILENT, silent_for=D)
STILL = replace(FOLLOWER, still_for=D)
FOLLOWER_REFUSED = replace(FOLLOWER, reach=Reach.REFUSED, error="connection refused")
FOLLOWER_SILENT = replace(FOLLOWER, reach=Reach.SILENT, silent_for=D)
CONTACT = Contact(0.4, T1, "primary", "a0", "b0")
ASYNC = Policy(durability="async")
WITNESS = WitnessView(Reach.UP, T1, "primary", frozenset({"primary", "standby"}), -1)


def view(primary: NodeView, standby: NodeView, policy: Policy | None = None, **facts: object) -> View:
    return View(primary, standby, policy or Policy(), **facts)  # type: ignore[arg-type]


def check(seen: View, action: Action, node: str | None, writer: str | None, acknowledge: Acknowledge, *, says: str = "", then: str = "") -> Decision:
    decision = decide(seen)
    assert (decision.action, decision.node, decision.writer, decision.acknowledge) == (action, node, writer, acknowledge), decision
    assert says in decision.reason
    assert then in decision.next_step
    return decision


# ---------------------------------------------------------------------------- both answer


def test_writer_and_follower_in_sync_just_write() -> None:
    check(view(WRITER, FOLLOWER), Action.WRITE, None, "primary", Acknowledge.REPLICATED, says="primary writes, standby follows")


def test_async_writer_acknowledges_at_once() -> None:
    check(view(WRITER, FOLLOWER, ASYNC), Action.WRITE, None, "primary", Acknowledge.ALONE)


def test_roles_may_be_the_other_way_round() -> None:
    writer, follower = replace(WRITER, name="standby"), replace(FOLLOWER, name="primary")
    check(view(follower, writer), Action.WRITE, None, "standby", Acknowledge.REPLICATED)


@pytest.mark.parametrize(
    ("follower", "says"),
    [
        (replace(FOLLOWER, boot="b1"), "restarted or replaced"),
        (replace(FOLLOWER, eligible_boot=None), "not been in sync"),
        (replace(FOLLOWER, copying=True), "not been in sync"),
        (replace(FOLLOWER, stream_term=Term(0, "zero")), "nothing yet of term 1"),
        (replace(FOLLOWER, term=Term(0, "zero"), stream_term=Term(0, "zero")), "nothing yet of term 1"),
        (replace(FOLLOWER, source="C"), "didn't come from primary"),
    ],
)
def test_follower_that_is_not_in_sync_is_resynced(follower: NodeView, says: str) -> None:
    check(view(WRITER, follower), Action.RESYNC, "standby", "primary", Acknowledge.REPLICATED, says=says)


def test_solo_writer_resyncs_its_follower_and_is_solo_until_the_follower_is_required() -> None:
    solo = replace(WRITER, solo=True, solo_boot="a0")
    check(view(solo, replace(FOLLOWER, boot="b1")), Action.RESYNC, "standby", "primary", Acknowledge.SOLO, says="went on alone")


def test_solo_of_an_earlier_boot_is_ended_by_a_resync_and_acknowledges_nothing_alone() -> None:
    check(view(replace(WRITER, solo=True, solo_boot="old"), FOLLOWER), Action.RESYNC, "standby", "primary", Acknowledge.REPLICATED)


def test_hazard_30_stopped_shipping_acknowledges_nothing_replicated() -> None:
    stopped = replace(FOLLOWER, stopped="table item differs")
    check(view(WRITER, stopped), Action.WAIT, None, "primary", Acknowledge.NONE, says="table item differs", then="replstore solo")
    check(view(replace(WRITER, solo=True, solo_boot="a0"), stopped), Action.WRITE, None, "primary", Acknowledge.SOLO)
    check(view(WRITER, stopped, ASYNC), Action.WRITE, None, "primary", Acknowledge.ALONE)


def test_hazard_16_former_writer_is_fenced_on_first_contact() -> None:
    new = replace(WRITER, name="standby", term=T2, solo=True, solo_boot="a0")
    check(view(WRITER, new), Action.FENCE, "primary", "standby", Acknowledge.SOLO, says="still says writer of term 1")


def test_former_writer_is_fenced_by_what_is_remembered_of_the_lost_one() -> None:
    gone = replace(FOLLOWER_REFUSED, role=Role.WRITER, term=T2)
    check(view(WRITER, gone, contact=CONTACT), Action.FENCE, "primary", None, Acknowledge.NONE, then="takeover --force primary")
    check(view(WRITER, gone, ASYNC), Action.FENCE, "primary", None, Acknowledge.NONE)


def test_hazard_32_two_writers_of_one_term_stop_both() -> None:
    other = replace(WRITER, name="standby", term=Term(1, "other"))
    check(view(WRITER, other), Action.STOP, None, None, Acknowledge.NONE, says="two different decisions", then="takeover --force")


@pytest.mark.parametrize("fenced_by", [T2, None])
def test_fenced_former_writer_rejoins(fenced_by: Term | None) -> None:
    new, former = replace(WRITER, name="standby", term=T2, solo=True, solo_boot="a0"), replace(WRITER, role=Role.FENCED, fenced_by=fenced_by)
    check(view(former, new), Action.REJOIN, "primary", "standby", Acknowledge.SOLO)
    check(view(former, replace(new, solo_boot="older")), Action.REJOIN, "primary", "standby", Acknowledge.NONE)
    check(view(former, new, Policy(rejoin="manual")), Action.WRITE, None, "standby", Acknowledge.SOLO, then="`replstore rejoin`")
    check(view(former, replace(new, solo=False), Policy(rejoin="manual")), Action.WAIT, None, "standby", Acknowledge.NONE, then="`replstore rejoin`")


@pytest.mark.parametrize(
    "former",
    [
        replace(WRITER, role=Role.FENCED, fenced_by=T3),
        replace(WRITER, role=Role.FENCED, fenced_by=Term(2, "other")),
        replace(WRITER, role=Role.FENCED, term=T2),
        replace(WRITER, role=Role.FENCED, term=T3, fenced_by=T2),
    ],
)
def test_node_fenced_by_another_history_stops(former: NodeView) -> None:
    check(view(former, replace(WRITER, name="standby", term=T2)), Action.STOP, None, None, Acknowledge.NONE, then="takeover --force standby")


@pytest.mark.parametrize("term", [T2, Term(1, "other")])
def test_follower_of_another_term_stops(term: Term) -> None:
    check(view(WRITER, replace(FOLLOWER, term=term)), Action.STOP, None, None, Acknowledge.NONE, says="another time or was forced")


def test_unfinished_switchover_is_finished_and_only_forwards() -> None:
    fenced = replace(WRITER, role=Role.FENCED)
    check(view(fenced, FOLLOWER), Action.FINISH, "standby", None, Acknowledge.NONE, says="switchover from primary to standby is unfinished")
    check(view(fenced, FOLLOWER_REFUSED), Action.WAIT, None, None, Acknowledge.NONE, says="unfinished", then="takeover --force primary")
    check(view(replace(fenced, reach=Reach.REFUSED), FOLLOWER), Action.TAKE_OVER, "standby", "standby", Acknowledge.SOLO)


@pytest.mark.parametrize("fenced", [replace(WRITER, role=Role.FENCED, fenced_by=T2), replace(WRITER, role=Role.FENCED, term=T2)])
def test_fenced_node_and_a_follower_of_something_else_stop(fenced: NodeView) -> None:
    check(view(fenced, FOLLOWER), Action.STOP, None, None, Acknowledge.NONE, says="no node is the writer", then="takeover --force standby")


def test_fenced_node_alone_waits_for_its_successor() -> None:
    fenced = replace(WRITER, role=Role.FENCED, fenced_by=T2)
    check(view(fenced, FOLLOWER_REFUSED), Action.WAIT, None, None, Acknowledge.NONE, says="fenced by term 2", then="takeover --force primary")


def test_two_followers_or_two_fenced_nodes_stop() -> None:
    check(view(replace(FOLLOWER, name="primary"), FOLLOWER), Action.STOP, None, None, Acknowledge.NONE)
    fenced = replace(WRITER, role=Role.FENCED)
    check(view(fenced, replace(fenced, name="standby")), Action.STOP, None, None, Acknowledge.NONE)


def test_node_without_control_tables_stops() -> None:
    check(view(NodeView("primary"), FOLLOWER), Action.STOP, None, None, Acknowledge.NONE, says="primary has no role", then="replstore migrate")


def test_nobody_answers() -> None:
    check(
        view(REFUSED, FOLLOWER_SILENT), Action.WAIT, None, None, Acknowledge.NONE, says="primary is refused (connection refused); standby is silent"
    )


# ---------------------------------------------------------------------------- the writer is lost


def test_refused_writer_is_taken_over_at_once() -> None:
    check(
        view(REFUSED, FOLLOWER),
        Action.TAKE_OVER,
        "standby",
        "standby",
        Acknowledge.SOLO,
        says="primary is refused (connection refused) and standby is eligible",
    )
    check(view(REFUSED, FOLLOWER, ASYNC), Action.TAKE_OVER, "standby", "standby", Acknowledge.ALONE)


@pytest.mark.parametrize("policy", [Policy(), ASYNC])
def test_silent_writer_is_taken_over_after_the_detection_time(policy: Policy) -> None:
    acknowledge = Acknowledge.SOLO if policy.durability == "replicated" else Acknowledge.ALONE
    check(view(SILENT, STILL, policy), Action.TAKE_OVER, "standby", "standby", acknowledge)
    check(view(replace(SILENT, silent_for=D - 0.1), STILL, policy), Action.WAIT, None, None, Acknowledge.NONE, says="not yet")


def test_silent_writer_is_not_taken_over_while_the_heartbeat_goes_on() -> None:
    check(view(SILENT, replace(STILL, still_for=D - 0.1)), Action.WAIT, None, None, Acknowledge.NONE, says="another program may reach primary")


def test_hazard_22_a_paused_program_judges_no_silence() -> None:
    check(view(SILENT, STILL, paused=True), Action.WAIT, None, None, Acknowledge.NONE, says="stood still")
    check(view(REFUSED, FOLLOWER, paused=True), Action.TAKE_OVER, "standby", "standby", Acknowledge.SOLO)
    check(view(WRITER, FOLLOWER_REFUSED, contact=CONTACT, paused=True), Action.WAIT, None, "primary", Acknowledge.NONE)


def test_behind_a_proxy_refused_is_silence() -> None:
    proxy = Policy(refused_means_dead=False)
    check(view(replace(REFUSED, silent_for=0.0), STILL, proxy), Action.WAIT, None, None, Acknowledge.NONE)
    check(view(replace(REFUSED, silent_for=D), STILL, proxy), Action.TAKE_OVER, "standby", "standby", Acknowledge.SOLO)
    check(view(WRITER, FOLLOWER_REFUSED, proxy, contact=CONTACT), Action.WAIT, None, "primary", Acknowledge.NONE, then="replstore solo")


@pytest.mark.parametrize("policy", [Policy(), ASYNC])
def test_locked_out_node_is_never_lost(policy: Policy) -> None:
    full = replace(WRITER, reach=Reach.LOCKED_OUT, error="disk full", silent_for=99.0)
    check(view(full, STILL, policy), Action.WAIT, None, None, Acknowledge.NONE, says="disk full", then="mend primary")


def test_manual_takeover_is_left_to_a_person() -> None:
    for lost, follower in ((REFUSED, FOLLOWER), (SILENT, STILL)):
        check(view(lost, follower, Policy(takeover="manual")), Action.WAIT, None, None, Acknowledge.NONE, then="run `replstore takeover`")


INELIGIBLE = [
    (replace(FOLLOWER, boot="b1"), "primary may have gone on alone"),
    (replace(FOLLOWER, eligible_boot=None), "has not been in sync"),
    (replace(FOLLOWER, copying=True), "a copy of it is under way"),
    (replace(FOLLOWER, stopped="item differs"), "item differs"),
    (replace(FOLLOWER, stream_term=Term(0, "zero")), "nothing yet of the last writer's term"),
    (replace(FOLLOWER, batch=6), "went back in time: its batch is 6, and it has had 7"),
]


@pytest.mark.parametrize(("follower", "says"), INELIGIBLE)
@pytest.mark.parametrize("policy", [Policy(), ASYNC])
def test_follower_that_is_not_eligible_does_not_take_over(follower: NodeView, says: str, policy: Policy) -> None:
    for lost in (REFUSED, SILENT):
        seen = view(lost, replace(follower, still_for=D), policy, seen_batch=7)
        check(seen, Action.WAIT, None, None, Acknowledge.NONE, says=says, then="takeover --force standby")


def test_follower_of_an_older_term_than_the_writer_is_known_to_have_had_does_not_take_over() -> None:
    check(view(replace(REFUSED, term=T2), FOLLOWER), Action.WAIT, None, None, Acknowledge.NONE, says="nothing yet of the last writer's term")


# ---------------------------------------------------------------------------- the follower is lost


def test_refused_follower_right_after_a_contact_lets_the_writer_go_solo() -> None:
    check(view(WRITER, FOLLOWER_REFUSED, contact=CONTACT), Action.GO_SOLO, "primary", "primary", Acknowledge.SOLO, says="standby is refused")


def test_solo_writer_writes_whatever_has_become_of_the_follower() -> None:
    solo = replace(WRITER, solo=True, solo_boot="a0")
    for reach in (Reach.REFUSED, Reach.SILENT, Reach.LOCKED_OUT):
        check(view(solo, replace(FOLLOWER, reach=reach)), Action.WRITE, None, "primary", Acknowledge.SOLO)


def test_new_writer_right_after_a_takeover_is_solo() -> None:
    new = replace(WRITER, name="standby", term=T2, solo=True, solo_boot="a0")
    check(view(REFUSED, new), Action.WRITE, None, "standby", Acknowledge.SOLO)
    check(view(REFUSED, new, Policy(on_follower_down="block")), Action.WRITE, None, "standby", Acknowledge.SOLO)  # hazard 2 (e)


def test_hazard_2a_silence_is_never_solo_without_a_witness() -> None:
    check(view(WRITER, FOLLOWER_SILENT, contact=CONTACT), Action.WAIT, None, "primary", Acknowledge.NONE, then="replstore solo")


def test_hazard_2b_follower_back_after_solo_is_not_eligible_by_a_recent_contact() -> None:
    """B was down, A went solo and died, B is back: its boot says that A may have gone on."""
    check(view(REFUSED, replace(FOLLOWER, boot="b1"), contact=replace(CONTACT, age=0.1)), Action.WAIT, None, None, Acknowledge.NONE)


def test_hazard_2c_node_alone_after_its_restart_is_unconfirmed() -> None:
    for restarted in (replace(WRITER, boot="a1"), replace(WRITER, boot="a1", solo=True, solo_boot="a0")):
        for lost in (FOLLOWER_REFUSED, FOLLOWER_SILENT, replace(FOLLOWER, reach=Reach.LOCKED_OUT)):
            check(view(restarted, lost, contact=CONTACT), Action.WAIT, None, None, Acknowledge.NONE)
    check(
        view(replace(WRITER, boot="a1"), FOLLOWER_REFUSED, contact=CONTACT),
        Action.WAIT,
        None,
        None,
        Acknowledge.NONE,
        says="primary is unconfirmed",
        then="takeover --force primary",
    )
    check(view(WRITER, FOLLOWER_REFUSED), Action.WAIT, None, None, Acknowledge.NONE, says="unconfirmed")


def test_hazard_2d_old_contact_is_no_proof() -> None:
    check(view(WRITER, FOLLOWER_REFUSED, contact=replace(CONTACT, age=D)), Action.WAIT, None, "primary", Acknowledge.NONE, says="may have taken over")
    check(view(WRITER, FOLLOWER_REFUSED, contact=replace(CONTACT, term=Term(1, "other"))), Action.WAIT, None, None, Acknowledge.NONE)
    check(view(WRITER, FOLLOWER_REFUSED, contact=replace(CONTACT, writer="standby")), Action.WAIT, None, None, Acknowledge.NONE)


def test_hazard_2e_block_waits_for_the_follower() -> None:
    check(
        view(WRITER, FOLLOWER_REFUSED, Policy(on_follower_down="block"), contact=CONTACT),
        Action.WAIT,
        None,
        "primary",
        Acknowledge.NONE,
        says="block",
    )


def test_hazard_2f_every_process_sees_solo_on_the_writer_itself() -> None:
    """Solo isn't a program's own opinion: one that reaches both nodes resyncs before it lets the follower take over."""
    check(view(replace(WRITER, solo=True, solo_boot="a0"), FOLLOWER), Action.RESYNC, "standby", "primary", Acknowledge.SOLO)


def test_hazard_2g_policy_decides_and_nothing_else() -> None:
    """Settings are rows of the pair; two views that differ by the process only, not by the policy, give one answer."""
    for policy in (Policy(), ASYNC, Policy(takeover="manual"), Policy(on_follower_down="block")):
        assert decide(view(REFUSED, FOLLOWER, policy)) == decide(view(REFUSED, FOLLOWER, policy, contact=CONTACT, seen_batch=7))


def test_locked_out_follower_is_never_a_reason_for_solo() -> None:
    full = replace(FOLLOWER, reach=Reach.LOCKED_OUT, error="disk full")
    check(view(WRITER, full, contact=CONTACT), Action.WAIT, None, "primary", Acknowledge.NONE, says="disk full", then="mend standby")
    check(view(WRITER, full, witness=WITNESS), Action.WAIT, None, "primary", Acknowledge.NONE)


def test_async_writer_goes_on_alone_and_says_so_loudly_after_a_restart() -> None:
    for lost in (FOLLOWER_REFUSED, FOLLOWER_SILENT, replace(FOLLOWER, reach=Reach.LOCKED_OUT)):
        check(view(WRITER, lost, ASYNC, contact=CONTACT), Action.WRITE, None, "primary", Acknowledge.ALONE)
    check(
        view(replace(WRITER, boot="a1"), FOLLOWER_REFUSED, ASYNC, contact=CONTACT), Action.WRITE, None, "primary", Acknowledge.ALONE, says="orphans"
    )


# ---------------------------------------------------------------------------- with a witness


@pytest.mark.parametrize("lost", [FOLLOWER_REFUSED, FOLLOWER_SILENT])
def test_witness_allows_solo_without_a_contact(lost: NodeView) -> None:
    check(view(WRITER, lost, witness=WITNESS), Action.GO_SOLO, "primary", "primary", Acknowledge.SOLO, says="if the witness agrees")
    alone = replace(WITNESS, in_sync=frozenset({"primary"}), req=0)
    check(view(replace(WRITER, boot="a1"), lost, witness=alone), Action.GO_SOLO, "primary", "primary", Acknowledge.SOLO)


def test_witness_is_not_asked_before_the_detection_time() -> None:
    check(view(WRITER, replace(FOLLOWER_SILENT, silent_for=D - 0.1), witness=WITNESS), Action.WAIT, None, "primary", Acknowledge.NONE, says="not yet")
    check(view(WRITER, FOLLOWER_SILENT, witness=WITNESS, paused=True), Action.WAIT, None, "primary", Acknowledge.NONE)


@pytest.mark.parametrize(
    "witness", [replace(WITNESS, reach=Reach.SILENT), replace(WITNESS, term=Term(0, "zero")), replace(WITNESS, term=Term(1, "other"))]
)
def test_no_solo_and_no_takeover_against_the_witness(witness: WitnessView) -> None:
    """Not even with proof of death: a pair with a witness has one rule, the witness's."""
    assert decide(view(WRITER, FOLLOWER_REFUSED, contact=CONTACT, witness=witness)).action is Action.WAIT
    check(view(REFUSED, FOLLOWER, witness=witness), Action.WAIT, None, None, Acknowledge.NONE, then="takeover --force standby")


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


GRANTED = WitnessView(Reach.UP, T2, "standby", frozenset({"standby"}), -1)


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


# ---------------------------------------------------------------------------- acknowledgements


@pytest.mark.parametrize(
    ("durability", "pair", "term", "writer", "held", "expected"),
    [
        ("replicated", None, T1, WRITER, True, True),
        ("replicated", None, T1, WRITER, False, False),
        ("replicated", None, T1, replace(WRITER, solo=True, solo_boot="a0"), False, True),
        ("replicated", None, T1, replace(WRITER, solo=True, solo_boot="older"), False, False),
        ("replicated", None, T1, replace(WRITER, solo=True, solo_boot="older"), True, True),
        ("replicated", None, T1, replace(WRITER, term=T3, solo=True, solo_boot="a0"), False, False),
        ("replicated", None, T1, replace(WRITER, term=T3), True, False),
        ("replicated", None, T1, replace(WRITER, term=Term(1, "other")), True, False),
        ("replicated", None, T1, replace(WRITER, role=Role.FENCED, solo=True, solo_boot="a0"), False, False),
        ("replicated", None, T1, replace(WRITER, reach=Reach.SILENT, solo=True, solo_boot="a0"), False, False),
        ("replicated", "async", T1, replace(WRITER, solo=True, solo_boot="a0"), False, False),
        ("replicated", "async", T1, replace(WRITER, solo=True, solo_boot="a0"), True, True),
        ("async", None, T1, WRITER, False, True),
        ("async", None, T1, replace(WRITER, term=T2), False, False),
    ],
)
def test_may_acknowledge(durability: str, pair: str | None, term: Term, writer: NodeView, held: bool, expected: bool) -> None:
    assert may_acknowledge(durability=durability, commit_term=term, writer=writer, held_by_follower=held, pair_durability=pair) is expected


# ---------------------------------------------------------------------------- every decision, whatever is seen


ROLES = [
    WRITER,
    replace(WRITER, solo=True, solo_boot="a0"),
    FOLLOWER,
    replace(WRITER, role=Role.FENCED),
    replace(WRITER, role=Role.FENCED, fenced_by=T2),
]


@pytest.mark.parametrize("policy", [Policy(), ASYNC, Policy(on_follower_down="block", takeover="manual", rejoin="manual", refused_means_dead=False)])
def test_every_decision_is_consistent_and_says_why(policy: Policy) -> None:
    nodes = [
        replace(node, reach=reach, term=term, silent_for=D, still_for=D) for node in ROLES for reach in Reach for term in (T1, T2, Term(2, "other"))
    ]
    seen = 0
    for one in nodes:
        for two in nodes:
            for witness in (None, WITNESS, GRANTED):
                view_ = view(replace(one, name="primary"), replace(two, name="standby"), policy, contact=CONTACT, witness=witness)
                decision = decide(view_)
                seen += 1
                assert decision.reason
                assert (decision.action in (Action.WRITE, Action.WAIT, Action.STOP)) == (decision.node is None)
                assert decision.next_step or decision.action not in (Action.STOP,)
                if decision.writer is None:
                    assert decision.acknowledge is Acknowledge.NONE
                if decision.acknowledge is Acknowledge.SOLO and decision.action in (Action.WRITE, Action.RESYNC, Action.FENCE, Action.REJOIN):
                    writer = view_.primary if decision.writer == "primary" else view_.standby
                    assert writer.is_solo
                assert (decision.acknowledge is Acknowledge.ALONE) <= (policy.durability == "async")
                if decision.action in (Action.TAKE_OVER, Action.GO_SOLO):
                    assert Reach.LOCKED_OUT not in (view_.primary.reach, view_.standby.reach)
    assert seen == 3 * len(nodes) ** 2
