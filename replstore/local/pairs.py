"""Two nodes on this machine, and the faults that can befall them."""

from __future__ import annotations

import contextlib
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Literal, Self, cast, get_args

from replstore.errors import ConfigError
from replstore.local.docker import DockerPostgres, engine_answers
from replstore.local.process import PostgresServer
from replstore.local.server import Server, StopMode

Name = Literal["primary", "standby"]
Source = Literal["auto", "docker", "wheel", "path"]


class Pair(ABC):
    """What every local pair can do."""

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


def known(node: Name) -> Name:
    """The name of a node; a test's misspelt one must not pass for a fault that did nothing.

    Raises:
        ValueError: it is no node.
    """
    if node not in get_args(Name):
        raise ValueError(f"{node!r} is no node: there are primary and standby")
    return node


class SqlitePair(Pair):
    """Two files, ``primary.db`` and ``standby.db``.  They can be lost and brought back; a file can't be frozen.

    To lose a node is to lose its path: the file is moved away with its write-ahead log, and ``start`` moves the same file (the same inode) back.
    A connection that is open meanwhile keeps the file that it has; it is the path that nobody answers at.

    Args:
        directory: where the files go; it must exist, and is left alone by ``close``. None: a temporary directory.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="replstore-") if directory is None else None
        self.directory = Path(self._temporary.name if self._temporary else os.fspath(directory or ".")).absolute()
        self._gone = self.directory / "gone"

    def path(self, node: Name) -> Path:
        """The file of a node."""
        known(node)
        return self.directory / f"{node}.db"

    def url(self, node: Name) -> str:
        return f"sqlite:///{self.path(node)}"

    def kill(self, node: Name) -> None:
        self._gone.mkdir(exist_ok=True)
        for file in self._files(node):
            if file.exists():
                file.rename(self._gone / file.name)

    def stop(self, node: Name) -> None:
        self.kill(node)

    def start(self, node: Name) -> None:
        """Bring a node back as it was.

        Raises:
            FileExistsError: something has made a new file in its place meanwhile; both are left as they are.
        """
        moved = [file for file in self._files(node) if (self._gone / file.name).exists()]
        for file in moved:
            if file.exists():
                raise FileExistsError(f"{file} has appeared while the {node} was gone")
        for file in reversed(moved):  # the log first: whoever sees the database must see its log
            (self._gone / file.name).rename(file)

    def _files(self, node: Name) -> list[Path]:
        return [Path(f"{self.path(node)}{suffix}") for suffix in ("", "-journal", "-wal", "-shm")]

    def close(self) -> None:
        if self._temporary:
            self._temporary.cleanup()


class PostgresPair(Pair):
    """One database on each of two servers.

    Args:
        primary: the first server; ``close`` closes it.
        standby: the second server; ``close`` closes it.
        database: name of the database, which exists on both.
        user: the role in the URLs.
    """

    def __init__(self, primary: Server, standby: Server, database: str, user: str = "postgres") -> None:
        self.primary, self.standby = primary, standby
        self.database, self.user = database, user

    def server(self, node: Name) -> Server:
        """The server of a node."""
        return {"primary": self.primary, "standby": self.standby}[known(node)]

    def url(self, node: Name) -> str:
        return self.server(node).url(self.database, self.user)

    def kill(self, node: Name) -> None:
        """SIGKILL a node's server and all its processes."""
        self.server(node).kill()

    def stop(self, node: Name, mode: StopMode = "fast") -> None:
        """Shut a node's server down, as ``pg_ctl stop -m`` does."""
        self.server(node).stop(mode)

    def start(self, node: Name) -> None:
        self.server(node).start()

    def freeze(self, node: Name) -> None:
        """Make a node silent: SIGSTOP to all processes of its server."""
        self.server(node).freeze()

    def thaw(self, node: Name) -> None:
        """End ``freeze``."""
        self.server(node).thaw()

    @contextlib.contextmanager
    def fresh(self, database: str, owner: str = "postgres") -> Iterator[PostgresPair]:
        """A pair of new databases on the same servers, dropped afterwards. A server that was killed, stopped or frozen is revived before and after.

        Args:
            database: name of the new databases.
            owner: their owner, and the role in the URLs; made, as an ordinary role, if there is no such role.
        """
        for server in (self.primary, self.standby):
            server.revive()
            server.create_role(owner)
            server.create_database(database, owner)
        try:
            yield PostgresPair(self.primary, self.standby, database, owner)
        finally:
            for server in (self.primary, self.standby):
                server.revive()
                server.drop_database(database)

    def close(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self.standby.close)
            stack.callback(self.primary.close)


def sqlite_pair(directory: str | os.PathLike[str] | None = None) -> SqlitePair:
    """Two SQLite files that don't exist yet; see :class:`SqlitePair`."""
    return SqlitePair(directory)


def postgresql_pair(
    source: Source = "auto",
    *,
    database: str = "app",
    settings: Mapping[str, str] | None = None,
    fsync: bool = True,
) -> PostgresPair:
    """Two PostgreSQL servers, started, with an empty database each.

    Args:
        source: where the servers come from; ``auto``: what REPLSTORE_LOCAL says, else the first there is of Docker, the wheel, an installed server.
        database: name of the databases.
        settings: for both servers' configuration.
        fsync: False makes them faster; what they have written then still survives ``kill``, but not the loss of the machine.

    Returns:
        The pair; ``close`` it, or use it in a ``with`` block.

    Raises:
        ConfigError: there is no such server on this machine; the message says how to get one.
    """
    require_psycopg()
    chosen = _choose(source)

    def start() -> Server:
        server = DockerPostgres(settings=settings, fsync=fsync) if chosen == "docker" else PostgresServer(chosen, settings=settings, fsync=fsync)
        try:
            server.create_database(database)
        except BaseException:
            server.close()
            raise
        return server

    with ThreadPoolExecutor(2) as pool:
        starting = [pool.submit(start), pool.submit(start)]
    failed = next((each.exception() for each in starting if each.exception()), None)
    if failed is None:
        return PostgresPair(starting[0].result(), starting[1].result(), database)
    for each in starting:
        if each.exception() is None:
            each.result().close()
    raise failed


def require_psycopg() -> None:
    """Say how to get the driver, where it isn't there.

    Raises:
        ConfigError: it isn't.
    """
    try:
        import_module("psycopg")
    except ImportError:
        raise ConfigError('psycopg isn\'t installed: pip install "replstore[local]"') from None


def _choose(source: Source) -> Source:
    wanted = os.environ.get("REPLSTORE_LOCAL", "auto") if source == "auto" else source
    if wanted not in get_args(Source):
        raise ConfigError(f"REPLSTORE_LOCAL is {wanted!r}; it may be {', '.join(get_args(Source))}")
    if wanted == "auto" and engine_answers():
        return "docker"
    if wanted == "docker" and not engine_answers():
        raise ConfigError("no Docker engine of this machine answers (or the package testcontainers isn't installed)")
    return cast(Source, wanted)
