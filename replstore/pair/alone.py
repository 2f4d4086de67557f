"""Going on alone, the one decision that matters: one node answers, the other doesn't.  Solo, takeover, or waiting.

Silence is not death.  A refused node is dead (behind a proxy that isn't so: ``refused_means_dead=False`` makes it silence); a silent one may be
alive, with another process writing to it.  A node that is locked out lives: it is never a reason to go on without it.
"""

from __future__ import annotations

from replstore.pair.view import Acknowledge, Action, Decision, NodeView, Reach, View


def writer_alone(view: View, writer: NodeView, lost: NodeView) -> Decision:
    """The writer answers and its follower doesn't: solo only with proof that the follower is dead, or with the witness's word.

    Args:
        view: what the process knows.
        writer: the node that answers; its role is writer.
        lost: the other one.
    """
    away, bring_back = describe(lost), f"bring {lost.name} back"
    if is_superseded(writer, lost):
        reason = f"{writer.name} says writer of {writer.term}, but {lost.name} wrote under {lost.term}"
        return Decision(Action.FENCE, writer.name, None, Acknowledge.NONE, reason, _or_force(lost, writer))
    if view.witness and view.witness.reach is Reach.UP and writer.term and view.witness.term.outranks(writer.term):
        reason = (
            f"the witness has given the pair to {view.witness.writer} under {view.witness.term}, so {writer.name} is no longer the writer; {away}"
        )
        return Decision(Action.WAIT, None, None, Acknowledge.NONE, reason, _or_force(lost, writer))
    if view.policy.durability == "async":
        doubt = (
            ""
            if _is_confirmed(view, writer)
            else f"; it has not met {lost.name} since it or this program started, and if that took over, changes here are orphans"
        )
        return Decision(Action.WRITE, None, writer.name, Acknowledge.ALONE, f"{away}, {writer.name} goes on alone (async){doubt}", bring_back)
    if writer.is_solo:
        return Decision(Action.WRITE, None, writer.name, Acknowledge.SOLO, f"{away}, {writer.name} acknowledges alone", bring_back)
    if refusal := _why_not_solo(view, writer, lost):
        return Decision(Action.WAIT, None, writer.name if _is_confirmed(view, writer) else None, Acknowledge.NONE, *refusal)
    proof = "if the witness agrees" if view.witness else "right after a contact"
    return Decision(Action.GO_SOLO, writer.name, writer.name, Acknowledge.SOLO, f"{away}, {writer.name} goes on alone {proof}", bring_back)


def _why_not_solo(view: View, writer: NodeView, lost: NodeView) -> tuple[str, str] | None:
    """Why the writer may not go solo, and what to do; None if it may."""
    away, by_hand = describe(lost), f"bring {lost.name} back, or run `replstore solo`"
    if lost.reach is Reach.LOCKED_OUT:
        return f"{away}: a node that answers is not a lost one, and without it nothing is acknowledged", f"mend {lost.name}, or run `replstore solo`"
    if view.policy.on_follower_down == "block":
        return f"{away}, and the pair's policy is to block while the follower is down", by_hand
    if view.witness:
        return _why_no_solo_by_witness(view, writer, lost)
    if not is_dead(view, lost):
        return f"{away}; it may be alive and out of reach, so {writer.name} acknowledges nothing", by_hand
    if not _is_confirmed(view, writer):
        reason = f"{writer.name} is unconfirmed: it or this program started after the last contact with {lost.name}, which may have gone on without it; {away}"
        return reason, f"bring {lost.name} back, or, if it can't have taken over, run `replstore solo`"
    if view.contact is None or view.contact.age >= view.policy.detection_time:
        return f"{away}, but the last contact is too old: {lost.name} may have taken over since", by_hand
    return None


def follower_alone(view: View, follower: NodeView, lost: NodeView) -> Decision:
    """The follower answers and the writer doesn't: takeover if the writer is lost and the follower is eligible.

    Args:
        view: what the process knows.
        follower: the node that answers; its role is follower.
        lost: the other one.
    """
    away = describe(lost)

    def wait(reason: str, next_step: str = "") -> Decision:
        return Decision(Action.WAIT, None, None, Acknowledge.NONE, reason, next_step)

    if lost.reach is Reach.LOCKED_OUT:
        return wait(f"{away}: a node that answers is not a lost one, so {follower.name} doesn't take over", f"mend {lost.name}")
    if not is_dead(view, lost):
        if lost.silent_for < view.policy.detection_time:
            return wait(f"{away}, not yet for the detection time")
        if follower.still_for < view.policy.detection_time:
            return wait(
                f"{away}, but {follower.name}'s heartbeat stood still for {follower.still_for:.1f} s only: another program may reach {lost.name}",
                f"mend the connection to {lost.name}",
            )
    if ineligible := why_not_eligible(view, follower, lost):
        return wait(
            f"{away} and {follower.name} is not eligible: {ineligible}",
            _or_force(lost, follower),
        )
    if not lost.met and follower.still_for < view.policy.detection_time:
        return wait(
            f"{away}, and this program has never met it, so its URL may be wrong: {follower.name} is watched for a heartbeat of others first",
            f"if {lost.name}'s URL is right, any running Store takes over by itself; `replstore takeover` does it now",
        )
    if view.witness and (refusal := _why_no_takeover_by_witness(view, follower)):
        return wait(
            f"{away}, but {refusal}",
            f"bring {lost.name} or the witness back, or, if its last changes may be lost, run `replstore takeover --force {follower.name}`",
        )
    if view.policy.takeover == "manual":
        return wait(f"{away} and {follower.name} is eligible; the pair's policy leaves the takeover to a person", "run `replstore takeover`")
    return Decision(
        Action.TAKE_OVER,
        follower.name,
        follower.name,
        Acknowledge.SOLO if view.policy.durability == "replicated" else Acknowledge.ALONE,
        f"{away} and {follower.name} is eligible",
    )


