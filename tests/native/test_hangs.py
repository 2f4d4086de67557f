"""Each fault is found within its bound, taken for what it is, and holds no caller for longer (the table in docs/native.md)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from replstore import NoWriter, Store, TransactionLost
from replstore.local import system
from replstore.local.process import PostgresServer
from replstore.pair.view import Reach, named
from tests.fix_native import NativeLab, ended, in_thread, refuses
from tests.fix_proxy import MakeProxy
from tests.fix_stores import Account, put, until
from tests.fix_streaming import on_an_installed_server_too

#: s beyond a bound that a busy machine may take.
SLOW = 8.0


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """The block ends in time."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds + SLOW


def reach(store: Store, node: str) -> Reach:
    return named(store.pair.look()[0], node).reach


# ---------------------------------------------------------------------------- a primary that is lost


def test_since_when_the_standby_stands_still_is_known_although_the_primary_owes_its_answer(native_lab: NativeLab, proxy: MakeProxy) -> None:
    lab = native_lab
    way = proxy(lab.pair.primary_url)
    store = lab.migrated(primary=way.url, background=False, detection_time=5.0, probe_timeout=3.0)
    store.pair.look()
    way.black_hole()
    look, seen = in_thread(store.pair.look)
    time.sleep(0.3)
    lab.pair.primary.execute("SELECT pg_logical_emit_message(false, 'somebody', '', true)")
    lab.pair.catch_up()
    moved = time.monotonic()
    ended(look)
    stood = time.monotonic() - moved
    ((view, _),) = seen
    assert view.primary.reach is Reach.SILENT
    assert view.standby.still_for > stood - 1.0 > 0.0


@on_an_installed_server_too
def test_a_primary_that_stands_still_is_replaced_and_frees_who_waits_for_it(native_lab: NativeLab) -> None:
    lab = native_lab
    store = lab.migrated()
    store.run(put(1))
    store.sync()

    def hang(session: Session) -> None:
        lab.pair.freeze("primary")
        session.execute(text("SELECT 1"))

    with within(3.0), pytest.raises(TransactionLost), store.begin() as session:
        hang(session)
    with within(3.0):
        store.run(put(2))
    assert store.status().writer == "standby"
    lab.pair.thaw("primary")
    with within(1.0):
        until(lambda: store.pair.lead is None, "the former primary is seen")
    with pytest.raises(NoWriter, match="both nodes write"):
        store.run(put(3))


@pytest.mark.parametrize("for_whom", ["everybody", "this program only"])
def test_a_dropped_network_counts_as_the_primarys_loss_only_if_nobody_reaches_it(native_lab: NativeLab, proxy: MakeProxy, for_whom: str) -> None:
    lab = native_lab
    way = proxy(lab.pair.primary_url)
    store = lab.migrated(primary=way.url, takeover_timeout=2.0)
    other = None if for_whom == "everybody" else lab.store(promote=False)
    store.run(put(1))
    store.sync()
    way.black_hole()
    with within(3.0):
        if other is None:
            store.run(put(2))
            assert store.status().writer == "standby"
        else:
            refuses(lambda: store.run(put(2)), "another program reaches primary")
            other.run(put(3))
            assert len(lab.timelines("standby")) == 1


def test_a_network_dropped_between_the_servers_stops_no_writer(native_lab: NativeLab) -> None:
    lab = native_lab
    store = lab.migrated(takeover_timeout=1.0)
    with lab.cut_receiver():
        store.run(put(1))
        time.sleep(2 * store.settings.detection_time)  # longer than a silent node would have
        store.run(put(2))
        assert store.status().writer == "primary"
    until(lambda: lab.accounts("standby") == {1: 0, 2: 0}, "the standby has caught up")


