"""SQLAlchemy dialects that let a hook ride on each transaction.

Overriding the dialect's own begin and commit costs nothing measurable, where a registered engine event costs some percent of every
statement.  Because the acknowledgement happens inside ``do_commit``, a Session, a sessionmaker and a bare Connection all keep the same promises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from replstore.databases.base import Hook
from replstore.errors import NotAPair


class HookedConnection:
    """Mixed into the driver's connection class: where the hook of the running transaction lives."""

    hook: Hook | None = None
    """Rides on the running transaction."""
    warned: bool = False
    """The server has warned of the running transaction's COMMIT: it is not where its settings say that it should be."""
    boot: str = ""
    """Boot identity of the server that it leads to, where the database tells it."""
    next_hook: Hook | None = None
    """Set before BEGIN to ride on the next transaction; without it the engine's ``new_hook`` makes one."""
    backend: tuple[int, str] | None = None
    """What names the server's process, where there is one: its id and, as text, its start (HAZARDS 4)."""
    in_flight: str = ""
    """Name of the node to which somebody waits on this connection; empty: nobody does."""
    committing: tuple[float, Any] | None = None
    """When a COMMIT was sent, on the monotonic clock, and whose it is; None: none is under way."""
    known: bool = False
    """Whoever frees those that wait knows this connection."""

    def is_gone(self) -> bool:
        """Whether the connection is known to be lost."""
        return False

    def open_now(self) -> None:
        """Sends a BEGIN that waits for the first statement, where a database has such a thing."""


def raw(connection: Any) -> Any:
    """The driver's connection under SQLAlchemy's pool proxy."""
    return getattr(connection, "dbapi_connection", connection)


def as_database_error(error: Exception, connection: Connection) -> Exception:
    """A driver's error as SQLAlchemy raises it, whatever else as it is."""
    dialect = connection.dialect
    if not isinstance(error, dialect.loaded_dbapi.Error):
        return error
    return cast(Exception, DBAPIError.instance("BEGIN", None, error, dialect.loaded_dbapi.Error, dialect=dialect))


class HookedDialect:
    """Mixed into a SQLAlchemy dialect, before its base class."""

    expected_pair: str | None = None
    """Uuid of the pair to which a database must belong that a new connection meets; None: not known yet."""
    new_hook: Callable[[Any], Hook | None] | None = None
    """Makes the hook of a transaction on a driver connection for which none was set; None on engines whose transactions are nobody's business."""

    def check_pair(self, pair: str | None, where: str) -> None:
        """Raises NotAPair if a new connection met a database of another pair: it was put in the place of the one that is meant."""
        if self.expected_pair is not None and pair != self.expected_pair:
            found = "another pair's database" if pair else "a database without replstore's control tables"
            raise NotAPair(f"{where}: {found} is in the place of the one that was there when this program began; nothing was done")

    def begin(self, connection: Any) -> None:
        """Begins on the driver's connection, with ``connection.hook`` riding on it."""
        raise NotImplementedError

    def commit(self, connection: Any) -> None:
        """Commits on the driver's connection."""
        connection.commit()

    def rollback(self, connection: Any, hook: Hook | None) -> None:
        """Rolls back on the driver's connection; ``hook`` has ridden on the transaction."""
        connection.rollback()

    def commit_in_doubt(self, error: BaseException) -> bool:
        """Whether a COMMIT that raised this error may have happened all the same."""
        raise NotImplementedError

    def do_begin(self, dbapi_connection: Any) -> None:
        connection = raw(dbapi_connection)
        hook, connection.next_hook = connection.next_hook, None
        if hook is None and self.new_hook is not None:
            hook = self.new_hook(connection)
        connection.hook = hook
        self.begin(connection)

    def do_commit(self, dbapi_connection: Any) -> None:
        connection = raw(dbapi_connection)
        hook: Hook | None = connection.hook
        connection.hook = None
        if hook is not None:
            hook.committing()
        try:
            self.commit(connection)
        except Exception as error:
            if hook is None or not hook.began or not self.commit_in_doubt(error):
                raise
            hook.in_doubt(error)
        else:
            if hook is not None and hook.began:
                hook.committed()
        finally:
            if hook is not None:
                hook.ended()

    def do_rollback(self, dbapi_connection: Any) -> None:
        connection = raw(dbapi_connection)
        hook, connection.hook = connection.hook, None
        try:
            self.rollback(connection, hook)
        finally:
            if hook is not None:
                hook.ended()
