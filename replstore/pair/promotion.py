"""Promotion of a standby of native replication, and the record of the timeline that it begins."""

from __future__ import annotations

import logging
import time
from uuid import uuid4

from sqlalchemy import Connection

from replstore.databases.native.base import Native
from replstore.errors import TakeoverRefused
from replstore.node import Node
from replstore.pair.view import NodeView, Role, Term
from replstore.timestamps import now

log = logging.getLogger("replstore.pair")
#: s that a promotion may take, and between two looks at it: an idle standby writes 25 to 45 ms after it was told to.
PROMOTION, LOOK = 10.0, 0.002
#: s for which what was seen of a standby is good to promote it by.
FRESH = 3.0


def native(node: Node) -> Native:
    """What a node's database has for native replication."""
    assert isinstance(node.database, Native)
    return node.database


def promote(node: Node, seen: NodeView, *, refused: bool, force: bool = False, within: float = FRESH, seconds: float = PROMOTION) -> Term:
    """Makes a standby the primary, and records the timeline that it begins.

    Args:
        node: the standby.
        seen: what the decision saw of it.
        refused: the primary refuses connections.
        force: a person decided: whatever the standby has received since.
        within: s, by the standby's clock, for which what was seen is good to decide by: a program that stood still for longer decides anew.
        seconds: limit for the promotion itself.

    Returns:
        The new term.

    Raises:
        TakeoverRefused: the standby isn't what was seen any more, or doesn't become the primary in time.
        Exception: the driver's error.
    """
    stream, term = seen.stream, seen.term
    if stream is None or term is None:
        raise TakeoverRefused(f"{node.name} can't be promoted: its place in the log isn't known")
    with node.begin(limit=seconds + 1.0) as connection:
        refusal = native(node).promote(
            connection,
            boot=seen.boot,
            term=term.uuid,
            received=stream.flushed,
            asked=stream.clock,
            within=within,
            refused=refused,
            force=force,
        )
        if refusal is not None:
            raise TakeoverRefused(f"{node.name} isn't promoted: {refusal}")
        await_promotion(node, connection, seconds)  # in the same transaction: its lock says that somebody promotes
    new = record(node)
    log.warning("%s was promoted, timeline %d", node.name, new.number)
    return new


def await_promotion(node: Node, connection: Connection, seconds: float) -> None:
    """Waits until a standby that was told to become the primary is one.

    Raises:
        TakeoverRefused: it isn't in time.
    """
    deadline = time.monotonic() + seconds
    while native(node).in_recovery(connection):
        if time.monotonic() >= deadline:
            raise TakeoverRefused(f"{node.name} was told to become the primary and hasn't within {seconds:g} s; its server's log says why")
        time.sleep(LOOK)


def record(node: Node) -> Term:
    """Gives the timeline that a writer writes on its row, unless it has one.

    Raises:
        TakeoverRefused: it isn't the writer any more.
        Exception: the driver's error.
    """
    with node.begin(limit=PROMOTION) as connection:
        native(node).record(connection, str(uuid4()), now())
        state = node.database.state(connection)
    if state is None or state.role != Role.WRITER or not state.term_uuid:
        raise TakeoverRefused(f"{node.name} is in recovery again, or has begun another timeline")
    return Term(state.term_no, state.term_uuid)
