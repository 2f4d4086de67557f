"""Promotion, and the record of timelines: each is one statement that looks for itself at what it decides on."""

from __future__ import annotations

from replstore.databases.native.state import CLOCK, LATEST_TIMELINE, RECEIVED, TIMELINE
from replstore.databases.postgresql.capture import LOCK_CLASS

#: Key of the advisory lock under which a standby is promoted.
PROMOTION = 7

#: Promotes a standby if it is still what was seen; the answer is why it doesn't, or null (HAZARDS 15e).  One statement: a client that stood still between
#: its decision and this finds that the standby has received more, runs no more as it was, or was looked at too long ago, by the standby's own clock: in the
#: meantime the primary may have come back without having been heard of here.
PROMOTE = f"""
SELECT CASE
    WHEN NOT pg_is_in_recovery() THEN 'it is no standby any more'
    WHEN NOT pg_try_advisory_xact_lock({LOCK_CLASS}, {PROMOTION}) THEN 'another program is promoting it at this moment'
    WHEN extract(epoch FROM pg_postmaster_start_time())::text <> %(boot)s THEN 'it was restarted in the meantime'
    WHEN %(force)s THEN CASE WHEN NOT pg_promote(false) THEN 'the server could not be told to' END
    WHEN {CLOCK} - %(asked)s NOT BETWEEN -1 AND %(within)s THEN 'what it was decided by is too old: this program stood still in between'
    WHEN coalesce((SELECT uuid FROM ({LATEST_TIMELINE}) t), '') <> %(term)s THEN 'it has replayed another timeline in the meantime'
    WHEN ({RECEIVED} - '0/0')::bigint <> %(received)s THEN 'it has received more in the meantime: somebody reaches the primary'
    WHEN %(refused)s AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 'it is connected to a primary that sends'
    WHEN pg_get_wal_replay_pause_state() <> 'not paused' THEN 'its replay is paused: SELECT pg_wal_replay_resume()'
    WHEN NOT pg_promote(false) THEN 'the server could not be told to'
END"""

#: The first commit on a timeline.  ``pg_last_wal_replay_lsn`` stands still after a promotion, where the timeline before it ended.  After another start it may be the
#: end of a crash's recovery: it counts where the server has received something since its start, or its last checkpoint is of an earlier timeline still, as
#: only after a promotion.  Where a timeline in between has no record it is that one's end, and the end of the recorded one isn't known (HAZARDS 15).
RECORD = f"""
INSERT INTO replstore.timeline (no, uuid, previous_uuid, switched_at, since)
SELECT w.timeline, %(uuid)s, t.uuid,
    CASE WHEN t.no = w.timeline - 1 AND (pg_last_wal_receive_lsn() IS NOT NULL OR (SELECT timeline_id FROM pg_control_checkpoint()) < w.timeline)
        THEN (pg_last_wal_replay_lsn() - '0/0')::bigint END,
    %(since)s
FROM (SELECT {TIMELINE} AS timeline) w LEFT JOIN ({LATEST_TIMELINE}) t ON true
WHERE t.no IS NULL OR t.no < w.timeline
ON CONFLICT DO NOTHING"""

#: Where a timeline ended: the next one says.
ENDED = """
SELECT n.switched_at FROM replstore.timeline t LEFT JOIN replstore.timeline n ON n.previous_uuid = t.uuid WHERE t.uuid = %s"""
