"""Hazard 6: the server's COMMIT returns, or doesn't, for reasons of its own; what counts as replicated is what the standby shows."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from replstore import CommittedNotReplicated, TransactionLost
from tests.fix_native import NativeLab
from tests.fix_proxy import MakeProxy
from tests.fix_stores import put, until
from tests.fix_streaming import on_an_installed_server_too
from tests.native.standby import Call, configured, replay_paused, resume, waits_for_standby, walwriter_stopped


@pytest.fixture
def waiting_lab(native_lab: NativeLab) -> Iterator[NativeLab]:
    """The primary waits at each COMMIT until the standby has replayed it."""
    native_lab.migrated()
    native_lab.pair.synchronous()
    with configured(native_lab.pair.primary, synchronous_commit="remote_apply"):
        yield native_lab


def test_standbys_that_nobody_waits_for_any_more_prove_nothing(waiting_lab: NativeLab) -> None:
    """Patroni empties the setting when the standby is lost: COMMIT returns without a word."""
    store = waiting_lab.store()
    with replay_paused(waiting_lab):
        call = Call(lambda: store.run(put(1), durability="replicated"))
        waits_for_standby(waiting_lab)
        waiting_lab.pair.synchronous(False)
        assert isinstance(call.end(), CommittedNotReplicated)
        assert waiting_lab.accounts("primary") == {1: 0}  # COMMIT had returned


@on_an_installed_server_too
def test_without_any_synchronous_standby_the_proof_alone_is_waited_for(native_lab: NativeLab) -> None:
    native_lab.migrated()
    store = native_lab.store(ack_timeout=5.0)
    with configured(native_lab.pair.primary, synchronous_commit="remote_apply"), replay_paused(native_lab):
        call = Call(lambda: store.run(put(1), durability="replicated"))
        until(lambda: native_lab.accounts("primary") == {1: 0}, "it is committed")
        assert call.running
        resume(native_lab)
        assert call.end() is None
    assert native_lab.accounts("standby") == {1: 0}


@pytest.mark.parametrize("durability", ["replicated", "remote_apply", "server"])
def test_a_wait_that_was_cancelled_is_no_success(waiting_lab: NativeLab, durability: str) -> None:
    """The server commits, and only warns."""
    store = waiting_lab.store()
    with replay_paused(waiting_lab):
        call = Call(lambda: store.run(put(1), durability=durability))  # type: ignore[arg-type]
        waiting_lab.sql("primary", f"SELECT pg_cancel_backend({waits_for_standby(waiting_lab)})")
        assert isinstance(call.end(), CommittedNotReplicated)


def test_a_session_that_was_ended_in_its_wait_is_no_success(waiting_lab: NativeLab) -> None:
    store = waiting_lab.store()
    with replay_paused(waiting_lab):
        call = Call(lambda: store.run(put(1), durability="remote_apply"))
        waiting_lab.sql("primary", f"SELECT pg_terminate_backend({waits_for_standby(waiting_lab)})")
        assert isinstance(call.end(), CommittedNotReplicated)
    assert waiting_lab.accounts("primary") == {1: 0}


def test_a_warning_of_the_programs_own_has_nothing_to_do_with_it(native_lab: NativeLab) -> None:
    store = native_lab.migrated()
    with replay_paused(native_lab):
        store.run(lambda session: session.execute(text("DO $$ BEGIN RAISE WARNING 'low stock'; END $$")), durability="server")


@pytest.mark.parametrize("background", [True, False])
def test_a_commit_that_waits_for_a_lost_standby_comes_back(waiting_lab: NativeLab, *, background: bool) -> None:
    store = waiting_lab.store(background=background)
    store.run(put(1))
    waiting_lab.kill("standby")
    began = time.monotonic()
    with pytest.raises(CommittedNotReplicated, match="must not be repeated"):
        store.run(put(1, amount=7))
    assert 1.0 <= time.monotonic() - began < 5.0  # ack_timeout is 1 s
    assert waiting_lab.accounts("primary") == {1: 7}
    store.run(put(1, amount=8), durability="local")  # nobody holds the row any more


def test_without_a_marker_it_comes_back_as_well(waiting_lab: NativeLab) -> None:
    store = waiting_lab.store(background=False, commit_marker=False)
    store.run(put(1))
    waiting_lab.kill("standby")
    with pytest.raises(CommittedNotReplicated):
        store.run(put(1, amount=7))
    store.run(put(1, amount=8), durability="local")


def test_a_tombstone_waits_for_no_standby(waiting_lab: NativeLab, proxy: MakeProxy) -> None:
    network = proxy(waiting_lab.pair.primary_url)
    store = waiting_lab.store(primary=network.url, background=False)  # the COMMIT that is cut is the program's, not a look's
    store.run(put(1))
    waiting_lab.kill("standby")
    network.cut_after(b"COMMIT", forward=False)
    with pytest.raises(TransactionLost, match="tombstone"), store.begin(durability="local") as session:
        put(1, amount=7)(session)
    assert sorted(waiting_lab.markers("primary").values()) == ["committed", "lost"]


@on_an_installed_server_too
def test_a_transaction_that_asks_for_no_flush_is_proved_all_the_same(native_lab: NativeLab) -> None:
    """Its log is sent when somebody flushes it; nobody else does here."""
    native_lab.migrated().close()
    store = native_lab.store(background=False, ack_timeout=5.0)

    def change(session: Session) -> None:
        session.execute(text("SET LOCAL synchronous_commit = off"))
        put(1)(session)

    with walwriter_stopped(native_lab.pair.primary):
        store.run(change, durability="replicated")
        assert native_lab.accounts("standby") == {1: 0}
