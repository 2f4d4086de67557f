"""Switchover of PostgreSQL's own replication: where the data directories are on this machine, replstore does all of it; else it says what to run."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from replstore import SwitchoverFailed
from replstore.store import Store
from tests.fix_native import NativeLab
from tests.fix_stores import Account, put


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
                self._store.run(put(id))
            except Exception as error:
                self.failed.append(f"{type(error).__name__}: {error}")
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


def test_no_transaction_fails_and_none_is_lost_in_a_switchover_there_and_back(native_lab: NativeLab) -> None:
    store = native_lab.migrated(promote=False, **native_lab.here())
    with Writers(store) as writers:
        for writer in ("standby", "primary"):
            time.sleep(0.2)
            store.switchover()
            status = store.status()
            assert (status.writer, status.nodes["primary" if writer == "standby" else "standby"].role) == (writer, "follower")
        time.sleep(0.2)
    assert writers.failed == []
    assert set(writers.acknowledged) == set(native_lab.accounts("primary"))
    store.sync()
    assert native_lab.accounts("standby") == native_lab.accounts("primary")
    print("PAUSE", writers.pause, len(writers.acknowledged))
