"""Which node writes and what may be acknowledged: one pure function over what a process knows (``view``), and one over a commit.

``decide`` promises that acting on it by compare-and-set loses no acknowledged write and lets no two nodes acknowledge without each other; the
tests search all interleavings of two nodes and two processes for a counterexample.  It promises nothing about a view that mixes an old verdict
of loss with newer readings (see ``view``), and nothing after a person has forced a decision.
"""

from __future__ import annotations

from collections.abc import Callable

from replstore.pair.alone import describe, fenced_alone, follower_alone, writer_alone
from replstore.pair.view import Acknowledge, Action, Contact, Decision, NodeView, Policy, Reach, Role, Term, View, WitnessView

__all__ = [
    "Acknowledge",
    "Action",
    "Contact",
    "Decision",
    "NodeView",
    "Policy",
    "Reach",
    "Role",
    "Term",
    "View",
    "WitnessView",
    "decide",
    "may_acknowledge",
]


def decide(view: View) -> Decision:
    """Decides what to do about a pair.

    Args:
        view: what this process knows of both nodes, the witness and itself.

    Returns:
        The decision.  WAIT can pass by itself when a node comes back, STOP needs a person.
    """
    nodes = (view.primary, view.standby)
    answering = [node for node in nodes if node.reach is Reach.UP]
    if not answering:
        return _nobody(*nodes)
    for node in answering:
        if node.role is None or node.term is None:
            return _stop(f"{node.name} has no role: it is not a node of a pair yet", "run `replstore migrate`")
    if granted := _granted_by_witness(view, answering):
        return granted
    if len(answering) == 1:
        one, other = (nodes[0], nodes[1]) if nodes[0].reach is Reach.UP else (nodes[1], nodes[0])
        return ALONE[_role(one)](view, one, other)
    ahead, behind = sorted(nodes, key=lambda node: (_RANK[_role(node)], -_number(node)))
    return TOGETHER[_role(ahead), _role(behind)](view, ahead, behind)


def may_acknowledge(*, durability: str, commit_term: Term, writer: NodeView, held_by_follower: bool, pair_durability: str | None = None) -> bool:
    """Whether a commit may be acknowledged now.

    Args:
        durability: what the transaction asks for, "replicated" or "async".
        commit_term: the term under which it committed, read in the transaction itself.
        writer: the node on which it committed, read AFTER the commit.
        held_by_follower: a ship begun after the commit has been applied on the follower under the commit's term.
        pair_durability: what the pair promises, if it differs: a replicated transaction of an async pair is never acknowledged solo.

    Returns:
        True if it survives what the durability promises to survive.
    """
    if writer.reach is not Reach.UP or writer.term != commit_term:
        return False
    if durability == "async":
        return True
    return held_by_follower or (writer.is_solo and pair_durability in (None, "replicated"))


def _granted_by_witness(view: View, answering: list[NodeView]) -> Decision | None:
    """A takeover that the witness has granted can only go forward: the old writer has lost its say there."""
    witness = view.witness
    if witness is None or witness.reach is not Reach.UP:
        return None
    for node in answering:
        if node.name == witness.writer and node.role is Role.FOLLOWER and node.term and witness.term.outranks(node.term):
            reason = f"the witness has given the pair to {node.name} under {witness.term}, and {node.name} is not the writer yet"
            return Decision(Action.FINISH, node.name, node.name, _acknowledge_alone(view, True), reason)
    return None


def _in_contact(view: View, writer: NodeView, follower: NodeView) -> Decision:
    """Writer and follower answer: ship, and bring the follower in sync first where it isn't."""
    if _disagree(writer, follower):
        return _stop(
            f"{follower.name} follows {follower.term} and {writer.name} writes under {writer.term}: one of them is from another time or was forced",
            f"run `replstore takeover --force {writer.name}` or `replstore takeover --force {follower.name}` to name the one that is right",
        )
    alone = _acknowledge_alone(view, writer.is_solo)
    acknowledge = Acknowledge.REPLICATED if alone is Acknowledge.NONE else alone
    if out_of_sync := _why_out_of_sync(view, writer, follower):
        return Decision(Action.RESYNC, follower.name, writer.name, acknowledge, f"{follower.name} must be brought in sync: {out_of_sync}")
    return Decision(Action.WRITE, None, writer.name, acknowledge, f"{writer.name} writes, {follower.name} follows")


def _former_writer(view: View, writer: NodeView, former: NodeView) -> Decision:
    """A writer and a fenced node: the former writer rejoins."""
    alone = _acknowledge_alone(view, writer.is_solo)
    fence, term = former.fenced_by, writer.term
    if _number(former) >= _number(writer) or (fence and term and (fence.outranks(term) or (fence.number == term.number and fence != term))):
        by = f"fenced by {fence}" if fence else "half of an unfinished switchover"
        return _stop(
            f"{former.name} is {by}, at {former.term}, but {writer.name} writes under {term}",
            f"run `replstore takeover --force {writer.name}` if it holds what counts",
        )
    if view.policy.rejoin == "manual":
        action = Action.WAIT if alone is Acknowledge.NONE else Action.WRITE
        return Decision(
            action,
            None,
            writer.name,
            alone,
            f"{former.name} is a former writer; the pair's policy leaves the rejoin to a person",
            "run `replstore rejoin`",
        )
    return Decision(
        Action.REJOIN, former.name, writer.name, alone, f"{former.name} is a former writer, fenced, and {writer.name} writes under {term}"
    )


