"""Shipping from SQLite to SQLite: one connection has both files, so rows move inside SQLite, whatever their storage class.

The follower's file is the main database, the writer's is attached and only read.  The follower is read first, outside of the transaction, which begins
deferred with the writer's snapshot: reading that may take longer than the time between two heartbeats.  The follower's write lock is taken at the first
change, and what the batch began from is then compared (HAZARDS 25).  The lock is never held across a wait of this process for anything but its own
statements (HAZARDS 9).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import cache
from typing import Any
from urllib.parse import quote as url_quote
from uuid import uuid4

from replstore.control import MARKER_COLUMNS
from replstore.databases.base import NodeState
from replstore.databases.carrier import TICKS_GO, Carrier, CompareFailed, Keys, Landing, Moved, Part, Snapshot, capture_faults, is_unmoved
from replstore.databases.catalog import Table
from replstore.databases.landing import landing_statements
from replstore.databases.sqlite.capture import KEYS, MARKER, quote, text
from replstore.databases.sqlite.dialect import StoreConnection, any_text, file_identity, open_file
from replstore.databases.sqlite.fingerprint import fingerprints
from replstore.databases.sqlite.holders import holders
from replstore.databases.sqlite.state import CONTROL, select_node_state
from replstore.databases.state import node_state
from replstore.timestamps import now

RECORDED = "FROM src.replstore_orphan WHERE node = ? AND term_no = ?"

#: ms to wait for the follower's write lock; whoever has it for longer may well be another shipper, and the batch begins again.
LOCK_WAIT = 10


class SQLiteCarrier(Carrier):
    """Moves batches between two SQLite files.

    Args:
        writer, follower: paths of the files.
        timeout: s to wait for another connection's lock.
    """

    def __init__(self, writer: str, follower: str, *, timeout: float = 2.0) -> None:
        self._paths = (writer, follower)
        self._timeout = timeout
        self._both: StoreConnection | None = None
        self._ticker: StoreConnection | None = None
        self._writer_identity = ""
        self._tables: dict[str, Table] = {}
        self._fingerprints: dict[str, str] = {}
        self._known: tuple[int, int, int] | None = None
        self._faults: dict[str, str] = {}
        self._since, self._first = 0, True
        self._waits, self._has_extra = -1, False
        self._counters: str | None = None
        """The writer's AUTOINCREMENT counters as the snapshot has them, and as the follower has had them since the last batch of this carrier."""
        self._counters_there: str | None = None

    def _open(self) -> StoreConnection:
        writer, follower = self._paths
        if self._both is not None:
            try:
                self._both.check_file()
                if file_identity(writer) != self._writer_identity:
                    raise sqlite3.OperationalError("the writer's file was replaced")
            except sqlite3.OperationalError:
                self.close()
        if self._both is None:
            self._writer_identity = file_identity(writer)
            both = open_file(follower, timeout=self._timeout)
            both.text_factory = any_text  # a key where a part ends may be text that is no UTF-8
            try:
                both.execute("ATTACH DATABASE ? AS src", (f"file:{url_quote(self._ticker_connection().path)}?mode=rw",))
                both.execute("PRAGMA foreign_keys = OFF")  # SQLite may be built to mind them by default: cascades would act (HAZARDS 7)
                both.execute(f"CREATE TEMP TABLE extra (tbl TEXT, {', '.join(f'k{n}' for n in range(1, KEYS + 1))})")
            except BaseException:
                both.close()
                raise
            self._both = both
        return self._both

    def _ticker_connection(self) -> StoreConnection:
        if self._ticker is None:
            self._ticker = open_file(self._paths[0], timeout=self._timeout)
        self._ticker.check_file()
        return self._ticker

    def follower(self, *, wait: float, transactions: Collection[str] = ()) -> NodeState:
        both = self._begin(wait)
        self.holds = holds(both, transactions)
        state = self._read_follower(both)
        both.execute("BEGIN")
        return state

    def assume(self, *, wait: float) -> bool:
        self._begin(LOCK_WAIT / 1000).execute("BEGIN")  # the follower is compared under its lock in any case
        return True

    def _begin(self, wait: float) -> StoreConnection:
        both = self._open()
        self._wait_for_locks(both, int(wait * 1000))
        if self._has_extra:
            both.execute("DELETE FROM temp.extra")
            self._has_extra = False
        return both

    def _wait_for_locks(self, both: StoreConnection, ms: int) -> None:
        if ms != self._waits:
            both.execute(f"PRAGMA busy_timeout = {ms}")
            self._waits = ms

    @staticmethod
    def _read_follower(both: StoreConnection) -> NodeState:
        row = both.execute(select_node_state(both.identity, "main.")).fetchone()
        if row is None:
            raise CompareFailed("the follower has no control tables' rows")
        return node_state(row)

    def _in_batch(self) -> StoreConnection:
        """The batch's connection: a batch is never gone on with on another one."""
        if self._both is None or not self._both.in_transaction:
            raise CompareFailed("the batch's transaction is gone")
        self._both.check_file()
        return self._both

    def snapshot(self, *, since: str | None, held: str | None, batch: int | None = None) -> Snapshot:
        both = self._in_batch()
        self._since, self._first = int(since) if since else 0, since is None
        has_tick, pruned, lost, self._counters, *row = both.execute(_look(self._writer_identity), (held or "",)).fetchone()
        state, counters = node_state(row), json.loads(self._counters)
        self._check_capture(state, lost)
        changed: dict[str, int | None] = {}
        markers = self._one("SELECT count(*) FROM src.replstore_marker") if since is None else 0
        if since is not None:
            journal = "SELECT tbl, count(*), count(*) > count(k1) FROM src.replstore_journal WHERE seq > ? GROUP BY tbl"
            for tbl, count, whole in both.execute(journal, (self._since,)):
                if tbl == MARKER:
                    markers = count
                else:
                    changed[tbl] = None if whole else count
        pruned_past = pruned is not None and int(pruned) > self._since
        return Snapshot(state, str(counters.get("replstore_journal") or 0), bool(has_tick), pruned_past, changed, markers, self._faults)

    def _one(self, statement: str, *values: Any) -> Any:
        assert self._both is not None
        row = self._both.execute(statement, values).fetchone()
        return row[0] if row else None

    def _check_capture(self, state: NodeState, lost: int) -> None:
        """Compares the capture with what migrate left, whenever the file's schema has changed."""
        assert self._both is not None
        known = (state.schema_no, self._one("PRAGMA src.schema_version"), lost)
        if known == self._known:
            return
        rows = self._both.execute("SELECT tbl, definition, fingerprint FROM src.replstore_replicated").fetchall()
        self._tables = {row[0]: Table.from_json(row[1]) for row in rows}
        self._faults = capture_faults({row[0]: row[2] for row in rows}, fingerprints(self._both, list(self._tables), "src."))
        self._known = known

    def tables(self) -> Mapping[str, Table]:
        return self._tables

    def boundary(self, name: str, after: str | None, rows: int) -> str | None:
        table = self._tables[name]
        columns, (where, values) = ", ".join(quote(column) for column in table.key), between(table, Part(after, None))
        statement = f"SELECT {columns} FROM src.{quote(table.name)} WHERE {where} ORDER BY {columns} LIMIT 1 OFFSET {rows - 1}"
        row = self._in_batch().execute(statement, values).fetchone()
        return None if row is None else json.dumps([to_json(value) for value in row])

    def recorded(self, node: str, term_no: int) -> Mapping[str, int]:
        return dict(self._in_batch().execute(f"SELECT tbl, count(*) {RECORDED} GROUP BY tbl", (node, term_no)).fetchall())

    def tick(self, *, batch: int, held: str | None) -> str:
        return commit_tick(self._ticker_connection(), batch, held)

    def still_there(self) -> None:
        """A SQLite file has no server that could crash; what can go is the file."""
        if file_identity(self._paths[0]) != self._writer_identity:
            raise CompareFailed("the writer's file was replaced since the snapshot")

    def apply(self, rows: Mapping[str, Keys], landing: Landing) -> int:
        self._take_lock(landing)
        both = self._in_batch()
        written = 0
        for name, keys in rows.items():
            self._delete(self._tables[name], keys)
        for name, keys in rows.items():
            written += self._insert(self._tables[name], keys)
        if landing.forget is None:
            both.execute("DELETE FROM main.replstore_marker")
        else:
            both.executemany("DELETE FROM main.replstore_marker WHERE id = ?", ((id,) for id in landing.forget))
        columns = ", ".join(MARKER_COLUMNS)
        which, since = "", []
        if self._since != 0:
            which, since = f"WHERE id IN (SELECT k1 FROM src.replstore_journal WHERE tbl = '{MARKER}' AND seq > ?)", [self._since]
        both.execute(f"INSERT OR REPLACE INTO main.replstore_marker ({columns}) SELECT {columns} FROM src.replstore_marker {which}", since)
        if self._counters != self._counters_there:
            self._advance_sequences()
        for statement, values, failure in landing_statements(CONTROL, landing):
            if both.execute(statement, values).rowcount != 1 and failure is not None:
                raise Moved(failure)
        both.execute("UPDATE main.replstore_mark SET mark = NULL")
        return written

    def _take_lock(self, landing: Landing) -> None:
        """Nobody else writes to the follower from here on, and it is what the batch began from; but for the heartbeat, which goes on while it is read."""
        both = self._in_batch()
        self._wait_for_locks(both, LOCK_WAIT)
        try:
            both.execute("UPDATE main.replstore_mark SET mark = 'apply'")
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                who = "".join(f", or {each} is writing to it" for each in holders(self._paths[1]))
                raise Moved(f"the follower changed since the batch began{who}") from error
            raise
        both.check_file()
        if not is_unmoved(self._read_follower(both), landing.base):
            raise Moved("the follower changed since the batch began")

    def land(self) -> None:
        assert self._both is not None
        self._both.commit()
        self._counters_there = self._counters

    def _delete(self, table: Table, keys: Keys) -> None:
        assert self._both is not None
        if keys.recorded is not None:
            self._has_extra = True
            for (key,) in self._both.execute(f"SELECT key {RECORDED} AND tbl = ? AND key <> '*'", (*keys.recorded, table.id)):
                values = [_from_json(value) for value in json.loads(key)]
                given = ", ".join(place for place, _ in values)
                self._both.execute(f"INSERT INTO temp.extra (tbl, {places(table)}) VALUES (?, {given})", (table.id, *(value for _, value in values)))
        if keys.part is not None and not keys.whole:
            return
        where, values = ("true", []) if keys.whole else self._wanted(table, keys)
        self._both.execute(f"DELETE FROM main.{quote(table.name)} WHERE {where}", values)

    def _insert(self, table: Table, keys: Keys) -> int:
        assert self._both is not None
        columns = ", ".join(quote(column) for column in table.data_columns)
        if keys.part is not None:
            where, values = between(table, keys.part)
            if not self._first:
                where += f" AND ({', '.join(quote(column) for column in table.key)}) NOT IN ({_journaled(table)} AND k1 IS NOT NULL)"
                values.append(self._since)
        else:
            where, values = ("true", []) if keys.whole else self._wanted(table, keys)
        insert = f"INSERT INTO main.{quote(table.name)} ({columns}) SELECT {columns} FROM src.{quote(table.name)} WHERE {where}"
        done = self._both.execute(insert, values)
        return max(0, done.rowcount)

    def _wanted(self, table: Table, keys: Keys) -> tuple[str, list[Any]]:
        """The condition that a row is one of these, and the values to bind; the same text for every batch, so that SQLite compiles it once."""
        sources = [_journaled(table)] if keys.journal else []
        if keys.recorded is not None:
            sources.append(f"SELECT {places(table)} FROM temp.extra WHERE tbl = {text(table.id)}")
        condition = f"({', '.join(quote(column) for column in table.key)}) IN ({' UNION ALL '.join(sources)})"
        return condition, [self._since] if keys.journal else []

    def _advance_sequences(self) -> None:
        assert self._both is not None
        theirs = "SELECT s.seq FROM src.sqlite_sequence s WHERE s.name = main.sqlite_sequence.name"
        self._both.execute(f"UPDATE main.sqlite_sequence SET seq = ({theirs}) WHERE name NOT LIKE 'replstore\\_%' ESCAPE '\\' AND seq < ({theirs})")
        self._both.execute(
            "INSERT INTO main.sqlite_sequence (name, seq) SELECT name, seq FROM src.sqlite_sequence s WHERE name NOT LIKE 'replstore\\_%' ESCAPE '\\' "
            "AND NOT EXISTS (SELECT 1 FROM main.sqlite_sequence m WHERE m.name = s.name)"
        )

    def abandon(self) -> None:
        for connection in (self._both, self._ticker):
            if connection is not None:
                with suppress(Exception):
                    connection.rollback()

    def close(self) -> None:
        for connection in (self._both, self._ticker):
            if connection is not None:
                with suppress(Exception):
                    connection.close()
        self._both = self._ticker = self._counters_there = None
        self._waits, self._has_extra = -1, False


