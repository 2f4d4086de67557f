"""What a node's state means, in words for people: always as part of the pair, so that it never contradicts what was decided."""

from __future__ import annotations

from replstore.pair.alone import is_superseded, why_not_eligible
from replstore.pair.decide import Acknowledge, Action, Decision, NodeView, Reach, Role, View


def meaning(view: View, decision: Decision, seen: NodeView, other: NodeView) -> str:
    """A sentence on one node.

    Args:
        view: both nodes, as they were seen.
        decision: what follows from that.
        seen: the node.
        other: its counterpart.
    """
    if seen.reach is not Reach.UP:
        return AWAY[seen.reach]
    if seen.role is Role.WRITER:
        return _writer(decision, seen, other)
    if seen.role is Role.FENCED:
        return "a former writer that waits to rejoin" if seen.fenced_by else "a switchover was begun and not finished"
    return _follower(view, decision, seen, other)


AWAY = {
    Reach.REFUSED: "nothing is there: its server is down or its file is gone",
    Reach.SILENT: "it doesn't answer in time; it may be alive",
    Reach.LOCKED_OUT: "it can't be used: mend what its health says",
}


def _writer(decision: Decision, seen: NodeView, other: NodeView) -> str:
    if other.reach is Reach.UP and is_superseded(seen, other):
        return "a former writer, not fenced yet"
    if decision.action is Action.STOP:
        return "it says that it writes; nothing is acknowledged before a person has decided"
    if decision.writer != seen.name:
        return "unconfirmed: it acknowledges nothing"
    if decision.acknowledge is Acknowledge.NONE:
        return "it writes, and acknowledges nothing"
    return "it writes" + (", and acknowledges alone" if seen.is_solo else "")


def _follower(view: View, decision: Decision, seen: NodeView, other: NodeView) -> str:
    if seen.copying:
        return "it is being copied"
    if other.reach is Reach.UP and other.is_solo:
        return "not required now; in sync again with the next batch"
    if decision.action is Action.RESYNC and decision.node == seen.name:
        return "it follows, and may not take over before it is in sync again"
    if other.reach is Reach.UP and other.role is Role.WRITER and other.term != seen.term:
        return f"it follows {seen.term}, and {other.name} writes under {other.term}"
    if reason := why_not_eligible(view, seen, other):
        return f"it follows, and may not take over: {reason}"
    return "in sync; it may take over"
