"""Which node writes in native replication, row by row; what follows from one row after another is in `test_native_rules_search`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replstore.databases.base import Stream
from replstore.pair.native_rules import decide, is_unconfirmed
from replstore.pair.view import Acknowledge, Action, Decision, NodeView, Policy, Reach, Role, Term, View

T1, T2 = Term(1, "one"), Term(2, "two")
D = 1.5
POLICY = Policy(durability="server", promote=True)


def writer(name: str, term: Term | None = T1, *, timeline: int | None = None, place: int = 100) -> NodeView:
    """A server that isn't in recovery; without a term nobody has recorded its timeline yet."""
    number = timeline or (term.number if term else 1)
    return NodeView(name, node="n", role=Role.WRITER, term=term, boot=f"{name} boot", stream=Stream(number, place, place, system="s"))


def standby(name: str, term: Term | None = T1, *, place: int = 100, **facts: bool) -> NodeView:
    """A server in recovery that has stood still for the detection time."""
    stream = Stream(None, place, place, system="s", may_promote=facts.pop("may_promote", True))
    return NodeView(name, node="n", role=Role.FOLLOWER, term=term, boot=f"{name} boot", heartbeat=place, still_for=D, stream=stream)


PRIMARY, STANDBY = writer("primary"), standby("standby")
REFUSED = NodeView("primary", reach=Reach.REFUSED, error="connection refused")
SILENT = NodeView("primary", reach=Reach.SILENT, silent_for=D)
STANDBY_REFUSED = NodeView("standby", reach=Reach.REFUSED, error="connection refused")
NEW = writer("standby", T2)


def view(primary: NodeView, second: NodeView, policy: Policy = POLICY, *, highest: Term | None = T1, written: int | None = 100) -> View:
    return View(primary, second, policy, highest=highest, written=written)


def check(seen: View, action: Action, node: str | None, writes: str | None, says: str, then: str = "") -> Decision:
    decision = decide(seen)
    assert (decision.action, decision.node, decision.writer) == (action, node, writes), decision
    assert says in decision.reason
    assert then in decision.next_step
    assert (decision.acknowledge is Acknowledge.NONE) == (writes is None)
    return decision


# ---------------------------------------------------------------------------- both answer


def test_the_server_that_isn_t_in_recovery_writes() -> None:
    check(view(PRIMARY, STANDBY), Action.WRITE, None, "primary", "primary writes, standby follows")
    check(view(standby("primary"), writer("standby")), Action.WRITE, None, "standby", "standby writes, primary follows")


def test_replicated_is_acknowledged_by_proof_and_server_by_the_server() -> None:
    assert decide(view(PRIMARY, STANDBY, Policy(durability="replicated"))).acknowledge is Acknowledge.REPLICATED
    assert decide(view(PRIMARY, STANDBY)).acknowledge is Acknowledge.ALONE


def test_two_clusters_are_no_pair() -> None:
    other = replace(STANDBY, stream=replace(STANDBY.stream, system="another"))
    check(view(PRIMARY, other), Action.STOP, None, None, "two clusters (s and another)", "pg_basebackup")


@pytest.mark.parametrize(
    ("primary", "second", "says"),
    [
        (PRIMARY, NEW, "standby was promoted to timeline 2, and primary still writes on 1"),
        (writer("primary", T2), writer("standby", T1), "primary was promoted to timeline 2, and standby still writes on 1"),
        (PRIMARY, writer("standby", None, timeline=2), "standby was promoted to timeline 2"),
        (writer("primary", T2), writer("standby", Term(2, "other")), "on timeline 2 of two histories"),
        (writer("primary", T2), writer("standby", T2), "on timeline 2 of two histories"),
    ],
    ids=["promoted beside it", "the other way round", "not recorded yet", "both promoted", "copied and started"],
)
def test_two_servers_that_write_stop_everybody_whichever_is_newer(primary: NodeView, second: NodeView, says: str) -> None:
    for highest in (None, T1, T2):
        check(view(primary, second, highest=highest), Action.STOP, None, None, says)


def test_two_standbys_wait_for_a_person() -> None:
    check(view(standby("primary"), STANDBY), Action.WAIT, None, None, "both nodes are standbys", "replstore takeover")


def test_a_new_timeline_is_recorded_before_anybody_writes() -> None:
    check(view(standby("primary"), writer("standby", None, timeline=2)), Action.FINISH, "standby", "standby", "which is recorded first")


def test_a_standby_that_has_nothing_of_the_new_timeline_yet_is_named() -> None:
    check(view(standby("primary"), NEW, highest=T2), Action.WRITE, None, "standby", "primary follows, and has nothing yet of timeline 2")


def test_a_writer_older_than_what_its_standby_has_followed_is_a_former_one() -> None:
    check(view(PRIMARY, standby("standby", T2), highest=T2), Action.STOP, None, None, "primary is a former primary", "rejoin")


def test_a_standby_of_another_history_stops_everybody() -> None:
    check(view(writer("primary", T2), standby("standby", Term(2, "other")), highest=None), Action.STOP, None, None, "two different histories")


def test_both_together_are_not_followed_back_behind_what_was_seen() -> None:
    check(view(PRIMARY, STANDBY, highest=T2), Action.STOP, None, None, "timeline 2 has begun", "start this program anew")
    check(view(writer("primary", T2), standby("standby", T2), highest=Term(2, "other")), Action.STOP, None, None, "two histories")


