"""Shipping from PostgreSQL to PostgreSQL: rows travel by binary COPY, every type as it is, with no Python value in between."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from uuid import uuid4

import psycopg

from replstore.control import MARKER_COLUMNS
from replstore.databases.base import NodeState
from replstore.databases.carrier import Carrier, CompareFailed, Keys, Landing, Moved, Snapshot
from replstore.databases.catalog import Table
from replstore.databases.landing import landing_statements
from replstore.databases.postgresql import capture
from replstore.databases.postgresql.capture import GUARD, LOCK_CLASS, TURN, qualified, quote, text
from replstore.databases.postgresql.sessions import Session
from replstore.databases.postgresql.state import CONTROL, SELECT_STATE
from replstore.databases.postgresql.turn import Turn
from replstore.databases.state import node_state
from replstore.timestamps import now

#: Keys above which the follower's session, idle while rows are read, gets more time before it is ended as frozen (HAZARDS 9).
MANY_KEYS = 10_000
CHUNK = 256 * 1024

UNSHIPPED = "{name}.xid >= pg_snapshot_xmin({position}) AND NOT pg_visible_in_snapshot({name}.xid, {position})"
SEQUENCES = (
    "SELECT coalesce(jsonb_agg(jsonb_build_array(format('%I.%I', schemaname, sequencename), last_value, increment_by)), '[]')::text FROM pg_sequences "
    "WHERE last_value IS NOT NULL AND schemaname NOT IN ('replstore', 'pg_catalog', 'information_schema')"
)
ADVANCE_SEQUENCES = """
SELECT setval((e.v->>0)::regclass, (e.v->>1)::bigint) FROM jsonb_array_elements(%s::jsonb) e(v)
JOIN pg_sequences s ON format('%%I.%%I', s.schemaname, s.sequencename) = e.v->>0
WHERE s.last_value IS NULL OR (s.increment_by > 0 AND s.last_value < (e.v->>1)::bigint) OR (s.increment_by < 0 AND s.last_value > (e.v->>1)::bigint)
"""


class PostgreSQLCarrier(Carrier):
    """Moves batches between two PostgreSQL servers.

    Args:
        writer, ticker, follower: sessions of the carrier's own; ``ticker`` is a second one on the writer.
    """

    def __init__(self, writer: Session, ticker: Session, follower: Session) -> None:
        self._writer, self._ticker, self._follower = writer, ticker, follower
        self._turn = Turn(follower, writer if writer is not follower else None)
        self._tables: dict[str, Table] = {}
        self._fingerprints: dict[str, str] = {}
        self._schema_no: int | None = None
        self._keys: dict[str, str] = {}
        self._markers = self._sequences = self._sequences_there = "[]"

    def follower(self, *, wait: float) -> NodeState:
        begin = (
            f"BEGIN; SET LOCAL lock_timeout = {max(1, int(wait * 1000))}; SET LOCAL replstore.mark = 'apply'; SET LOCAL synchronous_commit = on;"
            f"SELECT pg_advisory_xact_lock({LOCK_CLASS}, {TURN}), pg_advisory_xact_lock_shared({LOCK_CLASS}, {GUARD}); {SELECT_STATE}"
        )
        try:
            rows = self._follower.begin(begin)
        except psycopg.errors.LockNotAvailable:
            self._turn.missed()
            raise
        if not rows:
            raise CompareFailed("the follower has no control tables' rows")
        return node_state(rows[0])

    def snapshot(self, *, since: str | None, held: str | None) -> Snapshot:
        (state_row,) = self._writer.begin(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;" + SELECT_STATE.replace("SELECT ", "SELECT pg_current_snapshot()::text, ", 1)
        )
        position, state = state_row[0], node_state(state_row[1:])
        self._load_tables(state)
        from_position = f"{text(since)}::pg_snapshot" if since else None
        journal = UNSHIPPED.format(name="j", position=from_position) if since else "false"
        marker = UNSHIPPED.format(name="m", position=from_position) if since else "true"
        (shown,) = self._writer.last_result(f"""
            SELECT (SELECT coalesce(jsonb_agg(jsonb_build_array(t.tbl, t.whole, t.keys)), '[]')::text FROM (
                        SELECT j.tbl, bool_or(j.keys IS NULL) AS whole, jsonb_agg(DISTINCT k.v) FILTER (WHERE k.v IS NOT NULL)::text AS keys
                        FROM replstore.journal j LEFT JOIN LATERAL jsonb_array_elements(j.keys) k(v) ON true WHERE {journal} GROUP BY j.tbl) t),
                (SELECT coalesce(jsonb_agg(to_jsonb(m) - 'xid'), '[]')::text FROM replstore.marker m WHERE {marker}),
                (SELECT coalesce(jsonb_object_agg(f.id, f.print), '{{}}')::text FROM ({capture.select_fingerprints(self._tables.values())}) f(id, print)),
                ({SEQUENCES}),
                EXISTS (SELECT 1 FROM replstore.tick WHERE tick = {text(held or "")}),
                (SELECT pruned_through FROM replstore.retention),
                (SELECT coalesce(jsonb_agg(tbl), '[]')::text FROM replstore.replicated WHERE fingerprint = '')""")
        changed_json, self._markers, prints, self._sequences, has_tick, pruned, lost = shown
        changed = json.loads(changed_json)
        self._keys = {tbl: keys or "[]" for tbl, _, keys in changed}
        return Snapshot(
            state,
            position,
            has_tick,
            pruned is not None and not self._covers(since, pruned),
            {tbl: None if whole else keys.count("[") - 1 for tbl, whole, keys in changed},
            self._markers.count('"outcome"'),
            self._faults({**json.loads(prints), **dict.fromkeys(json.loads(lost), "lost before")}),
        )

    def _load_tables(self, state: NodeState) -> None:
        if self._schema_no == state.schema_no:
            return
        rows = self._writer.last_result("SELECT tbl, definition, fingerprint FROM replstore.replicated")
        self._tables = {row[0]: Table.from_json(row[1]) for row in rows}
        self._fingerprints = {row[0]: row[2] for row in rows}
        self._schema_no = state.schema_no

    def _faults(self, found: Mapping[str, str]) -> dict[str, str]:
        return {
            name: "the table is gone" if name not in found else "its columns or capture triggers are not those that migrate left"
            for name, expected in self._fingerprints.items()
            if found.get(name) != expected
        }

    def _covers(self, position: str | None, pruned: str) -> bool:
        """Whether everything that the prune position shows is visible in the follower's position."""
        if position is None:
            return False
        (row,) = self._writer.last_result(f"SELECT pg_snapshot_xmin({text(position)}::pg_snapshot) >= pg_snapshot_xmin({text(pruned)}::pg_snapshot)")
        return bool(row[0])

    def tables(self) -> Mapping[str, Table]:
        return self._tables

    def tick(self, *, batch: int, held: str | None) -> str:
        tick = str(uuid4())
        self._ticker.begin(
            "BEGIN; SET LOCAL synchronous_commit = on; "
            f"INSERT INTO replstore.tick (tick, batch, at) VALUES ({text(tick)}, {batch}, {text(now())});"
            f"DELETE FROM replstore.tick WHERE batch < {batch - 1000} AND tick <> {text(held or '')}; COMMIT"
        )
        return tick

    def still_there(self) -> None:
        self._writer.last_result("SELECT 1")

    def apply(self, rows: Mapping[str, Keys], landing: Landing) -> int:
        written = 0
        sources = {name: self._source(self._tables[name], keys) for name, keys in rows.items()}
        size = sum(len(source[1]) for source in sources.values())
        if size > MANY_KEYS * 10 or any(keys.whole for keys in rows.values()):
            self._follower.last_result("SET LOCAL idle_in_transaction_session_timeout = '60s'")
            self._writer.last_result("SET LOCAL idle_in_transaction_session_timeout = 0")
        for name, keys in rows.items():
            table = self._tables[name]
            if keys.whole:
                self._follower.last_result(f"DELETE FROM {qualified(table)}")
            else:
                on = " AND ".join(f"t.{quote(column)} = j.k{n}" for n, column in enumerate(table.key))
                unwanted = unpacked(table, text(sources[name][1]))  # no parameter: a percent sign in a name would be one too
                self._follower.last_result(f"DELETE FROM {qualified(table)} t USING ({unwanted}) j WHERE {on}")
        for name in rows:
            written += self._copy(self._tables[name], sources[name][0])
        if landing.forget is None:
            self._follower.last_result("DELETE FROM replstore.marker")
        elif landing.forget:
            self._follower.execute("DELETE FROM replstore.marker WHERE id = ANY(%s)", (list(landing.forget),))
        if self._markers != "[]":
            columns = ", ".join(MARKER_COLUMNS)
            self._follower.execute(
                f"INSERT INTO replstore.marker ({columns}) SELECT {columns} FROM jsonb_populate_recordset(NULL::replstore.marker, %s::jsonb) "
                f"ON CONFLICT (id) DO UPDATE SET ({columns}) = ROW({', '.join('excluded.' + column for column in MARKER_COLUMNS)})",
                (self._markers,),
            )
        if self._sequences != self._sequences_there:
            self._follower.execute(ADVANCE_SEQUENCES, (self._sequences,))
        self._land(landing)
        self._sequences_there = self._sequences
        self._end(self._writer)
        return written

    def _source(self, table: Table, keys: Keys) -> tuple[str, str]:
        """The SELECT that reads a table's rows in the snapshot, and the keys as one JSON array."""
        columns = ", ".join(f"t.{quote(column)}" for column in table.data_columns)
        if keys.whole:
            return f"SELECT {columns} FROM {qualified(table)} t", "[]"
        wanted = self._keys.get(table.id, "[]") if keys.journal else "[]"
        if keys.extra:
            wanted = json.dumps(json.loads(wanted) + [json.loads(key) for key in keys.extra])
        on = " AND ".join(f"t.{quote(column)} = j.k{n}" for n, column in enumerate(table.key))
        return f"SELECT {columns} FROM {qualified(table)} t JOIN ({unpacked(table, text(wanted))}) j ON {on}", wanted

    def _copy(self, table: Table, source: str) -> int:
        columns = ", ".join(quote(column) for column in table.data_columns)
        with self._follower.cursor() as into, self._writer.cursor() as out:
            with (
                into.copy(f"COPY {qualified(table)} ({columns}) FROM STDIN (FORMAT binary)") as sink,
                out.copy(f"COPY ({source}) TO STDOUT (FORMAT binary)") as rows,
            ):
                chunk = bytearray()
                for data in rows:  # the server sends one piece a row; joined they travel faster
                    chunk += data
                    if len(chunk) >= CHUNK:
                        sink.write(bytes(chunk))
                        chunk.clear()
                if chunk:
                    sink.write(bytes(chunk))
            return max(0, int(into.rowcount))

    def _land(self, landing: Landing) -> None:
        for statement, values, failure in landing_statements(CONTROL, landing):
            touched = self._follower.execute(statement.replace("?", "%s"), values)
            if failure is not None and touched != 1:
                raise Moved(failure)
        self._follower.last_result("COMMIT")

    def _end(self, session: Session) -> None:
        with suppress(Exception):
            session.last_result("ROLLBACK")

    def interrupt(self) -> None:
        for session in (self._writer, self._ticker, self._follower):
            session.interrupt()

    def abandon(self) -> None:
        for session in (self._writer, self._follower, self._ticker):
            session.rollback()

    def close(self) -> None:
        for session in (self._writer, self._follower, self._ticker):
            session.close()


def unpacked(table: Table, keys: str = "%s") -> str:
    """A SELECT that gives the keys of a JSON array of arrays as columns k0, k1, … of the key's own types."""
    types = {column.name: column.type for column in table.columns}
    columns = ", ".join(f"(k.v->>{n})::{types[column]} AS k{n}" for n, column in enumerate(table.key))
    return f"SELECT DISTINCT {columns} FROM jsonb_array_elements({keys}::jsonb) k(v)"
