"""A PostgreSQL node of native replication: its role, its timeline and its place in the write-ahead log, in one statement that an ordinary role may execute.

The role is the server's own (``pg_is_in_recovery``).  The timeline is read from the name of the present WAL file: after a promotion
``pg_control_checkpoint`` still tells the old one for a while (HAZARDS 15).  What replstore adds is a row for each timeline, written as the first commit on it: it
gives the timeline a uuid, so that two histories under one number are told apart, and says where the timeline before it ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from replstore.databases.base import NodeState, Stream
from replstore.databases.postgresql.state import BOOT

#: LSNs travel as numbers: the distance of two is bytes.
RECEIVED = "greatest(coalesce(pg_last_wal_receive_lsn(), '0/0'), coalesce(pg_last_wal_replay_lsn(), '0/0'))"
#: How far the log has been written, as a follower that has all of it replays: behind the last record, not behind the header of a page that has just begun.
INSERTED = """(SELECT p - CASE WHEN mod(p, pg_size_bytes(current_setting('wal_segment_size'))) = 40 THEN 40
    WHEN mod(p, current_setting('wal_block_size')::int) = 24 THEN 24 ELSE 0 END FROM (SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint OFFSET 0) i(p))"""
TIMELINE = "('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int"
LATEST_TIMELINE = "SELECT no, uuid, previous_uuid, switched_at FROM replstore.timeline ORDER BY no DESC LIMIT 1"

#: The node's own clock, which is compared with itself only.
CLOCK = "extract(epoch FROM clock_timestamp())::float8"

#: What a read needs to know; it is asked together with BEGIN.
SELECT_BRIEF = f"""
SELECT n.pair, n.node, s.no, t.no, t.uuid, {BOOT}, r.yes,
    CASE WHEN r.yes THEN NULL ELSE {TIMELINE} END,
    CASE WHEN r.yes THEN (pg_last_wal_replay_lsn() - '0/0')::bigint ELSE {INSERTED} END
FROM replstore.node n CROSS JOIN replstore.schema_no s CROSS JOIN (SELECT pg_is_in_recovery() OFFSET 0) r(yes)
LEFT JOIN LATERAL ({LATEST_TIMELINE}) t ON true"""

SELECT_STATE = f"""
SELECT b.*,
    (CASE WHEN b.in_recovery THEN {RECEIVED} ELSE pg_current_wal_flush_lsn() END - '0/0')::bigint,
    (pg_last_wal_replay_lsn() - '0/0')::bigint,
    EXISTS (SELECT FROM pg_stat_wal_receiver),
    (SELECT system_identifier FROM pg_control_system())::text,
    current_setting('synchronous_standby_names'),
    has_function_privilege('pg_promote(boolean, integer)', 'execute'),
    (SELECT setting::int FROM pg_settings WHERE name = 'wal_retrieve_retry_interval'),
    {CLOCK}
FROM ({SELECT_BRIEF}) b(pair, node, schema_no, term_no, term_uuid, boot, in_recovery, timeline, lsn)"""


def lsn(number: int) -> str:
    """A place in the write-ahead log as PostgreSQL writes it."""
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


def number(text: str) -> int:
    """The place as a number of bytes.

    Raises:
        ValueError: it is no LSN.
    """
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def node_state(row: Sequence[Any]) -> NodeState:
    """The state from a row of :data:`SELECT_BRIEF` or :data:`SELECT_STATE`."""
    pair, node, schema_no, term_no, term_uuid, boot, in_recovery, timeline, place, *facts = row
    recorded = term_uuid is not None and (in_recovery or timeline == term_no)
    stream = Stream(timeline, place or 0, *facts) if facts else Stream(timeline, place or 0)
    return NodeState(
        node=node,
        role="follower" if in_recovery else "writer",
        term_no=term_no if recorded else timeline or 0,
        term_uuid=term_uuid if recorded else "",
        boot=boot,
        solo=False,
        solo_boot="",
        req=0,
        fenced_by_no=None,
        fenced_by_uuid=None,
        schema_no=schema_no,
        basis=None,
        former_node=None,
        former_position=None,
        former_tick=None,
        pair=pair,
        name="",
        source=node,
        stream_no=term_no,
        stream_uuid=term_uuid,
        position=lsn(place) if place is not None else None,
        tick=None,
        batch=0,
        eligible_boot=boot,
        copying=False,
        heartbeat=stream.flushed,
        shipped_at=None,
        guard_open=True,
        stream=stream,
    )


def brief_state(row: Sequence[Any]) -> NodeState:
    """The same of a row of :data:`SELECT_BRIEF`, several times as fast: each read needs one, and most differ in the place only."""
    *facts, place = row
    state = _known(tuple(facts))
    if place is None or state.stream is None:
        return node_state(row)
    changed: NodeState = _altered(state, position=lsn(place), stream=_altered(state.stream, place=place))
    return changed


@lru_cache(maxsize=16)
def _known(facts: tuple[Any, ...]) -> NodeState:
    return node_state((*facts, None))


def _altered(known: Any, **changes: Any) -> Any:
    """``dataclasses.replace`` without the constructor, which sets each field of a frozen dataclass by a call."""
    made = object.__new__(type(known))
    made.__dict__.update(known.__dict__, **changes)
    return made
