"""A PostgreSQL primary and its hot standby on this machine, and what becomes of them in a failover."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, Self, cast, get_args

from replstore.errors import ConfigError, ReplstoreError
from replstore.local.data_directory import DataDirectory
from replstore.local.following import How, await_replay, await_streaming, base_backup, follow, hand_over, point_at
from replstore.local.pairs import Name, PostgresPair, known, require_psycopg
from replstore.local.process import PostgresServer
from replstore.local.programs import make_data_directory

LocalSource = Literal["auto", "wheel", "path"]

#: What both servers of a streaming pair are given, on top of what every throw-away server has.
STREAMING_SETTINGS: Mapping[str, str] = {
    "wal_level": "replica",
    "max_wal_senders": "5",
    # A standby promoted right after its primary's death waits out this time first: 5 s by default.
    "wal_retrieve_retry_interval": "100ms",
    # For a follower that was away, and for pg_rewind. No slot: one that nobody reads keeps log until the disk is full.
    "wal_keep_size": "128MB",
    # pg_rewind finds changed pages by it; PostgreSQL 18 has checksums as well, which do the same.
    "wal_log_hints": "on",
    # Queries on the standby aren't cancelled because the primary has removed what they read.
    "hot_standby_feedback": "on",
}

SYNCHRONOUS = "synchronous_standby_names"

#: What a new cluster is given; compose/ has the same.
ROLES = Path(__file__).with_name("roles.sql")

#: The role that the standby connects as, and that may rewind; see roles.sql.
REPLICATOR = "replicator"


class StreamingPair(PostgresPair):
    """One cluster on two servers: a primary and the hot standby that streams from it. The names stay, the roles change.

    Args:
        primary: the server that writes at first; ``close`` closes it.
        standby: the server that follows at first; ``close`` closes it.
        database: name of the database; it is on both, because it is one.
        user: the role in the URLs.
        synchronous: whether the writer waits for its follower when the pair is in order; see :meth:`synchronous`.
    """

    primary: PostgresServer
    standby: PostgresServer

    def __init__(self, primary: PostgresServer, standby: PostgresServer, database: str, user: str = "postgres", *, synchronous: bool = False) -> None:
        super().__init__(primary, standby, database, user)
        self._waits = synchronous

    def server(self, node: Name) -> PostgresServer:
        """The server of a node."""
        return {"primary": self.primary, "standby": self.standby}[known(node)]

    def data(self, node: Name) -> DataDirectory:
        """The data directory of a node, for what this class has no method for."""
        server = self.server(node)
        return DataDirectory(server.data, server.bindir)

    def conninfo(self, node: Name) -> str:
        """Where a node is, for the role that replicates and rewinds."""
        return _conninfo(self.server(node))

    def follows(self, node: Name) -> bool:
        """Whether a node is a follower, or would be one if it were started."""
        return self.data(node).follows

    def freeze_postmaster(self, node: Name) -> None:
        """SIGSTOP to a node's postmaster alone: its sessions go on, a new one is never answered. ``thaw`` ends it."""
        self.server(node).freeze_postmaster()

    def promote(self, node: Name) -> None:
        """Make a follower a writer of its own, on a new timeline; returns when it takes writes, some 30 ms later."""
        self.data(node).promote()

    def follow(self, node: Name) -> How:
        """Make a node the follower of the other one, whatever it was: what it alone has written is gone then.

        Returns:
            ``rewound`` or ``copied``; see :func:`~replstore.local.following.follow`.
        """
        self._thaw(node)
        return follow(self.data(node), self.conninfo(other(node)), name=node, server=self.server(node), keep=False, sync=False)

    def switch_over(self, seconds: float = 60.0) -> None:
        """Writer and follower change places in order, without a loss.

        Args:
            seconds: how long the follower may take to get the last of the log.
        """
        writer: Name = "standby" if self.follows("primary") else "primary"
        to = other(writer)
        servers = self.server(writer), self.server(to)
        hand_over(self.data(writer), self.data(to), self.conninfo(to), name=writer, servers=servers, sync=False, seconds=seconds)

    def catch_up(self, seconds: float = 10.0) -> None:
        """Wait until the follower has replayed all that the writer has written.

        Raises:
            ReplstoreError: it hasn't.
        """
        writer: Name = "standby" if self.follows("primary") else "primary"
        server = self.server(writer)
        server.execute("SELECT pg_logical_emit_message(true, 'catch up', '')")  # its commit flushes what others committed without waiting
        # Flushed, not inserted: where a page has just begun, the place of the next record lies behind the page's header, and no replay gets there.
        ((lsn,),) = server.execute("SELECT (pg_current_wal_flush_lsn() - 1)::text")
        await_replay(self.conninfo(other(writer)), lsn, seconds)

    def synchronous(self, on: bool = True) -> None:
        """Whether the writer, whichever it is, waits for its follower at COMMIT; how far, ``synchronous_commit`` says (``remote_apply``, …).

        A writer without its follower then waits for ever, as PostgreSQL does: in a session with ``synchronous_commit = local`` it doesn't.
        """
        value = "FIRST 1 (primary, standby)" if on else ""
        for server in (self.primary, self.standby):
            server.configure({SYNCHRONOUS: value})
            deadline = time.monotonic() + 10
            while server.running and server.execute(f"SHOW {SYNCHRONOUS}") != [(value,)] and time.monotonic() < deadline:
                time.sleep(0.005)

    def restore(self) -> None:
        """Make the primary the writer and the standby its streaming follower again, whatever was done to them; what is in doubt, the primary's history wins."""
        self._thaw("primary", "standby")
        if self.primary.settings.get(SYNCHRONOUS):  # nothing here may wait for a standby that isn't there
            self.synchronous(False)
        self.primary.start()
        if self.follows("primary"):
            self.promote("primary")
        if not self._in_order():
            self.follow("standby")
        if self._waits:
            self.synchronous()

    def _thaw(self, *nodes: Name) -> None:
        for node in nodes:
            if self.server(node).running:
                self.thaw(node)

    def _in_order(self) -> bool:
        if not self.follows("standby"):
            return False
        self.standby.start()
        with contextlib.suppress(ReplstoreError):
            await_streaming(self.conninfo("primary"), "standby", 2.0)
            self.catch_up()
            return True
        return False

    @contextlib.contextmanager
    def fresh(self, database: str, owner: str = "postgres") -> Iterator[Self]:
        """The pair with a new database, dropped afterwards. Before and after, the roles and the servers are as in the beginning: :meth:`restore`.

        Args:
            database: name of the new database.
            owner: its owner, and the role in the URLs; made, as an ordinary role, if there is no such role.
        """
        self.restore()
        self.primary.create_role(owner)
        self.primary.create_database(database, owner)
        self.catch_up()
        try:
            yield type(self)(self.primary, self.standby, database, owner, synchronous=self._waits)
        finally:
            self.restore()
            self.primary.drop_database(database)


