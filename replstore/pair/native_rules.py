"""Which node writes, in native replication: the servers' own roles decide, and replstore follows them, loudly where they contradict each other.

One rule stands above the others: **a program follows only the newest history that it has seen.**  Whoever has seen timeline 2 never writes on timeline 1 again, nor
on another timeline 2, whatever answers.  A program that has seen neither believes the server that it reaches, and says so (:func:`is_unconfirmed`).

Two words of the journal have another meaning here.  A term is a timeline: its number grows with each promotion, and the uuid of its row tells two histories under
one number apart.  The heartbeat is how far the standby has received: whoever reaches the primary lets its log move on, so a place that stands still says that
nobody does.
"""

from __future__ import annotations

from replstore.pair.alone import describe, is_dead
from replstore.pair.view import Acknowledge, Action, Decision, NodeView, Reach, Role, Term, View


def decide(view: View) -> Decision:
    """Decides what to do about a pair of native replication.

    Args:
        view: what this process knows of both nodes and itself.

    Returns:
        The decision.  WAIT can pass by itself, STOP needs a person.
    """
    nodes = (view.primary, view.standby)
    answering = [node for node in nodes if node.reach is Reach.UP]
    if not answering:
        return _wait(f"no node can be used: {describe(nodes[0])}; {describe(nodes[1])}", "bring one of them back")
    if len(answering) == 2 and is_one_server(*nodes):
        return _alone(view, nodes[0], None)
    if len(answering) == 1:
        one, other = (nodes[0], nodes[1]) if nodes[0].reach is Reach.UP else (nodes[1], nodes[0])
        return _alone(view, one, other)
    return _together(view, *nodes)


def _together(view: View, primary: NodeView, standby: NodeView) -> Decision:
    writers = [node for node in (primary, standby) if node.role is Role.WRITER]
    if _system(primary) != _system(standby):
        return _stop(
            f"primary and standby are two clusters ({_system(primary)} and {_system(standby)}): neither is a copy of the other",
            "make the standby anew from the primary with pg_basebackup, or mend the URLs",
        )
    if len(writers) == 2:
        return _two_writers(primary, standby)
    if not writers:
        return _wait(
            f"both nodes are standbys (primary of {_timeline(primary)}, standby of {_timeline(standby)}): nobody writes",
            "promote the one that is further: `replstore takeover primary` or `replstore takeover standby`",
        )
    writer = writers[0]
    follower = standby if writer is primary else primary
    if _is_older(writer, follower.term):
        return _stop(
            f"{writer.name} writes on {_timeline(writer)}, but {follower.name} has followed {_timeline(follower)}: {writer.name} is a former primary",
            f"`replstore rejoin` lets it follow whoever is on {_timeline(follower)}",
        )
    if writer.term is not None and follower.term is not None and _is_other_history(writer.term, follower.term):
        return _stop(
            f"primary and standby are on {writer.term} of two different histories: both were promoted from the same timeline",
            f"decide which one is right, and make the other one anew: `replstore rejoin --copy` with {writer.name} as the right one",
        )
    behind = "" if follower.term == writer.term else f", and has nothing yet of {_timeline(writer)}"
    return _write(view, writer, f"{writer.name} writes, {follower.name} follows{behind}")


def _two_writers(primary: NodeView, standby: NodeView) -> Decision:
    newer, older = (primary, standby) if (primary.stream and standby.stream and _number(primary) >= _number(standby)) else (standby, primary)
    if _number(newer) == _number(older):
        reason = f"both nodes write, on timeline {_number(newer)} of two histories"
        return _stop(reason, "decide which one is right, and make the other one its standby anew (pg_basebackup)")
    return _stop(
        f"both nodes write: {newer.name} was promoted to timeline {_number(newer)}, and {older.name} still writes on {_number(older)}",
        f"stop {older.name}'s server; what it alone has, `replstore orphans export` reads; then `replstore rejoin` makes it {newer.name}'s standby",
    )


def _alone(view: View, one: NodeView, other: NodeView | None) -> Decision:
    """One node answers; None: both URLs lead to one server."""
    away = describe(other) if other is not None else "both URLs lead to one server"
    if one.role is Role.FOLLOWER:
        return _standby_alone(view, one, other, away)
    if other is not None and (reason := _why_not_followed(view, one)):
        return _wait(f"{reason}; {away}", f"bring {other.name} back, or, if {_timeline_of(view.highest)} was given up, start this program anew")
    if other is None:
        return _write(view, one, f"{one.name} writes; {away}")
    doubt = (
        ""
        if other.met
        else f", which this program has never met: if it was promoted, {one.name} is a former primary, and what is written here is lost"
    )
    return _write(view, one, f"{one.name} writes; {away}{doubt}", f"bring {other.name} back")


def is_unconfirmed(view: View, writer: str) -> bool:
    """Whether a writer is believed alone: this program has never met the other node, which may have been promoted."""
    other = view.standby if writer == view.primary.name else view.primary
    return other.reach is not Reach.UP and not other.met


