"""Hazard 17: what a read has shown stays true, a deposed writer is not read from, and an error after the commit doesn't invite to repeat it."""

from __future__ import annotations

import math
import time

import pytest

from replstore.errors import CommittedNotReplicated, StaleRead
from replstore.store import Store
from tests.fix_proxy import MakeProxy, Proxy
from tests.fix_stores import Lab, count, insert, put, until


def cut_off(lab: Lab, proxy: MakeProxy) -> tuple[Store, Proxy]:
    """A Store whose way to the follower swallows everything, and that way."""
    lab.migrated(background=False).close()
    way = proxy(lab.pair.standby_url)
    store = lab.store(standby=way.url)
    store.run(put(1))
    way.black_hole()
    return store, way


def test_a_transaction_that_only_reads_is_confirmed_once_what_it_saw_has_reached_the_follower(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.sql("primary", insert(2))  # committed by another program, and not shipped
    assert store.run(count) == 2
    assert lab.accounts("standby") == {1: 0, 2: 0}
    lab.sql("primary", insert(3))
    with store.begin() as session:
        assert count(session) == 3
    assert lab.accounts("standby") == {1: 0, 2: 0, 3: 0}


def test_what_such_a_transaction_saw_is_not_confirmed_while_the_follower_cannot_have_it(postgresql_lab: Lab, proxy: MakeProxy) -> None:
    lab = postgresql_lab
    store, _ = cut_off(lab, proxy)
    lab.sql("primary", insert(2))
    calls: list[int] = []

    def look(session: object) -> int:
        calls.append(seen := count(session))  # type: ignore[arg-type]
        return seen

    with pytest.raises(CommittedNotReplicated):
        store.run(look)
    assert calls == [2], "an error that says 'committed' is never retried"


def test_a_deposed_writer_that_nobody_has_told_is_not_read_from(postgresql_lab: Lab, proxy: MakeProxy) -> None:
    lab = postgresql_lab
    lab.migrated(background=False, detection_time=0.8).close()
    to_primary, to_standby = proxy(lab.pair.primary_url), proxy(lab.pair.standby_url)
    believer = lab.store(standby=to_standby.url, detection_time=0.8)
    other = lab.store(primary=to_primary.url, detection_time=0.8)
    other.run(put(1))
    with believer.read() as session:
        assert count(session) == 1
    to_primary.black_hole()
    to_standby.black_hole()
    other.run(put(2))  # at the standby, which has taken over; the primary says writer still
    assert (lab.state("primary").role, lab.state("standby").role) == ("writer", "writer")
    until(lambda: "standby may have taken over from primary unseen" in _refusal(believer), "the bound of its confirmation is over")
    with believer.read(max_lag=math.inf) as session:  # who accepts what may be old gets it
        assert count(session) == 1


def test_a_writer_is_read_from_while_its_follower_is_dead(lab: Lab) -> None:
    store = lab.migrated(on_follower_down="block")
    store.run(put(1))
    until(lambda: _contact(store), "a heartbeat is answered")
    lab.kill("standby")
    end = time.monotonic() + 3 * store.settings.detection_time
    while time.monotonic() < end:  # dead all the time since the last contact: it can't have taken over
        with store.read() as session:
            assert count(session) == 1
        time.sleep(0.05)


def _refusal(store: Store) -> str:
    try:
        with store.read():
            return ""
    except StaleRead as error:
        return str(error)


def _contact(store: Store) -> bool:
    return store.pair.watch.contact is not None


def test_a_commit_that_did_not_reach_the_follower_is_reported_as_committed_and_never_repeated(postgresql_lab: Lab, proxy: MakeProxy) -> None:
    lab = postgresql_lab
    store, way = cut_off(lab, proxy)
    calls: list[int] = []

    def change(session: object) -> None:
        calls.append(1)
        put(2)(session)  # type: ignore[arg-type]

    with pytest.raises(CommittedNotReplicated, match="must not be repeated"):
        store.run(change)
    assert calls == [1]
    assert lab.accounts("primary") == {1: 0, 2: 0}
    way.restore()
    until(lambda: lab.accounts("standby") == {1: 0, 2: 0}, "it arrives late")
