"""Errors of SQLite, provoked on real files, mean what the pair takes them for."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, exc, text

from replstore.databases.base import Fault
from replstore.databases.sqlite.dialect import open_file
from replstore.databases.sqlite.faults import GUARD_PREFIX, classify, commit_in_doubt

SCHEMA = f"""
CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, note BLOB);
INSERT INTO account VALUES (1, 10, NULL), (2, 20, randomblob(20000));
CREATE TABLE payment (account INTEGER REFERENCES account DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE guarded (id INTEGER);
CREATE TRIGGER guard BEFORE INSERT ON guarded BEGIN SELECT RAISE(ABORT, '{GUARD_PREFIX} this node is not the writer'); END;
CREATE TABLE checked (id INTEGER);
CREATE TRIGGER checked BEFORE INSERT ON checked BEGIN SELECT RAISE(ABORT, 'not {GUARD_PREFIX} the application''s own'); END;
"""


class Scene:
    """A database file and the connections of one test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stack = contextlib.ExitStack()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(SCHEMA)

    def open(self, path: Path | None = None, **options: Any) -> sqlite3.Connection:
        """A connection as a Store opens it, one that doesn't wait for locks; no transaction begins by itself."""
        return self.stack.enter_context(contextlib.closing(open_file(str(path or self.path), timeout=0, **options)))

    def plain(self, query: str = "mode=rw") -> sqlite3.Connection:
        """A connection of the standard library's, as another program opens it."""
        return self.stack.enter_context(contextlib.closing(sqlite3.connect(f"file:{self.path}?{query}", uri=True, timeout=0, isolation_level=None)))

    def run(self, *statements: str) -> None:
        connection = self.open()
        for statement in statements:
            connection.execute(statement)

    # --- causes that take more than a statement

    def busy(self) -> None:
        self.open().execute("BEGIN IMMEDIATE")
        self.open().execute("BEGIN IMMEDIATE")

    def busy_snapshot(self) -> None:
        reader = self.open()
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM account").fetchall()
        self.open().execute("UPDATE account SET balance = 0")
        reader.execute("UPDATE account SET balance = 1")

    def locked(self) -> None:
        connection = self.open()
        rows = connection.execute("SELECT * FROM account")
        next(rows)
        connection.execute("DROP TABLE account")

    def interrupted(self) -> None:
        connection = self.open()

        def interrupt() -> None:
            while not done.wait(0.01):  # more than once: it works only while a statement runs
                connection.interrupt()

        done = threading.Event()
        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            connection.execute("WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n").fetchall()
        finally:
            done.set()
            thread.join()

    def out_of_files(self) -> None:
        """The file is there; this process may open no more."""
        free = os.dup(0)
        os.close(free)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            self.open()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def damaged(self) -> None:
        with self.path.open("r+b") as file:
            file.seek(4096)  # the second page on
            file.write(os.urandom(os.path.getsize(self.path) - 4096))
        self.run("SELECT * FROM account")

    def cut_short(self) -> None:
        connection = self.open()
        connection.execute("PRAGMA cache_size = 0")
        os.truncate(self.path, 4096)
        connection.execute("SELECT * FROM account").fetchall()

    def overwritten(self) -> None:
        self.path.write_bytes(b"no database " * 1000)
        self.run("SELECT 1 FROM sqlite_schema")

    def moved_in_rollback_mode(self) -> None:
        self.run("PRAGMA journal_mode = DELETE")
        connection = self.plain()
        connection.execute("SELECT 1 FROM account")
        self.path.rename(self.path.with_name("moved"))
        connection.execute("UPDATE account SET balance = 0")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path / "node.db")
    with scene.stack:
        yield scene


CASES: dict[str, tuple[Fault, str, Callable[[Scene], Any]]] = {
    "no file": (Fault.REFUSED, "CANTOPEN", lambda s: s.open(s.path.with_name("nothing.db"))),
    "no directory": (Fault.REFUSED, "CANTOPEN", lambda s: s.open(s.path.parent / "nowhere" / "node.db")),
    "a file in place of the directory": (Fault.REFUSED, "CANTOPEN", lambda s: s.open(s.path / "node.db")),
    "a directory in place of the file": (Fault.LOCKED_OUT, "CANTOPEN", lambda s: s.open(s.path.parent)),
    "too many open files": (Fault.LOCKED_OUT, "CANTOPEN", Scene.out_of_files),
    "garbage in place of the file": (Fault.REFUSED, "NOTADB", Scene.overwritten),
    "damaged pages": (Fault.REFUSED, "CORRUPT", Scene.damaged),
    "file cut short while open": (Fault.REFUSED, "CORRUPT", Scene.cut_short),
    "file moved while open, in rollback mode": (Fault.REFUSED, "READONLY_DBMOVED", Scene.moved_in_rollback_mode),
    "busy": (Fault.TRANSIENT, "BUSY", Scene.busy),
    "busy snapshot": (Fault.TRANSIENT, "BUSY_SNAPSHOT", Scene.busy_snapshot),
    "table locked": (Fault.TRANSIENT, "LOCKED", Scene.locked),
    "interrupted": (Fault.TIMEOUT, "INTERRUPT", Scene.interrupted),
    "disk full": (Fault.LOCKED_OUT, "FULL", lambda s: s.run("PRAGMA max_page_count = 1", "INSERT INTO account VALUES (3, 1, randomblob(90000))")),
    "file opened read-only": (Fault.LOCKED_OUT, "READONLY", lambda s: s.plain("mode=ro").execute("DELETE FROM account")),
    "file declared immutable": (Fault.LOCKED_OUT, "READONLY", lambda s: s.plain("immutable=1").execute("DELETE FROM account")),
    "guard refuses": (Fault.NOT_THE_WRITER, "CONSTRAINT_TRIGGER", lambda s: s.run("INSERT INTO guarded VALUES (1)")),
    "application's trigger refuses": (Fault.CALLER, "CONSTRAINT_TRIGGER", lambda s: s.run("INSERT INTO checked VALUES (1)")),
    "integrity: key": (Fault.CALLER, "CONSTRAINT_PRIMARYKEY", lambda s: s.run("INSERT INTO account VALUES (1, 1, NULL)")),
    "integrity: not null": (Fault.CALLER, "CONSTRAINT_NOTNULL", lambda s: s.run("INSERT INTO account VALUES (3, NULL, NULL)")),
    "unknown table": (Fault.CALLER, "ERROR", lambda s: s.run("SELECT * FROM nothing")),
    "value too big": (Fault.CALLER, "TOOBIG", lambda s: s.run("SELECT zeroblob(2000000000)")),
}


