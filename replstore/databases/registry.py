"""Which database a URL belongs to."""

from __future__ import annotations

from sqlalchemy.engine import URL, make_url

from replstore.databases.database import Database


def database_for(url: URL | str) -> Database:
    """The database that a URL belongs to.

    Raises:
        ValueError: no supported database; the message lists them.
    """
    backend = make_url(url).get_backend_name()
    if backend == "sqlite":
        from replstore.databases.sqlite.database import SQLite

        return SQLite()
    if backend == "postgresql":
        from replstore.databases.postgresql.database import PostgreSQL

        return PostgreSQL()
    raise ValueError(f"{backend} is not supported; replstore works on sqlite and postgresql")
