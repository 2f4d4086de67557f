"""A data directory of this machine becomes the follower of a server, and two of them change places.

:func:`follow` makes a follower of whatever is there: a former primary that was killed, one that went on alone, a standby of long ago.  ``pg_rewind`` takes
back what only it has, in a second; where that can't be done it is copied anew by ``pg_basebackup``.  **Both throw away the transactions that only this
node has**: whoever may need them reads them first.  :func:`hand_over` loses none.

The node keeps its own configuration (``*.conf`` and ``conf.d`` in its directory), which both programs would replace by the other server's.  No
replication slot is used: one that belongs to a lost follower keeps log until the disk is full.  Instead the leader needs a ``wal_keep_size`` for the time that a
follower may be away; one that was away for longer is copied.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from replstore.errors import ReplstoreError
from replstore.local import system
from replstore.local.conninfo import parsed
from replstore.local.data_directory import STANDBY_SIGNAL, DataDirectory, run
from replstore.local.server import StopMode
from replstore.urls import redact

if TYPE_CHECKING:
    from psycopg import Connection

How = Literal["rewound", "copied"]

#: What a leader's connection string is in messages.
LEADER = "where the leader is"
#: The settings that decide whom a node follows, and how far; ours take the place of any that ALTER SYSTEM, pg_basebackup or pg_rewind left.
_OF_FOLLOWING = ("primary_conninfo", "primary_slot_name", "recovery_target")

_STREAMS = "SELECT count(*) FROM pg_stat_replication WHERE application_name = %s AND state = 'streaming'"


#: s that a writer may take to end in order before it is taken back into service: everybody waits for it.
BACK = 5.0


class Runs(Protocol):
    """What starts and stops the server of a directory: the directory itself, or the object that began the server."""

    def start(self) -> None: ...

    def stop(self, mode: StopMode = "fast", seconds: float = 60.0) -> None: ...


def follow(
    node: DataDirectory,
    leader: str,
    *,
    name: str,
    server: Runs | None = None,
    keep: bool = True,
    sync: bool = True,
    seconds: float = 60.0,
    anew: bool = False,
) -> How:
    """Make a node the follower of a server; returns when it streams from it.

    Args:
        node: its data directory; a server that runs in it is shut down first.
        leader: the writer, as libpq's ``host=… port=… user=… dbname=…`` or URI. The role replicates, may CHECKPOINT and execute what pg_rewind
            needs (``roles.sql`` beside this module grants it). The follower goes on connecting with it, its password included.
        name: the follower's ``application_name``, by which ``synchronous_standby_names`` knows it.
        server: what starts and stops the node's server; the node itself if not given.
        keep: a directory that has to be copied anew is moved aside, to ``….before-<seconds since 1970>``; False: it is removed.
        sync: wait until the files are on the disk.
        seconds: how long it may take to start streaming.
        anew: copy it whatever it is.

    Returns:
        ``rewound``: it kept its files but for what it had alone, if anything; ``copied``: all of it came from the leader.

    Raises:
        ReplstoreError: the leader doesn't answer, isn't a writer, or is another cluster (then nothing is changed); or a step failed, named in the message.
    """
    server = server or node
    examine_leader(node, leader)
    server.stop()
    kept = _Configuration(node)
    try:
        if anew:
            raise ReplstoreError("a copy was asked for")
        rewind(node, leader, sync=sync)
        how: How = "rewound"
    except ReplstoreError as reason:
        _copy(node, leader, reason, keep=keep, sync=sync)
        how = "copied"
    patience = seconds if how == "copied" else min(seconds, 10.0 if _leader_has_log_for(node, leader) else 1.0)
    try:
        _begin(node, leader, name, server, kept, patience)
    except ReplstoreError as reason:
        if how == "copied":
            raise
        server.stop()  # what it still needs of the log is gone there
        _copy(node, leader, reason, keep=keep, sync=sync)
        _begin(node, leader, name, server, kept, seconds)
        how = "copied"
    return how


def _begin(node: DataDirectory, leader: str, name: str, server: Runs, kept: _Configuration, seconds: float) -> None:
    kept.put_back(node)
    point_at(node, leader, name)
    server.start()
    await_streaming(leader, name, seconds)


def _leader_has_log_for(node: DataDirectory, leader: str) -> bool:
    """Whether the leader still has the file of the log in which this node's own ends, as far as that can be read here."""
    control = node.control()
    at = max(int(high, 16) << 32 | int(low, 16) for high, low in (place.split("/") for place in (control.checkpoint, control.replayed)))
    per_number = (1 << 32) // control.segment
    wanted = f"{at // control.segment // per_number:08X}{at // control.segment % per_number:08X}"
    with connected(leader) as session:
        return any(file[8:] == wanted for (file,) in session.execute("SELECT pg_ls_dir('pg_wal', true, false)"))


