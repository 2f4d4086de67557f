"""What every throw-away PostgreSQL server can do, wherever it runs."""

from __future__ import annotations

import random
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, Self

StopMode = Literal["smart", "fast", "immediate"]

#: The settings of a throw-away server: small, and with all that it leaves behind inside its own directory.
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "max_prepared_transactions": "10",
    "max_wal_size": "256MB",
    "dynamic_shared_memory_type": "mmap",
}

#: How long a server may take to start, in seconds.
START_TIMEOUT = 30.0

STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class Server(ABC):
    """A PostgreSQL server on 127.0.0.1 that can be killed, frozen, and started again on the same port with the same data."""

    #: Where it listens; the same for all its life.
    port: int

    @abstractmethod
    def start(self) -> None:
        """Start the server, after ``stop`` or ``kill`` too; returns when it answers. Does nothing if it runs."""

    @abstractmethod
    def stop(self, mode: StopMode = "fast") -> None:
        """Shut the server down in order, as ``pg_ctl stop -m`` does. Does nothing if it doesn't run."""

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL the server and all its processes; returns when they are gone."""

    @abstractmethod
    def freeze(self) -> None:
        """Make the server silent: it neither answers nor closes a connection, as a hung machine would."""

    @abstractmethod
    def thaw(self) -> None:
        """End ``freeze``. Does nothing to a server that isn't frozen."""

    @abstractmethod
    def close(self) -> None:
        """End the server and remove all that it has stored. May be called twice."""

    @property
    @abstractmethod
    def running(self) -> bool:
        """Whether the server has been started and has not ended since; a frozen one is running."""

    @property
    @abstractmethod
    def logs(self) -> str:
        """What the server has logged so far."""

    def revive(self) -> None:
        """Undo whatever was done to the server: thaw it, or start it again."""
        if self.running:
            self.thaw()
        else:
            self.start()

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """The SQLAlchemy URL of one of its databases."""
        return f"postgresql+psycopg://{user}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement as the superuser ``postgres``, outside of any transaction.

        Args:
            statement: the SQL text.
            database: the database to run it in.

        Returns:
            Its rows; an empty list for a statement that has none.
        """
        import psycopg

        with psycopg.connect(host="127.0.0.1", port=self.port, user="postgres", dbname=database, connect_timeout=10, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str, owner: str = "postgres") -> None:
        """Create an empty database."""
        self.execute(f"create database {_identifier(name)} owner {_identifier(owner)}")

    def drop_database(self, name: str) -> None:
        """Drop a database, and the connections to it; does nothing if there is none of that name."""
        self.execute(f"drop database if exists {_identifier(name)} with (force)")

    def create_role(self, name: str) -> None:
        """Create an ordinary role that may log in and no more; does nothing if the role exists."""
        if not any(name == known for (known,) in self.execute("select rolname::text from pg_roles")):
            self.execute(f"create role {_identifier(name)} login")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses.

    Below the range that systems give to outgoing connections: from there a client could take it while its server is down, or connect to itself.
    """
    numbers = random.SystemRandom()
    for _ in range(1000):
        port = numbers.randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port between 20000 and 32000")


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
