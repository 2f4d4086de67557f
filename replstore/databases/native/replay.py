"""Asks a writer how far it has written and its follower how far it has replayed, on two sessions of their own, a round trip each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from replstore.databases.native.state import INSERTED, LATEST_TIMELINE, TIMELINE
from replstore.databases.postgresql.sessions import Session

#: Everything that was committed before is flushed by what goes first: a message's own flush, or, before version 17, the end of its transaction.
_BEAT = {True: "SELECT pg_logical_emit_message(false, 'replstore', '', true)", False: "SELECT pg_logical_emit_message(true, 'replstore', '')"}
WRITTEN = f"SELECT {TIMELINE}, {INSERTED}, (pg_current_wal_flush_lsn() - '0/0')::bigint, t.no, t.uuid FROM ({LATEST_TIMELINE}) t"
REPLAYED = (
    "SELECT pg_is_in_recovery(), coalesce(pg_last_wal_replay_lsn() - '0/0', 0)::bigint, t.no, t.uuid, "
    "(SELECT count(*) FROM replstore.marker WHERE id = ANY ($1::text[])) "
    f"FROM (SELECT) one LEFT JOIN ({LATEST_TIMELINE}) t ON true"
)
SHOWN = "SELECT id FROM replstore.marker WHERE id = ANY ($1::text[])"


@dataclass(frozen=True)
class Place:
    """A place in the write-ahead log.

    Attributes:
        writes: the node isn't in recovery.
        place: a number of bytes.
        term_no, term_uuid: of the timeline that the node writes on, or has replayed.
        found: how many of the markers asked for it has.
    """

    writes: bool
    place: int
    term_no: int
    term_uuid: str
    found: int = 0


def beat_statement(connection: Any) -> str:
    """What lets the log move on, and flushes it, on the server behind a driver connection: from version 17 on by itself, before by the transaction's end."""
    return _BEAT[connection.info.server_version >= 170000]


class Replay:
    """The two sessions; one thread at a time.

    Args:
        writer, follower: service engines.
    """

    def __init__(self, writer: Engine, follower: Engine) -> None:
        self._writer, self._follower = Session(writer), Session(follower)

    def patient(self, meanwhile: Callable[[], None]) -> None:
        """What to call about once a second while an answer is waited for; it may raise."""
        self._writer.meanwhile = self._follower.meanwhile = [meanwhile]

    def written(self) -> Place | None:
        """How far the writer has written what was committed before; None: its timeline isn't recorded yet.

        Raises:
            psycopg.Error: it doesn't answer, or is in recovery.
        """
        self._writer.open()
        rows = self._writer.ask(WRITTEN).rows
        if not rows or rows[0][0] != rows[0][3]:
            return None
        _, place, flushed, number, uuid = rows[0]
        if flushed < place:  # nothing is sent before it is flushed, and nobody may be about to flush it
            self._writer.ask(beat_statement(self._writer.connection))
        return Place(True, int(place), number, uuid)

    def replayed(self, markers: Sequence[str] = ()) -> Place:
        """How far the follower has replayed.

        Args:
            markers: ids, which replstore has made itself.

        Raises:
            psycopg.Error: it doesn't answer.
        """
        self._follower.open()
        in_recovery, place, number, uuid, found = self._follower.ask(REPLAYED, _array(markers)).rows[0]
        return Place(not in_recovery, int(place), number or 0, uuid or "", int(found))

    def shown(self, markers: Sequence[str]) -> set[str]:
        """Which of these markers the follower has.

        Raises:
            psycopg.Error: it doesn't answer.
        """
        return {id for (id,) in self._follower.ask(SHOWN, _array(markers)).rows}

    def interrupt(self) -> None:
        """Frees who waits; never raises."""
        self._writer.interrupt()
        self._follower.interrupt()

    def close(self) -> None:
        """Closes both connections; never raises."""
        self._writer.close()
        self._follower.close()


def _array(ids: Sequence[str]) -> str:
    """Ids as an array's text: uuids, which need no quotes."""
    return f"{{{','.join(ids)}}}"
