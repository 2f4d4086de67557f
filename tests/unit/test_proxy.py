"""The proxy breaks a network as the other tests need it, on real PostgreSQL sessions."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest

from replstore import local
from tests.fix_proxy import MakeProxy, Proxy


@pytest.fixture
def wire(postgresql_pair: local.PostgresPair, proxy: MakeProxy) -> Proxy:
    postgresql_pair.primary.execute("create table t (x int)", postgresql_pair.database)
    return proxy(postgresql_pair.primary_url)


def connect(wire: Proxy, timeout: int = 2) -> psycopg.Connection:
    return psycopg.connect(wire.url.replace("+psycopg", ""), connect_timeout=timeout)


def rows(pair: local.PostgresPair) -> int:
    return pair.primary.execute("select count(*)::int from t", pair.database)[0][0]


def eventually(pair: local.PostgresPair, expected: int) -> bool:
    deadline = time.monotonic() + 5
    while rows(pair) != expected and time.monotonic() < deadline:
        time.sleep(0.01)
    return rows(pair) == expected


def no_session_left(pair: local.PostgresPair) -> bool:
    count = f"select count(*)::int from pg_stat_activity where datname = '{pair.database}'"
    deadline = time.monotonic() + 5
    while pair.primary.execute(count)[0][0] and time.monotonic() < deadline:
        time.sleep(0.01)
    return pair.primary.execute(count)[0][0] == 0


def test_bytes_pass(wire: Proxy):
    with connect(wire) as session:
        assert session.execute("select repeat('x', 1000000)").fetchone() == ("x" * 1000000,)


def test_refused_connections_end_and_new_ones_come_after_restore(wire: Proxy):
    session = connect(wire)
    wire.refuse()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        connect(wire)
    with pytest.raises(psycopg.OperationalError):
        session.execute("select 1")
    wire.restore()
    assert connect(wire).execute("select 1").fetchone() == (1,)


def test_black_hole_holds_everything_until_restore(wire: Proxy):
    session = connect(wire)
    wire.black_hole()
    with pytest.raises(psycopg.errors.ConnectionTimeout):
        connect(wire)
    answers: list[object] = []
    waiting = threading.Thread(target=lambda: answers.append(session.execute("select 1").fetchone()))
    waiting.start()
    waiting.join(0.3)
    assert not answers
    wire.restore()
    waiting.join(5)
    assert answers == [(1,)]


def test_black_hole_hides_the_end_of_a_client(postgresql_pair: local.PostgresPair, wire: Proxy):
    session = connect(wire)
    wire.black_hole()
    session.close()
    time.sleep(0.2)
    count = f"select count(*)::int from pg_stat_activity where datname = '{postgresql_pair.database}'"
    assert postgresql_pair.primary.execute(count) == [(1,)]
    wire.restore()
    assert no_session_left(postgresql_pair)


def test_delay_is_added_in_each_direction(wire: Proxy):
    with connect(wire) as session:
        wire.delay(0.1)
        began = time.monotonic()
        session.execute("select 1")
        assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("then", ["pass", "refuse"])
def test_commit_whose_answer_is_lost_takes_effect(postgresql_pair: local.PostgresPair, wire: Proxy, then: str):
    session = connect(wire)
    session.execute("insert into t values (1)")
    wire.cut_after(b"COMMIT", forward=True, then=then)
    with pytest.raises(psycopg.OperationalError):
        session.commit()
    assert wire.cut.wait(5)
    assert eventually(postgresql_pair, 1)
    if then == "refuse":
        with pytest.raises(psycopg.OperationalError, match="refused"):
            connect(wire)
    else:
        assert connect(wire).execute("select count(*) from t").fetchone() == (1,)


def test_commit_that_is_lost_itself_does_not_take_effect(postgresql_pair: local.PostgresPair, wire: Proxy):
    session = connect(wire)
    session.execute("insert into t values (1)")
    wire.cut_after(b"COMMIT", forward=False)
    with pytest.raises(psycopg.OperationalError):
        session.commit()
    assert no_session_left(postgresql_pair)
    assert rows(postgresql_pair) == 0


@pytest.mark.parametrize("forward", [True, False])
def test_commit_held_by_a_black_hole_lands_late(postgresql_pair: local.PostgresPair, wire: Proxy, forward: bool):
    session = connect(wire)
    session.execute("insert into t values (1)")
    wire.cut_after(b"COMMIT", forward=forward, then="black hole")
    done = threading.Event()
    waiting = threading.Thread(target=lambda: (session.commit(), done.set()))
    waiting.start()
    assert wire.cut.wait(5)
    assert eventually(postgresql_pair, 1) if forward else (time.sleep(0.2), rows(postgresql_pair) == 0)[1]
    assert not done.is_set()
    wire.restore()
    waiting.join(5)
    assert done.is_set()
    assert rows(postgresql_pair) == 1


def test_cut_after_bytes_counts_from_the_client(wire: Proxy):
    session = connect(wire)
    wire.cut_after(1000, forward=True)
    session.execute("select repeat('x', 100000)")
    assert not wire.cut.is_set()
    with pytest.raises(psycopg.OperationalError):
        session.execute(f"select '{'x' * 1000}'")
    assert wire.cut.wait(5)
