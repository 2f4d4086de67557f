"""Promotion: by whoever does it, once, never too late and never with more lost than allowed; and what becomes of the calls in flight."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import replace

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from replstore import CommittedNotReplicated, CommitUnknown, TransactionLost
from replstore.pair import by_native
from replstore.pair.view import Term
from tests.fix_native import NativeLab, ended, in_thread, refuses
from tests.fix_proxy import MakeProxy
from tests.fix_stores import Account, put, until
from tests.fix_streaming import on_an_installed_server_too


def add(session: Session) -> None:
    """Counts what takes effect."""
    session.get(Account, 1, with_for_update=True).amount += 1  # type: ignore[union-attr]


# ---------------------------------------------------------------------------- who promotes


def test_calls_in_flight_wait_for_whoever_promotes_and_the_first_store_records_the_timeline(native_lab: NativeLab) -> None:
    lab = native_lab
    stores = [lab.migrated(promote=False, takeover_timeout=20.0), lab.store(promote=False, takeover_timeout=20.0)]
    stores[0].run(put(1))
    stores[0].sync()
    before = lab.timelines("standby")
    lab.kill("primary")
    threads = [in_thread(lambda store=store, number=number: store.run(put(10 + number))) for number, store in enumerate(stores)]
    until(lambda: all(store.pair.lead is None for store in stores), "the primary's loss is seen")
    time.sleep(0.3)
    assert all(thread.is_alive() for thread, _ in threads)
    assert lab.timelines("standby") == before  # nobody promotes by himself
    lab.pair.promote("standby")
    ended(*(thread for thread, _ in threads))
    assert [results for _, results in threads] == [[None], [None]]
    assert sorted(lab.accounts("standby")) == [1, 10, 11]
    assert {store.pair.watch.view().highest for store in stores} == {lab.lead("standby").term}  # also for whoever has seen it without a record
    assert len(lab.timelines("standby")) == len(before) + 1


@on_an_installed_server_too
def test_where_a_timeline_ended_is_recorded_only_where_it_is_known(native_lab: NativeLab) -> None:
    """A server that crashed after its promotion, before any Store came, tells the end of its crash's recovery instead."""
    lab = native_lab
    lab.migrated(background=False).close()
    lab.pair.stop("primary")
    lab.pair.promote("standby")
    lab.pair.standby.execute("CREATE TABLE meanwhile ()", lab.pair.database)
    lab.crash("standby")
    store = lab.store()
    store.run(put(1))
    ((*_, switched),) = lab.sql("standby", "SELECT no, switched_at FROM replstore.timeline ORDER BY no DESC LIMIT 1")
    assert switched is None


# ---------------------------------------------------------------------------- how much may be lost


def test_a_standby_that_lacks_too_much_is_not_promoted_but_by_force(native_lab: NativeLab) -> None:
    lab = native_lab
    store = lab.migrated(takeover_timeout=1.0)
    store.run(put(1))
    store.sync()
    with lab.cut_receiver():
        store.run(put(2))
        store.pair.look()
        lab.kill("primary")
        refuses(lambda: store.run(put(3)), r"standby isn't promoted: it lacks \d+ bytes that primary had, and max_data_loss_bytes is 0")
        assert len(lab.timelines("standby")) == 1
        store.takeover("standby", force=True)
        store.run(put(4))
    assert lab.accounts("standby") == {1: 0, 4: 0}


def test_a_program_that_lost_sight_of_the_primary_before_others_did_doesn_t_promote(native_lab: NativeLab, proxy: MakeProxy) -> None:
    """What it has seen of the primary's log says nothing of what others have written since."""
    lab = native_lab
    other = lab.migrated(promote=False)
    way = proxy(lab.pair.primary_url)
    store = lab.store(primary=way.url, takeover_timeout=1.0)
    store.run(put(1))
    way.black_hole()
    until(lambda: store.pair.decision is not None and "another program reaches primary" in store.pair.decision.reason, "it is cut off")
    until(lambda: other.run(put(2)) or store.pair.watch._written(store.pair.look()[0].standby) is None, "others have gone on for a while")
    other.sync()
    lab.kill("primary")
    refuses(lambda: store.run(put(3)), "this program hasn't seen primary for as long as standby received from it")
    assert len(lab.timelines("standby")) == 1


