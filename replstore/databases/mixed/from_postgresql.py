"""Shipping from PostgreSQL to SQLite: rows are read in one snapshot of the server, laid down in temporary tables beside the file, and then written.

The writer's half is PostgreSQL's own carrier's.  The file's write lock is taken when every row is here: it is never held while another machine is waited
for (HAZARDS 9).  What the batch began from is then read once more and compared; only the heartbeat may have gone on (HAZARDS 24, 25).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

from sqlalchemy import Engine

from replstore.control import MARKER_COLUMNS
from replstore.databases.base import NodeState
from replstore.databases.carrier import CompareFailed, Keys, Landing, Moved, Snapshot, is_unmoved
from replstore.databases.catalog import Table, quote, quoted
from replstore.databases.landing import landing_statements
from replstore.databases.mixed.keys import kinds, on, postgresql_columns
from replstore.databases.mixed.names import name_here
from replstore.databases.mixed.refused import refused
from replstore.databases.postgresql.capture import qualified, text
from replstore.databases.postgresql.carrier import UNSHIPPED, PostgreSQLCarrier
from replstore.databases.postgresql.rows import between, recorded_keys, unchanged
from replstore.databases.postgresql.sessions import Session
from replstore.databases.sqlite.carrier import holds
from replstore.databases.sqlite.dialect import StoreConnection, open_file
from replstore.databases.sqlite.parse import parse_table
from replstore.databases.sqlite.state import CONTROL, select_node_state
from replstore.databases.state import node_state

#: Rows in one fetch, and in one statement of SQLite's.
PIECE = 2000
#: A role or a database may have asked for rounded numbers.
EXACT = ["SET statement_timeout = 0", "SET extra_float_digits = 3", "SET bytea_output = 'hex'"]


class PostgreSQLToSQLite(PostgreSQLCarrier):
    """Moves batches from a PostgreSQL server to a SQLite file.

    Args:
        writer: service engine.
        follower: path of the file.
        timeout: s to wait for another connection's lock.
    """

    def __init__(self, writer: Engine, follower: str, *, timeout: float = 2.0) -> None:
        ticks = Session(writer)
        super().__init__(Session(writer, EXACT), ticks, ticks)
        self._path, self._timeout = follower, timeout
        self._file: StoreConnection | None = None
        self._from: str | None = None

    def follower(self, *, wait: float, transactions: Collection[str] = ()) -> NodeState:
        file = self._open()
        file.execute(f"PRAGMA busy_timeout = {int(wait * 1000)}")
        file.execute("BEGIN")
        self.holds = holds(file, transactions)
        row = file.execute(select_node_state(file.identity)).fetchone()
        if row is None:
            raise CompareFailed("the follower has no control tables' rows")
        return node_state(row)

    def _open(self) -> StoreConnection:
        if self._file is not None:
            try:
                self._file.check_file()
            except sqlite3.OperationalError:
                self._file.close()
                self._file = None
        if self._file is None:
            self._file = open_file(self._path, timeout=self._timeout)
            self._file.execute("PRAGMA foreign_keys = OFF")  # as between two files
        return self._file

    def _in_batch(self) -> StoreConnection:
        """The batch's connection: a batch is never gone on with on another one."""
        if self._file is None or not self._file.in_transaction:
            raise CompareFailed("the batch's transaction is gone")
        self._file.check_file()
        return self._file

    def snapshot(self, *, since: str | None, held: str | None, batch: int | None = None) -> Snapshot:
        self._from = since if since and ":" in since else None
        return super().snapshot(since=self._from, held=held)

    def apply(self, rows: Mapping[str, Keys], landing: Landing) -> int:
        file = self._in_batch()
        if rows:
            self._writer.last_result("SET LOCAL idle_in_transaction_session_timeout = '60s'")
        self._clear()
        read = {name: self._lay_down(number, self._tables[name], keys) for number, (name, keys) in enumerate(rows.items())}
        markers = self._read_markers()
        counters = self._counters([*self._tables.values()] if landing.eligible or landing.rejoin else [self._tables[name] for name in rows])
        super().still_there()  # before the file's lock is taken
        self._take_lock(landing)
        file.execute("UPDATE replstore_mark SET mark = 'apply'")
        for number, (name, keys) in enumerate(rows.items()):
            self._delete(number, self._tables[name], keys)
        for number, name in enumerate(rows):
            self._insert(number, self._tables[name], read[name], landing)
        self._write_markers(markers, landing)
        self._set_counters(counters)
        for statement, values, failure in landing_statements(CONTROL, landing):
            if file.execute(statement, values).rowcount != 1 and failure is not None:
                raise Moved(failure)
        file.execute("UPDATE replstore_mark SET mark = NULL")
        self._clear()
        return sum(read.values())

    def still_there(self) -> None:
        """The snapshot's session gave its sign of life before the file's lock was taken."""

    def land(self) -> None:
        self._in_batch().commit()

    def _take_lock(self, landing: Landing) -> None:
        """Goes on in a transaction that nobody else can write beside, if the follower is still what the batch began from."""
        file = self._in_batch()
        file.commit()  # of the temporary tables
        try:
            file.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                raise Moved("another process writes to the follower") from error
            raise
        file.check_file()
        row = file.execute(select_node_state(file.identity)).fetchone()
        if row is None or not is_unmoved(node_state(row), landing.base):
            raise Moved("the follower changed since the batch began")

    # -- rows

    def _clear(self) -> None:
        """Removes the temporary tables of the batch before."""
        file = self._in_batch()
        for (name,) in file.execute("SELECT name FROM sqlite_temp_master WHERE type = 'table'").fetchall():
            file.execute(f"DROP TABLE temp.{name}")

    def _lay_down(self, number: int, table: Table, keys: Keys) -> int:
        """Reads the batch's rows of a table into a temporary one, and its keys into another; returns how many rows there are."""
        file = self._in_batch()
        width, columns = len(table.key), len(table.data_columns)
        for name, count in (("keys", width), ("rows", columns)):
            file.execute(f"CREATE TEMP TABLE {name}_{number} ({', '.join(f'c{place}' for place in range(count))})")
        of_key, of_data = kinds(table, table.key), kinds(table, table.data_columns)
        found, read = self._stream(table, keys), 0
        while piece := list(islice(found, PIECE)):
            if not keys.whole and keys.part is None:
                given = [[kind.to_sqlite(value) for value, kind in zip(row[:width], of_key, strict=True)] for row in piece]
                file.executemany(f"INSERT INTO temp.keys_{number} VALUES ({', '.join('?' * width)})", given)
            here = [
                [None if value is None else kind.to_sqlite(value) for value, kind in zip(row[width + 1 :], of_data, strict=True)]
                for row in piece
                if row[width]
            ]
            file.executemany(f"INSERT INTO temp.rows_{number} VALUES ({', '.join('?' * columns)})", here)
            read += len(here)
        return read

    def _stream(self, table: Table, keys: Keys) -> Iterator[tuple[Any, ...]]:
        """The batch's keys of a table, whether there is such a row, and its values."""
        of_key, of_data = kinds(table, table.key), kinds(table, table.data_columns)
        data = ", ".join(kind.out(f"t.{quote(name)}") for name, kind in zip(table.data_columns, of_data, strict=True))
        if keys.whole or keys.part is not None:
            nothing = ", ".join(["NULL"] * len(table.key))
            where = "true" if keys.part is None else f"{between(table, keys.part)} AND {unchanged(table, self._from)}"
            statement = f"SELECT {nothing}, true, {data} FROM {qualified(table)} t WHERE {where}"
        else:
            key = ", ".join(kind.out(f"j.k{number}") for number, kind in enumerate(of_key))
            source = f"({self._wanted(table, keys)}) j LEFT JOIN {qualified(table)} t ON {on(table)}"
            statement = f"SELECT {key}, t.{quote(table.key[0])} IS NOT NULL, {data} FROM {source}"
        with self._writer.connection.cursor("replstore_batch") as cursor:
            cursor.itersize = PIECE
            cursor.execute(statement)
            yield from cursor

    def _wanted(self, table: Table, keys: Keys) -> str:
        """A SELECT of the batch's keys."""
        sources = []
        if keys.journal and self._from is not None:
            unshipped = UNSHIPPED.format(name="j", position=f"{text(self._from)}::pg_snapshot")
            sources.append(f"SELECT k.v FROM replstore.journal j, jsonb_array_elements(j.keys) k(v) WHERE j.tbl = {text(table.id)} AND {unshipped}")
        if keys.recorded:
            sources.append(f"SELECT k.v FROM ({recorded_keys(table, keys.recorded)}) a(keys), jsonb_array_elements(a.keys) k(v)")
        return f"SELECT DISTINCT {postgresql_columns(table, 'e.v')} FROM ({' UNION ALL '.join(sources) or 'SELECT NULL::jsonb WHERE false'}) e(v)"

    def _delete(self, number: int, table: Table, keys: Keys) -> None:
        if keys.part is not None and not keys.whole:
            return
        where = "" if keys.whole else f" WHERE ({quoted(table.key)}) IN (SELECT * FROM temp.keys_{number})"
        self._in_batch().execute(f"DELETE FROM main.{quote(name_here(table.id))}{where}")

    def _insert(self, number: int, table: Table, read: int, landing: Landing) -> None:
        file = self._in_batch()
        into = f"INSERT INTO main.{quote(name_here(table.id))} ({quoted(table.data_columns)})"
        try:
            written = file.execute(f"{into} SELECT * FROM temp.rows_{number} ORDER BY rowid").rowcount
        except sqlite3.IntegrityError as error:
            raise refused(table, "", "", str(error), landing) from error
        if max(0, written) != read:
            raise refused(table, "", "", f"{read} rows were read and {written} written", landing)

    # -- markers and counters

    def _read_markers(self) -> list[tuple[Any, ...]]:
        unshipped = UNSHIPPED.format(name="m", position=f"{text(self._from)}::pg_snapshot") if self._from else "true"
        at = "to_char(m.at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS')"
        return self._writer.last_result(
            f"SELECT {', '.join(f'm.{name}' for name in MARKER_COLUMNS[:-1])}, {at} FROM replstore.marker m WHERE {unshipped}"
        )

    def _write_markers(self, markers: list[tuple[Any, ...]], landing: Landing) -> None:
        file = self._in_batch()
        if landing.forget is None:
            file.execute("DELETE FROM replstore_marker")
        else:
            file.executemany("DELETE FROM replstore_marker WHERE id = ?", ((id,) for id in landing.forget))
        places = ", ".join("?" * len(MARKER_COLUMNS))
        file.executemany(f"INSERT OR REPLACE INTO replstore_marker ({', '.join(MARKER_COLUMNS)}) VALUES ({places})", markers)

    def _counters(self, tables: list[Table]) -> dict[str, int]:
        """By the table's name in the file: the last value of its key's sequence."""
        values = ", ".join(f"({text(name_here(table.id))}, {text(qualified(table))}, {text(table.key[0])})" for table in tables if table.sequences)
        if not values:
            return {}
        found = self._writer.last_result(
            f"SELECT w.name, pg_sequence_last_value(pg_get_serial_sequence(w.relation, w.key)::regclass) FROM (VALUES {values}) w(name, relation, key)"
        )
        return {name: value for name, value in found if value is not None}

    def _set_counters(self, counters: Mapping[str, int]) -> None:
        file = self._in_batch()
        for name, value in counters.items():
            (sql,) = file.execute("SELECT sql FROM main.sqlite_master WHERE type = 'table' AND name = ?", (name,)).fetchone()
            if not parse_table(sql).autoincrement:
                continue
            if file.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (value, name)).rowcount == 0:
                file.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, value))

    def abandon(self) -> None:
        super().abandon()
        if self._file is not None:
            with suppress(Exception):
                self._file.rollback()

    def close(self) -> None:
        super().close()
        if self._file is not None:
            with suppress(Exception):
                self._file.close()
        self._file = None
