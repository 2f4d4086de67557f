"""Promotion, and the record of timelines: each is one statement that looks for itself at what it decides on."""

from __future__ import annotations

from sqlalchemy import Connection

from replstore.databases.native.state import _RECEIVED, LATEST_TIMELINE, TIMELINE
from replstore.databases.postgresql.capture import LOCK_CLASS

#: Key of the advisory lock under which a standby is promoted.
PROMOTION = 7

#: Promotes a standby if it is still what was seen; the answer is why it doesn't, or null (HAZARDS 15e).  One statement: a client that stood still between
#: its decision and this finds that the standby has received more, or runs no more as it was.
PROMOTE = f"""
SELECT CASE
    WHEN NOT pg_is_in_recovery() THEN 'it is no standby any more'
    WHEN NOT pg_try_advisory_xact_lock({LOCK_CLASS}, {PROMOTION}) THEN 'another program is promoting it at this moment'
    WHEN extract(epoch FROM pg_postmaster_start_time())::text <> %(boot)s THEN 'it was restarted in the meantime'
    WHEN coalesce((SELECT uuid FROM ({LATEST_TIMELINE}) t), '') <> %(term)s THEN 'it has replayed another timeline in the meantime'
    WHEN ({_RECEIVED} - '0/0')::bigint <> %(received)s THEN 'it has received more in the meantime: somebody reaches the primary'
    WHEN %(refused)s AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 'it is connected to a primary that sends'
    WHEN pg_get_wal_replay_pause_state() <> 'not paused' THEN 'its replay is paused: SELECT pg_wal_replay_resume()'
    WHEN NOT pg_promote(false) THEN 'the server could not be told to'
END"""

#: The first commit on a timeline.  ``pg_last_wal_replay_lsn`` stands still after a promotion, where the timeline before it ended.
RECORD = f"""
INSERT INTO replstore.timeline (no, uuid, previous_uuid, switched_at, since)
SELECT w.timeline, %(uuid)s, t.uuid, (pg_last_wal_replay_lsn() - '0/0')::bigint, %(since)s
FROM (SELECT {TIMELINE} AS timeline) w LEFT JOIN ({LATEST_TIMELINE}) t ON true
WHERE t.no IS NULL OR t.no < w.timeline
ON CONFLICT DO NOTHING"""


def promote(connection: Connection, *, boot: str, term: str, received: int, refused: bool) -> str | None:
    """Tells a standby to become the primary, if it is what was seen.

    Args:
        connection: to the standby, in a transaction.
        boot, term, received: what was seen: its boot identity, the uuid of its latest timeline, and how far it had received.
        refused: the primary's server refuses connections, so that nothing can be sending.

    Returns:
        Why nothing was done; None: it is becoming the primary.
    """
    found = connection.exec_driver_sql(PROMOTE, {"boot": boot, "term": term, "received": received, "refused": refused}).scalar()
    return None if found is None else str(found)


def record(connection: Connection, uuid: str, since: str) -> None:
    """Gives the timeline on which this writer writes its uuid, unless it has one.

    It waits for no standby: the one that would have to answer may be the node that was lost.
    """
    connection.exec_driver_sql("SET LOCAL synchronous_commit = local")
    connection.exec_driver_sql(RECORD, {"uuid": uuid, "since": since})


def ended_at(connection: Connection, uuid: str) -> tuple[bool, int | None]:
    """Where a timeline ended, by its uuid.

    Returns:
        Whether it is a timeline of this history, and the place at which the next one began; None: it is the latest one, or that isn't known.
    """
    row = connection.exec_driver_sql(
        "SELECT t.uuid, n.uuid, n.switched_at FROM replstore.timeline t LEFT JOIN replstore.timeline n ON n.previous_uuid = t.uuid WHERE t.uuid = %s", (uuid,)
    ).first()
    return (False, None) if row is None else (True, row[2])
