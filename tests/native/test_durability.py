"""``durability`` on a streaming pair: what is proved, and levels of ``synchronous_commit`` for one transaction."""

from __future__ import annotations

import os
import signal
from typing import Any, get_args

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from replstore import CommittedNotReplicated, DurabilityUnavailable, Store
from replstore.store import Durability
from tests.fix_native import NativeLab
from tests.fix_stores import Account, put, until
from tests.fix_streaming import on_an_installed_server_too
from tests.native.standby import Call, replay_paused, resume

LEVELS = ("remote_apply", "on", "remote_write", "local", "off")


@pytest.fixture
def synchronous_lab(native_lab: NativeLab) -> NativeLab:
    """The primary names its standby; how far it waits for it, each transaction says."""
    native_lab.migrated().close()
    native_lab.pair.synchronous()
    return native_lab


def level(session: Session) -> Any:
    return session.scalar(text("SHOW synchronous_commit"))


def test_a_level_is_in_force_for_its_transaction_alone(synchronous_lab: NativeLab) -> None:
    store = synchronous_lab.store()
    for asked in LEVELS:
        assert store.run(level, durability=asked) == asked  # type: ignore[arg-type]
        assert store.run(level) == "on"
        with store.begin(durability=asked) as session:  # type: ignore[arg-type]
            assert level(session) == asked
        for attempt in store.attempts(durability=asked):  # type: ignore[arg-type]
            with attempt as session:
                assert level(session) == asked
        assert store.run(put_and_say, key=f"key {asked}", durability=asked) == asked  # type: ignore[arg-type]
    with store.sessionmaker().begin() as session:
        assert level(session) == "on"


def put_and_say(session: Session) -> str:
    put(1)(session)
    return str(level(session))


def test_what_the_server_has_for_a_default_is_left_as_it_is(native_lab: NativeLab) -> None:
    store = native_lab.migrated()
    ((database,),) = native_lab.sql("primary", "SELECT current_database()")
    native_lab.sql("primary", f"ALTER ROLE app IN DATABASE {database} SET synchronous_commit = off")
    assert native_lab.store(background=False).run(level) == "off"
    assert store.run(level, durability="local") == "local"


def test_what_a_level_waits_for_is_what_it_says(synchronous_lab: NativeLab) -> None:
    store = synchronous_lab.store(ack_timeout=0.5)

    def waits(durability: Durability) -> bool:
        try:
            store.run(put(1), durability=durability)
        except CommittedNotReplicated:
            return True
        return False

    with replay_paused(synchronous_lab):
        assert [waits(each) for each in ("remote_apply", "on", "local")] == [True, False, False]  # type: ignore[arg-type]
    ((pid,),) = synchronous_lab.pair.standby.execute("SELECT pid FROM pg_stat_wal_receiver")
    os.kill(pid, signal.SIGSTOP)
    try:
        assert [waits(each) for each in ("on", "remote_write", "local", "off")] == [True, True, False, False]  # type: ignore[arg-type]
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_level_that_would_wait_for_nobody_is_refused(native_lab: NativeLab) -> None:
    native_lab.migrated().close()
    store = native_lab.store(background=False)
    for asked in ("remote_apply", "on", "remote_write"):
        with pytest.raises(DurabilityUnavailable, match="primary's synchronous_standby_names is empty"):
            store.run(put(1), durability=asked)  # type: ignore[arg-type]
    assert native_lab.accounts("primary") == {}
    store.run(put(1), durability="local")
    native_lab.pair.synchronous()
    store.run(put(2), durability="remote_apply")  # at once: a refusal isn't made by what was seen some time ago
    assert native_lab.accounts("standby") == {1: 0, 2: 0}


def test_a_durability_is_one_of_those_that_there_are(native_lab: NativeLab) -> None:
    store = native_lab.migrated()
    with pytest.raises(ValueError, match="durability must be 'replicated', 'server'"):
        store.run(put(1), durability="async")
    with pytest.raises(ValueError, match="'remote_apply'"), store.begin(durability="fast"):  # type: ignore[arg-type]
        pass
    assert set(get_args(Durability)) == {"async", *store.pair.link.durabilities}


