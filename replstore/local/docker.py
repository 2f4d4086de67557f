"""A PostgreSQL server in a container, where a Docker engine answers."""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from replstore.errors import ReplstoreError
from replstore.local.server import SETTINGS, START_TIMEOUT, STOP_SIGNALS, Server, StopMode, free_port
from replstore.urls import redact


def engine_answers() -> bool:
    """Whether a Docker engine of this machine answers within a second. A remote one doesn't count: its ports are not on 127.0.0.1."""
    where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not where.startswith("unix://") or not Path(where.removeprefix("unix://")).exists():
        return False
    try:
        import docker
        import testcontainers.community.postgres  # noqa: F401
    except ImportError:
        return False
    with contextlib.suppress(Exception):  # whatever it is, it isn't an answer
        return bool(docker.from_env(timeout=1).ping())
    return False


class DockerPostgres(Server):
    """A server in a container of the image ``postgres``, with the same methods by Docker's own means (kill, pause, start).

    Args:
        settings: given to the server as options, on top of :data:`~replstore.local.server.SETTINGS`.
        fsync: False makes it faster; what it has written then still survives ``kill``, but not the loss of the machine.
        image: the image to run; pulled if the engine doesn't have it.

    Raises:
        ReplstoreError: it did not start; the message holds the end of its log.
    """

    def __init__(self, *, settings: Mapping[str, str] | None = None, fsync: bool = True, image: str = "postgres:18") -> None:
        from testcontainers.community.postgres import PostgresContainer

        self.port = free_port()  # fixed, because a port that Docker chooses changes when the container is started again
        given = {**SETTINGS, "listen_addresses": "*", "fsync": "on" if fsync else "off", **(settings or {})}
        command = ["postgres", *(word for name, value in given.items() for word in ("-c", f"{name}={value}"))]
        self._owner = os.getpid()
        self._closed = False
        self._testcontainer: Any = PostgresContainer(image, username="postgres", dbname="postgres")
        self._testcontainer.with_env("POSTGRES_HOST_AUTH_METHOD", "trust").with_command(command)
        self._testcontainer.ports = cast(Any, {"5432/tcp": ("127.0.0.1", self.port)})  # it trusts everybody: for this machine only
        atexit.register(self.close)
        try:
            self._testcontainer.start()
            self._await()
        except BaseException:
            self.close()
            raise

    @property
    def _container(self) -> Any:
        return self._testcontainer.get_wrapped_container()

    def _status(self) -> str:
        self._container.reload()
        return str(self._container.status)

    @property
    def running(self) -> bool:
        return self._status() in ("running", "paused")

    @property
    def logs(self) -> str:
        return str(self._container.logs().decode(errors="replace"))

    def start(self) -> None:
        if not self.running:
            self._container.start()
            self._await()

    def _await(self) -> None:
        import psycopg

        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                self.execute("select 1")
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    raise ReplstoreError(f"PostgreSQL did not start in its container: {redact(self.logs[-1000:])}") from error
                time.sleep(0.05)
            else:
                return

    def stop(self, mode: StopMode = "fast") -> None:
        self._end(STOP_SIGNALS[mode].name)

    def kill(self) -> None:
        self._end("SIGKILL")

    def _end(self, signal: str) -> None:
        self.thaw()
        if self.running:
            self._container.kill(signal=signal)
            self._container.wait()

    def freeze(self) -> None:
        self._container.pause()

    def thaw(self) -> None:
        if self._status() == "paused":
            self._container.unpause()

    def close(self) -> None:
        if os.getpid() != self._owner or self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        self._testcontainer.stop()
