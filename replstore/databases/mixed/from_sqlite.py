"""Shipping from SQLite to PostgreSQL: rows are read in one snapshot of the file and go through COPY as the values that the driver gives.

The follower's half is PostgreSQL's own carrier's.  Keys travel in pieces, rows as a stream: what a batch holds is never in memory at once.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import psycopg
from sqlalchemy import Engine

from replstore.control import MARKER_COLUMNS
from replstore.databases.carrier import CompareFailed, Keys, Landing, Part, Snapshot, capture_faults
from replstore.databases.catalog import Table, quote, quoted
from replstore.databases.mixed.keys import crosses, key_of_sqlite, kinds, natives, on, postgresql_columns
from replstore.databases.mixed.kinds import CannotCross, Kind
from replstore.databases.mixed.names import name_here, shared_id
from replstore.databases.mixed.refused import refused
from replstore.databases.postgresql.capture import qualified, text
from replstore.databases.postgresql.carrier import PostgreSQLCarrier
from replstore.databases.postgresql.sessions import Session
from replstore.databases.sqlite.capture import MARKER
from replstore.databases.sqlite.carrier import commit_tick, places
from replstore.databases.sqlite.dialect import StoreConnection, any_text, file_identity, open_file
from replstore.databases.sqlite.fingerprint import fingerprints
from replstore.databases.sqlite.state import select_node_state
from replstore.databases.state import node_state

#: Keys above which the follower's session, idle while rows are read, gets more time before it is ended as frozen (HAZARDS 9).
MANY_KEYS = 10_000
#: Keys, or markers, in one statement.
PIECE = 2000
RECORDED = "FROM replstore_orphan WHERE node = ? AND term_no = ?"
#: Moves the sequence of a table's key on; values: the table, the key, how far.
ADVANCE = """
SELECT setval(w.sequence, w.value) FROM (SELECT pg_get_serial_sequence(%s, %s)::regclass, %s::bigint) w(sequence, value)
JOIN pg_sequence s ON s.seqrelid = w.sequence WHERE coalesce(pg_sequence_last_value(w.sequence), s.seqmin - 1) < least(w.value, s.seqmax)"""


class SQLiteToPostgreSQL(PostgreSQLCarrier):
    """Moves batches from a SQLite file to a PostgreSQL server.

    Args:
        writer: path of the file.
        follower: service engine.
        timeout: s to wait for another connection's lock.
    """

    def __init__(self, writer: str, follower: Engine, *, timeout: float = 2.0) -> None:
        setup = ["SET statement_timeout = 0", "SET synchronous_commit = on", "SET datestyle TO 'ISO, YMD'"]
        session = Session(follower, setup, optional=["SET session_replication_role = replica"])
        super().__init__(session, session, session)
        self._path, self._timeout = writer, timeout
        self._file: StoreConnection | None = None
        self._ticks: StoreConnection | None = None
        self._since, self._first = 0, True
        self._many = False
        self._known: tuple[int, int, int] | None = None
        self._capture_faults: dict[str, str] = {}
        self._kinds: dict[str, list[Kind]] = {}

    # -- the writer's half

    def _opened(self, connection: StoreConnection | None) -> StoreConnection:
        """This connection if it is still on the file that the path names, else a new one."""
        if connection is not None:
            try:
                connection.check_file()
                return connection
            except sqlite3.OperationalError:
                connection.close()
        fresh = open_file(self._path, timeout=self._timeout)
        fresh.text_factory = any_text
        return fresh

    def snapshot(self, *, since: str | None, held: str | None, batch: int | None = None) -> Snapshot:
        self._file = file = self._opened(self._file)
        self._first = not (since and since.isdigit())
        self._since = 0 if self._first else int(since or 0)
        file.execute("BEGIN")
        state = node_state(file.execute(select_node_state(file.identity)).fetchone())
        position = self._one("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'replstore_journal'")
        self._check_capture(state.schema_no)
        changed: dict[str, int | None] = {}
        markers = self._one("SELECT count(*) FROM replstore_marker") if since is None else 0
        if since is not None:
            journal = "SELECT tbl, count(*), count(*) > count(k1) FROM replstore_journal WHERE seq > ? GROUP BY tbl"
            for name, count, whole in file.execute(journal, (self._since,)):
                if name == MARKER:
                    markers = count
                else:
                    changed[shared_id(name)] = None if whole else count
        self._many = sum(count or 0 for count in changed.values()) > MANY_KEYS
        pruned = self._one("SELECT pruned_through FROM replstore_retention")
        has_tick = bool(self._one("SELECT EXISTS (SELECT 1 FROM replstore_tick WHERE tick = ?)", held or ""))
        return Snapshot(state, str(position), has_tick, pruned is not None and int(pruned) > self._since, changed, markers, self._capture_faults)

    def _one(self, statement: str, *values: Any) -> Any:
        row = self._in_snapshot().execute(statement, values).fetchone()
        return row[0] if row else None

    def _in_snapshot(self) -> StoreConnection:
        """The snapshot's connection: a batch is never gone on with on another one."""
        if self._file is None or not self._file.in_transaction:
            raise CompareFailed("the snapshot's transaction is gone")
        return self._file

    def _check_capture(self, schema_no: int) -> None:
        """Compares the capture with what migrate left, whenever the file's schema has changed."""
        file = self._in_snapshot()
        lost = self._one("SELECT count(*) FROM replstore_replicated WHERE fingerprint = ''")
        known = (schema_no, self._one("PRAGMA schema_version"), lost)
        if known == self._known:
            return
        rows = file.execute("SELECT tbl, definition, fingerprint FROM replstore_replicated").fetchall()
        self._tables = {row[0]: Table.from_json(row[1]) for row in rows}
        self._kinds = {name: kinds(table, table.data_columns) for name, table in self._tables.items()}
        found = fingerprints(file, [name_here(name) for name in self._tables])
        self._capture_faults = capture_faults({row[0]: row[2] for row in rows}, {shared_id(name): print for name, print in found.items()})
        self._known = known

    def boundary(self, name: str, after: str | None, rows: int) -> str | None:
        table = self._tables[name]
        of, (where, values) = kinds(table, table.key), self._between(table, Part(after, None))
        columns = quoted(table.key)
        statement = f"SELECT {columns} FROM {quote(name_here(name))} WHERE {where} ORDER BY {columns} LIMIT 1 OFFSET {rows - 1}"
        row = self._in_snapshot().execute(statement, values).fetchone()
        return None if row is None else key_of_sqlite(row, of)

    def _between(self, table: Table, part: Part) -> tuple[str, list[Any]]:
        """The condition that a row belongs to a part, and the values to bind."""
        of, bounds = kinds(table, table.key), [(sign, key) for sign, key in ((">", part.after), ("<=", part.upto)) if key is not None]
        row = f"({', '.join('?' * len(of))})"
        where = " AND ".join(f"({quoted(table.key)}) {sign} {row}" for sign, _ in bounds) or "true"
        return where, [value for _, key in bounds for value in natives(key, of)]

    def recorded(self, node: str, term_no: int) -> Mapping[str, int]:
        return dict(self._in_snapshot().execute(f"SELECT tbl, count(*) {RECORDED} GROUP BY tbl", (node, term_no)).fetchall())

    def tick(self, *, batch: int, held: str | None) -> str:
        self._ticks = self._opened(self._ticks)
        return commit_tick(self._ticks, batch, held)

    def still_there(self) -> None:
        """A SQLite file has no server that could crash; what can go is the file."""
        if file_identity(self._path) != self._in_snapshot().identity:
            raise CompareFailed("the writer's file was replaced since the snapshot")

    # -- the follower's half

    def apply(self, rows: Mapping[str, Keys], landing: Landing) -> int:
        self._in_snapshot()
        if self._many or any(keys.whole or keys.part for keys in rows.values()):  # SQLite may take a while until it gives the first row
            self._follower.last_result("SET LOCAL idle_in_transaction_session_timeout = '60s'")
        for name, keys in rows.items():
            self._delete(self._tables[name], keys)
        written = sum(self._copy_rows(self._tables[name], keys, landing) for name, keys in rows.items())
        self._carry_markers(landing)
        for name in self._counted(rows, landing):
            self._advance(self._tables[name])
        self._land(landing)
        return written

    def land(self) -> None:
        super().land()
        self._in_snapshot().rollback()

    def _delete(self, table: Table, keys: Keys) -> None:
        if keys.whole:
            self._follower.last_result(f"DELETE FROM {qualified(table)}")
        if keys.whole or keys.part is not None:
            return
        wanted = self._wanted(table, keys)
        while piece := list(islice(wanted, PIECE)):  # no parameter: a percent sign in a name would be one too
            array = text("[" + ",".join(piece) + "]")
            keys_of_piece = f"SELECT {postgresql_columns(table, 'k.v')} FROM jsonb_array_elements({array}::jsonb) k(v)"
            self._follower.last_result(f"DELETE FROM {qualified(table)} t USING ({keys_of_piece}) j WHERE {on(table)}")

    def _wanted(self, table: Table, keys: Keys) -> Iterator[str]:
        """The keys of the batch as JSON."""
        if keys.recorded is not None:
            yield from self._recorded_keys(table, keys.recorded)
        if keys.journal:
            of = kinds(table, table.key)
            for values in self._in_snapshot().execute(f"SELECT DISTINCT {_journaled(table)}", self._of(table)):
                if crosses(values, of):  # what PostgreSQL can't hold it doesn't have; if the row is still here, it is refused when it is read
                    yield key_of_sqlite(values, of)

    def _recorded_keys(self, table: Table, recorded: tuple[str, int]) -> Iterator[str]:
        """The keys of the orphans that are on record, as JSON."""
        for (key,) in self._in_snapshot().execute(f"SELECT key {RECORDED} AND tbl = ? AND key <> '*'", (*recorded, table.id)):
            yield key

    def _of(self, table: Table) -> tuple[str, int]:
        """The values to bind for ``_journaled``."""
        return name_here(table.id), self._since

    def _native(self, table: Table, value: Any, kind: Kind, key: str, column: str, landing: Landing) -> Any:
        try:
            return None if value is None else kind.from_sqlite(value)
        except CannotCross as error:
            raise refused(table, key, column, str(error), landing) from None

    def _select(self, table: Table, keys: Keys) -> tuple[str, Sequence[Any]]:
        columns = quoted((*table.key, *table.data_columns))
        select = f"SELECT {columns} FROM {quote(name_here(table.id))}"
        if keys.part is not None:
            where, bound = self._between(table, keys.part)
            if self._first:
                return f"{select} WHERE {where}", bound
            journaled = f"SELECT {_journaled(table)} AND k1 IS NOT NULL"
            return f"{select} WHERE {where} AND ({quoted(table.key)}) NOT IN ({journaled})", [*bound, *self._of(table)]
        if keys.whole:
            return select, ()
        of = kinds(table, table.key)
        sources = [f"SELECT {_journaled(table)}"] if keys.journal else []
        values: list[Any] = [*self._of(table)] if keys.journal else []
        if keys.recorded is not None:
            file = self._in_snapshot()
            file.execute("DROP TABLE IF EXISTS temp.recorded")
            file.execute(f"CREATE TEMP TABLE recorded ({places(table)})")
            into = f"INSERT INTO temp.recorded VALUES ({', '.join('?' * len(of))})"
            file.executemany(into, (natives(key, of) for key in self._recorded_keys(table, keys.recorded)))
            sources.append(f"SELECT {places(table)} FROM temp.recorded")
        return f"{select} WHERE ({quoted(table.key)}) IN ({' UNION ALL '.join(sources) or 'SELECT NULL WHERE 0'})", values

    def _copy_rows(self, table: Table, keys: Keys, landing: Landing) -> int:
        statement, values = self._select(table, keys)
        of, width, read = self._kinds[table.id], len(table.key), 0
        key_kinds = kinds(table, table.key)
        with self._follower.cursor() as cursor:
            try:
                with cursor.copy(f"COPY {qualified(table)} ({quoted(table.data_columns)}) FROM STDIN") as sink:
                    for row in self._in_snapshot().execute(statement, values):
                        places = zip(row[width:], of, table.data_columns, strict=True)
                        key = "" if None in row[:width] else key_of_sqlite(row[:width], key_kinds)
                        sink.write_row([self._native(table, value, kind, key, name, landing) for value, kind, name in places])
                        read += 1
            except (psycopg.errors.IntegrityError, psycopg.errors.DataError) as error:
                raise refused(table, self._key_of(statement, values, error, key_kinds), "", _told(error), landing) from error
            if cursor.rowcount != read:
                raise refused(table, "", "", f"{read} rows were read and {cursor.rowcount} written", landing)
        return read

    def _key_of(self, statement: str, values: Sequence[Any], error: psycopg.Error, of: Sequence[Kind]) -> str:
        """The key of the row that PostgreSQL refused, by the line that it names."""
        words = (error.diag.context or "").split("line ")
        line = words[1].split(",")[0].split(":")[0] if len(words) > 1 else ""
        if not line.isdigit():
            return ""
        row = self._in_snapshot().execute(f"{statement} LIMIT 1 OFFSET {int(line) - 1}", values).fetchone()
        return key_of_sqlite(row[: len(of)], of) if row else ""

    def _carry_markers(self, landing: Landing) -> None:
        if landing.forget is None:
            self._follower.last_result("DELETE FROM replstore.marker")
        else:
            forgotten = iter(landing.forget)
            while ids := list(islice(forgotten, PIECE)):
                self._follower.execute("DELETE FROM replstore.marker WHERE id = ANY(%s)", (ids,))
        columns = ", ".join(MARKER_COLUMNS)
        which = "" if self._since == 0 else f"WHERE id IN (SELECT k1 FROM replstore_journal WHERE tbl = '{MARKER}' AND seq > {self._since})"
        found = self._in_snapshot().execute(f"SELECT {', '.join(MARKER_COLUMNS[:-1])}, at || '+00' FROM replstore_marker {which}")
        while rows := [dict(zip(MARKER_COLUMNS, row, strict=True)) for row in islice(found, PIECE)]:
            self._follower.execute(
                f"INSERT INTO replstore.marker ({columns}) SELECT {columns} FROM jsonb_populate_recordset(NULL::replstore.marker, %s::jsonb) "
                f"ON CONFLICT (id) DO UPDATE SET ({columns}) = ROW({', '.join('excluded.' + column for column in MARKER_COLUMNS)})",
                (json.dumps(rows),),
            )

    def _counted(self, rows: Mapping[str, Keys], landing: Landing) -> Collection[str]:
        """The tables whose counters are looked at: those that changed, and all when a follower comes in sync."""
        return self._tables if landing.eligible or landing.rejoin else rows

    def _advance(self, table: Table) -> None:
        """Moves the sequence of a table's key past every key that the file has given."""
        if not table.sequences:
            return
        counted = self._one("SELECT seq FROM sqlite_sequence WHERE name = ?", name_here(table.id))
        highest = self._one(f"SELECT max({quote(table.key[0])}) FROM {quote(name_here(table.id))}")
        value = max((each for each in (counted, highest) if each is not None), default=0)
        if value > 0:
            self._follower.execute(ADVANCE, (qualified(table), table.key[0], value))

    def abandon(self) -> None:
        super().abandon()
        for connection in (self._file, self._ticks):
            if connection is not None:
                with suppress(Exception):
                    connection.rollback()

    def close(self) -> None:
        super().close()
        for connection in (self._file, self._ticks):
            if connection is not None:
                with suppress(Exception):
                    connection.close()
        self._file = self._ticks = None


def _journaled(table: Table) -> str:
    """What follows SELECT for the keys that the journal names."""
    return f"{places(table)} FROM replstore_journal WHERE tbl = ? AND seq > ?"


def _told(error: psycopg.Error) -> str:
    told = error.diag
    return " ".join(part for part in (told.message_primary or str(error), told.message_detail) if part)
