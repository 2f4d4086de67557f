"""Reads on a streaming pair: within a bound of seconds or of bytes, after a token, and past what happens to a standby."""

from __future__ import annotations

import re
import threading
import time

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from replstore import Repository
from tests.fix_native import NativeLab
from tests.fix_stores import Account, put, until
from tests.fix_streaming import on_an_installed_server_too
from tests.native.standby import Call, configured, name_of, replay_paused, resume, served_by

MB = 1_000_000


def write_log(lab: NativeLab, size: int) -> None:
    """So many bytes of the log, durable."""
    lab.pair.primary.execute(f"SELECT pg_logical_emit_message(true, 'filling', repeat('x', {size}))")


# --- a bound on the lag


@on_an_installed_server_too
def test_an_idle_primary_is_not_taken_for_an_old_one(native_lab: NativeLab) -> None:
    store = native_lab.migrated()
    store.run(put(1))
    time.sleep(1.2)  # longer than the bound
    until(lambda: served_by(native_lab, store, node="any", max_lag=1.0) == "standby", "the standby serves")


@on_an_installed_server_too
def test_a_page_of_the_log_that_has_just_begun_keeps_nobody_waiting(native_lab: NativeLab) -> None:
    """The primary's place is behind the header of the new segment, and there is nothing to replay up to it."""
    native_lab.migrated().close()
    store = native_lab.store(background=False)
    native_lab.pair.primary.execute("SELECT pg_switch_wal()")
    store.pair.look()
    until(lambda: served_by(native_lab, store, node="any", max_lag=60.0) == "standby", "the standby serves", 3.0)


def test_a_standby_that_stopped_replaying_costs_one_wait_and_then_the_primary_serves(native_lab: NativeLab) -> None:
    store = native_lab.migrated()
    with replay_paused(native_lab):
        store.run(put(1))
        time.sleep(0.4)
        assert served_by(native_lab, store, node="follower", max_lag=0.3) == "primary"
        began = time.monotonic()
        assert [served_by(native_lab, store, node="follower", max_lag=0.3) for _ in range(5)] == ["primary"] * 5
        assert time.monotonic() - began < 3.0  # five waits would be five seconds
    until(lambda: served_by(native_lab, store, node="follower", max_lag=1.0) == "standby", "it serves again")


def test_a_bound_shorter_than_the_last_look_is_asked_for_and_waited_for(native_lab: NativeLab) -> None:
    native_lab.migrated().close()
    store = native_lab.store(background=False)
    for id in (1, 2):
        store.run(put(id))
        with store.read(node="follower", max_lag=0.0) as session:
            assert (name_of(native_lab, session), session.get(Account, id) is not None) == ("standby", True)


def test_a_bound_in_bytes_counts_what_the_primary_had_when_it_was_seen(native_lab: NativeLab) -> None:
    store = native_lab.migrated()
    with replay_paused(native_lab):
        write_log(native_lab, 3 * MB)
        until(lambda: served_by(native_lab, store, node="any", max_lag_bytes=MB) == "primary", "it is known to lack more")
        until(lambda: served_by(native_lab, store, node="any", max_lag_bytes=100 * MB) == "standby", "it lacks less than that")
        assert Repository(store, Account).count(node="any", max_lag_bytes=100 * MB) == 0
    until(lambda: served_by(native_lab, store, node="any", max_lag_bytes=MB) == "standby", "it has come near")


def test_no_servers_clock_is_asked(native_lab: NativeLab) -> None:
    """So it doesn't matter how far apart they are (HAZARDS 22)."""
    native_lab.migrated().close()
    store = native_lab.store(background=False)
    store.run(put(1))
    native_lab.pair.catch_up()
    standby = native_lab.pair.standby
    with configured(standby, log_statement="all"):
        store.pair.look()
        before = len(standby.logs)
        until(lambda: served_by(native_lab, store, node="any", max_lag=60.0) == "standby", "the standby serves")
        assert served_by(native_lab, store, node="follower", max_lag=0.0) == "standby"
        asked = standby.logs[before:]
    assert "inet_server_port" in asked
    assert not re.search(r"now\(\)|clock_timestamp|statement_timestamp|replay_timestamp|localtime|current_time", asked)


# --- after a token


@on_an_installed_server_too
def test_a_read_after_a_token_waits_for_the_standby(native_lab: NativeLab) -> None:
    store = native_lab.migrated()
    with replay_paused(native_lab):
        store.run(put(1))
        token = store.token()
        assert served_by(native_lab, store, node="any", after=token) == "primary"  # whichever has it now
        call = Call(lambda: served_by(native_lab, store, node="follower", after=token))
        time.sleep(0.2)
        assert call.running
        resume(native_lab)
        assert call.end() == "standby"


