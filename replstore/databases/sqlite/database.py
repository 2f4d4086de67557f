"""SQLite 3.35 and newer through the standard library's driver, files in WAL mode."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

import sqlalchemy
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import QueuePool

from replstore.control import Control
from replstore.databases.base import Entry, Fault, NodeState, Unshipped
from replstore.databases.catalog import Table
from replstore.databases.counting import Taken
from replstore.databases.database import Database
from replstore.databases.dialect import raw
from replstore.databases.digests import Digests, Forms, Recipe
from replstore.databases.sqlite import capture, catalog, ddl, dialect, digests, faults, reading_changes, reading_rows, retention, sequences, suspended
from replstore.databases.sqlite.carrier import SQLiteCarrier
from replstore.databases.sqlite.fingerprint import fingerprints
from replstore.databases.sqlite.holders import holders
from replstore.databases.sqlite.one_migration import one_migration
from replstore.databases.sqlite.replaying import SQLiteReplaying
from replstore.databases.sqlite.state import CONTROL, select_node_state
from replstore.databases.state import node_state
from replstore.databases.suspended import Restore
from replstore.errors import ConfigError

#: s to wait for a moment in which nobody else uses a file.
PATIENCE = 10.0


@cache
def _nothing_of_replstore() -> Control:
    """A name for control tables that no table has, so that replstore's own are shown. Making one takes longer than reading a catalog."""
    return Control(None, "sqlite_")


