"""Brief batches: what a caller's own commit costs where it changed a few rows of tables that the last batches changed too.

Three round trips instead of six.  The writer's snapshot with the rows, its end, and the tick go in one, in one session: a server that crashed between the
two answers nothing, which is the sign of life that HAZARDS 23 asks for.  The follower isn't asked before: its transaction compares, under the turn, with what
the last batch left there in the same session, so under the same boot identity (HAZARDS 24, 25).  Then its COMMIT.  Whatever doesn't fit begins anew as an
ordinary batch.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import psycopg

from replstore.databases.base import NodeState
from replstore.databases.carrier import Keys, Landing, Snapshot
from replstore.databases.postgresql.carrier import PostgreSQLCarrier
from replstore.databases.postgresql.pipeline import Answer
from replstore.databases.postgresql.sessions import Session

log = logging.getLogger("replstore.ship")

#: Of so many tables, those of the last batches, rows are looked for.
USUAL = 4


class BriefCarrier(PostgreSQLCarrier):
    """Moves batches between two PostgreSQL servers, small ones in three trips.

    Args:
        writer, ticker, follower: see :class:`PostgreSQLCarrier`.
    """

    def __init__(self, writer: Session, ticker: Session, follower: Session) -> None:
        super().__init__(writer, ticker, follower)
        self._usual: list[str] = []
        """The tables of the last batches, the latest first."""
        self._wait: float | None = None
        """s to wait for the turn, where the follower wasn't asked."""
        self._here: list[tuple[str, tuple[Any, ...]]] = []
        self._ticked: str | None = None
        """The tick of a batch whose rows are all here."""

    def follower(self, *, wait: float, transactions: Collection[str] = ()) -> NodeState:
        self._wait = None
        return super().follower(wait=wait, transactions=transactions)

    def assume(self, *, wait: float) -> bool:
        self._follower.open()
        self._wait = wait
        return self._landed_by is self._follower.connection

    def snapshot(self, *, since: str | None, held: str | None, batch: int | None = None) -> Snapshot:
        self._ticked = None
        brief = self._brief(since, held, batch) if batch is not None and since is not None and self._usual else None
        snapshot = brief or super().snapshot(since=since, held=held)
        if self._few:
            latest = [name for name in self._few if name in self._tables]
            self._usual = [*latest, *(name for name in self._usual if name not in latest)][:USUAL]
        return snapshot

    def _brief(self, since: str, held: str | None, batch: int) -> Snapshot | None:
        """Snapshot, rows and tick in one trip; None: there is more to it than that, and nothing is open."""
        self._send_snapshot(since, held)
        for name in self._usual:
            self._writer.send(self._statements[name].look, since, raw=True)
        self._writer.send("COMMIT")
        tick = self._send_tick(self._writer, batch, held)
        try:
            _, look, journal, markers, *found = self._writer.receive()
        except (psycopg.ProgrammingError, psycopg.NotSupportedError) as error:  # a table isn't any more what it was
            log.debug("not a brief batch: %s", error)
            self._usual = []
            self._writer.rollback()
            return None
        self._keep_few(journal, markers)
        usual = {name: answer.rows for name, answer in zip(self._usual, found, strict=False)}
        if not self._knows(look):
            self._usual = []
            return None
        if self._few is None or self._markers is None or None in self._counts.values() or not self._few.keys() <= usual.keys():
            return None
        self._here = [(name, row) for name in self._few for row in usual[name]]
        self._ticked = tick
        return self._seen(look, len(self._markers))

    def tick(self, *, batch: int, held: str | None) -> str:
        return self._ticked or super().tick(batch=batch, held=held)

    def apply(self, rows: Mapping[str, Keys], landing: Landing) -> int:
        if self._wait is not None:
            self._send_begin(self._wait)
            if self._ticked is None:  # many rows may come, and not in one trip
                self._under_turn()
        return super().apply(rows, landing)

    def _rows_of(self, names: Sequence[str]) -> Iterator[tuple[str, tuple[Any, ...]]]:
        if self._ticked is None:
            yield from super()._rows_of(names)
        else:
            yield from ((name, row) for name, row in self._here if name in names)

    def _landing(self) -> list[Answer]:
        return super()._landing() if self._wait is None else self._under_turn()

    def still_there(self) -> None:
        if self._ticked is None:
            super().still_there()
