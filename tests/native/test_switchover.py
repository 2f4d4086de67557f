"""Switchover of PostgreSQL's own replication: where the data directories are on this machine, replstore does all of it; else it says what to run."""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from replstore import ConfigError, SwitchoverFailed
from replstore.local import following, system
from replstore.local.data_directory import DataDirectory
from replstore.pair import native_switchover
from replstore.pair.view import Action, Decision
from replstore.store import Store
from tests.fix_native import NativeLab, ended, in_thread
from tests.fix_stores import put, until
from tests.fix_streaming import on_an_installed_server_too


class Writers:
    """Threads that add accounts, one after the other, until they are told to stop."""

    def __init__(self, store: Store, count: int = 3) -> None:
        self.acknowledged: list[int] = []
        self.failed: list[str] = []
        self.pause = 0.0
        self._store, self._ended = store, threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(n * 100_000,)) for n in range(count)]

    def _write(self, id: int) -> None:
        last = time.monotonic()
        while not self._ended.is_set():
            id += 1
            try:
                if id < 100_000:  # whoever repeats nothing begins a transaction, or doesn't
                    with self._store.begin() as session:
                        put(id)(session)
                else:
                    self._store.run(put(id))
            except Exception as error:
                self.failed.append("".join(traceback.format_exception(error)))
                continue
            self.acknowledged.append(id)
            self.pause, last = max(self.pause, time.monotonic() - last), time.monotonic()

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


@on_an_installed_server_too
def test_no_transaction_fails_and_none_is_lost_in_a_switchover_there_and_back(native_lab: NativeLab) -> None:
    # a busy machine's pause is no loss of the writer, which would end who works there
    store = native_lab.migrated(promote=False, takeover_timeout=60.0, detection_time=10.0, **native_lab.here())
    with Writers(store) as writers:
        for writer in ("standby", "primary"):
            time.sleep(0.2)
            store.switchover(timeout=30.0)
            status = store.status()
            assert (status.writer, status.nodes["primary" if writer == "standby" else "standby"].role) == (writer, "follower")
        time.sleep(0.2)
    assert writers.failed == []
    assert set(writers.acknowledged) == set(native_lab.accounts("primary"))
    store.sync()
    assert native_lab.accounts("standby") == native_lab.accounts("primary")


