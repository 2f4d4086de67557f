"""The decision table, row by row, and what each hazard asks of it.  The rows with a witness are in `test_decide_witness`, a commit's
acknowledgement is in `test_decide_acknowledge`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replstore.pair.decide import Acknowledge, Action, NodeView, Policy, Reach, Role, Term, decide
from tests.unit.pair_rows import (
    ASYNC,
    CONTACT,
    FOLLOWER,
    FOLLOWER_REFUSED,
    FOLLOWER_SILENT,
    GRANTED,
    REFUSED,
    SILENT,
    STILL,
    T1,
    T2,
    T3,
    WITNESS,
    WRITER,
    D,
    check,
    view,
)

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
        (replace(FOLLOWER, term=Term(0, "zero")), "nothing yet of term 1"),
        (replace(FOLLOWER, source="C"), "didn't come from primary"),
    ],
)
def test_follower_that_is_not_in_sync_is_resynced(follower: NodeView, says: str) -> None:
    check(view(WRITER, follower), Action.RESYNC, "standby", "primary", Acknowledge.REPLICATED, says=says)


def test_follower_that_doesn_t_know_yet_whom_it_follows_is_in_sync_by_its_term() -> None:
    for writer, follower in ((WRITER, replace(FOLLOWER, source="")), (replace(WRITER, node=""), FOLLOWER)):
        check(view(writer, follower), Action.WRITE, None, "primary", Acknowledge.REPLICATED)


def test_solo_writer_resyncs_its_follower_and_is_solo_until_the_follower_is_required() -> None:
    solo = replace(WRITER, solo=True, solo_boot="a0")
    check(view(solo, replace(FOLLOWER, boot="b1")), Action.RESYNC, "standby", "primary", Acknowledge.SOLO, says="went on alone")


def test_solo_of_an_earlier_boot_is_ended_by_a_resync_and_acknowledges_nothing_alone() -> None:
    check(view(replace(WRITER, solo=True, solo_boot="old"), FOLLOWER), Action.RESYNC, "standby", "primary", Acknowledge.REPLICATED)


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


def test_former_writer_fenced_by_a_term_that_is_over_rejoins_under_the_next_one() -> None:
    former, latest = replace(WRITER, role=Role.FENCED, fenced_by=T2), replace(WRITER, name="standby", term=T3)
    check(view(former, latest), Action.REJOIN, "primary", "standby", Acknowledge.NONE)


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
    says = f"fenced by {former.fenced_by}" if former.fenced_by else "half of an unfinished switchover"
    check(
        view(former, replace(WRITER, name="standby", term=T2)), Action.STOP, None, None, Acknowledge.NONE, says=says, then="takeover --force standby"
    )


@pytest.mark.parametrize("term", [T2, Term(1, "other")])
def test_follower_of_another_term_stops(term: Term) -> None:
    check(view(WRITER, replace(FOLLOWER, term=term)), Action.STOP, None, None, Acknowledge.NONE, says="another time or was forced")


def test_unfinished_switchover_is_finished_and_only_forwards() -> None:
    fenced = replace(WRITER, role=Role.FENCED)
    check(view(fenced, FOLLOWER), Action.FINISH, "standby", None, Acknowledge.NONE, says="switchover from primary to standby is unfinished")
    check(view(fenced, FOLLOWER_REFUSED), Action.WAIT, None, None, Acknowledge.NONE, says="unfinished", then="takeover --force primary")
    check(view(replace(fenced, reach=Reach.REFUSED), FOLLOWER), Action.TAKE_OVER, "standby", "standby", Acknowledge.SOLO)


@pytest.mark.parametrize(
    ("fenced", "says"),
    [
        (replace(WRITER, role=Role.FENCED, fenced_by=T2), "primary was fenced by term 2, and standby follows term 1"),
        (replace(WRITER, role=Role.FENCED, term=T2), "primary left term 2 in a switchover, and standby follows term 1"),
    ],
)
def test_fenced_node_and_a_follower_of_something_else_stop(fenced: NodeView, says: str) -> None:
    check(view(fenced, FOLLOWER), Action.STOP, None, None, Acknowledge.NONE, says=says, then="takeover --force standby")


def test_fenced_node_alone_waits_for_its_successor() -> None:
    fenced = replace(WRITER, role=Role.FENCED, fenced_by=T2)
    check(view(fenced, FOLLOWER_REFUSED), Action.WAIT, None, None, Acknowledge.NONE, says="fenced by term 2", then="takeover --force primary")


def test_two_followers_or_two_fenced_nodes_stop() -> None:
    check(view(replace(FOLLOWER, name="primary"), FOLLOWER), Action.STOP, None, None, Acknowledge.NONE)
    fenced = replace(WRITER, role=Role.FENCED)
    check(view(fenced, replace(fenced, name="standby")), Action.STOP, None, None, Acknowledge.NONE)


def test_node_without_control_tables_stops() -> None:
    for bare in (NodeView("primary"), replace(WRITER, role=None), replace(WRITER, term=None)):
        check(view(bare, FOLLOWER), Action.STOP, None, None, Acknowledge.NONE, says="primary has no role", then="replstore migrate")


def test_nobody_answers() -> None:
    check(
        view(REFUSED, FOLLOWER_SILENT),
        Action.WAIT,
        None,
        None,
        Acknowledge.NONE,
        says="primary is refused (connection refused); standby is silent for 1.5 s",
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


def test_refused_writer_that_this_program_never_met_is_taken_over_only_once_the_heartbeat_stands_still() -> None:
    never = replace(REFUSED, met=False)
    check(view(never, FOLLOWER), Action.WAIT, None, None, Acknowledge.NONE, says="its URL may be wrong", then="if primary's URL is right")
    check(view(never, replace(FOLLOWER, still_for=D)), Action.TAKE_OVER, "standby", "standby", Acknowledge.SOLO)


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
    seen = view(WRITER, FOLLOWER_REFUSED, contact=CONTACT)
    check(
        seen,
        Action.GO_SOLO,
        "primary",
        "primary",
        Acknowledge.SOLO,
        says="standby is refused (connection refused), primary goes on alone right after",
    )


def test_a_node_of_which_nothing_was_ever_known_is_lost_like_any_other() -> None:
    check(view(WRITER, NodeView("standby", reach=Reach.REFUSED), contact=CONTACT), Action.GO_SOLO, "primary", "primary", Acknowledge.SOLO)
    check(
        view(NodeView("primary", reach=Reach.REFUSED), FOLLOWER),
        Action.TAKE_OVER,
        "standby",
        "standby",
        Acknowledge.SOLO,
        says="primary is refused and standby is eligible",
    )


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
        then="run `replstore solo`",
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
        decision = check(view(WRITER, lost, ASYNC, contact=CONTACT), Action.WRITE, None, "primary", Acknowledge.ALONE)
        assert "orphans" not in decision.reason
    check(
        view(replace(WRITER, boot="a1"), FOLLOWER_REFUSED, ASYNC, contact=CONTACT), Action.WRITE, None, "primary", Acknowledge.ALONE, says="orphans"
    )


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