# ---------------------------------------------------------------------------- what becomes of transactions


@on_an_installed_server_too
def test_no_call_is_doubled_or_lost_while_the_primary_dies_under_load(native_lab: NativeLab, caplog: pytest.LogCaptureFixture) -> None:
    lab = native_lab
    store = lab.migrated(durability="replicated", ack_timeout=0.5)
    store.run(put(1))
    done, over = [0] * 4, threading.Event()

    def work(n: int) -> None:
        while not over.is_set():
            try:
                store.run(add)
            except CommittedNotReplicated:  # the new primary has no standby
                over.set()
            done[n] += 1

    threads = [in_thread(lambda n=n: work(n)) for n in range(4)]
    until(lambda: sum(done) > 20, "they are at work")
    lab.kill("primary")
    ended(*(thread for thread, _ in threads))
    assert [results for _, results in threads] == [[None]] * 4
    assert lab.accounts("standby") == {1: sum(done)}
    assert "Exception during reset" not in caplog.text  # what was lost is told once, as an error of the call


@on_an_installed_server_too
@pytest.mark.parametrize("call", ["run", "begin"])
def test_a_commit_that_did_not_reach_the_standby_is_lost_and_said_to_be(native_lab: NativeLab, proxy: MakeProxy, call: str) -> None:
    """Asynchronous: the answer to COMMIT and the primary go at one moment, and the standby hasn't got it."""
    lab = native_lab
    way = proxy(lab.pair.primary_url)
    store = lab.migrated(primary=way.url, max_data_loss_bytes=10**6, background=False)
    store.run(put(1))
    store.sync()
    store.pair.look()
    with lab.cut_receiver():
        way.cut_after(b"COMMIT", forward=True, then="refuse")
        if call == "run":
            store.run(add)  # repeated on the new primary
        else:
            with pytest.raises(TransactionLost, match="its tombstone is on standby"), store.begin() as session:
                add(session)
        assert lab.accounts("primary") == {1: 1}
    assert lab.accounts("standby") == {1: 1 if call == "run" else 0}
    assert sorted(lab.markers("standby").values())[-1] == "lost"


def test_a_switchover_under_load_leaves_nothing_on_the_former_primary(native_lab: NativeLab) -> None:
    lab = native_lab
    store = lab.migrated(promote=False, takeover_timeout=20.0)
    store.run(put(1))
    done, over = [0] * 3, threading.Event()

    def write(n: int) -> None:
        while not over.is_set():
            store.run(add)
            done[n] += 1

    def read() -> None:
        last = 0
        while not over.is_set():
            with suppress(DBAPIError), store.read(node="writer") as session:  # one that is under way when its server stops
                amount = session.get(Account, 1).amount  # type: ignore[union-attr]
                assert amount >= last
                last = amount

    threads = [*(in_thread(lambda n=n: write(n)) for n in range(3)), in_thread(read)]
    until(lambda: sum(done) > 10, "they are at work")
    lab.pair.switch_over()
    before = sum(done)
    until(lambda: sum(done) > before + 10, "they are at work again")
    assert store.status().writer == "standby"
    over.set()
    ended(*(thread for thread, _ in threads))
    assert [results for _, results in threads] == [[None]] * 4
    store.sync()
    assert lab.accounts("standby") == lab.accounts("primary") == {1: sum(done)}


def test_a_transaction_that_committed_on_a_former_primary_is_not_acknowledged_by_who_knows_better(native_lab: NativeLab) -> None:
    """It began before the promotion, and its COMMIT came through after this program had met the new primary."""
    lab = native_lab
    store = lab.migrated(background=False, takeover_timeout=0.5)
    store.run(put(1))
    store.sync()
    with pytest.raises(CommitUnknown, match="both nodes write"), store.begin() as session:
        session.get(Account, 1).amount = 5  # type: ignore[union-attr]
        session.flush()
        lab.pair.promote("standby")
        by_native.record(store.pair.standby)
        state, lead = lab.state("standby"), store.pair.lead
        assert lead is not None
        store.pair.lead = replace(lead, node=store.pair.standby, follower=store.pair.primary, term=Term(state.term_no, state.term_uuid))
    assert (lab.accounts("primary"), lab.accounts("standby")) == ({1: 5}, {1: 0})
