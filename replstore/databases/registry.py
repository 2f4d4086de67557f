"""Which database a URL belongs to."""

from __future__ import annotations

from sqlalchemy.engine import URL, make_url

from replstore.databases.database import Database


def database_for(url: URL | str, beside: URL | str | None = None, *, native: bool = False) -> Database:
    """The database that a URL belongs to.

    Args:
        beside: URL of the pair's other node, which may be of another kind.
        native: its own engine copies the data.

    Raises:
        ValueError: no supported database; the message lists them.
    """
    backend = make_url(url).get_backend_name()
    if native:
        if backend != "postgresql":
            raise ValueError(f"{backend} has no native replication that replstore knows; it knows postgresql's")
        from replstore.databases.native.postgresql import NativePostgreSQL

        return NativePostgreSQL()
    mixed = beside is not None and make_url(beside).get_backend_name() != backend
    if backend == "sqlite":
        from replstore.databases.sqlite.database import SQLite

        if mixed:
            from replstore.databases.mixed.sqlite import MixedSQLite

            return MixedSQLite()
        return SQLite()
    if backend == "postgresql":
        from replstore.databases.postgresql.database import PostgreSQL

        if mixed:
            from replstore.databases.mixed.postgresql import MixedPostgreSQL

            return MixedPostgreSQL()
        return PostgreSQL()
    raise ValueError(f"{backend} is not supported; replstore works on sqlite and postgresql")
