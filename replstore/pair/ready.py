"""Connections to a follower that are there before it becomes the writer: the first ones to a server take as long as half a promotion."""

from __future__ import annotations

from contextlib import ExitStack, suppress

from sqlalchemy.pool import QueuePool

from replstore.databases.dialect import raw
from replstore.node import Node


def keep_ready(node: Node, boot: str, count: int = 1) -> None:
    """Sees to it that a node's pool has connections to the server that runs there now.  Never raises: whoever works there meets what is wrong with it.

    Args:
        node: the follower.
        boot: its boot identity, as it was seen last; what is left of an earlier run is replaced.
        count: how many, at most as many as the pool keeps.
    """
    pool = node.engine.pool
    if not isinstance(pool, QueuePool):
        return
    with suppress(Exception), ExitStack() as taken:
        for _ in range(min(count, pool.size()) - pool.checkedout()):
            connection = taken.enter_context(node.engine.connect())
            if raw(connection.connection).boot != boot:
                connection.invalidate()
                taken.enter_context(node.engine.connect())


def in_use(node: Node) -> int:
    """How many connections to a node this program has, idle ones included."""
    pool = node.engine.pool
    return pool.checkedin() + pool.checkedout() if isinstance(pool, QueuePool) else 0