def streaming_pair(
    source: LocalSource = "auto",
    *,
    database: str = "app",
    user: str = "postgres",
    settings: Mapping[str, str] | None = None,
    fsync: bool = True,
    synchronous: bool = False,
    segment: int = 16,
) -> StreamingPair:
    """A PostgreSQL primary and its hot standby, started and streaming, with an empty database.

    Args:
        source: where the programs come from; ``auto``: what REPLSTORE_LOCAL says, if it says ``wheel`` or ``path``, else the first there is.
        database: name of the database.
        user: its owner, and the role in the URLs; ``app`` is an ordinary role that may promote, any other than that and ``postgres`` is made.
        settings: for both servers' configuration, on top of :data:`STREAMING_SETTINGS`.
        fsync: False makes them faster; what they have written then still survives ``kill``, but not the loss of the machine.
        synchronous: the writer waits for the follower at COMMIT; see :meth:`StreamingPair.synchronous`.
        segment: size of a file of the log, in MB. Each change of roles begins one, and pg_rewind copies them all: with 1 it takes a third of a second
            after any number of failovers, with 16, as servers in earnest have it, some seconds.

    Returns:
        The pair; ``close`` it, or use it in a ``with`` block.

    Raises:
        ConfigError: there are no such programs on this machine; the message says how to get them.
    """
    require_psycopg()
    chosen = _choose(source)
    given = {**STREAMING_SETTINGS, **(settings or {})}
    with contextlib.ExitStack() as made:
        new = functools.partial(make_data_directory, segment=segment)
        primary = made.enter_context(PostgresServer(chosen, settings=given, fsync=fsync, made=new))
        for each in ("template1", "postgres"):  # a database made later has its rights from template1
            primary.execute(ROLES.read_text(), each)
        primary.create_role(user)
        primary.create_database(database, user)
        leader = _conninfo(primary)

        def copied(bindir: Path, data: Path) -> None:
            base_backup(bindir, leader, data, sync=False)
            point_at(DataDirectory(data, bindir), leader, "standby")

        standby = made.enter_context(PostgresServer(chosen, settings=given, fsync=fsync, made=copied))
        pair = StreamingPair(primary, standby, database, user, synchronous=synchronous)
        await_streaming(leader, "standby", 30.0)
        pair.catch_up()
        if synchronous:
            pair.synchronous()
        made.pop_all()
    return pair


def other(node: Name) -> Name:
    """The other node."""
    return "standby" if known(node) == "primary" else "primary"


def _conninfo(server: PostgresServer) -> str:
    return f"host=127.0.0.1 port={server.port} user={REPLICATOR} dbname=postgres"


def _choose(source: LocalSource) -> LocalSource:
    wanted = os.environ.get("REPLSTORE_LOCAL", "auto") if source == "auto" else source
    if source == "auto" and wanted == "docker":
        return "auto"
    if wanted not in get_args(LocalSource):
        raise ConfigError(
            f"a streaming pair can't come from {wanted!r}: it needs data directories of this machine (wheel or path); compose/streaming.yaml is one in containers"
        )
    return cast(LocalSource, wanted)
