"""SQLite through the standard library's driver: every transaction begins IMMEDIATE, on the very file that was opened.

What this removes (HAZARDS 18): two sessions that read, add and commit over each other; a busy error that no timeout waits for; commits that go
on into a file that was moved away or deleted; an empty database that is created where the real one should be.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import URL

from replstore.control import MARKER_COLUMNS
from replstore.databases.base import Fault
from replstore.databases.dialect import HookedConnection, HookedDialect, raw
from replstore.databases.sqlite import faults
from replstore.errors import NotAPair, NotTheWriter

#: s that a statement waits for another connection's lock.
BUSY_TIMEOUT = 5.0
ENDS_TRANSACTION = re.compile(r"\s*(?:COMMIT|END|ROLLBACK(?!\s+(?:TRANSACTION\s+)?TO\b))\b", re.IGNORECASE)
MARKER_VALUES = MARKER_COLUMNS[:-1]  # the database's own clock gives the time
INSERT_MARKER = f"INSERT INTO replstore_marker ({', '.join(MARKER_VALUES)}) VALUES ({', '.join('?' * len(MARKER_VALUES))})"

END_MARKER = "INSERT INTO replstore_journal (tbl, k1) VALUES ('replstore_marker', ?)"


def file_identity(path: str) -> str:
    """Device, inode and the host's boot: what stays the same while a file isn't replaced and the host not restarted.

    Raises:
        sqlite3.OperationalError: the file is gone (with SQLite's own code for it).
    """
    try:
        stat = os.stat(path)
    except OSError as error:
        raise cannot_open(f"unable to open database file: {error.strerror}: {path}") from error
    return f"{stat.st_dev}:{stat.st_ino}:{_host_boot()}"


def cannot_open(message: str) -> sqlite3.OperationalError:
    """An error as SQLite raises it when a file can't be opened."""
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    error.sqlite_errorname = "SQLITE_CANTOPEN"
    return error


@cache
def _host_boot() -> str:
    """What names the host's boot: no process outlives it, so it is read once."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux: the time of the host's start, to the minute
        return str(int((time.time() - time.monotonic()) // 60))


class StoreCursor(sqlite3.Cursor):
    """Keeps a Store's transaction whole: refuses what would end it, and what comes after SQLite has ended it (that would be committed on its own)."""

    def execute(self, *args: Any) -> Any:
        self._check(args[0] if args else "")
        return super().execute(*args)

    def executemany(self, *args: Any) -> Any:
        self._check("")
        return super().executemany(*args)

    def executescript(self, *args: Any) -> Any:
        self._check("COMMIT")  # which is the first thing it does
        return super().executescript(*args)

    def _check(self, statement: str) -> None:
        connection: Any = self.connection
        if not connection.begun:
            return
        if not connection.in_transaction:
            raise sqlite3.OperationalError("the transaction was rolled back by an earlier statement: begin a new one")
        if ENDS_TRANSACTION.match(statement):
            raise sqlite3.ProgrammingError("a Store's transaction ends with its block, not by COMMIT, ROLLBACK or executescript()")


class StoreConnection(sqlite3.Connection, HookedConnection):
    """A connection that knows which file it opened."""

    path: str = ""
    identity: str = ""
    read_only: bool = False
    """Changes are refused, since the last BEGIN."""
    end: tuple[str, int] | None = None
    """Id of the marker that the open transaction began with, and how many changes this connection had made then."""
    begun: bool = False
    """A transaction of the dialect's is open, as far as the dialect knows."""

    def cursor(self, factory: Any = StoreCursor) -> Any:
        return super().cursor(factory)

    def check_file(self) -> None:
        """Raises sqlite3.OperationalError (CANTOPEN) when the path no longer names the file that this connection has open."""
        if file_identity(self.path) != self.identity:
            raise cannot_open(f"the database file was replaced while it was open: {self.path}")


def open_file(path: str, *, timeout: float = BUSY_TIMEOUT, **options: Any) -> StoreConnection:
    """Opens an existing database file; BEGIN and COMMIT are the caller's.

    Args:
        path: the file; it is never created.
        timeout: s to wait for locks.
    """
    path = os.path.abspath(path)
    before = file_identity(path)
    connection = sqlite3.connect(
        f"file:{quote(path)}?mode=rw", uri=True, timeout=timeout, isolation_level=None, check_same_thread=False, factory=StoreConnection, **options
    )
    connection.path, connection.identity = path, before
    try:
        connection.execute("PRAGMA synchronous=FULL")  # an acknowledgement must outlive a power cut; the first statement also opens the file
        connection.check_file()
    except BaseException:
        connection.close()
        raise
    return connection


def any_text(data: bytes) -> str:
    """A ``text_factory`` that reads whatever a file holds as text: SQLite doesn't insist on valid UTF-8."""
    return data.decode("utf-8", "surrogateescape")


class StoreSQLite(HookedDialect, SQLiteDialect_pysqlite):
    """The dialect of a Store's engines on SQLite: ``sqlite+replstore:///file``."""

    driver = "replstore"
    supports_statement_cache = True
    immediate = True
    """False on engines of replstore's own sessions, which mostly read."""

    def create_connect_args(self, url: URL) -> tuple[list[Any], dict[str, Any]]:
        options = {name: float(str(value)) for name, value in url.query.items() if name == "timeout"}
        return [url.database], options

    def connect(self, *cargs: Any, **cparams: Any) -> Any:
        connection = open_file(*cargs, **cparams)
        if self.expected_pair is not None:
            self._check_pair(connection)
        return connection

    def _check_pair(self, connection: StoreConnection) -> None:
        try:
            known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'replstore_node'").fetchone()
            found = connection.execute("SELECT pair FROM replstore_node").fetchone() if known else None
            self.check_pair(found[0] if found else None, connection.path)
        except BaseException:
            connection.close()
            raise

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        return faults.classify(e).connection_is_gone or super().is_disconnect(e, connection, cursor)

    def begin(self, connection: Any) -> None:
        connection.check_file()
        hook = connection.hook
        read_only = hook is not None and hook.read_only
        if read_only is not connection.read_only:
            connection.execute(f"PRAGMA query_only = {int(read_only)}")
            connection.read_only = read_only
        connection.end = None
        connection.execute("BEGIN IMMEDIATE" if self.immediate and not read_only else "BEGIN")
        if hook is None:
            return
        if hook.marker is not None:
            try:
                connection.execute(INSERT_MARKER, hook.marker)
                connection.end = hook.marker[0], connection.total_changes
            except sqlite3.Error as error:
                connection.rollback()
                if faults.classify(error) is Fault.NOT_THE_WRITER:
                    hook.refused()
                    raise NotTheWriter(str(error)) from error
                if not connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'replstore_marker'").fetchone()[0]:
                    raise NotAPair(f"{connection.path} has lost replstore's control tables, or is another file than before") from error
                raise
            except BaseException:
                connection.rollback()
                raise
        hook.began = connection.begun = True

    def commit(self, connection: Any) -> None:
        hooked, connection.begun = connection.begun, False
        if not connection.in_transaction:
            # INSERT OR ROLLBACK, RAISE(ROLLBACK) or a full disk have ended it; what came after was refused by the cursor
            raise sqlite3.OperationalError("the transaction had been rolled back by an earlier statement, so nothing was committed")
        if connection.end is not None:
            self._end(connection, *connection.end)
        connection.commit()
        if hooked and not connection.read_only:
            connection.check_file()  # the file may have lost its name meanwhile: then the commit is as good as a dead server's

    def _end(self, connection: StoreConnection, id: str, changes: int) -> None:
        """Says in the journal where the transaction ends, so that nothing that another program writes after it counts as its own (see ``journal.py``)."""
        connection.end = None
        if connection.total_changes != changes:
            try:
                connection.execute(END_MARKER, (id,))
            except BaseException:
                connection.rollback()
                raise

    def do_rollback(self, dbapi_connection: Any) -> None:
        raw(dbapi_connection).begun, raw(dbapi_connection).end = False, None
        super().do_rollback(dbapi_connection)

    def commit_in_doubt(self, error: BaseException) -> bool:
        return faults.commit_in_doubt(error) or faults.classify(error) is Fault.REFUSED

    def set_isolation_level(self, dbapi_connection: Any, level: str) -> None:
        """SQLite is serializable whatever is asked for; AUTOCOMMIT would put statements outside of any transaction."""
        if level not in ("SERIALIZABLE",):
            raise ValueError(f"a Store's transaction on SQLite is SERIALIZABLE; {level} isn't available")

    def reset_isolation_level(self, dbapi_connection: Any) -> None:
        """Nothing was set."""

    def get_default_isolation_level(self, dbapi_conn: Any) -> Any:
        return "SERIALIZABLE"


registry.register("sqlite.replstore", __name__, "StoreSQLite")
