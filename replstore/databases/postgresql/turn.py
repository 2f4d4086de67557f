"""The shippers' turn on a follower, when whoever has it stands still (HAZARDS 9).

A frozen client that is idle in its transaction is ended by the server itself after two seconds.  One that froze while its rows went in is not: to the
server its COPY is a statement that runs and waits for the client.  So whoever waits for the turn in vain looks who has it, and ends him when he hasn't
moved since the last look: same statement, same bytes, waiting for his client, and no session of replstore's on the writer reads for him.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Any

from replstore.databases.postgresql.capture import LOCK_CLASS, TURN, text
from replstore.databases.postgresql.sessions import SERVICE_NAME, Session

log = logging.getLogger("replstore.ship")
#: s that he may stand still where the writer can be asked whether somebody reads, and where it can't.
PATIENCE, BLIND_PATIENCE = 1.5, 30.0

HOLDER = f"""
SELECT a.pid, a.backend_start::text, a.state_change::text, c.bytes_processed FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_stat_progress_copy c ON c.pid = l.pid
WHERE l.locktype = 'advisory' AND l.classid = {LOCK_CLASS} AND l.objid = {TURN} AND l.granted
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND a.application_name = {text(SERVICE_NAME)} AND a.wait_event = 'ClientRead'
"""
#: What a heartbeat or a look at the state asks takes no second.
READING = f"""
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = {text(SERVICE_NAME)} AND state = 'active'
    AND pid <> pg_backend_pid() AND wait_event_type IS DISTINCT FROM 'Client' AND clock_timestamp() - query_start > interval '1 second')
"""


class Turn:
    """What one waiting shipper has seen of the turn's holder.

    Args:
        follower: its session there.
        writer: its session on the writer; None: that is no PostgreSQL server.
    """

    def __init__(self, follower: Session, writer: Session | None) -> None:
        self._follower, self._writer = follower, writer
        self._holder: tuple[Any, ...] | None = None
        self._since = 0.0

    def missed(self) -> None:
        """The turn wasn't given in time: looks who has it, and ends him if he is frozen; never raises."""
        with suppress(Exception):
            self._look()

    def _look(self) -> None:
        self._follower.rollback()
        rows = self._follower.begin(f"BEGIN; {HOLDER}")
        self._follower.rollback()
        holder, now = rows[0] if rows else None, time.monotonic()
        if holder is None or holder != self._holder:
            self._holder, self._since = holder, now
            return
        if now - self._since < (BLIND_PATIENCE if self._writer is None else PATIENCE) or self._somebody_reads():
            return
        ended = self._follower.begin(
            "BEGIN; SELECT pg_terminate_backend(pid, 500) FROM pg_stat_activity "
            f"WHERE pid = {holder[0]} AND backend_start::text = {text(holder[1])} AND state_change::text = {text(holder[2])}"
        )
        self._follower.rollback()
        if ended:
            log.warning("ended a frozen shipper's session (server process %d): it had the turn and stood still", holder[0])

    def _somebody_reads(self) -> bool:
        if self._writer is None:
            return False
        (row,) = self._writer.begin(f"BEGIN; {READING}")
        self._writer.rollback()
        return bool(row[0])
