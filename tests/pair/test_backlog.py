"""How much may wait for the follower: max_backlog and on_backlog."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from replstore import BacklogFull, Store, local
from tests.fix_proxy import MakeProxy, Proxy
from tests.fix_stores import FAST, Base, Lab, count, insert, put, until

ASYNC = {"durability": "async", "max_backlog": 20, "ack_timeout": 0.5}


def fill(store: Store, upto: int) -> int:
    """Commits transactions until one is refused; how many were committed."""
    for id in range(1, upto + 1):
        try:
            store.run(put(id))
        except BacklogFull:
            return id - 1
    return upto


@pytest.mark.parametrize("on_backlog", ["wait", "fail"])
def test_beyond_the_limit_nothing_more_is_acknowledged_while_the_follower_is_gone(lab: Lab, on_backlog: str) -> None:
    store = lab.migrated(background=False, on_backlog=on_backlog, **ASYNC)
    lab.kill("standby")
    committed = fill(store, 100)
    assert 0 < committed <= 20
    with pytest.raises(BacklogFull, match=r"max_backlog is 20.*nothing was begun"):
        store.run(put(99))
    assert len(lab.accounts("primary")) == committed
    lab.start("standby")
    store.sync()
    store.run(put(99))
    assert lab.accounts("standby").keys() == lab.accounts("primary").keys() - {99}


def test_what_other_programs_write_counts_too(lab: Lab) -> None:
    store = lab.migrated(background=False, **ASYNC, on_backlog="fail", probe_interval=0.02)
    store.run(put(1))
    lab.kill("standby")
    lab.sql("primary", *(insert(id) for id in range(2, 30)))
    time.sleep(0.05)  # longer than one look's result is used
    with pytest.raises(BacklogFull):
        store.run(put(99))


def test_a_writer_slows_down_to_what_the_follower_takes(lab: Lab) -> None:
    """Nobody ships in the background, so it is the writers that do, when there is too much."""
    store = lab.migrated(background=False, **{**ASYNC, "ack_timeout": 10.0})
    assert fill(store, 100) == 100
    waiting = store.status().nodes["standby"].waiting
    assert waiting is not None
    assert waiting <= 20
    assert len(lab.accounts("standby")) >= 80


def test_on_fail_no_transaction_waits_or_ships_for_others(lab: Lab) -> None:
    store = lab.migrated(background=False, on_backlog="fail", **ASYNC)
    assert fill(store, 100) <= 20
    assert lab.accounts("standby") == {}


def test_a_program_that_never_saw_the_follower_counts_what_the_journal_has(lab: Lab) -> None:
    store = lab.migrated(background=False, **ASYNC)
    lab.kill("standby")
    fill(store, 100)
    late = lab.store(background=False, **ASYNC)
    with pytest.raises(BacklogFull):
        late.run(put(99))


def test_replicated_transactions_and_a_solo_writer_are_not_limited(lab: Lab) -> None:
    store = lab.migrated(max_backlog=5)
    store.run(put(1))
    lab.kill("standby")
    until(lambda: store.status().acknowledge == "solo", "the writer acknowledges alone")
    for id in range(2, 12):
        store.run(put(id))
        store.run(put(100 + id), durability="async")
    assert len(lab.accounts("primary")) == 21


def test_without_a_limit_nothing_is_counted(lab: Lab) -> None:
    store = lab.migrated(background=False, **{**ASYNC, "max_backlog": 0})
    lab.kill("standby")
    assert fill(store, 50) == 50


def test_a_transaction_of_a_sessionmaker_is_refused_before_it_begins(lab: Lab) -> None:
    store = lab.migrated(background=False, on_backlog="fail", **ASYNC)
    lab.kill("standby")
    committed = fill(store, 100)
    with pytest.raises(BacklogFull), store.sessionmaker().begin() as session:
        put(99)(session)
    assert len(lab.accounts("primary")) == committed
    with store.read() as session:  # the connection is whole
        assert count(session) == committed


def test_a_transaction_open_for_long_is_no_backlog(postgresql_lab: Lab) -> None:
    """It holds back the position's lower end: all that came after it was shipped all the same, and counts no more."""
    store = postgresql_lab.migrated(background=False, on_backlog="fail", **ASYNC)
    with postgresql_lab.connect("primary") as open_one:
        open_one.execute(insert(1000))
        for id in range(1, 60):
            store.run(put(id))
            store.sync()
        store.run(put(60))
        open_one.rollback()


# --- a follower that is frozen or cut off


@pytest.fixture
def frozen(own_postgresql_pair: local.PostgresPair) -> Iterator[tuple[local.PostgresPair, Store]]:
    store = Store(primary=own_postgresql_pair.primary_url, standby=own_postgresql_pair.standby_url, **{**FAST, **ASYNC, "takeover": "manual"})
    with store:
        store.migrate(Base.metadata)
        yield own_postgresql_pair, store


def test_a_frozen_follower_bounds_its_writer_and_status_says_what_waits(frozen: tuple[local.PostgresPair, Store]) -> None:
    pair, store = frozen
    store.run(put(0))
    store.sync()
    until(lambda: store.status().unconfirmed == 0, "the follower is seen where it is now")
    pair.freeze("standby")
    committed = fill(store, 100)
    assert 0 < committed <= 20
    status = store.status()
    assert status.unconfirmed == committed
    assert status.unconfirmed_for is not None
    assert status.max_backlog == 20
    assert status.nodes["standby"].waiting == committed
    pair.thaw("standby")
    until(lambda: fill(store, 100) == 100, "it goes on when the follower is back")
    store.sync()
    assert store.status().unconfirmed == 0


def test_callers_that_wait_go_on_as_soon_as_the_follower_is_reached_again(postgresql_pair: local.PostgresPair, proxy: MakeProxy) -> None:
    network: Proxy = proxy(postgresql_pair.standby_url)
    settings = {**FAST, **ASYNC, "ack_timeout": 30.0, "takeover": "manual"}
    with Store(primary=postgresql_pair.primary_url, standby=network.url, **settings) as store:
        store.migrate(Base.metadata)
        network.refuse()
        for id in range(1, 21):
            store.run(put(id))
        done: list[int] = []
        caller = threading.Thread(target=lambda: done.append(fill(store, 25)))
        caller.start()
        until(lambda: store.status().unconfirmed == 20, "the limit is reached")
        assert not done
        network.restore()
        caller.join(20)
        assert done == [25]