def _two_writers(view: View, newer: NodeView, older: NodeView) -> Decision:
    """Both say writer: the higher term wins; one number with two uuids stops both."""
    if _number(newer) == _number(older):
        return _stop(
            f"both nodes are writers of term {_number(newer)}, by two different decisions",
            f"compare them with `replstore check`, then run `replstore takeover --force {newer.name}` or `replstore takeover --force {older.name}`",
        )
    reason = f"{older.name} still says writer of {older.term}, but {newer.name} writes under {newer.term}"
    return Decision(Action.FENCE, older.name, newer.name, _acknowledge_alone(view, newer.is_solo), reason)


def _unfinished_switchover(view: View, follower: NodeView, fenced: NodeView) -> Decision:
    """A fenced node and its follower: finish the switchover, or nobody can tell who writes."""
    if fenced.fenced_by is None and fenced.term == follower.term:
        return Decision(Action.FINISH, follower.name, None, Acknowledge.NONE, f"a switchover from {fenced.name} to {follower.name} is unfinished")
    by = f"was fenced by {fenced.fenced_by}" if fenced.fenced_by else f"left {fenced.term} in a switchover"
    return _stop(
        f"{fenced.name} {by}, and {follower.name} follows {follower.term}: no node is the writer",
        f"run `replstore takeover --force {follower.name}` or `replstore takeover --force {fenced.name}`",
    )


def _no_writer(view: View, one: NodeView, other: NodeView) -> Decision:
    """Two followers, or two fenced nodes."""
    return _stop(
        f"no node is the writer: {one.name} is {one.role} of {one.term}, {other.name} is {other.role} of {other.term}",
        f"run `replstore takeover --force {one.name}` or `replstore takeover --force {other.name}`",
    )


def _nobody(primary: NodeView, standby: NodeView) -> Decision:
    return Decision(
        Action.WAIT, None, None, Acknowledge.NONE, f"no node can be used: {describe(primary)}; {describe(standby)}", "bring one of them back"
    )


def _stop(reason: str, next_step: str) -> Decision:
    return Decision(Action.STOP, None, None, Acknowledge.NONE, reason, next_step)


def _disagree(writer: NodeView, follower: NodeView) -> bool:
    return _number(follower) > _number(writer) or (_number(follower) == _number(writer) and follower.term != writer.term)


def _why_out_of_sync(view: View, writer: NodeView, follower: NodeView) -> str:
    witness = view.witness
    if writer.solo:
        return f"{writer.name} went on alone"
    if follower.copying or follower.eligible_boot is None:
        return "it has not been in sync since it became the follower"
    if follower.eligible_boot != follower.boot:
        return "it was restarted or replaced since it was last in sync"
    if follower.stream_term != writer.term or follower.term != writer.term:
        return f"it has nothing yet of {writer.term}"
    if follower.source and writer.node and follower.source != writer.node:
        return f"what it holds didn't come from {writer.name}"
    if witness and witness.reach is Reach.UP and witness.term == writer.term and follower.name not in witness.in_sync:
        return "the witness doesn't know it as in sync"
    return ""


def _acknowledge_alone(view: View, solo: bool) -> Acknowledge:
    if view.policy.durability == "async":
        return Acknowledge.ALONE
    return Acknowledge.SOLO if solo else Acknowledge.NONE


def _role(node: NodeView) -> Role:
    assert node.role is not None
    return node.role


def _number(node: NodeView) -> int:
    assert node.term is not None
    return node.term.number


_RANK = {Role.WRITER: 0, Role.FOLLOWER: 1, Role.FENCED: 2}

#: One node answers: its role decides which rules apply.
ALONE: dict[Role, Callable[[View, NodeView, NodeView], Decision]] = {
    Role.WRITER: writer_alone,
    Role.FOLLOWER: follower_alone,
    Role.FENCED: fenced_alone,
}

#: Both answer: the roles in the order writer, follower, fenced; of two equal ones the higher term first.
TOGETHER: dict[tuple[Role, Role], Callable[[View, NodeView, NodeView], Decision]] = {
    (Role.WRITER, Role.WRITER): _two_writers,
    (Role.WRITER, Role.FOLLOWER): _in_contact,
    (Role.WRITER, Role.FENCED): _former_writer,
    (Role.FOLLOWER, Role.FENCED): _unfinished_switchover,
    (Role.FOLLOWER, Role.FOLLOWER): _no_writer,
    (Role.FENCED, Role.FENCED): _no_writer,
}
