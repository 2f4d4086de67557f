"""Takeover: the follower becomes the writer, by ONE compare-and-set on the follower."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from uuid import uuid4

from sqlalchemy import Connection, update
from sqlalchemy.exc import SQLAlchemyError

from replstore.databases.base import NodeState
from replstore.errors import TakeoverRefused
from replstore.node import Node, one_line
from replstore.pair.appoint import refuse_other_witness
from replstore.pair.decide import NodeView, Term, WitnessView
from replstore.pair.flip import settle_guard, under_role_lock
from replstore.pair.witness import Witness
from replstore.timestamps import now

log = logging.getLogger("replstore.pair")

#: How far a forced term jumps, so that it can't be one that the other node has taken (HAZARDS 32).
FORCED_JUMP = 1000
#: How far sequences jump, so that keys which the lost writer gave and didn't ship aren't given again (HAZARDS 22).
SEQUENCE_MARGIN = 1000


def take_over(
    node: Node,
    seen: NodeView,
    *,
    reason: str,
    compare_heartbeat: bool,
    witness: Witness | None = None,
    granted: WitnessView | None = None,
    writer: str = "",
    forced: bool = False,
    margin: int = SEQUENCE_MARGIN,
    given: Mapping[str, int | None] | None = None,
    seconds: float = 5.0,
) -> Term:
    """Makes a follower the writer.

    Args:
        node: the follower.
        seen: the follower as the decision saw it.
        reason: sentence for the log and for ``status``.
        compare_heartbeat: the heartbeat must still stand where it was seen: whatever was found out about the writer since, somebody may have reached it.
            Not for a switchover, where the writer hands over.
        witness: asked first, if the pair has one.
        granted: what the witness said when the decision was made.
        writer: name of the writer so far.
        forced: a person decided; eligibility isn't asked for, and the term jumps.
        margin: how far sequences jump; 0 where nothing can have been lost.
        given: how far the writer's sequences have come: no batch carries what was given without a row, or what is about to have one.
        seconds: limit for waiting for a batch under way.

    Returns:
        The new term.

    Raises:
        TakeoverRefused: the follower is no longer what was seen, another node won at the witness, or that isn't the pair's.
    """
    if seen.term is None:
        raise TakeoverRefused(f"{node.name} has no term: run `replstore migrate`")
    term = Term(seen.term.number + (FORCED_JUMP if forced else 1), str(uuid4()))
    # granted before, by a program that died half-way: nobody else can be the writer any more
    promised = granted is not None and granted.writer == node.name and granted.term.outranks(seen.term)
    if witness is not None and granted is not None:
        term = _ask_witness(witness, granted, node.name, writer, seen.term, term, forced)

    def change(connection: Connection, state: NodeState) -> None:
        if not forced:
            refuse_other_witness(node, connection, witness)
        # restoring may wait for a table: who counts the heartbeat up meanwhile waits as well, and then sees the new role
        connection.execute(update(node.database.control.heartbeat).values(no=node.database.control.heartbeat.c.no))
        state = node.database.state(connection) or state
        refusal = None if forced else _refusal(state, seen, compare_heartbeat, promised)
        if refusal:
            raise TakeoverRefused(f"{node.name} can't take over: {refusal}")
        _become_writer(node, connection, state, term, reason, forced)
        node.database.advance_sequences(connection, given or {})
        if margin:
            node.database.jump_sequences(connection, margin)

    under_role_lock(node, change, seconds=seconds)
    settle_guard(node)
    log.warning("%s took over as writer, term %d (%s)", node.name, term.number, reason)
    return term


def _ask_witness(witness: Witness, seen: WitnessView, candidate: str, writer: str, old: Term, new: Term, forced: bool) -> Term:
    if forced:
        try:
            witness.force(new, candidate)
        except SQLAlchemyError as error:
            log.warning("the witness doesn't learn of the takeover (%s): when it is back, `replstore migrate` tells it", one_line(error))
        return new
    if seen.writer == candidate and seen.term.outranks(old):
        return seen.term
    if seen.term != old or not witness.grant_takeover(old, writer, seen, new, candidate):
        raise TakeoverRefused(f"the witness doesn't let {candidate} take over: it isn't in sync, or another decision was faster")
    return new


def _refusal(state: NodeState, seen: NodeView, compare_heartbeat: bool, promised: bool) -> str | None:
    """Which rule forbids the takeover, by the follower's state under the lock."""
    if state.role != "follower":
        return f"its role is {state.role}"
    if seen.term is None or (state.term_no, state.term_uuid) != (seen.term.number, seen.term.uuid):
        return "its term has changed"
    if not promised and (state.eligible_boot is None or state.eligible_boot != state.boot):
        return "it was restarted or replaced since it was last in sync, and the writer may have gone on alone"
    if state.copying:
        return "it is being copied"
    if compare_heartbeat and state.heartbeat != seen.heartbeat:
        return "somebody has reached the writer in the meantime"
    return None


def _become_writer(node: Node, connection: Connection, state: NodeState, term: Term, reason: str, forced: bool) -> None:
    control, database = node.database.control, node.database
    connection.execute(
        update(control.role).values(
            **_history(state, database.position(connection)),
            role="writer",
            term_no=term.number,
            term_uuid=term.uuid,
            fenced_by_no=None,
            fenced_by_uuid=None,
            reason=("forced: " if forced else "") + reason,
            since=now(),
        )
    )
    # the old writer can't acknowledge without this node, so this one may go on alone at once
    connection.execute(
        update(control.acknowledge).values(solo=True, boot=state.boot, req=control.acknowledge.c.req + 1, reason="took over", since=now())
    )
    database.resume(connection, insist=not forced)


def _history(state: NodeState, here: str) -> dict[str, str | None]:
    """What a new writer keeps of the former one, by column.

    Args:
        here: the node's own position.
    """
    if state.role == "writer":  # forced once more: how it became the writer is still true, and lets the former one back without a copy
        return {}
    followed = state.role == "follower"
    # half a copy (by force alone) holds less than its position says: the other node comes back by comparing every row
    whole = followed and not state.copying
    return {
        "basis": here,
        "former_node": state.source if followed else None,
        "former_position": state.position if whole else None,
        "former_tick": state.tick if whole else None,
    }
