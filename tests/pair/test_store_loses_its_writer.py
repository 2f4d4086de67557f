"""A transaction, with a key or without, whose writer or connection is lost takes effect once or says what became of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import exc, text
from sqlalchemy.orm import Session

from replstore import (
    KeyReused,
    NoWriter,
    ResultNotSerializable,
    Store,
    TransactionLost,
    local,
)
from tests.fix_programs import Program, at_once
from tests.fix_shop import COUNT, add, markers, new_store, on_both, open_store, sql, wait_until

# --- the writer is lost


def test_begin_raises_transaction_lost_when_its_writer_dies_in_the_block(shop: local.Pair) -> None:
    with new_store(shop) as store:
        store.sync()  # in sync, so that the standby may take over
        with pytest.raises(TransactionLost), store.begin() as session:
            add(session)
            shop.kill("primary")
            if isinstance(shop, local.PostgresPair):
                session.execute(text("SELECT 1"))
        with store.begin() as session:  # the next one finds the new writer
            add(session, "again")
        assert store.status().writer == "standby"
        assert sql(shop.standby_url, "SELECT item FROM orders") == [("again",)]


def test_run_goes_on_at_the_standby_and_takes_effect_once(shop: local.Pair) -> None:
    calls = []

    def place(session: Session) -> int:
        calls.append(1)
        key = add(session)
        if len(calls) == 1:
            shop.kill("primary")
            session.execute(text("SELECT 1"))
        return key

    with new_store(shop) as store:
        store.sync()  # in sync, so that the standby may take over
        assert store.run(place) > 0
        assert len(calls) == 2
        assert sql(shop.standby_url, COUNT) == [(1,)]
        shop.start("primary")
        wait_until(lambda: store.status().healthy)
        assert on_both(store) == (1, 1)


def test_one_killed_backend_is_no_lost_writer(postgresql_shop: local.PostgresPair) -> None:
    with new_store(postgresql_shop) as store:
        calls = []

        def place(session: Session) -> None:
            calls.append(1)
            add(session)
            if len(calls) == 1:
                pid = session.scalar(text("SELECT pg_backend_pid()"))
                sql(postgresql_shop.primary_url, f"SELECT pg_terminate_backend({pid})")
                session.execute(text("SELECT 1"))

        store.run(place)
        assert (len(calls), store.status().writer) == (2, "primary")
        assert on_both(store) == (1, 1)


@pytest.mark.parametrize("reached", [True, False], ids=["after it reached the server", "before it reached the server"])
def test_a_commit_that_is_cut_takes_effect_once(postgresql_shop: local.PostgresPair, proxy: Any, *, reached: bool) -> None:
    path = proxy(postgresql_shop.primary_url)
    new_store(postgresql_shop, background=False).close()
    with open_store((path.url, postgresql_shop.standby_url), background=False) as store:
        calls = []

        def place(session: Session) -> None:
            calls.append(1)
            add(session)
            if len(calls) == 1:
                path.cut_after(b"COMMIT", forward=reached)

        store.run(place)
        assert path.cut.is_set()
        assert len(calls) == (1 if reached else 2)
        assert on_both(store) == (1, 1)


def test_begin_tells_a_lost_commit_from_a_commit_whose_answer_is_lost(postgresql_shop: local.PostgresPair, proxy: Any) -> None:
    path = proxy(postgresql_shop.primary_url)
    new_store(postgresql_shop, background=False).close()
    with open_store((path.url, postgresql_shop.standby_url), background=False) as store:
        with store.begin() as session:
            add(session, "answer lost")
            path.cut_after(b"COMMIT", forward=True)
        with pytest.raises(TransactionLost, match="tombstone"), store.begin() as session:
            add(session, "commit lost")
            path.cut_after(b"COMMIT", forward=False)
        assert sql(postgresql_shop.primary_url, "SELECT item FROM orders") == [("answer lost",)]


def test_no_node_is_no_writer_and_the_error_says_what_to_do(shop: local.Pair) -> None:
    with new_store(shop, takeover_timeout=0.5) as store:
        shop.kill("standby")
        shop.kill("primary")
        with pytest.raises(NoWriter, match=r"primary.*standby|standby.*primary"):
            store.run(add)


# --- calls under a key


def place_counted(session: Session) -> dict[str, Any]:
    return {"order": add(session), "pair": (1, 2)}


def place_other(session: Session) -> int:
    return add(session)


def test_a_key_takes_effect_once_and_every_caller_gets_the_same_result(shop: local.Pair) -> None:
    with new_store(shop) as store:
        first = store.run(place_counted, key="order-42")
        assert first == {"order": 1, "pair": [1, 2]}  # as JSON gives it back, the first time too
        assert store.run(place_counted, key="order-42") == first
    with open_store(shop) as another:
        assert another.run(place_counted, key="order-42") == first
        assert on_both(another) == (1, 1)


def test_a_key_of_another_function_is_refused(store: Store) -> None:
    store.run(place_counted, key="k")
    with pytest.raises(KeyReused, match=r"place_counted.*place_other"):
        store.run(place_other, key="k")
    assert on_both(store) == (1, 1)


@pytest.mark.parametrize("bad", [object(), {1, 2}, b"bytes", float("nan")], ids=["object", "set", "bytes", "nan"])
def test_a_result_that_json_cannot_hold_rolls_back(lite: Store, bad: Any) -> None:
    def place(session: Session) -> Any:
        add(session)
        return bad

    with pytest.raises(ResultNotSerializable):
        lite.run(place, key="k")
    assert on_both(lite) == (0, 0)
    assert markers(lite) == 0


def test_a_keyed_call_commits_together_with_its_result_and_not_before(store: Store) -> None:
    def early(session: Session) -> int:
        key = add(session)
        session.commit()
        return key

    with pytest.raises(exc.InvalidRequestError, match="at the end of its block"):
        store.run(early, key="k")
    assert on_both(store) == (0, 0)
    assert store.run(place_other, key="k") > 0


def test_a_keyed_call_that_fails_leaves_its_key_free(store: Store) -> None:
    calls = []

    def place(session: Session) -> int:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError
        return add(session)

    with pytest.raises(RuntimeError):
        store.run(place, key="k")
    assert store.run(place, key="k") == 1


def test_a_keyed_call_outlives_a_failover(shop: local.Pair) -> None:
    with new_store(shop) as store:
        first = store.run(place_counted, key="k")
        shop.kill("primary")
        assert store.run(place_counted, key="k") == first
        assert sql(shop.standby_url, COUNT) == [(1,)]


CALLER = """
import sys, time
from tests.fix_shop import Order, open_store

def place(session):
    order = Order(item="tea")
    session.add(order)
    session.flush()
    time.sleep(0.3)
    return order.id

with open_store((sys.argv[1], sys.argv[2])) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    print(store.run(place, key="order-42"), flush=True)
"""


def test_two_processes_with_one_key_at_once_take_effect_once(shop: local.Pair, program: Callable[..., Program]) -> None:
    with new_store(shop) as store:
        assert at_once([program(CALLER, shop.primary_url, shop.standby_url) for _ in range(2)]) == ["1", "1"]
        assert on_both(store) == (1, 1)
