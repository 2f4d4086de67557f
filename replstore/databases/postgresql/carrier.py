"""Shipping from PostgreSQL to PostgreSQL: what a batch costs is its round trips, so statements go one behind the other and servers work at the same time.

A batch of a few rows is six trips: the follower is read; the writer's snapshot is opened and read; the tick is sent, and while it becomes durable rows
come from the writer and go to the follower; the tick's answer; the snapshot's end, which is its session's sign of life; the follower's COMMIT.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any
from uuid import uuid4

import psycopg

from replstore.control import MARKER_COLUMNS
from replstore.databases.base import NodeState
from replstore.databases.carrier import TICKS_GO, Carrier, CompareFailed, Keys, Landing, Moved, Snapshot
from replstore.databases.catalog import Table
from replstore.databases.landing import landing_statements
from replstore.databases.postgresql import rows
from replstore.databases.postgresql.capture import GUARD, LOCK_CLASS, TURN, qualified
from replstore.databases.postgresql.definitions import LOOK, Definitions
from replstore.databases.postgresql.pipeline import Answer
from replstore.databases.postgresql.rows import MARKER, UNSHIPPED, unpacked
from replstore.databases.postgresql.sessions import Session
from replstore.databases.postgresql.state import CONTROL, SELECT_STATE
from replstore.databases.postgresql.suspended import ACTING, keep_quiet, named
from replstore.databases.postgresql.turn import Turn
from replstore.databases.state import node_state
from replstore.timestamps import now

__all__ = ["UNSHIPPED", "PostgreSQLCarrier", "unpacked"]

#: Up to so many keys, and so many markers, travel as values of statements; more by COPY.
FEW = 100
BEGIN_FOLLOWER = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",  # what is read behind a lock must be what is there then
    # evaluated from left to right
    "SELECT set_config('lock_timeout', $1, true), set_config('replstore.mark', 'apply', true), set_config('synchronous_commit', 'on', true), "
    f"pg_advisory_xact_lock({LOCK_CLASS}, {TURN}), pg_advisory_xact_lock_shared({LOCK_CLASS}, {GUARD})",
)
HOLDS = "SELECT count(*) FROM replstore.marker WHERE id = ANY($1::text[]) AND outcome = 'committed'"
BEGIN_WRITER = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
SELECT_WRITER = SELECT_STATE.replace(
    "SELECT ",
    "SELECT pg_current_snapshot()::text, EXISTS (SELECT 1 FROM replstore.tick WHERE tick = $1), (SELECT pruned_through FROM replstore.retention), "
    f"{LOOK}, ",
    1,
)
_JOURNAL = f"FROM replstore.journal j WHERE {UNSHIPPED.format(name='j', position='$1::pg_snapshot')}"
_MARKERS = f"FROM replstore.marker m WHERE {UNSHIPPED.format(name='m', position='$1::pg_snapshot')}"
SELECT_JOURNAL = (
    f"SELECT j.tbl, CASE WHEN jsonb_array_length(j.keys) <= {FEW} THEN j.keys::text END, jsonb_array_length(j.keys) {_JOURNAL} LIMIT {FEW + 1}"
)
COUNT_JOURNAL = f"SELECT j.tbl, bool_or(j.keys IS NULL), sum(jsonb_array_length(j.keys))::bigint {_JOURNAL} GROUP BY j.tbl"
SELECT_MARKERS = f"SELECT {', '.join(f'm.{column}' for column in MARKER_COLUMNS)} {_MARKERS} LIMIT {FEW + 1}"
COUNT_MARKERS = f"SELECT count(*) {_MARKERS}"
#: Those that this role may set: it may read another one's (as pg_read_all_data does), and that must not stop the shipping.
ADVANCE_SEQUENCES = """
SELECT setval((e.v->>0)::regclass, (e.v->>1)::bigint) FROM jsonb_array_elements($1::jsonb) e(v)
JOIN pg_sequences s ON format('%I.%I', s.schemaname, s.sequencename) = e.v->>0
WHERE (s.last_value IS NULL OR (s.increment_by > 0 AND s.last_value < (e.v->>1)::bigint) OR (s.increment_by < 0 AND s.last_value > (e.v->>1)::bigint))
    AND CASE WHEN has_schema_privilege(s.schemaname, 'USAGE') THEN has_sequence_privilege(e.v->>0, 'UPDATE') END