@pytest.mark.parametrize("name", CASES)
def test_error_is_classified(scene: Scene, name: str) -> None:
    fault, code, cause = CASES[name]
    with pytest.raises(sqlite3.Error) as caught:
        cause(scene)
    assert caught.value.sqlite_errorname == f"SQLITE_{code}"
    assert classify(caught.value) is fault
    assert not commit_in_doubt(caught.value)
    wrapped = exc.DBAPIError.instance("", {}, caught.value, sqlite3.Error)
    assert classify(wrapped) is fault


@pytest.mark.parametrize(
    "cause",
    [
        lambda s: s.open().execute("SELECT ?", (object(),)),
        lambda s: s.open().execute("SELECT ?", ()),
        lambda s: s.open().execute("SELECT CAST(x'ff' AS TEXT)").fetchall(),
        lambda s: open_and_close(s).execute("SELECT 1"),
    ],
    ids=["unsupported type", "too few values", "no UTF-8", "connection closed"],
)
def test_error_of_the_driver_itself_is_the_callers(scene: Scene, cause: Callable[[Scene], Any]) -> None:
    with pytest.raises(sqlite3.Error) as caught:
        cause(scene)
    assert classify(caught.value) is Fault.CALLER


def open_and_close(scene: Scene) -> sqlite3.Connection:
    connection = scene.open()
    connection.close()
    return connection


@pytest.mark.parametrize("then", ["nothing", "another database", "garbage"])
def test_file_gone_or_replaced_under_a_store_is_refused(scene: Scene, then: str) -> None:
    engine = create_engine(f"sqlite+replstore:///{scene.path}")
    scene.stack.callback(engine.dispose)
    connection = scene.stack.enter_context(engine.connect())
    connection.execute(text("UPDATE account SET balance = 0"))
    connection.commit()
    scene.path.rename(scene.path.with_name("moved"))
    if then == "another database":
        Scene(scene.path)
    elif then == "garbage":
        scene.path.write_bytes(b"no database " * 1000)
    with pytest.raises(exc.OperationalError) as caught:
        connection.execute(text("UPDATE account SET balance = 1"))
    assert classify(caught.value) is Fault.REFUSED


def test_busy_store_is_transient(scene: Scene) -> None:
    scene.open().execute("BEGIN IMMEDIATE")
    engine = create_engine(f"sqlite+replstore:///{scene.path}?timeout=0")
    scene.stack.callback(engine.dispose)
    with pytest.raises(exc.OperationalError) as caught, engine.connect() as connection:
        connection.execute(text("UPDATE account SET balance = 1"))
    assert classify(caught.value) is Fault.TRANSIENT


def test_integrity_error_at_commit_is_the_callers_and_stays_sqlalchemys(scene: Scene) -> None:
    engine = create_engine(f"sqlite+replstore:///{scene.path}")
    scene.stack.callback(engine.dispose)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys = ON")  # begins a transaction, in which the pragma does nothing
        connection.rollback()
        connection.connection.dbapi_connection.execute("PRAGMA foreign_keys = ON")  # type: ignore[union-attr]
        connection.execute(text("INSERT INTO payment VALUES (99)"))
        with pytest.raises(exc.IntegrityError) as caught:
            connection.commit()
    assert classify(caught.value) is Fault.CALLER
    assert not commit_in_doubt(caught.value)


def test_commit_that_finds_the_file_busy_is_not_in_doubt(scene: Scene) -> None:
    """In rollback mode a reader keeps COMMIT from writing; the transaction stays open."""
    scene.run("PRAGMA journal_mode = DELETE")
    reader = scene.open().execute("SELECT id FROM account")
    next(reader)
    writer = scene.open()
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE account SET balance = 5")
    with pytest.raises(sqlite3.OperationalError) as caught:
        writer.execute("COMMIT")
    assert classify(caught.value) is Fault.TRANSIENT
    assert not commit_in_doubt(caught.value)
    assert writer.in_transaction


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_commit_whose_writing_fails_is_in_doubt(scene: Scene, mode: str) -> None:
    """A limit on the size of files makes the very write fail."""
    scene.run(f"PRAGMA journal_mode = {mode}")
    connection = scene.open()
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO account VALUES (3, 1, randomblob(200000))")
    with limited_file_size(scene.path.stat().st_size + 1000), pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("COMMIT")
    assert caught.value.sqlite_errorname == "SQLITE_IOERR_WRITE"
    assert classify(caught.value) is Fault.LOCKED_OUT
    assert commit_in_doubt(caught.value)


@contextlib.contextmanager
def limited_file_size(size: int) -> Iterator[None]:
    """For this whole process, hence as short as can be."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
