"""A node that went back in time: its data directory or file was replaced by an older copy, or a dump was loaded into it.

Batches prove it.  The writer has a tick of each of the last thousand batches, and the follower the tick of the last one that it holds (HAZARDS 1, 23):

- A *writer* that doesn't know the follower's tick, and whose own last one is older, has lost that batch.
- A *follower* that holds a batch after which its writer has made two or more has held a later one: a second is begun only when the first has arrived.
- A *former writer* that doesn't know the tick which the new one held of it at the takeover has lost that (HAZARDS 26).

Numbers and times must say the same; where they don't, no node is named.
"""

from __future__ import annotations

from sqlalchemy import select

from replstore.databases.base import NodeState
from replstore.pair.takeover import FORCED_JUMP
from replstore.reconcile.origin import Batch, Restored
from replstore.reconcile.snapshots import Side, reading


def went_back(writer: Side, follower: Side) -> Restored | None:
    """Which node has gone back in time, and what proves it; None: neither, or it can't be told which.

    Args:
        writer, follower: the nodes in their snapshots; the follower may be a former writer.
    """
    if follower.state.role == "follower":
        return _writer_or_follower(writer, follower)
    return _former(writer, follower)


def _writer_or_follower(writer: Side, follower: Side) -> Restored | None:
    ahead, behind = writer.state, follower.state
    terms = {(ahead.term_no, ahead.term_uuid), (behind.term_no, behind.term_uuid), (behind.stream_no, behind.stream_uuid)}
    held, last = _held(behind), _last(writer)
    if len(terms) > 1 or behind.source != ahead.node or held is None:
        return None
    if last is not None and last.number >= held.number + 2 and last.at > held.at:
        return Restored(follower.name, held, last) if _stands(follower) else None
    if not _knows(writer, behind.tick) and (last is None or (last.number <= held.number and last.at < held.at)):
        return Restored(writer.name, last, held)
    return None


def _former(writer: Side, former: Side) -> Restored | None:
    ahead, behind = writer.state, former.state
    # one that came back by force may have forgotten its ticks when it followed in between
    took_over = ahead.former_node == behind.node and ahead.former_tick is not None and 0 < ahead.term_no - behind.term_no < FORCED_JUMP
    if not took_over or _knows(former, ahead.former_tick):
        return None
    return Restored(former.name, _last(former), _held(ahead) if ahead.tick == ahead.former_tick else None)


def _held(follower: NodeState) -> Batch | None:
    """The last batch that a follower holds, or held before it took over."""
    return Batch(follower.batch, follower.shipped_at) if follower.batch is not None and follower.shipped_at is not None else None


def _last(node: Side) -> Batch | None:
    """The last batch that a writer began."""
    tick = node.node.database.control.tick.c
    with reading(node.node):
        row = node.connection.execute(select(tick.batch, tick.at).order_by(tick.at.desc(), tick.batch.desc()).limit(1)).first()
    return None if row is None else Batch(row.batch, row.at)


def _knows(node: Side, tick: str | None) -> bool:
    ticks = node.node.database.control.tick.c
    with reading(node.node):
        return node.connection.execute(select(ticks.tick).where(ticks.tick == tick)).first() is not None


def _stands(follower: Side) -> bool:
    """Whether a follower still has no later batch: its snapshot is older than the writer's."""
    with reading(follower.node), follower.node.snapshot() as connection:
        state = follower.node.database.state(connection)
    return state is not None and (state.batch, state.tick) == (follower.state.batch, follower.state.tick)
