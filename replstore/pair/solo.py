"""Solo: the writer acknowledges alone because the follower is lost.  Recorded on the writer before anything is acknowledged so."""

from __future__ import annotations

import logging

from sqlalchemy import and_, update
from sqlalchemy.exc import SQLAlchemyError

from replstore.errors import TakeoverRefused
from replstore.node import Node, one_line
from replstore.pair.appoint import refuse_other_witness
from replstore.pair.decide import NodeView
from replstore.pair.witness import Witness
from replstore.timestamps import now

log = logging.getLogger("replstore.pair")


def go_solo(
    node: Node,
    seen: NodeView,
    *,
    reason: str,
    witness: Witness | None = None,
    both: frozenset[str] = frozenset(),
    forced: bool = False,
) -> bool:
    """Lets the writer acknowledge alone.

    Args:
        node: the writer.
        seen: the writer as the decision saw it.
        reason: sentence for the log and for ``status``.
        witness, both: the witness, and both nodes' names.
        forced: a person decided.

    Returns:
        False when the writer has changed since it was seen: the follower became required again, or the role moved.

    Raises:
        TakeoverRefused: the witness isn't the pair's.
    """
    if seen.term is None:
        raise TakeoverRefused(f"{node.name} has no term: run `replstore migrate`")
    # asked even if the writer is alone there already: it must hold this req, or a resync that is under way could end this solo
    if witness is not None and not _granted(witness, seen, node, both, forced) and not forced:
        return False
    control = node.database.control
    with node.begin(limit=5.0) as connection:
        state = node.database.state(connection)
        # an UPDATE first would do on every database but SQLite, whose deferred transaction reads before it writes: both compare the same
        if (
            state is None
            or state.role != "writer"
            or (state.term_no, state.term_uuid) != (seen.term.number, seen.term.uuid)
            or state.boot != seen.boot
        ):
            return False
        if not forced:
            refuse_other_witness(node, connection, witness)
        role = control.role.c
        still_writer = control.role.select().where(and_(role.role == "writer", role.term_uuid == seen.term.uuid)).exists()
        done = connection.execute(
            update(control.acknowledge)
            .where(control.acknowledge.c.req == seen.req, still_writer)
            .values(solo=True, boot=seen.boot, reason=("forced: " if forced else "") + reason, since=now())
        )
        if done.rowcount != 1:
            return False
    log.warning("%s acknowledges alone from now on, term %d (%s)", node.name, seen.term.number, reason)
    return True


def _granted(witness: Witness, seen: NodeView, node: Node, both: frozenset[str], forced: bool) -> bool:
    """Asks the witness; a person's decision is told to it, if it can be reached."""
    assert seen.term is not None
    try:
        return witness.grant_solo(seen.term, node.name, both, seen.req)
    except SQLAlchemyError as error:
        if not forced:
            raise
        log.warning("the witness doesn't learn that %s acknowledges alone: %s", node.name, one_line(error))
        return False