@cache
def _look(identity: str) -> str:
    """The SELECT of all that a batch asks of the writer but what has changed."""
    counters = "SELECT json_group_object(name, seq) FROM src.sqlite_sequence"
    return select_node_state(identity, "src.").replace(
        "SELECT ",
        "SELECT EXISTS (SELECT 1 FROM src.replstore_tick WHERE tick = ?), (SELECT pruned_through FROM src.replstore_retention), "
        f"(SELECT count(*) FROM src.replstore_replicated WHERE fingerprint = ''), ({counters}), ",
        1,
    )


def commit_tick(ticker: StoreConnection, batch: int, held: str | None) -> str:
    """Commits a tick to a writer's file, durably."""
    tick = str(uuid4())
    ticker.execute("BEGIN IMMEDIATE")
    try:
        ticker.execute("INSERT INTO replstore_tick (tick, batch, at) VALUES (?, ?, ?)", (tick, batch, now()))
        if batch % TICKS_GO == 0:
            ticker.execute("DELETE FROM replstore_tick WHERE batch < ? AND tick <> ?", (batch - 1000, held or ""))
        ticker.commit()
    except BaseException:
        ticker.rollback()
        raise
    return tick


def holds(follower: StoreConnection, transactions: Collection[str]) -> bool:
    """Whether a file has the commit markers of all these transactions."""
    places = ", ".join("?" * len(transactions))
    found = f"SELECT count(*) FROM main.replstore_marker WHERE id IN ({places}) AND outcome = 'committed'"
    return bool(transactions) and follower.execute(found, list(transactions)).fetchone()[0] == len(transactions)


