"""What is measured on: pairs and plain databases of one kind, made for the run and removed after it."""

from __future__ import annotations

import subprocess
import tempfile
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from benchmarks.model import Base, fill
from replstore import Store
from replstore.local import PostgresServer, system

#: Room for the large transactions and for eight programs; everything else is PostgreSQL's default, fsync too.
SETTINGS = {"shared_buffers": "128MB", "max_wal_size": "2GB", "max_connections": "100"}


class Ground(ABC):
    """Databases of one kind.  Close it, or use it in a ``with`` block."""

    kind: ClassVar[str]
    insert_many: ClassVar[str]
    """Inserts the rows :first to :last in one statement."""

    def __init__(self) -> None:
        self.closing = ExitStack()
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.close()

    @abstractmethod
    def pair_urls(self, name: str) -> tuple[str, str]:
        """The URLs of a new pair of empty databases."""

    @abstractmethod
    def plain_url(self, name: str, place: int = 0) -> str:
        """The URL of a new empty database that no Store ever touches; databases of different places share nothing but the machine."""

    def store(self, name: str, *, background: bool = True, **settings: Any) -> Store:
        """A Store on a new pair, with the table and its rows on both nodes."""
        primary, standby = self.pair_urls(name)
        store = Store(primary=primary, standby=standby, background=background, **settings)
        self.closing.callback(store.close)
        store.migrate(Base.metadata)
        store.run(fill)
        store.sync()
        return store

    def plain(self, name: str, place: int = 0) -> Engine:
        """An engine on a new database, with the table and its rows."""
        engine = create_engine(self.plain_url(name, place))
        self.closing.callback(engine.dispose)
        Base.metadata.create_all(engine)
        with Session(engine) as session, session.begin():
            fill(session)
        return engine


class Sqlite(Ground):
    """Files in a temporary directory, in WAL mode, with SQLite's own default ``synchronous = FULL``, which a Store uses too."""

    kind = "sqlite"
    insert_many = (
        "WITH RECURSIVE g(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM g WHERE n < :last) "
        "INSERT INTO item (id, name, amount) SELECT n, 'item ' || n, n FROM g"
    )

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(self.closing.enter_context(tempfile.TemporaryDirectory(prefix="replstore-benchmark-")))

    def pair_urls(self, name: str) -> tuple[str, str]:
        return f"sqlite:///{self.directory}/{name}-primary.db", f"sqlite:///{self.directory}/{name}-standby.db"

    def plain_url(self, name: str, place: int = 0) -> str:
        url = f"sqlite:///{self.directory}/{name}-{place}.db"
        engine = create_engine(url)
        with engine.connect() as connection:
            connection.execute(text("PRAGMA journal_mode = WAL"))
            assert connection.scalar(text("PRAGMA synchronous")) == 2, "this SQLite's default isn't FULL"
        engine.dispose()
        return url


class Postgresql(Ground):
    """Servers with fsync, each started when it is needed: two for pairs, and two that know nothing of replstore."""

    kind = "postgresql"
    insert_many = "INSERT INTO item (id, name, amount) SELECT n, 'item ' || n, n FROM generate_series(CAST(:first AS int), CAST(:last AS int)) n"

    @cached_property
    def nodes(self) -> list[PostgresServer]:
        """The pairs' servers."""
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda _: self._server({}), range(2)))

    @cached_property
    def other(self) -> PostgresServer:
        """The first server without replstore."""
        return self._server({})

    @cached_property
    def another(self) -> PostgresServer:
        """The second server without replstore."""
        return self._server({})

    def pair_urls(self, name: str) -> tuple[str, str]:
        for node in self.nodes:
            node.create_database(name)
        return self.nodes[0].url(name), self.nodes[1].url(name)

    def plain_url(self, name: str, place: int = 0) -> str:
        server = self.another if place else self.other
        server.create_database(name)
        return server.url(name)

    def streaming(self) -> tuple[PostgresServer, PostgresServer]:
        """A server and its streaming standby, which every commit waits for until it is applied there."""
        primary = self._server({"synchronous_commit": "remote_apply"})
        standby = PostgresServer("wheel", settings=SETTINGS, start=False)
        self.closing.callback(standby.close)
        subprocess.run(["rm", "-rf", str(standby.data)], check=True)
        connection = ["-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres"]
        command = [str(standby.bindir / "pg_basebackup"), *connection, "-D", str(standby.data), "-R", "-X", "stream", "-c", "fast"]
        process = system.spawn(command, subprocess.PIPE, directory=standby.directory)
        output, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"pg_basebackup failed: {output.decode(errors='replace')}")
        standby.start()
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.execute("SELECT pg_reload_conf()")
        return primary, standby

    def logical(self) -> tuple[Engine, Engine]:
        """A database and its subscriber by logical replication, with the table and its rows."""
        settings = {"wal_level": "logical"}
        servers = [self._server(settings), self._server(settings)]
        engines = [create_engine(server.url()) for server in servers]
        for engine in engines:
            self.closing.callback(engine.dispose)
            Base.metadata.create_all(engine)
        servers[0].execute("CREATE PUBLICATION everything FOR ALL TABLES")
        servers[1].execute(
            f"CREATE SUBSCRIPTION everything CONNECTION 'host=127.0.0.1 port={servers[0].port} user=postgres dbname=postgres' PUBLICATION everything"
        )
        with Session(engines[0]) as session, session.begin():
            fill(session)
        return engines[0], engines[1]

    def _server(self, settings: dict[str, str]) -> PostgresServer:
        server = PostgresServer("wheel", settings={**SETTINGS, **settings})
        self.closing.callback(server.close)
        return server


KINDS: dict[str, type[Ground]] = {"postgresql": Postgresql, "sqlite": Sqlite}