def examine_leader(node: DataDirectory, leader: str) -> None:
    """Refuse a leader that this node can't follow, before anything is changed.

    Raises:
        ReplstoreError: it doesn't answer, is a standby itself, or is another cluster.
    """
    with connected(leader) as session:
        row = session.execute("SELECT pg_is_in_recovery(), system_identifier FROM pg_control_system()").fetchone()
    assert row is not None
    if row[0]:
        raise ReplstoreError(f"{_place(leader)} is in recovery: promote it first, then let {node.path} follow it")
    if row[1] != node.control().system_identifier:
        raise ReplstoreError(f"{_place(leader)} is another cluster than {node.path}: their system identifiers differ, so one is no copy of the other")


def rewind(node: DataDirectory, leader: str, *, sync: bool = True) -> None:
    """Take back what only this node has, by pg_rewind; it is stopped before and after.

    A primary that crashed is recovered first, as pg_rewind needs it. Nothing is done to a node that has nothing of its own.

    Raises:
        ReplstoreError: it can't be done; the directory may then be good for a copy only.
    """
    control = node.control()
    if not control.rewindable:
        raise ReplstoreError(f"{node.path} can't be rewound: it has neither checksums nor wal_log_hints")
    if node.follows and not control.state.startswith("shut down"):  # pg_rewind can recover a crashed primary, but not a crashed standby
        node.start()
        node.stop()
    checkpoint(leader)  # before it, the control file may still name the timeline of before the promotion: pg_rewind 15 sees no fork then
    source, variables = _without_password(leader)
    options = [f"--source-server={source}", *(["--config-file", str(node.config_file)] if node.config_file else [])]
    node.run("pg_rewind", "-D", str(node.path), *options, *([] if sync else ["--no-sync"]), variables=variables)


def checkpoint(leader: str) -> None:
    """Writes what a server has in memory, so that what comes next needn't.

    Raises:
        ReplstoreError: it doesn't answer, or the role may not.
    """
    with connected(leader) as session:
        session.execute("CHECKPOINT")


def base_backup(bindir: Path, leader: str, into: Path, *, user: tuple[int, int] | None = None, sync: bool = True) -> None:
    """Copy a running server into a directory that doesn't exist or is empty.

    Args:
        bindir: the programs of its version.
        leader: the server to copy, as in :func:`follow`.
        into: the new data directory.
        user: whose it will be; by default :func:`~replstore.local.system.server_user`'s.
        sync: wait until the files are on the disk.

    Raises:
        ReplstoreError: it failed.
    """
    source, variables = _without_password(leader)
    options = ["--checkpoint=fast", "--wal-method=stream", *([] if sync else ["--no-sync"])]
    run(bindir / "pg_basebackup", "-D", str(into), "-d", source, *options, directory=into.parent, user=user, variables=variables)


def point_at(node: DataDirectory, leader: str, name: str) -> None:
    """Write down whom a stopped node follows from its next start on: ``standby.signal``, and ``primary_conninfo`` in ``postgresql.auto.conf``."""
    from psycopg.conninfo import make_conninfo

    known: dict[str, Any] = {key: value for key, value in parsed(leader, LEADER).items() if key != "dbname"}
    text = make_conninfo(**{**known, "application_name": name}).replace("\\", "\\\\").replace("'", "''")
    automatic = node.path / "postgresql.auto.conf"
    lines = [line for line in automatic.read_text().splitlines() if not line.startswith(_OF_FOLLOWING)]
    _write(node, automatic, "\n".join([*lines, f"primary_conninfo = '{text}'", ""]).encode())
    _write(node, node.path / STANDBY_SIGNAL, b"")