def test_who_waits_for_the_lock_is_ended_before_the_server_is_shut_down(native_lab: NativeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is shut down ends its sessions in any order: whoever waits would get the lock from the session that has it, begin, and be ended then."""
    store = native_lab.migrated(promote=False, takeover_timeout=60.0, detection_time=10.0, **native_lab.here())
    left: list[str] = []

    def waiting(data: DataDirectory) -> list[str]:
        titles = []
        for pid in system.children(data.pid or 0):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                titles.append(Path(f"/proc/{pid}/cmdline").read_text())
        return [title for title in titles if " waiting" in title]

    def promote_in_order(former: DataDirectory, *args: Any, **options: Any) -> None:
        until(lambda: waiting(former), "somebody waits for the lock")
        promoting(former, *args, **options)

    def end_log(data: DataDirectory, seconds: float) -> str:
        left.extend(waiting(data))
        return shutting_down(data, seconds)

    promoting, shutting_down = native_switchover.promote_in_order, DataDirectory.end_log
    monkeypatch.setattr(native_switchover, "promote_in_order", promote_in_order)
    monkeypatch.setattr(DataDirectory, "end_log", end_log)
    with Writers(store) as writers:
        store.switchover(timeout=30.0)
    assert (left, writers.failed) == ([], [])


def test_connections_that_have_ended_do_not_keep_it_from_beginning(native_lab: NativeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    store = native_lab.migrated(background=False, promote=False, takeover_timeout=30.0, **native_lab.here())
    locking = native_switchover.under_role_lock

    def under_role_lock(*args: Any, **options: Any) -> Any:
        native_lab.pair.primary.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'replstore service'")
        return locking(*args, **options)

    monkeypatch.setattr(native_switchover, "under_role_lock", under_role_lock)
    store.switchover(timeout=30.0)
    assert store.status().writer == "standby"


def test_who_waits_for_a_look_goes_on_as_soon_as_the_new_writer_is_known(native_lab: NativeLab) -> None:
    store = native_lab.migrated(background=False, takeover_timeout=60.0)
    lead = store.pair.settle(time.monotonic() + 5.0)
    store.pair.doubt(lead)
    with store.pair.settling.taken("a look at both nodes"):
        call, results = in_thread(lambda: store.run(put(1)))
        call.join(0.2)
        assert call.is_alive()
        store.pair.took_over(lead.node, lead.term, Decision(Action.WRITE, None, lead.node.name, lead.acknowledge, "it has taken over"))
        ended(call)
    assert results == [None]


def test_who_keeps_a_transaction_open_is_waited_for_and_named(native_lab: NativeLab) -> None:
    store = native_lab.migrated(background=False, promote=False, takeover_timeout=30.0, **native_lab.here())
    other = native_lab.store(background=False, promote=False, takeover_timeout=30.0, **native_lab.here())
    with store.begin() as session:
        put(1)(session)
        session.flush()
        with pytest.raises(SwitchoverFailed, match=r"primary's role can't change: backend \d+.*idle in transaction.*primary writes"):
            other.switchover(timeout=0.7)
        changing = threading.Thread(target=other.switchover, kwargs={"timeout": 30.0})
        changing.start()
        time.sleep(0.5)
        put(2)(session)
    changing.join()
    assert store.status().writer == "standby"
    assert native_lab.accounts("standby") == {1: 0, 2: 0}


def test_a_follower_that_does_not_follow_is_not_promoted(native_lab: NativeLab) -> None:
    store = native_lab.migrated(background=False, **native_lab.here())
    native_lab.kill("standby")
    with pytest.raises(SwitchoverFailed, match=r"standby"):
        store.switchover(timeout=1.0)
    store.run(put(1))
    assert native_lab.accounts("primary") == {1: 0}


def test_where_others_run_the_servers_they_are_told_what_to_run(native_lab: NativeLab) -> None:
    store = native_lab.migrated(background=False, promote=False, primary_data=str(native_lab.pair.data("primary").path))
    with pytest.raises(SwitchoverFailed, match=r"`pg_ctl stop -m fast -D /.*/data`, then `replstore takeover standby`, then .*pg_rewind"):
        store.switchover()
    assert store.status().writer == "primary"


def test_the_switchover_of_others_is_waited_for(native_lab: NativeLab) -> None:
    store = native_lab.migrated(background=False, promote=False)
    told: list[str] = []

    def carry_out(steps: str) -> None:
        told.append(steps)
        native_lab.pair.switch_over()

    store.switchover(told=carry_out)
    assert len(told) == 1
    store.run(put(1))
    assert store.status().writer == "standby"
    with pytest.raises(SwitchoverFailed, match="haven't changed places"):
        store.switchover(timeout=0.3, told=told.append)


def test_under_patroni_its_own_command_is_told_and_its_directories_are_left_alone(native_lab: NativeLab) -> None:
    store = native_lab.migrated(background=False, promote=False)
    native_lab.pair.primary.stop()
    data = native_lab.pair.data("primary")
    data.start(once=["cluster_name=batman", "wal_level=replica", "max_wal_senders=5", "max_connections=60"])  # as Patroni starts it
    with pytest.raises(SwitchoverFailed, match=r"member of batman: run `patronictl switchover batman`"):
        store.switchover()
    (data.path / "patroni.dynamic.json").write_text("{}")
    try:
        with pytest.raises(ConfigError, match=r"primary_data: Patroni runs the server"):
            native_lab.store(background=False, **native_lab.here()).switchover()
    finally:
        (data.path / "patroni.dynamic.json").unlink()


def test_a_follower_that_stands_still_in_the_switchover_leaves_the_writer_in_service(
    own_native_lab: NativeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, real = own_native_lab, DataDirectory.end_log
    store = lab.migrated(promote=False, takeover_timeout=30.0, **lab.here())

    def end_log(directory: DataDirectory, seconds: float = 60.0) -> str:
        lab.pair.freeze("standby")
        return real(directory, seconds)

    monkeypatch.setattr(DataDirectory, "end_log", end_log)
    monkeypatch.setattr(native_switchover, "STEP", 2.0)
    monkeypatch.setattr(following, "BACK", 1.0)
    with pytest.raises(SwitchoverFailed, match="hasn't replayed"):
        store.switchover(timeout=20.0)
    lab.pair.thaw("standby")
    until(lambda: store.status().writer == "primary", "the primary writes again", 30.0)
    store.run(put(1), durability="server")
    assert lab.accounts("primary") == {1: 0}


def test_two_switchovers_at_once_never_have_the_lock_both(native_lab: NativeLab) -> None:
    lab = native_lab
    store = lab.migrated(background=False)
    database = store.pair.nodes["primary"].database
    with store.pair.nodes["primary"].begin(5.0) as one:
        database.lock_roles(one, seconds=1.0)
        with pytest.raises(DBAPIError), store.pair.nodes["primary"].begin(5.0) as other:
            database.lock_roles(other, seconds=0.2)