class SQLite(Database):
    """See :class:`replstore.databases.database.Database`."""

    name: ClassVar[str] = "sqlite"
    control: ClassVar[Control] = CONTROL
    embedded: ClassVar[bool] = True
    schemas: ClassVar[bool] = False

    def user_engine(self, url: URL, **options: Any) -> Engine:
        return create_engine(url.set(drivername="sqlite+replstore"), poolclass=QueuePool, **options)

    def service_engine(self, url: URL, *, seconds: float) -> Engine:
        engine = create_engine(
            url.set(drivername="sqlite+replstore", query={}), connect_args={"timeout": seconds}, poolclass=QueuePool, pool_size=2, max_overflow=10
        )
        engine.dialect.immediate = False  # type: ignore[attr-defined]
        event.listen(engine, "connect", _read_any_text)
        return engine

    def carrier(self, writer: Engine, follower: Engine) -> SQLiteCarrier:
        return SQLiteCarrier(str(writer.url.database), str(follower.url.database))

    def is_same(self, one: Connection, other: Connection) -> bool:
        return bool(raw(one.connection).identity == raw(other.connection).identity)

    def interrupt(self, connection: Any) -> None:
        with suppress(Exception):
            raw(connection).interrupt()

    def backend(self, connection: Any) -> tuple[int, str] | None:
        return None

    def classify(self, error: BaseException) -> Fault:
        return faults.classify(error)

    def state(self, connection: Connection) -> NodeState | None:
        if not connection.exec_driver_sql("SELECT count(*) FROM sqlite_master WHERE name = 'replstore_role'").scalar():
            return None
        row = connection.exec_driver_sql(select_node_state(raw(connection.connection).identity)).fetchone()
        return None if row is None else node_state(row)

    def begin_reading(self, connection: Connection) -> NodeState | None:
        connection.begin()
        driver = raw(connection.connection)
        try:
            row = driver.execute(select_node_state(driver.identity)).fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return None
        return None if row is None else node_state(row)

    def lock_roles(self, connection: Connection, *, seconds: float) -> None:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {max(1, int(seconds * 1000))}")
        connection.exec_driver_sql("UPDATE replstore_role SET role = role")  # takes the one write lock

    def blockers(self, connection: Connection) -> list[str]:
        return [f"{who} holds the file's write lock" for who in holders(raw(connection.connection).path)] or [
            "another process holds the file's write lock"
        ]

    def position(self, connection: Connection) -> str:
        seq = connection.exec_driver_sql("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'replstore_journal'").scalar()
        return str(seq)

    def covers(self, position: str, earlier: str) -> bool:
        return int(position) >= int(earlier)

    def mark(self, connection: Connection, mark: str | None) -> None:
        connection.exec_driver_sql("UPDATE replstore_mark SET mark = ?", (mark,))

    def orphan_table(self, connection: Connection) -> Table:
        (table,) = catalog.tables(connection, _nothing_of_replstore(), only={"replstore_orphan"})
        return table

    def tables(self, connection: Connection, only: Collection[str] | None = None) -> list[Table]:
        return catalog.tables(connection, CONTROL, only=only)

    def table_ids(self, connection: Connection) -> list[str]:
        return catalog.table_ids(connection, CONTROL)

    def refusal(self, connection: Connection, table: Table) -> str | None:
        if sentence := catalog.refusal(table):
            return sentence
        if table.expression_unique:  # REPLACE deletes rows that stand in its way, and a trigger can't look them up
            return f"table {table.id} has a unique index over an expression or a collation of its own ({', '.join(table.expression_unique)}): it can't be replicated"
        return None

    def create_statements(self, connection: Connection, tables: Sequence[Table], target: Connection) -> list[str]:
        return ddl.create_statements(tables, connection, target=target)

    def drop_statements(self, tables: Sequence[Table]) -> list[str]:
        return ddl.drop_statements(tables)

    def may_create(self, url: URL) -> bool:
        path = os.path.abspath(str(url.database))
        if os.path.exists(path):
            return False
        try:  # what the access rights say isn't all: the file system may be full, read-only or none for files
            with tempfile.TemporaryFile(dir=os.path.dirname(path)):
                return True
        except OSError:
            return False

    def create(self, url: URL) -> None:
        try:
            with closing(sqlite3.connect(str(url.database))) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.Error as error:
            raise ConfigError(f"{url.database} can't be made: {error}") from error

    def prepare(self, connection: Connection) -> None:
        mode = _switch_to_wal(raw(connection.connection))
        if mode != "wal":
            raise ConfigError(f"{raw(connection.connection).path} can't be switched to WAL mode (it is in mode {mode}): replstore needs it")

    def lock_migration(self, connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS replstore_lock (id INTEGER)")  # takes the write lock
        connection.exec_driver_sql("DROP TABLE replstore_lock")

    def one_migration(self, node: Engine) -> AbstractContextManager[None]:
        return one_migration(os.path.realpath(str(node.url.database)))

    def migration_url(self, url: URL, *, mark: bool) -> URL:
        return url

    def hold_mark(self, connection: Connection, mark: str | None) -> None:
        self.mark(connection, mark)

    def control_statements(self, revision: str) -> list[str]:
        return capture.CONTROL_STATEMENTS if revision == "0001" else []

    def capture_statements(self, table: Table) -> list[str]:
        return capture.install_statements(table)

    def journal_whole(self, connection: Connection, tables: Sequence[Table]) -> None:
        for table in tables:
            connection.exec_driver_sql("INSERT INTO replstore_journal (tbl) VALUES (?)", (table.id,))

    def fingerprints(self, connection: Connection, tables: Sequence[Table]) -> dict[str, str]:
        return fingerprints(raw(connection.connection), [table.id for table in tables])

    def execute_script(self, connection: Connection, statements: Sequence[str]) -> None:
        driver = raw(connection.connection)
        for statement in statements:
            driver.execute(statement)

    def jump_sequences(self, connection: Connection, margin: int) -> None:
        sequences.jump_sequences(connection, CONTROL, margin)

    def sequences(self, connection: Connection) -> dict[str, int | None]:
        return sequences.sequences(connection, CONTROL)

    def advance_sequences(self, connection: Connection, values: Mapping[str, int | None]) -> None:
        sequences.advance_sequences(connection, values)

    def lagging_sequences(self, connection: Connection, values: Mapping[str, int | None]) -> dict[str, bool | None]:
        return sequences.lagging(connection, values)

    def next_value(self, connection: Connection, id: str) -> int | None:
        return sequences.next_value(connection, id)

    def taken(self, connection: Connection, id: str, after: int | None, through: int) -> Taken | None:
        return sequences.taken(connection, id, after, through)

    def in_force(self, connection: Connection, tables: Sequence[Table]) -> list[Restore]:
        return suspended.in_force(tables)

    def suspend(self, connection: Connection, tables: Sequence[Table], restores: Sequence[Restore]) -> None:
        suspended.suspend(connection, tables, restores)

    def whole(self, connection: Connection, tables: Sequence[Table]) -> list[Table]:
        return suspended.whole(connection, tables)

    def disregard(self, table: Table, other: Table) -> Table:
        return replace(table, triggers=other.triggers)

    def hold_follower(self, connection: Connection) -> None:
        self.mark(connection, "apply")  # takes the one write lock; foreign keys are off in replstore's own sessions, and a follower's triggers gone

    def replaying(self) -> SQLiteReplaying:
        return SQLiteReplaying()

    def begin_snapshot(self, connection: Connection) -> None:
        reading_rows.begin_snapshot(connection)

    def unshipped_keys(self, connection: Connection, since: str, *, most: int | None = None) -> Mapping[str, set[str] | None]:
        return reading_rows.unshipped_keys(connection, since, most)

    def same_keys(self, connection: Connection, table: Table, keys: Collection[str]) -> Mapping[str, str]:
        return reading_rows.same_keys(connection, table, keys)

    def entries(self, connection: Connection, since: str) -> Iterator[Entry]:
        return reading_rows.entries(connection, since)

    def last_changes(self, connection: Connection, table: Table, keys: Collection[str]) -> Mapping[str, Entry]:
        return reading_changes.last_changes(connection, table, self.replaying().last_named(connection, table, keys))

    def last_transactions(self, connection: Connection) -> Iterator[tuple[str, int]]:
        return reading_changes.last_transactions(connection)

    def journaled(self, connection: Connection) -> set[str]:
        return reading_rows.journaled(connection)

    def take_time(self, connection: Connection) -> None:
        """No statement of a file has a limit, and every commit is durable."""

    def insert_new(self, connection: Connection, table: sqlalchemy.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            columns, places = ", ".join(rows[0]), ", ".join("?" * len(rows[0]))
            statement = f"INSERT INTO {table.name} ({columns}) VALUES ({places}) ON CONFLICT DO NOTHING"
            raw(connection.connection).executemany(statement, [tuple(row.values()) for row in rows])

    def prune(self, connection: Connection, shipped: str, *, limit: int | None = None) -> int:
        return retention.prune(connection, shipped, limit=limit)

    def old_markers(self, connection: Connection, shipped: str, *, seconds: float, after: str | None) -> tuple[list[str], str | None]:
        return retention.old_markers(connection, shipped, seconds=seconds, after=after)

    def forget_markers(self, connection: Connection, ids: Sequence[str]) -> None:
        retention.forget_markers(connection, ids)

    def unshipped(self, connection: Connection, since: str | None) -> Unshipped:
        return retention.unshipped(connection, since)

    def backlog(self, connection: Connection, since: str | None, *, limit: int) -> int:
        return retention.backlog(connection, since, limit=limit)

    def changes(self, connection: Connection, since: str, *, limit: int) -> int:
        return retention.changes(connection, since, limit=limit)

    def rows(self, connection: Connection, table: Table, keys: Collection[str] | None = None) -> list[tuple[str, str]]:
        return reading_rows.rows(connection, table, keys)

    def stream(self, connection: Connection, table: Table) -> Iterator[tuple[Any, str, tuple[str | None, ...]]]:
        return reading_rows.stream(connection, table)

    def forms(self, connection: Connection, table: Table) -> Forms:
        return digests.forms(connection, table)

    def digests(self, connection: Connection, table: Table, recipe: Recipe) -> Digests:
        return digests.SQLiteDigests(connection, table, recipe)


def _switch_to_wal(connection: Any) -> str:
    """The mode afterwards.  It takes a moment without any other transaction, for which SQLite doesn't wait by itself."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if faults.classify(error) is not Fault.TRANSIENT:
                raise
            if time.monotonic() >= deadline:
                raise ConfigError(f"{connection.path} can't be switched to WAL mode: other programs have been using it for {PATIENCE:g} s") from error
            time.sleep(0.002)


def _read_any_text(connection: sqlite3.Connection, record: Any) -> None:
    connection.text_factory = dialect.any_text


_ = dialect  # registers sqlite+replstore
