"""SQLite 3.35 and newer through the standard library's driver, files in WAL mode."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from sqlalchemy import Connection, Engine, create_engine, delete, event, func, insert, select, update
from sqlalchemy.engine import URL
from sqlalchemy.pool import QueuePool

from replstore.control import Control
from replstore.databases.base import Entry, Fault, NodeState
from replstore.databases.catalog import Table
from replstore.databases.database import Database
from replstore.databases.dialect import raw
from replstore.databases.sqlite import capture, catalog, ddl, dialect, faults, sequences
from replstore.databases.sqlite.capture import MARKER, quote, text
from replstore.databases.sqlite.carrier import SQLiteCarrier, to_json
from replstore.databases.sqlite.fingerprint import fingerprints
from replstore.databases.sqlite.state import CONTROL, select_node_state
from replstore.databases.state import node_state
from replstore.errors import ConfigError


class SQLite(Database):
    """See :class:`replstore.databases.database.Database`."""

    name: ClassVar[str] = "sqlite"
    control: ClassVar[Control] = CONTROL

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

    def identity(self, url: URL) -> str:
        return f"sqlite {os.path.realpath(str(url.database))}"

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

    def lock_roles(self, connection: Connection, *, seconds: float) -> None:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {max(1, int(seconds * 1000))}")
        connection.exec_driver_sql("UPDATE replstore_role SET role = role")  # takes the one write lock

    def blockers(self, connection: Connection) -> list[str]:
        return ["another process holds the file's write lock"]

    def position(self, connection: Connection) -> str:
        seq = connection.exec_driver_sql("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'replstore_journal'").scalar()
        return str(seq)

    def covers(self, position: str, earlier: str) -> bool:
        return int(position) >= int(earlier)

    def mark(self, connection: Connection, mark: str | None) -> None:
        connection.exec_driver_sql("UPDATE replstore_mark SET mark = ?", (mark,))

    def orphan_table(self, connection: Connection) -> Table:
        (table,) = catalog.tables(connection, Control(None, "sqlite_"), only={"replstore_orphan"})
        return table

    def tables(self, connection: Connection, only: Collection[str] | None = None) -> list[Table]:
        return catalog.tables(connection, CONTROL, only=only)

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
        folder = os.path.dirname(path)
        return not os.path.exists(path) and os.path.isdir(folder) and os.access(folder, os.W_OK)

    def create(self, url: URL) -> None:
        connection = sqlite3.connect(str(url.database))
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()

    def prepare(self, connection: Connection) -> None:
        mode = raw(connection.connection).execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise ConfigError(f"{raw(connection.connection).path} can't be switched to WAL mode (it is in mode {mode}): replstore needs it")

    def lock_migration(self, connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS replstore_lock (id INTEGER)")  # takes the write lock
        connection.exec_driver_sql("DROP TABLE replstore_lock")

    def migration_url(self, url: URL, *, mark: bool) -> URL:
        return url

    def hold_mark(self, connection: Connection, mark: str | None) -> None:
        self.mark(connection, mark)

    def control_statements(self, revision: str) -> list[str]:
        return capture.CONTROL_STATEMENTS if revision == "0001" else []

    def capture_statements(self, table: Table) -> list[str]:
        return capture.install_statements(table)

    def release_statements(self, table: Table) -> list[str]:
        return capture.remove_statements(table)

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

    def suspend(self, connection: Connection, tables: Sequence[Table]) -> None:
        suspended = CONTROL.suspended
        seq = connection.execute(select(func.coalesce(func.max(suspended.c.seq), 0))).scalar_one()
        for table in tables:
            for name, definition in table.triggers:
                seq += 1
                connection.execute(insert(suspended).values(seq=seq, kind="trigger", tbl=table.id, name=name, restore=definition))
                self.execute_script(connection, [f"DROP TRIGGER {quote(name)}"])

    def resume(self, connection: Connection) -> None:
        suspended = CONTROL.suspended
        restores = connection.execute(select(suspended.c.restore).order_by(suspended.c.seq)).scalars().all()
        self.execute_script(connection, restores)
        connection.execute(delete(suspended))

    def begin_snapshot(self, connection: Connection) -> None:
        connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")  # the first read opens the snapshot

    def unshipped_keys(self, connection: Connection, since: str) -> Mapping[str, set[str] | None]:
        widths = self._key_widths(connection)
        keys: dict[str, set[str] | None] = {}
        rows = raw(connection.connection).execute(f"SELECT * FROM replstore_journal WHERE seq > ? AND tbl <> '{MARKER}'", (int(since),))
        for row in rows:
            known = keys.setdefault(row[1], set())
            assert known is not None
            known.add(_key(row[2 : 2 + widths.get(row[1], 1)]))
        return keys

    def entries(self, connection: Connection, since: str) -> list[Entry]:
        driver = raw(connection.connection)
        markers = {
            row[0]: row[1:]
            for row in driver.execute(
                "SELECT id, durability, outcome, key, at FROM replstore_marker WHERE id IN "
                f"(SELECT k1 FROM replstore_journal WHERE tbl = '{MARKER}' AND seq > ?)",
                (int(since),),
            )
        }
        widths = self._key_widths(connection)
        entries: list[Entry] = []
        tx: str | None = None
        for row in driver.execute("SELECT * FROM replstore_journal WHERE seq > ? ORDER BY seq", (int(since),)):
            is_marker = row[1] == MARKER
            if is_marker:  # transactions don't overlap on SQLite: what follows a marker belongs to its transaction
                tx = row[2]
            durability, outcome, key, at = markers.get(tx, (None, None, None, None))
            rest = (tx, at, durability, outcome, key)
            entries.append(Entry(None, None, *rest) if is_marker else Entry(row[1], _key(row[2 : 2 + widths.get(row[1], 1)]), *rest))
        return entries

    def journaled(self, connection: Connection) -> set[str]:
        return set(connection.exec_driver_sql("SELECT DISTINCT tbl FROM replstore_journal").scalars())

    def prune(self, connection: Connection, shipped: str) -> None:
        connection.exec_driver_sql("DELETE FROM replstore_journal WHERE seq <= ?", (int(shipped),))
        connection.execute(update(CONTROL.retention).values(pruned_through=shipped))

    def _key_widths(self, connection: Connection) -> dict[str, int]:
        return {row[0]: len(json.loads(row[1])["key"]) for row in connection.exec_driver_sql("SELECT tbl, definition FROM replstore_replicated")}

    def rows(self, connection: Connection, table: Table, keys: Collection[str] | None = None) -> list[tuple[str, str]]:
        found = self._select(connection, table, keys)
        return [(key, json.dumps(dict(zip(table.data_columns, values, strict=True)))) for _, key, values in found]

    def stream(self, connection: Connection, table: Table) -> Iterator[tuple[Any, str, tuple[str | None, ...]]]:
        return self._select(connection, table, None)

    def _select(self, connection: Connection, table: Table, keys: Collection[str] | None) -> Iterator[tuple[Any, str, tuple[str | None, ...]]]:
        columns = ", ".join(quote(column) for column in (*table.key, *table.data_columns))
        order = ", ".join(f"typeof({quote(column)}), {quote(column)} COLLATE BINARY" for column in table.key)
        width = len(table.key)
        driver = raw(connection.connection)
        select_all = f"SELECT {columns} FROM {quote(table.name)}"
        if keys is None:
            found: Any = driver.execute(f"{select_all} ORDER BY {order}")
        else:
            where = " AND ".join(f"{quote(column)} = ?" for column in table.key)
            wanted = [[bytes.fromhex(v["blob"]) if isinstance(v, dict) else v for v in json.loads(key)] for key in keys]
            found = (row for key in wanted for row in driver.execute(f"{select_all} WHERE {where}", key))
        for row in found:
            yield tuple(_order(value) for value in row[:width]), _key(row[:width]), tuple(_text(value) for value in row[width:])


def _read_any_text(connection: sqlite3.Connection, record: Any) -> None:
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")  # SQLite doesn't insist on valid UTF-8


def _key(values: Sequence[Any]) -> str:
    return json.dumps([to_json(value) for value in values])


def _order(value: Any) -> tuple[str, Any]:
    """Sorts in Python as ``typeof(x), x COLLATE BINARY`` does in SQLite."""
    if isinstance(value, str):
        return "text", value.encode("utf-8", "surrogateescape")
    return {bytes: "blob", int: "integer", float: "real"}.get(type(value), "null"), value


def _text(value: Any) -> str | None:
    """A value as an SQL literal, so that 1, 1.0, '1' and x'31' are four texts; None for NULL."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    return text(value) if isinstance(value, str) else repr(value)


_ = dialect  # registers sqlite+replstore
