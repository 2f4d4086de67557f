"""A pair of native replication with its control tables and one table, and Stores on it with short times."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import MetaData, make_url

from replstore import local
from replstore.local import system
from replstore.node import Node
from replstore.pair import by_native
from replstore.pair.view import Term
from replstore.store import Store
from tests.fix_migrated import NODES
from tests.fix_stores import Base, Lab, until


class NativeLab(Lab):
    """A primary and its standby under test; the role in the URLs is an ordinary one that may promote."""

    pair: local.StreamingPair

    def _node(self, name: local.Name) -> Node:
        return Node(name, make_url(self.pair.url(name)), seconds=2.0, native=True)

    def store(self, *, background: bool = True, **settings: Any) -> Store:
        return super().store(background=background, **{"replication": "native", "promote": True, **settings})

    def here(self) -> dict[str, Any]:
        """The settings that say where the data directories are."""
        found = {f"{name}_data": str(self.pair.data(name).path) for name in NODES}
        return {**found, "postgresql_bin": str(self.pair.primary.bindir)}

    def timelines(self, node: local.Name) -> list[int]:
        """Those of which a node has a record."""
        return [number for (number,) in self.sql(node, "SELECT no FROM replstore.timeline ORDER BY no")]

    @contextlib.contextmanager
    def cut_receiver(self, node: local.Name = "standby") -> Iterator[None]:
        """A standby that has lost the way to its primary: both run on, and nothing arrives."""
        server = self.pair.server(node)
        ((way,),) = server.execute("SHOW primary_conninfo")
        receives = "SELECT count(*) FROM pg_stat_wal_receiver"
        server.execute("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'")
        server.execute("SELECT pg_reload_conf()")
        until(lambda: server.execute(receives) == [(0,)], "the receiver has ended")
        try:
            yield
        finally:
            if server.running:
                server.execute(f"ALTER SYSTEM SET primary_conninfo = '{way}'")
                server.execute("SELECT pg_reload_conf()")

    def end(self, node: local.Name) -> None:
        """SIGKILL to all processes of a node's server, whoever has started it."""
        pid = self.pair.data(node).pid
        if pid is None or self.pair.server(node).running:
            self.kill(node)
            return
        os.kill(pid, signal.SIGSTOP)
        killed = [pid, *system.children(pid)]
        system.send(killed, signal.SIGKILL)
        while any(map(system.alive, killed)):
            time.sleep(0.002)

    def close(self) -> None:
        super().close()
        for name in NODES:  # what a command has started, nobody else would end
            if not self.pair.server(name).running:
                self.pair.data(name).stop()

    def migrated(self, metadata: MetaData = Base.metadata, *, background: bool = True, **settings: Any) -> Store:
        """The pair's first Store, with tables, which the standby has too."""
        store = self.store(background=background, **settings)
        store.migrate(metadata)
        return store


@pytest.fixture
def native_lab(streaming_pair: local.StreamingPair) -> Iterator[NativeLab]:
    """A new database on a primary and its standby."""
    with contextlib.closing(NativeLab(streaming_pair)) as lab:
        yield lab


@pytest.fixture
def own_native_lab() -> Iterator[NativeLab]:
    """The same on two servers of the test's own, for what the shared ones are not brought back from in a moment."""
    with (
        local.streaming_pair("path" if os.environ.get("REPLSTORE_LOCAL") == "path" else "auto", fsync=False, user="app") as pair,
        contextlib.closing(NativeLab(pair)) as lab,
    ):
        yield lab


class Paused:
    """Stands still between its decision and the statement that promotes, as a stopped program does, until it is woken.

    Args:
        within: s for which its decision is good, if others than its own; a test of another rule takes its time.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, within: float | None = None) -> None:
        self.decided, self.woken = threading.Event(), threading.Event()
        self.refusals: list[str] = []
        real = by_native.promote

        def promote(*args: Any, **options: Any) -> Term:
            self.decided.set()
            assert self.woken.wait(30)
            try:
                return real(*args, **{**options, **({} if within is None else {"within": within})})
            except Exception as error:
                self.refusals.append(str(error))
                raise

        monkeypatch.setattr(by_native, "promote", promote)


def in_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Begins a call; what it returns or raises is in the list once the thread has ended."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results


def ended(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a call hangs"