def places(table: Table) -> str:
    """The columns of the journal that hold a table's key."""
    return ", ".join(f"k{n}" for n in range(1, len(table.key) + 1))


def _journaled(table: Table) -> str:
    return f"SELECT {places(table)} FROM src.replstore_journal WHERE tbl = {text(table.id)} AND seq > ?"


def between(table: Table, part: Part) -> tuple[str, list[Any]]:
    """The condition that a row belongs to a part, and the values to bind."""
    columns, conditions, bound = ", ".join(quote(column) for column in table.key), [], []
    for sign, key in ((">", part.after), ("<=", part.upto)):
        if key is not None:
            values = [_from_json(value) for value in json.loads(key)]
            conditions.append(f"({columns}) {sign} ({', '.join(place for place, _ in values)})")
            bound += [value for _, value in values]
    return " AND ".join(conditions) or "true", bound


def _from_json(value: Any) -> tuple[str, Any]:
    """Place and value of a key's value from its JSON form: blobs are ``{"blob": hex}``; text that is no UTF-8 can only be bound as bytes."""
    if isinstance(value, dict):
        return "?", bytes.fromhex(value["blob"])
    if isinstance(value, str) and not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value):
        return "CAST(? AS TEXT)", value.encode("utf-8", "surrogateescape")
    return "?", value


def to_json(value: Any) -> Any:
    """A key's value in a form that JSON holds exactly."""
    return {"blob": value.hex()} if isinstance(value, bytes) else value
