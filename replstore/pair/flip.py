"""Changing a node's role: one transaction under the guard's exclusive lock; the guard opens only after the role is committed.

In the other direction the guard closes first.  A crash in between leaves a node that refuses changes until ``settle_guard`` is called, never one that
takes changes it shouldn't (HAZARDS 3).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from replstore.databases.base import Fault, NodeState
from replstore.errors import NodeLost, NotTheWriter, SwitchoverFailed
from replstore.node import Node, one_line

log = logging.getLogger("replstore.pair")
Result = TypeVar("Result")

#: s to wait for transactions that passed the guard, before replstore's own frozen sessions among them are ended.
PATIENCE = 0.5
#: s that a statement has at least, however late it is; and before another connection is taken in place of one that was lost.
LEAST, AGAIN = 0.05, 0.02


def under_role_lock(node: Node, change: Callable[[Connection, NodeState], Result], *, seconds: float) -> Result:
    """Runs ``change`` in one transaction while no transaction that passed the guard is open on the node.

    Args:
        node: the node.
        change: gets the connection and the node's state as read under the lock.
        seconds: limit for waiting, for the lock and for a node that doesn't answer. A ``change`` that takes longer on a node that does goes on.

    Raises:
        SwitchoverFailed: somebody keeps the lock; the message names them.
        NodeLost: the node hasn't answered for so long.
        Exception: what ``change`` or the driver raised.
    """
    deadline, locked = time.monotonic() + seconds, False
    while True:
        try:
            with node.begin(max(LEAST, deadline - time.monotonic()), while_silent=True) as connection:
                node.database.lock_roles(connection, seconds=min(PATIENCE, max(LEAST, deadline - time.monotonic())))
                locked = True
                state = node.database.state(connection)
                if state is None:
                    raise NotTheWriter(f"{node.name} has no control tables")
                return change(connection, state)
        except Exception as error:
            fault = node.database.classify(error)
            if fault.connection_is_gone and time.monotonic() >= deadline:
                raise NodeLost(f"{node.name}'s role can't change: {node.name} hasn't answered for {seconds:g} s") from error
            if fault is Fault.LOST_CONNECTION and not locked:  # an idle one that ended with the server's last run: nothing was done on it
                time.sleep(AGAIN)
                continue
            if fault not in (Fault.TIMEOUT, Fault.TRANSIENT):
                raise
            if time.monotonic() >= deadline:
                raise SwitchoverFailed(
                    f"{node.name}'s role can't change: {', '.join(_blockers(node)) or one_line(error)} keeps it waiting"
                ) from error
            _end_blockers(node)


def _end_blockers(node: Node) -> None:
    with suppress(DBAPIError), node.begin(PATIENCE, while_silent=True) as connection:
        if ended := node.database.end_blockers(connection):
            log.warning("ended %d frozen session(s) of replstore on %s", ended, node.name)


def _blockers(node: Node) -> list[str]:
    """Who keeps the lock; nobody is named where the node doesn't answer any more."""
    with suppress(DBAPIError), node.begin(PATIENCE, while_silent=True) as connection:
        return node.database.blockers(connection)
    return []


def settle_guard(node: Node, *, seconds: float = 5.0) -> None:
    """Opens the guard of a node whose role row says writer: the second half of a flip, repeated as often as needed."""

    def open_it(connection: Connection, state: NodeState) -> None:
        if state.role == "writer":
            node.database.set_guard(connection, term_no=state.term_no, writing=True)

    under_role_lock(node, open_it, seconds=seconds)