@on_an_installed_server_too
def test_a_server_that_is_stuck_in_recovery_is_replaced_like_a_silent_one(native_lab: NativeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = native_lab
    store = lab.migrated(max_data_loss_bytes=10**6)
    store.run(put(1))
    store.sync()
    server = lab.pair.primary
    assert isinstance(server, PostgresServer)
    server.stop("immediate")
    (server.data / "recovery.signal").touch()
    server.settings |= {"restore_command": "sleep 60; false", "hot_standby": "off"}
    monkeypatch.setattr(server, "_ready", lambda: True)
    try:
        server.start()
        until(lambda: "the database system is" in store.pair.look()[0].primary.error, "it says that it recovers")
        assert reach(store, "primary") is Reach.SILENT
        with within(3.0):
            store.run(put(2))
        assert store.status().writer == "standby"
    finally:
        server.kill()
        (server.data / "recovery.signal").unlink(missing_ok=True)
        del server.settings["restore_command"], server.settings["hot_standby"]


def test_a_postmaster_that_is_killed_alone_takes_its_sessions_with_it(native_lab: NativeLab) -> None:
    lab = native_lab
    store = lab.migrated()
    store.run(put(1))
    store.sync()
    server = lab.pair.primary
    assert isinstance(server, PostgresServer)
    children = system.children(server.pid)
    os.kill(server.pid, signal.SIGKILL)
    with within(3.0):
        store.run(put(2))
    assert store.status().writer == "standby"
    until(lambda: not any(map(system.alive, children)), "its processes have ended")


# ---------------------------------------------------------------------------- a primary that isn't


def test_a_postmaster_that_stands_still_alone_is_no_lost_node_and_holds_nobody_for_ever(native_lab: NativeLab) -> None:
    lab = native_lab
    store = lab.migrated(takeover_timeout=1.0)
    store.run(put(1))
    lab.pair.freeze_postmaster("primary")
    store.run(put(2))  # on a session that is open
    with store.begin():  # which nobody else can have meanwhile
        with within(1.0 + 2 * 3.0), pytest.raises(NoWriter, match=r"primary answers on sessions that are open and takes no new ones"):
            store.run(put(3))
        assert len(lab.timelines("standby")) == 1
    assert reach(store, "primary") is Reach.UP
    lab.pair.thaw("primary")
    store.run(put(4))
    assert set(lab.accounts("primary")) == {1, 2, 4}


def test_connections_that_are_all_taken_are_no_lost_node(native_lab: NativeLab) -> None:
    lab = native_lab
    store = lab.migrated()
    store.run(put(1))
    newcomer = lab.store(background=False)
    assert newcomer.pair.standby.observe(2.0).fault is None
    store.pair.primary.engine.dispose()
    lab.pair.primary.execute("ALTER ROLE app CONNECTION LIMIT 0")
    try:
        with within(1.0), pytest.raises(OperationalError, match="too many connections for role"):
            store.run(put(2))
        assert reach(store, "primary") is Reach.UP  # by the session that it has
        _, decision = newcomer.pair.look()
        assert (decision.action, "a node that answers is not a lost one" in decision.reason) == ("wait", True), decision
        assert lab.pair.standby.execute("SELECT count(*) FROM replstore.timeline", lab.pair.database) == [(1,)]
    finally:
        lab.pair.primary.execute("ALTER ROLE app CONNECTION LIMIT -1")
    store.run(put(3))


# ---------------------------------------------------------------------------- full disks


@contextmanager
def small_disk(server: PostgresServer, place: Path, megabytes: int) -> Iterator[Callable[[], None]]:
    """A directory of a stopped server on a file system of its own; it is given back what it was. What it yields fills it up, and, called again, makes room."""
    aside = place.with_name(place.name + ".aside")
    filler = place / "filler"
    place.rename(aside)
    place.mkdir(0o700)
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", str(place)], capture_output=True, check=False
    ).returncode:
        place.rmdir()
        aside.rename(place)
        pytest.skip("only root may mount a small file system")
    try:
        subprocess.run(["cp", "-a", f"{aside}/.", str(place)], check=True)
        if user := system.server_user():
            os.chown(place, *user)

        def fill() -> None:
            if filler.exists():
                filler.unlink()
                return
            with filler.open("wb", buffering=0) as file:
                for size in (1 << 20, 4096):
                    try:
                        while True:
                            file.write(b"\0" * size)
                    except OSError:
                        continue

        yield fill
    finally:
        server.kill()
        filler.unlink(missing_ok=True)
        shutil.rmtree(aside)
        subprocess.run(["cp", "-a", str(place), str(aside)], check=True)
        subprocess.run(["umount", "-l", str(place)], check=True)
        place.rmdir()
        aside.rename(place)


def big(id: int) -> Callable[[Session], Any]:
    return lambda session: session.add(Account(id=id, owner=f"{id} " + os.urandom(500_000).hex(), amount=0))


def test_a_disk_without_room_for_data_is_the_callers_error_and_no_lost_node(own_native_lab: NativeLab) -> None:
    lab = own_native_lab
    server = lab.pair.primary
    store = lab.migrated()
    store.sync()
    ((oid,),) = server.execute(f"SELECT oid FROM pg_database WHERE datname = '{lab.pair.database}'")
    store.close()
    server.stop()
    with small_disk(server, server.data / "base" / str(oid), 24) as fill:
        server.start()
        store = lab.store()
        store.run(put(1))
        fill()
        with within(1.0), pytest.raises(DBAPIError, match="No space left on device"):
            store.run(big(2))
        store.run(lambda session: session.execute(text("SELECT 1")).scalar())
        assert (store.status().writer, len(lab.timelines("standby"))) == ("primary", 1)
        fill()
        store.run(put(3))
        store.close()


def test_a_disk_without_room_for_the_log_ends_the_server_and_the_standby_is_promoted(own_native_lab: NativeLab) -> None:
    lab = own_native_lab
    server = lab.pair.primary
    lab.migrated(background=False).close()
    server.stop()
    with small_disk(server, server.data / "pg_wal", 48) as fill:
        server.start()
        store = lab.store(max_data_loss_bytes=2**20, takeover_timeout=20.0)
        store.run(put(1))
        store.sync()
        fill()
        with within(5.0):
            for _ in range(60):
                store.run(lambda session: session.execute(text("SELECT pg_logical_emit_message(true, 'much', repeat('x', 1000000))")).scalar())
                if store.pair.lead is not None and store.pair.lead.node.name == "standby":
                    break
        assert store.status().writer == "standby"
        store.close()
