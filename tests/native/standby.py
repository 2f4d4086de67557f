"""What tests do to the servers of a streaming pair, and undo."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from replstore import Store
from replstore.local.process import PostgresServer
from tests.fix_native import NativeLab
from tests.fix_stores import until

PORT = text("SELECT inet_server_port()")


@contextlib.contextmanager
def replay_paused(lab: NativeLab) -> Iterator[None]:
    """The standby receives, and replays nothing."""
    standby = lab.pair.standby
    standby.execute("SELECT pg_wal_replay_pause()")
    until(lambda: standby.execute("SELECT pg_get_wal_replay_pause_state()") == [("paused",)], "replay is paused")
    try:
        yield
    finally:
        resume(lab)


def resume(lab: NativeLab) -> None:
    """Ends the pause, if there is one still."""
    with contextlib.suppress(Exception):
        lab.pair.standby.execute("SELECT pg_wal_replay_resume() WHERE pg_is_in_recovery()")


def stop_sending(lab: NativeLab) -> None:
    """Nothing reaches the standby any more, and nothing that is on its way does when the primary dies."""
    ((pid,),) = lab.pair.primary.execute("SELECT pid FROM pg_stat_replication WHERE application_name = 'standby'")
    os.kill(pid, signal.SIGSTOP)


@contextlib.contextmanager
def configured(server: PostgresServer, **settings: str) -> Iterator[None]:
    """A server with other settings, which need no restart."""
    before = {name: server.settings.get(name) for name in settings}
    _configure(server, settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                server.settings.pop(name)
        server.configure({name: value for name, value in before.items() if value is not None})


def _configure(server: PostgresServer, settings: dict[str, str]) -> None:
    server.configure(settings)
    for name, value in settings.items():
        until(lambda name=name, value=value: server.execute(f"SHOW {name}") == [(value,)], f"{name} is {value}")  # type: ignore[misc]


@contextlib.contextmanager
def walwriter_stopped(server: PostgresServer) -> Iterator[None]:
    """The log is flushed by those who wait for it, and by nobody else."""
    ((pid,),) = server.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def waits_for_standby(lab: NativeLab) -> int:
    """The server process whose COMMIT waits for a standby, once there is one."""
    found: list[tuple[Any, ...]] = []

    def look() -> bool:
        found[:] = lab.pair.primary.execute("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        return bool(found)

    until(look, "a COMMIT waits for a standby")
    return int(found[0][0])


class Call:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.result: Any = None
        self.seconds = 0.0
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        began = time.monotonic()
        try:
            self.result = self._call()
        except Exception as error:
            self.result = error
        self.seconds = time.monotonic() - began

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def end(self, seconds: float = 20.0) -> Any:
        """What it returned, or raised."""
        self._thread.join(seconds)
        assert not self.running, f"not within {seconds} s"
        return self.result


def served_by(lab: NativeLab, store: Store, **terms: Any) -> str:
    """Which node serves a read with these terms."""
    with store.read(**terms) as session:
        return name_of(lab, session)


def name_of(lab: NativeLab, session: Session) -> str:
    """The node that a session reads from."""
    return "primary" if session.scalar(PORT) == lab.pair.primary.port else "standby"
