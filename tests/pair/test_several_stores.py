"""Several Stores look after one pair at once, and get in each other's way without harm."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import text

from replstore import local
from replstore.replication.group import GroupCommit
from replstore.store import Store

#: Rows that only a former writer has: enough to take longer than a moment between two transactions.
ALONE = 100


@pytest.fixture
def store(any_pair: local.Pair) -> Iterator[Store]:
    with Store(primary=any_pair.primary_url, standby=any_pair.standby_url, background=False) as store:
        store.migrate()
        with store.pair.primary.engine.begin() as connection:
            connection.execute(text("CREATE TABLE item (id integer PRIMARY KEY, name text)"))
        store.migrate()
        yield store


def test_a_switchover_that_another_program_finishes_has_succeeded(store: Store, any_pair: local.Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one meets the fenced writer while the first ships the rest, and may not leave the pair without a writer."""
    ship_from = store.pair.ship_from
    with Store(primary=any_pair.primary_url, standby=any_pair.standby_url, background=False) as other:

        def ship_later(*arguments: object, **more: object) -> object:
            other.run(lambda session: session.execute(text("INSERT INTO item VALUES (1, 'cup')")) and None)
            return ship_from(*arguments, **more)  # type: ignore[arg-type]

        store.pair.ship()
        monkeypatch.setattr(store.pair, "ship_from", ship_later)
        monkeypatch.setattr(store.pair, "ship", lambda *_: None)
        store.switchover()
        monkeypatch.undo()
        status = store.status()
        assert (status.writer, status.term) == ("standby", 2)
        assert status.nodes["primary"].role == "follower"
    with store.read(node="follower") as session:
        assert session.execute(text("SELECT name FROM item")).scalars().all() == ["cup"]


def test_a_switchover_whose_program_died_after_the_takeover_ends_in_a_pair(store: Store, any_pair: local.Pair) -> None:
    """The former writer is fenced without a word about who fenced it: whoever finds it so lets it rejoin."""
    from replstore.pair.switchover import hand_over
    from replstore.pair.takeover import take_over
    from replstore.pair.watch import node_view

    store.sync()
    lead = store.pair.lead
    assert lead is not None
    hand_over(lead.node, lead.term, seconds=5.0)
    store.pair.ship_from(lead.node)
    state = lead.follower.observe(2.0).state
    assert state is not None
    take_over(lead.follower, node_view(state, "standby"), reason="switchover", compare_heartbeat=False, witness=None, granted=None, writer="primary")
    with Store(primary=any_pair.primary_url, standby=any_pair.standby_url) as other:
        deadline = time.monotonic() + 10
        while not other.status().healthy:
            assert time.monotonic() < deadline, other.status()
            time.sleep(0.05)
        assert other.status().writer == "standby"


def test_a_former_writer_rejoins_a_busy_one(sqlite_pair: local.SqlitePair) -> None:
    """SQLite doesn't wait for its write lock once a transaction has read, so the orphans' record must not read first."""
    urls = {"primary": sqlite_pair.primary_url, "standby": sqlite_pair.standby_url}
    with contextlib.closing(sqlite3.connect(sqlite_pair.path("primary"))) as connection:
        connection.execute("CREATE TABLE item (id integer PRIMARY KEY, name text)")
    with Store(**urls, background=False) as store:
        store.migrate()
        orphan(sqlite_pair, store)
        stop = threading.Event()
        busy = threading.Thread(target=write, args=(sqlite_pair.path("standby"), stop))
        busy.start()
        try:
            assert store.rejoin() == ALONE
        finally:
            stop.set()
            busy.join()
        store.sync()
        assert store.status().healthy


def orphan(pair: local.SqlitePair, store: Store) -> None:
    """Leaves the standby as the writer, and rows that only the primary has."""
    pair.kill("standby")
    with contextlib.closing(sqlite3.connect(pair.path("primary"))) as connection, connection:
        connection.executemany("INSERT INTO item VALUES (?, 'alone')", [(number,) for number in range(1, ALONE + 1)])
    pair.kill("primary")
    pair.start("standby")
    store.takeover("standby", force=True)
    pair.start("primary")


def write(path: Path, stop: threading.Event) -> None:
    """Another program that writes all the time, with a moment between two transactions."""
    with contextlib.closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as connection:
        number = ALONE
        while not stop.is_set():
            number += 1  # beyond the orphans' keys
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO item VALUES (?, 'busy')", (number,))
            time.sleep(0.002)
            connection.execute("COMMIT")
            time.sleep(0.004)


def test_nothing_is_closed_under_a_batch_that_runs() -> None:
    entered, leave = threading.Event(), threading.Event()

    def run(deadline: float, wanted: Sequence[str | None]) -> str:
        entered.set()
        leave.wait(10)
        return "done"

    group = GroupCommit(run)
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(group.cover(time.monotonic() + 10)))
    thread.start()
    entered.wait(10)
    assert not group.finish(0.05)
    leave.set()
    assert group.finish(10)
    thread.join()
    assert found == ["done"]
    with pytest.raises(RuntimeError, match="closed"):
        group.cover(time.monotonic() + 1)