def timelines_of(leader: str) -> dict[int, int | None]:
    """The timelines of a writer's history, by number: where each ended, as a number of bytes; None: it writes on it now.

    Args:
        leader: as in :func:`follow`; asked as a follower asks.

    Raises:
        ReplstoreError: it doesn't answer, or the role may not replicate.
    """
    from psycopg.conninfo import make_conninfo

    with connected(make_conninfo(**{**parsed(leader, LEADER), "replication": "true"})) as session:
        row = session.execute("IDENTIFY_SYSTEM").fetchone()
        assert row is not None
        latest = int(row[1])
        told = session.execute(f"TIMELINE_HISTORY {latest}").fetchone() if latest > 1 else None
    return {**timelines_in(bytes(told[1]).decode() if told is not None else ""), latest: None}


def timelines_in(history: str) -> dict[int, int | None]:
    """The timelines before the last one, by number, and where each ended, from the content of a history file."""
    found: dict[int, int | None] = {}
    for line in history.splitlines():
        if words := line.split("#")[0].split():
            high, low = words[1].split("/")
            found[int(words[0])] = int(high, 16) << 32 | int(low, 16)
    return found


def await_streaming(leader: str, name: str, seconds: float) -> None:
    """Wait until a follower streams.

    Args:
        leader: the server that it follows; the role sees the follower's session if it is the role that the follower connects with.
        name: the follower's ``application_name``.
        seconds: how long to wait.

    Raises:
        ReplstoreError: it didn't.
    """
    deadline = time.monotonic() + seconds
    with connected(leader) as session:
        while session.execute(_STREAMS, [name]).fetchone() == (0,):
            if time.monotonic() > deadline:
                raise ReplstoreError(f"{name} doesn't stream from {_place(leader)} after {seconds:g} s: its log says why")
            time.sleep(0.01)


def await_replay(follower: str, lsn: str, seconds: float) -> None:
    """Wait until a follower has replayed the record that begins at a place in the log.

    Raises:
        ReplstoreError: it hasn't.
    """
    with connected(follower) as session:
        _await_replay(session, lsn, seconds)


def _await_replay(follower: Connection[Any], lsn: str, seconds: float) -> None:
    deadline, late = time.monotonic() + seconds, f"the server at port {follower.info.port} hasn't replayed {lsn} after {seconds:g} s"
    with _ended_after(seconds, follower, late):
        while follower.execute("SELECT coalesce(pg_last_wal_replay_lsn() > %s::pg_lsn, false)", [lsn]).fetchone() != (True,):
            if time.monotonic() > deadline:
                raise ReplstoreError(late)
            time.sleep(0.001)


@contextlib.contextmanager
def _ended_after(seconds: float, session: Connection[Any], late: str) -> Iterator[None]:
    """In the block a session is ended when its server hasn't answered for so long; one that stands still would never.

    Raises:
        ReplstoreError: it was, or was lost.
    """
    import psycopg

    from replstore.databases.postgresql.sessions import interrupt

    ended = threading.Event()

    def end() -> None:
        ended.set()
        interrupt(session)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except psycopg.Error as error:
        lost = f"the server at port {session.info.port} was lost: {redact(str(error).strip())}"
        raise ReplstoreError(late if ended.is_set() else lost) from error
    finally:
        timer.cancel()


def hand_over(
    writer: DataDirectory,
    follower: DataDirectory,
    to: str,
    *,
    name: str,
    servers: tuple[Runs, Runs] | None = None,
    seconds: float = 60.0,
    sync: bool = True,
) -> None:
    """Two nodes change places in order and without a loss: the writer is shut down, the follower gets the last of its log, and is promoted.

    The former writer then follows it.  Whoever is connected to it loses the connection, so stop new transactions first.

    Args:
        writer: the data directory of the primary, whose server runs.
        follower: the data directory of its standby, whose server runs and streams from it.
        to: the follower's server, as the leader in :func:`follow`.
        name: the former writer's ``application_name`` as a follower.
        servers: what starts and stops the servers of both directories, the writer's first; the directories themselves if not given.
        seconds: how long the follower may take to receive the last of the log.
        sync: wait until rewound files are on the disk.

    Raises:
        ReplstoreError: the follower didn't receive everything, and the writer was started again; or, after the promotion, the former writer couldn't follow.
    """
    its_server = servers[0] if servers else writer
    with connected(to) as session:
        promote_in_order(writer, follower, session, server=its_server, seconds=seconds)
    follower.promote(seconds)
    follow(writer, to, name=name, server=its_server, sync=sync, seconds=seconds)