@pytest.fixture
def replicated(native_lab: NativeLab) -> Store:
    """A pair whose own durability is replicated."""
    return native_lab.migrated(durability="replicated", ack_timeout=5.0)


@on_an_installed_server_too
def test_replicated_holds_for_every_kind_of_transaction(native_lab: NativeLab, replicated: Store) -> None:
    """None of them ends before the standby shows it; one that only reads doesn't either, since what it has seen may not be there yet (HAZARDS 17)."""

    def begin() -> None:
        with replicated.begin() as session:
            put(2)(session)

    def attempts() -> None:
        for attempt in replicated.attempts():
            with attempt as session:
                put(3)(session)

    def session() -> None:
        with replicated.sessionmaker().begin() as session:
            put(4)(session)

    kinds = [lambda: replicated.run(put(1)), begin, attempts, session, lambda: replicated.run(said, key="key 1"), lambda: replicated.run(count)]
    with replay_paused(native_lab):
        calls = [Call(kind) for kind in kinds]
        until(lambda: len(native_lab.markers("primary")) == len(kinds), "all are committed")
        assert all(call.running for call in calls)
        resume(native_lab)
        assert not [error for call in calls if isinstance(error := call.end(), Exception)]
    assert native_lab.accounts("standby") == {1: 0, 2: 0, 3: 0, 4: 0, 5: 0}


def said(session: Session) -> str:
    put(5)(session)
    return "done"


def count(session: Session) -> int:
    return session.query(Account).count()


@pytest.mark.parametrize("durability", ["replicated", "remote_apply"])
def test_a_key_that_was_used_counts_when_its_first_call_is_on_the_standby(synchronous_lab: NativeLab, durability: str) -> None:
    store = synchronous_lab.store()
    with replay_paused(synchronous_lab):
        assert store.run(said, key="key 1", durability="local") == "done"
        with pytest.raises(CommittedNotReplicated):
            store.run(said, key="key 1", durability=durability)  # type: ignore[arg-type]
    assert store.run(said, key="key 1", durability=durability) == "done"  # type: ignore[arg-type]


def test_the_standbys_loss_is_said_with_the_transactions_id_and_not_repeated(native_lab: NativeLab) -> None:
    store = native_lab.migrated(durability="replicated")
    native_lab.kill("standby")
    calls = 0

    def change(session: Session) -> None:
        nonlocal calls
        calls += 1
        put(1)(session)

    with pytest.raises(CommittedNotReplicated) as raised:
        store.run(change)
    assert calls == 1
    assert native_lab.markers("primary")[raised.value.id or ""] == "committed"


@on_an_installed_server_too
def test_a_primary_that_dies_before_the_proof_leaves_the_decision_to_the_new_one(native_lab: NativeLab) -> None:
    """The standby has received the commit and not replayed it: after the promotion its marker is there, and nothing is done twice."""
    store = native_lab.migrated(durability="replicated", ack_timeout=5.0)
    calls = 0

    def change(session: Session) -> None:
        nonlocal calls
        calls += 1
        session.add(Account(id=1, owner="ada", amount=calls))

    with replay_paused(native_lab):
        call = Call(lambda: store.run(change))
        until(lambda: native_lab.accounts("primary") == {1: 1}, "it is committed")
        ((received,),) = native_lab.pair.primary.execute("SELECT pg_current_wal_flush_lsn()::text")
        until(
            lambda: native_lab.pair.standby.execute(f"SELECT pg_last_wal_receive_lsn() >= '{received}'") == [(True,)], "the standby has received it"
        )
        native_lab.kill("primary")
        resume(native_lab)
        native_lab.pair.promote("standby")
    assert call.end() is None
    assert (calls, native_lab.accounts("standby")) == (1, {1: 1})