"""
UPSERT_MARKER = (
    f"{rows.insert(MARKER)} ON CONFLICT (id) DO UPDATE SET ({', '.join(MARKER_COLUMNS)}) = ROW(excluded.{', excluded.'.join(MARKER_COLUMNS)})"
)
TICK = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
    "INSERT INTO replstore.tick (tick, batch, at) SELECT $1, $2, $3 WHERE set_config('synchronous_commit', 'on', true) IS NOT NULL",
    "DELETE FROM replstore.tick WHERE batch < $1::bigint - 1000 AND tick <> $2",
    "COMMIT",
)


class PostgreSQLCarrier(Carrier):
    """Moves batches between two PostgreSQL servers.

    Args:
        writer, ticker, follower: sessions of the carrier's own; ``ticker`` is a second one on the writer.
    """

    def __init__(self, writer: Session, ticker: Session, follower: Session) -> None:
        self._writer, self._ticker, self._follower = writer, ticker, follower
        self._turn = Turn(follower, writer if writer is not follower else None)
        # a batch's transactions stay open while another server is waited for, as long as this process and the writer are well
        writer.meanwhile, follower.meanwhile, ticker.meanwhile = (follower.stay, ticker.live), (writer.stay,), (writer.stay, follower.stay)
        self._definitions = Definitions()
        self._tables: Mapping[str, Table] = {}
        self._statements: Mapping[str, rows.Statements] = {}
        self._shipped: str | None = None
        self._counts: Mapping[str, int | None] = {}
        self._few: dict[str, str] | None = None
        self._markers: list[tuple[Any, ...]] | None = None
        self._sequences = self._sequences_there = "[]"
        self._landed_by: Any = None
        """The follower's connection of the last batch."""
        self._quiet: Any = None
        """The follower's connection on which nothing acted when it was opened."""

    # -- 1: the follower

    def follower(self, *, wait: float, transactions: Collection[str] = ()) -> NodeState:
        follower = self._follower
        follower.open()
        self._send_begin(wait)
        follower.send(SELECT_STATE)
        if transactions:
            follower.send(HOLDS, "{" + ",".join(transactions) + "}")
        answers = self._under_turn()
        if not (found := answers[len(BEGIN_FOLLOWER)].rows):
            raise CompareFailed("the follower has no control tables' rows")
        if follower.refused and self._quiet is not follower.connection:
            follower.rollback()
            keep_quiet(follower.engine)
            self._quiet = follower.connection
            return self.follower(wait=wait, transactions=transactions)
        self.holds = bool(transactions) and answers[-1].rows[0][0] == len(transactions)
        return node_state(found[0])

    def _under_turn(self) -> list[Answer]:
        """The follower's answers, the first of which tells that the turn was given."""
        try:
            return self._follower.receive()
        except psycopg.errors.LockNotAvailable:
            self._turn.missed()
            raise

    def _send_begin(self, wait: float) -> None:
        begin, locks = BEGIN_FOLLOWER
        self._follower.send(begin)
        self._follower.send(locks, str(max(1, int(wait * 1000))))

    # -- 2: the writer's snapshot

    def snapshot(self, *, since: str | None, held: str | None, batch: int | None = None) -> Snapshot:
        self._send_snapshot(since, held)
        _, look, *found = self._writer.receive()
        if not self._knows(look):
            self._definitions.load(self._writer)
            self._tables = self._definitions.tables
            self._statements = {name: rows.Statements.of(table, FEW + 1) for name, table in self._tables.items()}
            self._send_look(held)
            (look,) = self._writer.receive()
            self._definitions.stamp = look.rows[0][3]
        self._counts = {}
        if since is not None:
            self._keep_few(*found)
            if self._few is None:
                self._counts = {name: None if whole else count for name, whole, count in self._writer.ask(COUNT_JOURNAL, since).rows}
        return self._seen(look, self._count_markers())

    def _send_snapshot(self, since: str | None, held: str | None) -> None:
        self._shipped, self._few, self._markers, writer = since, None, None, self._writer
        writer.open()
        writer.send(BEGIN_WRITER)
        self._send_look(held)
        if since is not None:
            writer.send(SELECT_JOURNAL, since)
            writer.send(SELECT_MARKERS, since, raw=True)

    def _send_look(self, held: str | None) -> None:
        self._writer.send(SELECT_WRITER, held or "", *self._definitions.oids(self._writer))

    def _knows(self, look: Answer) -> bool:
        """Whether tables and sequences are what they were when they were read in full."""
        return bool(look.rows[0][3] == self._definitions.stamp)

    def _seen(self, look: Answer, markers: int) -> Snapshot:
        position, has_tick, pruned, _, standing, *state = look.rows[0]
        self._sequences = self._definitions.sequences(standing)
        pruned_past = pruned is not None and not _covers(self._shipped, pruned)
        return Snapshot(node_state(state), position, has_tick, pruned_past, dict(self._counts), markers, self._definitions.faults)

    def _keep_few(self, journal: Answer, markers: Answer) -> None:
        """Keys and markers are here already where there are few."""
        entries: Sequence[tuple[Any, ...]] = journal.rows
        if len(entries) <= FEW and sum(length or 0 for _, _, length in entries) <= FEW:
            keys: dict[str, list[str]] = {}
            for name, array, _ in entries:
                keys.setdefault(name, []).append(array or "[]")
            self._few = {name: rows.joined(array for array in arrays if array != "[]") for name, arrays in keys.items()}
            whole = {name for name, _, length in entries if length is None}
            self._counts = {name: None if name in whole else sum(length for of, _, length in entries if of == name) for name in keys}
        if len(markers.rows) <= FEW:
            self._markers = markers.rows

    def _count_markers(self) -> int:
        if self._shipped is None:
            return int(self._writer.ask("SELECT count(*) FROM replstore.marker").rows[0][0])
        return len(self._markers) if self._markers is not None else int(self._writer.ask(COUNT_MARKERS, self._shipped).rows[0][0])

    def tables(self) -> Mapping[str, Table]:
        return self._tables

    def boundary(self, name: str, after: str | None, number: int) -> str | None:
        found = self._writer.ask(rows.boundary(self._tables[name], after, number)).rows
        return str(found[0][0]) if found else None

    def recorded(self, node: str, term_no: int) -> Mapping[str, int]:
        return dict(
            self._writer.ask("SELECT tbl, count(*) FROM replstore.orphan WHERE node = $1 AND term_no = $2::bigint GROUP BY tbl", node, term_no).rows
        )

    # -- 3: the tick, on its way while the batch is written

    def tick(self, *, batch: int, held: str | None) -> str:
        self._ticker.open()
        tick = self._send_tick(self._ticker, batch, held)
        self._ticker.pipeline.end()
        return tick

    @staticmethod
    def _send_tick(session: Session, batch: int, held: str | None) -> str:
        tick = str(uuid4())
        begin, insert, delete, commit = TICK
        session.send(begin)
        session.send(insert, tick, batch, now())
        if batch % TICKS_GO == 0:
            session.send(delete, batch, held or "")
        session.send(commit)
        return tick

    # -- 4: the batch

    def apply(self, rows: Mapping[str, Keys], landing: Landing) -> int:
        plain = not landing.rejoin and not any(keys.whole or keys.recorded or keys.part for keys in rows.values())
        few = plain and self._few is not None and self._markers is not None
        written = self._write_few(rows) if few else self._write_many(rows, landing)
        self._land(landing)
        return written

    def _write_few(self, wanted: Mapping[str, Keys]) -> int:
        """Sends the rows on to the follower as they come; the answers are ``_land``'s to read."""
        assert self._few is not None
        assert self._markers is not None
        names = [name for name in wanted if self._few.get(name, "[]") != "[]"]
        for name in names:
            self._follower.send(self._statements[name].delete, self._few[name])
        written = 0
        for name, row in self._rows_of(names):
            self._follower.send(self._statements[name].insert, *row)
            written += 1
        for marker in self._markers:
            self._follower.send(UPSERT_MARKER, *marker)
        return written

    def _rows_of(self, names: Sequence[str]) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """By the table's id, each row as it comes."""
        assert self._few is not None
        writer = self._writer
        for name in names:
            writer.send(self._statements[name].select, self._few[name], raw=True)
        if names:
            writer.pipeline.end()
            for name in names:
                for row in writer.pipeline.stream():
                    yield name, row
            writer.pipeline.receive()

    def _write_many(self, wanted: Mapping[str, Keys], landing: Landing) -> int:
        writer, follower = self._writer, self._follower
        arrays = {name: rows.arrays(self._tables[name], keys, self._shipped) for name, keys in wanted.items()}
        for name, keys in wanted.items():
            table = self._tables[name]
            if keys.whole:
                follower.ask(f"DELETE FROM {qualified(table)}")
            else:
                rows.remove(table, arrays[name], writer, follower)
        written = 0
        for name, keys in wanted.items():
            table, condition = self._tables[name], "true"
            if keys.part is not None:
                condition = f"{rows.between(table, keys.part)} AND {rows.unchanged(table, self._shipped)}"
            elif not keys.whole:
                condition = rows.among(table, rows.each_key(arrays[name]), many=(self._counts.get(name) or 0) > rows.ARRAY)
            written += rows.copy(table, rows.select(table, condition), writer, follower)
        if landing.forget is None:
            follower.ask("DELETE FROM replstore.marker")
        else:
            rows.remove_keys(MARKER, (json.dumps([[id]]) for id in landing.forget), follower)
        rows.remove(MARKER, rows.marker_keys(self._shipped), writer, follower)
        rows.copy(MARKER, rows.select(MARKER, rows.unshipped("t", self._shipped)), writer, follower)
        return written

    def _land(self, landing: Landing) -> None:
        """Sends what ends the follower's transaction except its COMMIT, and looks at every answer."""
        follower = self._follower
        if self._sequences != self._sequences_there or self._landed_by is not follower.connection:
            follower.send(ADVANCE_SEQUENCES, self._sequences)
        statements = landing_statements(CONTROL, landing)
        for statement, values, _ in statements:
            follower.send(_numbered(statement), *values)
        if follower.refused:
            follower.send(ACTING)
        answers = self._landing()
        if follower.refused and (found := named(answers.pop().rows, {member.id for each in self._tables.values() for member in each.members})):
            self._quiet = None  # somebody has put it there; on the tables that this batch has changed nobody can any more
            raise CompareFailed(f"on the follower {', '.join(found)} acts on shipped rows")
        answers = answers[-len(statements) :]
        for (_, _, failure), answer in zip(statements, answers, strict=True):
            if failure is not None and answer.touched != 1:
                raise Moved(failure)

    def _landing(self) -> list[Answer]:
        return self._follower.receive()

    # -- 5 and 6: the sign of life, and the end

    def still_there(self) -> None:
        self._ticker.pipeline.receive()  # now the tick is durable
        self._writer.ask("COMMIT")

    def land(self) -> None:
        self._follower.ask("COMMIT")
        self._sequences_there, self._landed_by = self._sequences, self._follower.connection

    def interrupt(self) -> None:
        for session in (self._writer, self._ticker, self._follower):
            session.interrupt()

    def abandon(self) -> None:
        for session in (self._writer, self._follower, self._ticker):
            session.rollback()

    def close(self) -> None:
        for session in (self._writer, self._follower, self._ticker):
            session.close()


def _covers(position: str | None, pruned: str) -> bool:
    """Whether everything that was pruned is visible in the follower's position: both are snapshots, which begin with their xmin."""
    return position is not None and int(position.split(":")[0]) >= int(pruned.split(":")[0])


@cache
def _numbered(statement: str) -> str:
    """A statement with places $1, $2, … for its question marks."""
    first, *others = statement.split("?")
    return first + "".join(f"${number}{part}" for number, part in enumerate(others, start=1))