def promote_in_order(
    writer: DataDirectory,
    follower: DataDirectory,
    session: Connection[Any],
    *,
    server: Runs | None = None,
    first: Callable[[], Iterable[int]] | None = None,
    seconds: float = 60.0,
) -> None:
    """The first half of :func:`hand_over`: the writer is shut down, the follower gets the last of its log and is told to become the writer.

    Args:
        session: with the follower's server, opened before anybody has to wait.
        first: gives the ids of the processes of those sessions that must have ended before any other does; see ``DataDirectory.end_sessions``.

    Raises:
        ReplstoreError: the follower didn't receive everything, and the writer was started again.
    """
    its_server = server or writer
    if not (writer.pid and follower.pid and follower.follows) or writer.follows:
        raise ReplstoreError(f"{writer.path} and {follower.path} can't change places: one must run as primary, the other as its standby")
    try:
        if first is not None:
            writer.end_sessions(first)
        _await_replay(session, writer.end_log(seconds), seconds)
    except BaseException:
        _take_back(its_server, follower)
        raise
    follower.begin_promotion()


def _take_back(writer: Runs, follower: DataDirectory) -> None:
    """The writer goes on, unless somebody has promoted the follower.  It may have been told already to take no new sessions."""
    if not follower.follows:
        return
    try:
        writer.stop(seconds=BACK)
    except Exception:  # it waits for a follower, or a session, that stands still; what it has committed is in its log
        writer.stop("immediate")
    if follower.follows:
        writer.start()


def _copy(node: DataDirectory, leader: str, reason: ReplstoreError, *, keep: bool, sync: bool) -> None:
    aside = node.path.with_name(f"{node.path.name}.before-{int(time.time())}")
    try:
        if keep:
            node.path.rename(aside)
        else:
            shutil.rmtree(node.path)
        node.path.mkdir(0o700)
        system.give(node.path, node.owner)
    except OSError as error:
        raise ReplstoreError(f"{node.path} must be copied anew ({reason}) and can't be moved aside or removed: {error}") from error
    try:
        base_backup(node.bindir, leader, node.path, user=node.owner, sync=sync)
    except ReplstoreError as error:
        place = f"; what it was is in {aside}" if keep else ""
        raise ReplstoreError(f"{node.path} could neither be rewound ({reason}) nor copied anew: {error}{place}") from error


class _Configuration:
    """What a node's directory holds of its own configuration."""

    def __init__(self, node: DataDirectory) -> None:
        places = [*node.path.glob("*.conf"), *node.path.glob("conf.d/*")]
        self._files = {place.relative_to(node.path): place.read_bytes() for place in places if place.is_file()}

    def put_back(self, node: DataDirectory) -> None:
        for place, content in self._files.items():
            if not (directory := (node.path / place).parent).exists():
                directory.mkdir(0o700)
                system.give(directory, node.owner)
            _write(node, node.path / place, content)


def _write(node: DataDirectory, file: Path, content: bytes) -> None:
    """Write a file of the node's owner, readable by nobody else: it may hold a password."""
    made = file.with_name(f"{file.name}.new")
    made.unlink(missing_ok=True)
    with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as writing:
        writing.write(content)
    system.give(made, node.owner)
    made.replace(file)


def _without_password(conninfo: str) -> tuple[str, dict[str, str]]:
    """The connection string for a command line, which all can read, and the environment with what it must not hold."""
    from psycopg.conninfo import make_conninfo

    known = parsed(conninfo, LEADER)
    password = known.pop("password", None)
    return make_conninfo(**known), {"PGPASSWORD": str(password)} if password else {}


def _place(conninfo: str) -> str:
    known = parsed(conninfo, LEADER)
    return f"the server at {known.get('host') or 'localhost'}:{known.get('port') or 5432}"


@contextlib.contextmanager
def connected(conninfo: str) -> Iterator[Connection[Any]]:
    """A session with a server; the driver's errors in the block become ``ReplstoreError``."""
    import psycopg

    place = _place(conninfo)
    try:
        with psycopg.connect(conninfo, connect_timeout=10, autocommit=True) as session:
            yield session
    except psycopg.Error as error:
        raise ReplstoreError(f"{place}: {redact(str(error).strip())}") from error
