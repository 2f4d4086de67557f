"""Hazard 10: a call under a key takes effect once: after a takeover, from another process, in every isolation level, for ever."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from replstore import KeyReused, Store, TransactionLost, local
from replstore.pair.decide import Term
from replstore.transaction.doubt import resolve
from tests.fix_shop import Customer, Order, both, new_store, open_store, sql

EMAIL = {"of": "first@example.org"}


def place(session: Session) -> dict[str, Any]:
    customer = Customer(email=EMAIL["of"])
    session.add(customer)
    session.flush()
    return {"customer": customer.id}


def place_another(session: Session) -> int:
    session.add(Order(item="tea"))
    return 1


def orphans(store: Store, pair: local.Pair) -> list[tuple[Any, ...]]:
    lead = store.pair.current(0.0)
    name = lead.node.database.control.name("orphan")
    return sql(pair.url(lead.node.name), f"SELECT tx_known, former_row FROM {name}")  # type: ignore[arg-type]


def test_a_key_whose_first_call_went_down_takes_effect_once_and_the_first_is_kept_as_superseded(
    shop: local.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_store(shop, background=False, durability="async") as store:
        store.sync()
        first = store.run(place, key="order-42")
        shop.kill("primary")  # with the marker, which had not been shipped
    monkeypatch.setitem(EMAIL, "of", "second@example.org")
    with open_store(shop, background=False, durability="async") as another:  # another process: it never saw the first call
        second = another.run(place, key="order-42")
        if isinstance(shop, local.PostgresPair):  # SQLite gives the same key again where the table isn't AUTOINCREMENT
            assert second["customer"] > first["customer"]
        shop.start("primary")
        another.rejoin()
        another.sync()
        assert both(shop, "SELECT id FROM customer") == ([(second["customer"],)], [(second["customer"],)])
        ((known, former),) = orphans(another, shop)
        assert known == "key"
        assert "first@example.org" in former
        assert another.run(place, key="order-42") == second
        another.switchover()
        assert another.run(place, key="order-42") == second


def test_a_call_that_was_declared_lost_is_an_orphan_known_by_its_id_also_where_its_key_was_used_again(sqlite_pair: local.SqlitePair) -> None:
    with new_store(sqlite_pair, background=False, durability="async") as store:
        store.sync()
        store.run(place, key="order-42")
        ((first,),) = sql(sqlite_pair.primary_url, "SELECT id FROM replstore_marker WHERE key = 'order-42'")
        sqlite_pair.kill("primary")
        with pytest.raises(TransactionLost):
            resolve(store.pair, Term(1, ""), first, "async", cause=None)
        store.run(place, key="order-42")
        sqlite_pair.start("primary")
        store.rejoin()
        assert [known for known, _ in orphans(store, sqlite_pair)] == ["lost"]


def test_a_key_is_known_after_the_journal_was_pruned_and_the_writer_changed(shop: local.Pair) -> None:
    with new_store(shop, background=False) as store:
        first = store.run(place, key="order-42")
        for _ in range(3):
            store.run(place_another)
            store.switchover()
        lead = store.pair.current(0.0)
        shipped = store.status().nodes[lead.follower.name].position
        assert shipped is not None
        with lead.node.begin() as connection:
            lead.node.database.prune(connection, shipped)
        assert store.run(place, key="order-42") == first
        assert both(shop, "SELECT count(*) FROM customer") == ([(1,)], [(1,)])


@pytest.mark.parametrize("isolation", [None, "REPEATABLE READ", "SERIALIZABLE"])
def test_a_second_call_that_comes_meanwhile_waits_and_gets_the_first_ones_result(postgresql_shop: local.PostgresPair, isolation: str | None) -> None:
    inside, calls = threading.Event(), []

    def slow(session: Session) -> int:
        calls.append(1)
        session.add(Order(item="tea"))
        session.flush()
        inside.set()
        session.execute(text("SELECT pg_sleep(0.3)"))
        return len(calls)

    with new_store(postgresql_shop, background=False) as store, ThreadPoolExecutor(1) as pool:
        first = pool.submit(store.run, slow, key="k", isolation=isolation)
        assert inside.wait(10)
        with open_store(postgresql_shop, background=False) as another:
            assert another.run(slow, key="k", isolation=isolation) == 1
        assert first.result() == 1
        assert len(calls) == 1
        assert both(postgresql_shop, "SELECT count(*) FROM orders") == ([(1,)], [(1,)])


def test_a_key_used_by_another_function_is_refused_before_it_is_called(shop: local.Pair) -> None:
    called = []

    def other(session: Session) -> None:
        called.append(1)

    with new_store(shop, background=False) as store:
        store.run(place, key="k")
        with pytest.raises(KeyReused, match="'k'"):
            store.run(other, key="k")
    assert called == []


def test_the_result_is_in_the_marker_before_the_commit_on_both_nodes(shop: local.Pair) -> None:
    with new_store(shop, background=False) as store:
        result = store.run(place, key="k")
        name = store.pair.primary.database.control.name("marker")
        for rows in both(shop, f"SELECT key, fn, result, outcome FROM {name}"):
            ((key, fn, stored, outcome),) = rows
            assert (key, json.loads(stored), outcome) == ("k", result, "committed")
            assert fn.endswith(".place")