def test_a_token_is_never_taken_from_a_server_that_has_become_the_standby(native_lab: NativeLab) -> None:
    """What that has replayed is less than what this Store has committed."""
    native_lab.migrated().close()
    store = native_lab.store(background=False)
    store.run(put(1))
    before = store.token()
    native_lab.pair.switch_over()
    store.pair.primary.service.dispose()  # a lost connection would let it look
    token = store.token()
    assert token.term_no == before.term_no + 1
    with store.read(after=token) as session:
        assert (name_of(native_lab, session), session.get(Account, 1) is not None) == ("standby", True)


def test_the_wait_is_bounded_and_then_the_primary_serves(native_lab: NativeLab) -> None:
    store = native_lab.migrated()
    with replay_paused(native_lab):
        store.run(put(1))
        token = store.token()
        call = Call(lambda: served_by(native_lab, store, node="follower", after=token))
        assert call.end() == "primary"
        assert 0.9 < call.seconds < 4.0  # 1 s


def test_readers_that_wait_share_the_questions(native_lab: NativeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for commits: one thread asks for all."""
    store = native_lab.migrated(ack_timeout=5.0)
    store.run(put(0), durability="replicated")
    replay, _ = store.pair.shipping._replays["primary"]  # type: ignore[attr-defined]
    asked = 0
    replayed = replay.replayed

    def counted(markers: object = ()) -> object:
        nonlocal asked
        asked += 1
        return replayed(markers)

    monkeypatch.setattr(replay, "replayed", counted)
    with replay_paused(native_lab):
        calls = [Call(lambda id=id: store.run(put(id), durability="replicated")) for id in range(1, 9)]  # type: ignore[misc]
        until(lambda: len(native_lab.accounts("primary")) == 9, "all are committed")
        began, asked = time.monotonic(), 0
        time.sleep(0.5)
        resume(native_lab)
        assert [call.end() for call in calls] == [None] * 8
        assert asked < (time.monotonic() - began) / 0.01 + 16  # one that asks every 10 ms, not eight
    assert len(native_lab.accounts("standby")) == 9


# --- what happens to a standby


def test_a_connection_that_a_restart_has_ended_is_replaced_when_a_read_opens(native_lab: NativeLab) -> None:
    native_lab.migrated().close()
    store = native_lab.store(background=False)
    assert served_by(native_lab, store, node="any") == "standby"
    native_lab.crash("standby")
    assert served_by(native_lab, store, node="any") == "standby"


def test_roles_that_changed_places_are_found_out_by_the_read_itself(native_lab: NativeLab) -> None:
    native_lab.migrated().close()
    store = native_lab.store(background=False)
    store.run(put(1))
    assert served_by(native_lab, store, node="follower") == "standby"
    native_lab.pair.switch_over()
    with store.read() as session:
        assert (name_of(native_lab, session), session.get(Account, 1) is not None) == ("standby", True)
    store.run(put(2))
    until(lambda: served_by(native_lab, store, node="follower") == "primary", "the follower is the other one now")


@on_an_installed_server_too
def test_a_query_in_the_way_of_the_recovery_is_repeated(native_lab: NativeLab) -> None:
    store = native_lab.migrated()
    store.run(put(1))
    store.sync()
    calls: list[str] = []

    def look(session: Session) -> str:
        calls.append(name_of(native_lab, session))
        session.scalars(select(Account)).all()
        if len(calls) == 1:
            other = threading.Timer(0.2, native_lab.sql, ("primary", "ALTER TABLE account ADD COLUMN note text"))
            other.start()
            session.execute(text("SELECT pg_sleep(10)"))  # and holds its lock
        return calls[-1]

    with configured(native_lab.pair.standby, max_standby_streaming_delay="0"):
        assert store.query(look, node="follower") in ("primary", "standby")
    assert len(calls) == 2


def test_within_a_block_the_conflict_reaches_the_caller(native_lab: NativeLab) -> None:
    store = native_lab.migrated()
    store.run(put(1))
    store.sync()
    with configured(native_lab.pair.standby, max_standby_streaming_delay="0"):
        with pytest.raises(OperationalError), store.read(node="follower") as session:
            session.scalars(select(Account)).all()
            native_lab.sql("primary", "ALTER TABLE account ADD COLUMN note text")
            native_lab.pair.catch_up()
            session.scalars(select(Account)).all()
        assert served_by(native_lab, store, node="follower") == "standby"


@pytest.mark.parametrize(
    ("terms", "fault"),
    [
        ({"max_lag": -1}, "max_lag is a number of seconds"),
        ({"max_lag_bytes": float("nan")}, "max_lag_bytes is a number of bytes"),
        ({"after": "token"}, "after is a token"),
        ({"node": "standby"}, "node must be"),
    ],
)
def test_terms_that_mean_nothing_are_refused(native_lab: NativeLab, terms: dict[str, object], fault: str) -> None:
    store = native_lab.store(background=False)
    with pytest.raises(ValueError, match=fault), store.read(**terms):  # type: ignore[arg-type]
        pass
