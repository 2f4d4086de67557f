"""Switchover: the roles change places on purpose, with no failed transaction.

Fence the writer (running transactions end first), ship the rest, let the follower take over, let the former writer follow.  A program that dies in
between leaves a fenced node and a follower of one term: ``finish`` goes on from there.
"""

from __future__ import annotations

from sqlalchemy import Connection, update

from replstore.databases.base import NodeState
from replstore.errors import NotTheWriter
from replstore.node import Node
from replstore.pair.decide import Term
from replstore.pair.flip import under_role_lock
from replstore.timestamps import now


def hand_over(node: Node, term: Term, *, seconds: float) -> None:
    """Fences the writer under its own term; its running transactions end first.

    Args:
        node: the writer.
        term: the term it must have.
        seconds: limit for waiting.

    Raises:
        SwitchoverFailed: somebody keeps a transaction open; the message names them.
        NotTheWriter: the node is no longer the writer of that term.
    """

    def change(connection: Connection, state: NodeState) -> None:
        if state.role != "writer" or (state.term_no, state.term_uuid) != (term.number, term.uuid):
            raise NotTheWriter(f"{node.name} is no longer the writer of term {term.number}")
        fence(node, connection, state, None, "hands over")

    under_role_lock(node, change, seconds=seconds)


def take_back(node: Node, term: Term) -> None:
    """Undoes ``hand_over`` while the follower still follows under the same term."""

    def change(connection: Connection, state: NodeState) -> None:
        if state.role == "fenced" and state.fenced_by_no is None and (state.term_no, state.term_uuid) == (term.number, term.uuid):
            connection.execute(update(node.database.control.role).values(role="writer", reason="switchover given up", since=now()))

    under_role_lock(node, change, seconds=5.0)


def fence(node: Node, connection: Connection, state: NodeState, by: Term | None, reason: str) -> None:
    """Closes the guard and writes the fence, under the role lock.

    Args:
        by: the higher term; None: an unfinished switchover.
    """
    node.database.set_guard(connection, term_no=state.term_no, writing=False)
    connection.execute(
        update(node.database.control.role).values(
            role="fenced", fenced_by_no=by.number if by else None, fenced_by_uuid=by.uuid if by else None, reason=reason, since=now()
        )
    )