# ---------------------------------------------------------------------------- one answers, or both are one


def test_a_primary_writes_without_its_standby() -> None:
    check(view(PRIMARY, STANDBY_REFUSED), Action.WRITE, None, "primary", "primary writes; standby is refused", "bring standby back")


@pytest.mark.parametrize("lost", [STANDBY_REFUSED, replace(STANDBY_REFUSED, reach=Reach.SILENT), replace(STANDBY_REFUSED, reach=Reach.LOCKED_OUT)])
def test_a_former_primary_alone_is_not_written_to_by_who_knows_better(lost: NodeView) -> None:
    check(view(PRIMARY, lost, highest=T2), Action.WAIT, None, None, "timeline 2 has begun: it is a former primary", "bring standby back")
    check(view(writer("primary", Term(2, "other")), lost, highest=T2), Action.WAIT, None, None, "two histories")
    check(view(writer("primary", None, timeline=2), lost, highest=T2), Action.WAIT, None, None, "two histories")


def test_a_timeline_known_by_its_number_alone_is_recorded_and_followed() -> None:
    unnamed = Term(2, "")
    check(view(writer("primary", None, timeline=2), STANDBY_REFUSED, highest=unnamed), Action.FINISH, "primary", "primary", "recorded first")
    check(view(PRIMARY, STANDBY_REFUSED, highest=unnamed), Action.WAIT, None, None, "timeline 2 has begun")


def test_a_program_that_has_met_one_server_only_believes_it_and_says_so() -> None:
    never_met = replace(STANDBY_REFUSED, met=False)
    check(view(PRIMARY, never_met), Action.WRITE, None, "primary", "never met: if it was promoted, primary is a former primary")
    assert is_unconfirmed(view(PRIMARY, never_met), "primary")
    assert not is_unconfirmed(view(PRIMARY, STANDBY_REFUSED), "primary")


def test_nobody_answers() -> None:
    check(view(REFUSED, STANDBY_REFUSED), Action.WAIT, None, None, "no node can be used")


def test_two_urls_of_one_server() -> None:
    check(view(PRIMARY, replace(PRIMARY, name="standby")), Action.WRITE, None, "primary", "both URLs lead to one server")
    check(view(PRIMARY, replace(PRIMARY, name="standby"), highest=T2), Action.STOP, None, None, "former primary")
    check(
        view(replace(STANDBY, name="primary"), STANDBY), Action.WAIT, None, None, "which server is lost isn't known", "target_session_attrs=primary"
    )


# ---------------------------------------------------------------------------- promotion


def test_a_refused_primary_is_replaced_at_once() -> None:
    check(view(REFUSED, replace(STANDBY, still_for=0.0)), Action.TAKE_OVER, "standby", "standby", "standby is promoted")


def test_a_silent_primary_is_replaced_when_nothing_arrives_either() -> None:
    check(view(SILENT, STANDBY), Action.TAKE_OVER, "standby", "standby", "standby is promoted")
    check(view(replace(SILENT, silent_for=D - 0.1), STANDBY), Action.WAIT, None, None, "not yet for the detection time")
    check(view(SILENT, replace(STANDBY, still_for=D - 0.1)), Action.WAIT, None, None, "another program reaches primary")


def test_refused_is_silence_behind_a_proxy() -> None:
    behind = replace(POLICY, refused_means_dead=False)
    check(view(replace(REFUSED, silent_for=D - 0.1), STANDBY, behind), Action.WAIT, None, None, "not yet")


def test_a_node_that_is_locked_out_lives() -> None:
    full = replace(REFUSED, reach=Reach.LOCKED_OUT, error="sorry, too many clients already")
    check(view(full, STANDBY), Action.WAIT, None, None, "a node that answers is not a lost one", "mend primary")


def test_whoever_promotes_is_waited_for() -> None:
    check(
        view(REFUSED, STANDBY, replace(POLICY, promote=False)), Action.WAIT, None, None, "waiting for whoever promotes", "replstore takeover standby"
    )
    check(view(REFUSED, STANDBY, replace(POLICY, takeover="manual")), Action.WAIT, None, None, "waiting for a person", "replstore takeover standby")


@pytest.mark.parametrize(
    ("second", "facts", "says"),
    [
        (standby("standby", place=99), {}, "it lacks 1 bytes that primary had, and max_data_loss_bytes is 0"),
        (STANDBY, {"written": None}, "how much would be lost isn't known"),
        (STANDBY, {"highest": T2}, "it has nothing of timeline 2, which has begun"),
        (STANDBY, {"highest": Term(1, "other")}, "it has nothing of timeline 1"),
        (standby("standby", None), {}, "its place in the log isn't known"),
        (standby("standby", may_promote=False), {}, "GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer)"),
    ],
)
def test_what_keeps_a_standby_from_being_promoted_is_named(second: NodeView, facts: dict[str, object], says: str) -> None:
    for lost in (REFUSED, SILENT):
        check(view(lost, second, **facts), Action.WAIT, None, None, says, "replstore takeover --force standby")  # type: ignore[arg-type]


def test_as_much_may_be_lost_as_was_allowed() -> None:
    behind = standby("standby", place=90)
    assert decide(view(REFUSED, behind, replace(POLICY, max_data_loss=10))).action is Action.TAKE_OVER
    assert decide(view(REFUSED, behind, replace(POLICY, max_data_loss=9))).action is Action.WAIT