def _standby_alone(view: View, standby: NodeView, lost: NodeView | None, away: str) -> Decision:
    if lost is None:
        return _wait(
            f"{away}, a standby: nobody writes, and which server is lost isn't known",
            f"wait for whoever promotes, or run `replstore takeover {standby.name}`; target_session_attrs=primary in a URL keeps it from a standby",
        )
    if lost.reach is Reach.LOCKED_OUT:
        return _wait(f"{away}: a node that answers is not a lost one", f"mend {lost.name}")
    if not view.policy.promote or view.policy.takeover == "manual":
        whoever = "whoever promotes" if not view.policy.promote else "a person"
        return _wait(f"{away}, {standby.name} is a standby: waiting for {whoever}", f"`replstore takeover {standby.name}` promotes it")
    if not is_dead(view, lost):
        if lost.silent_for < view.policy.detection_time:
            return _wait(f"{away}, not yet for the detection time")
        if standby.still_for < view.policy.detection_time:
            return _wait(
                f"{away}, but {standby.name} has received something {standby.still_for:.1f} s ago: another program reaches {lost.name}",
                f"mend the connection to {lost.name}",
            )
    if reason := why_not_promoted(view, standby, lost):
        return _wait(f"{away}, and {standby.name} isn't promoted: {reason}", f"`replstore takeover --force {standby.name}` promotes it all the same")
    return Decision(Action.TAKE_OVER, standby.name, standby.name, _acknowledge(view), f"{away}, {standby.name} is promoted")


def why_not_promoted(view: View, standby: NodeView, lost: NodeView) -> str:
    """Which rule keeps a standby from being promoted by replstore; empty: none."""
    stream = standby.stream
    if stream is None or standby.term is None:
        return "its place in the log isn't known"
    if not stream.may_promote:
        return "this role may not: GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO it, in its database on the primary"
    if view.highest is not None and view.highest != standby.term:
        return f"it has nothing of {_timeline_of(view.highest)}, which has begun"
    if view.written is None:
        return f"this program hasn't seen {lost.name} for as long as {standby.name} received from it, so how much would be lost isn't known"
    missing = view.written - stream.flushed
    if missing > view.policy.max_data_loss:
        return f"it lacks {missing} bytes that {lost.name} had, and max_data_loss_bytes is {view.policy.max_data_loss}"
    return ""


def _write(view: View, writer: NodeView, reason: str, next_step: str = "") -> Decision:
    if other_history := _why_not_followed(view, writer):
        return _stop(other_history, f"decide which history is right; if {_timeline_of(view.highest)} was given up, start this program anew")
    if writer.term is None:
        return Decision(
            Action.FINISH, writer.name, writer.name, _acknowledge(view), f"{writer.name} was promoted to {_timeline(writer)}, which is recorded first"
        )
    return Decision(Action.WRITE, None, writer.name, _acknowledge(view), reason, next_step)


def _acknowledge(view: View) -> Acknowledge:
    return Acknowledge.REPLICATED if view.policy.durability == "replicated" else Acknowledge.ALONE


def _why_not_followed(view: View, writer: NodeView) -> str:
    """Why a writer isn't the newest history that this program has seen; empty: it is."""
    known = view.highest
    if known is None or _number(writer) > known.number:
        return ""
    if _number(writer) < known.number:
        return f"{writer.name} writes on {_timeline(writer)}, but {_timeline_of(known)} has begun: it is a former primary"
    if known.uuid and (writer.term is None or writer.term.uuid != known.uuid):
        return f"{writer.name} writes on another {_timeline(writer)} than the one that this program has seen: they are two histories"
    return ""


def is_one_server(primary: NodeView, standby: NodeView) -> bool:
    """Two URLs may lead to one server, where they name several hosts or a proxy: it started at one moment, to the microsecond."""
    return primary.boot == standby.boot and _system(primary) == _system(standby) and primary.role == standby.role


def _is_older(writer: NodeView, term: Term | None) -> bool:
    return term is not None and _number(writer) < term.number


def _is_other_history(one: Term, other: Term) -> bool:
    return one.number == other.number and one.uuid != other.uuid


def _number(node: NodeView) -> int:
    """The timeline that a writer writes on, or that a standby has replayed a row of."""
    if node.stream is not None and node.stream.timeline is not None:
        return node.stream.timeline
    return node.term.number if node.term is not None else 0


def _timeline_of(term: Term | None) -> str:
    return f"timeline {term.number}" if term is not None else "the other one"


def _timeline(node: NodeView) -> str:
    return f"timeline {_number(node)}"


def _system(node: NodeView) -> str:
    return node.stream.system if node.stream is not None else ""


def _stop(reason: str, next_step: str) -> Decision:
    return Decision(Action.STOP, None, None, Acknowledge.NONE, reason, next_step)


def _wait(reason: str, next_step: str = "") -> Decision:
    return Decision(Action.WAIT, None, None, Acknowledge.NONE, reason, next_step)