def fenced_alone(view: View, fenced: NodeView, lost: NodeView) -> Decision:
    """A fenced node answers and its counterpart doesn't: nothing may be written.

    Args:
        view: what the process knows.
        fenced: the node that answers.
        lost: the other one.
    """
    if fenced.fenced_by is None:
        reason = f"a switchover from {fenced.name} to {lost.name} is unfinished, and {describe(lost)}"
    else:
        reason = f"{fenced.name} is fenced by {fenced.fenced_by}, whose writer doesn't answer: {describe(lost)}"
    return Decision(
        Action.WAIT,
        None,
        None,
        Acknowledge.NONE,
        reason,
        _or_force(lost, fenced),
    )


def describe(node: NodeView) -> str:
    """How a node that doesn't serve is named in a sentence: "primary is refused (connection refused)"."""
    detail = f" ({node.error})" if node.error else ""
    if node.reach is Reach.SILENT:
        detail = "" if node.error.startswith("no answer for ") else detail  # that is what silent means
        since = f" for {node.silent_for:.1f} s" if node.silent_for >= 0.05 else ""
        return f"{node.name} is silent{since}{detail}"
    return f"{node.name} is {node.reach}{detail}"


def is_dead(view: View, node: NodeView) -> bool:
    """Whether the node is known to be dead.  Refused means dead only on direct connections."""
    return node.reach is Reach.REFUSED and view.policy.refused_means_dead


def is_superseded(writer: NodeView, other: NodeView) -> bool:
    """Whether the other node is known to have been, or followed, a later writer."""
    return writer.term is not None and other.term is not None and other.term.outranks(writer.term)


def is_uncontested(view: View, writer: NodeView, other: NodeView) -> bool:
    """Whether no other node can have become the writer by now, short of a person's force: what a read from the writer is worth (HAZARDS 17)."""
    if writer.is_solo:  # the other one stopped being eligible before
        return True
    if view.witness is not None and view.witness.reach is Reach.UP:
        return (view.witness.writer, view.witness.term) == (writer.name, writer.term)
    if other.reach is Reach.UP:
        return not is_superseded(writer, other)
    return view.contact is not None and view.contact.age < view.policy.detection_time and _is_confirmed(view, writer)


def why_not_eligible(view: View, follower: NodeView, lost: NodeView) -> str:
    """Why the follower may not take over; an empty string if it may."""
    if follower.eligible_boot is None:
        return "it has not been in sync since it became the follower"
    if follower.eligible_boot != follower.boot:
        return f"it was restarted or replaced since it was last in sync, and {lost.name} may have gone on alone"
    if follower.copying:
        return "a copy of it is under way"
    if follower.stream_term != follower.term or is_superseded(follower, lost):
        return "it has nothing yet of the last writer's term"
    if follower.batch < view.seen_batch:
        return f"it went back in time: its batch is {follower.batch}, and it has had {view.seen_batch}"
    return ""


def _is_confirmed(view: View, writer: NodeView) -> bool:
    """Whether this process, or the witness, knows that the node was the writer in this boot, or in this term."""
    contact, witness = view.contact, view.witness
    if witness and witness.reach is Reach.UP:
        return (witness.writer, witness.term) == (writer.name, writer.term)
    return contact is not None and (contact.writer, contact.term, contact.writer_boot) == (writer.name, writer.term, writer.boot)


def _or_force(lost: NodeView, other: NodeView) -> str:
    return f"bring {lost.name} back, or, if its last changes may be lost, run `replstore takeover --force {other.name}`"


def _why_no_solo_by_witness(view: View, writer: NodeView, lost: NodeView) -> tuple[str, str] | None:
    away, by_hand = describe(lost), f"bring {lost.name} or the witness back, or run `replstore solo`"
    if not is_dead(view, lost) and lost.silent_for < view.policy.detection_time:
        return f"{away}, not yet for the detection time", ""
    if view.witness is None or view.witness.reach is not Reach.UP:
        return f"{away} and the witness can't be reached", by_hand
    if (view.witness.term, view.witness.writer) != (writer.term, writer.name):
        return f"{away}, and the witness knows {view.witness.writer} as writer of {view.witness.term}, not {writer.name} of {writer.term}", by_hand
    return None


def _why_no_takeover_by_witness(view: View, follower: NodeView) -> str:
    if view.witness is None or view.witness.reach is not Reach.UP:
        return "the witness can't be reached"
    if view.witness.term != follower.term:
        return f"the witness knows {view.witness.writer} as writer of {view.witness.term}, and {follower.name} follows {follower.term}"
    if follower.name not in view.witness.in_sync:
        return f"the witness says that {view.witness.writer} went on without {follower.name}"
    return ""
