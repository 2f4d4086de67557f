"""Hazard 11, as far as recording goes: a former writer is fenced, then its orphans are read, then recorded, then overwritten; nothing else is touched."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from replstore import Store, SwitchoverFailed, local
from replstore.databases.carrier import CompareFailed
from replstore.pair import rejoin as rejoining
from tests.fix_pairs import plain
from tests.fix_proxy import MakeProxy
from tests.fix_shop import Customer, Order, both, new_store, open_store, sql, wait_until

ASYNC: dict[str, Any] = {"background": False, "durability": "async", "rejoin": "manual"}


def orphans(store: Store, pair: local.Pair) -> dict[tuple[str, str], tuple[Any, Any]]:
    """By table and key: the former writer's row and the writer's, as dictionaries."""
    lead = store.pair.current(0.0)
    name = lead.node.database.control.name("orphan")
    rows = sql(pair.url(lead.node.name), f"SELECT tbl, key, former_row, writer_row FROM {name}")  # type: ignore[arg-type]
    return {(table.removeprefix("public."), key): (_row(former), _row(writer)) for table, key, former, writer in rows}


def _row(text: str | None) -> Any:
    return None if text is None else {name: str(value).strip("'") for name, value in json.loads(text).items()}


def customers(session: Session) -> None:
    session.add_all([Customer(id=n, email=f"{n}@example.org") for n in (1, 2, 3)])


@pytest.fixture
def parted(shop: local.Pair) -> Iterator[tuple[local.Pair, Store]]:
    """A former writer with orphans and a new writer with changes of its own; the former one is back and hasn't rejoined."""
    with new_store(shop, **ASYNC) as store:
        store.run(customers)
        store.sync()

        def on_the_former(session: Session) -> None:
            session.add(Customer(id=5, email="new@example.org"))
            session.get_one(Customer, 2).email = "two@former.org"
            session.delete(session.get_one(Customer, 1))

        store.run(on_the_former)
        shop.kill("primary")

        def on_the_new(session: Session) -> None:
            session.add(Order(id=50, item="of customer 1", customer_id=1))  # whom the former writer has deleted
            session.add(Customer(id=9, email="new@example.org"))  # unique: the former writer has it under another key
            session.get_one(Customer, 3).email = "three@new.org"

        store.run(on_the_new)
        shop.start("primary")
        yield shop, store


def test_each_orphan_is_recorded_with_both_versions_and_the_nodes_are_equal(parted: tuple[local.Pair, Store]) -> None:
    pair, store = parted
    before = sql(pair.standby_url, "SELECT * FROM customer ORDER BY id"), sql(pair.standby_url, "SELECT * FROM orders ORDER BY id")
    assert store.rejoin() == 3
    store.sync()
    assert orphans(store, pair) == {
        ("customer", "[1]"): (None, {"id": "1", "email": "1@example.org"}),
        ("customer", "[2]"): ({"id": "2", "email": "two@former.org"}, {"id": "2", "email": "2@example.org"}),
        ("customer", "[5]"): ({"id": "5", "email": "new@example.org"}, None),
    }
    for url in (pair.primary_url, pair.standby_url):  # no cascade took customer 1's order, and nothing of the new writer's changed
        assert (sql(url, "SELECT * FROM customer ORDER BY id"), sql(url, "SELECT * FROM orders ORDER BY id")) == before
    assert store.status().orphans == 3


def test_c_orphans_whose_parent_is_gone_and_whose_unique_value_is_taken_stop_nothing(sqlite_pair: local.SqlitePair) -> None:
    with new_store(sqlite_pair, **ASYNC) as store:
        store.run(customers)
        store.sync()

        def on_the_former(session: Session) -> None:
            session.add(Order(id=60, item="of customer 3", customer_id=3))
            session.add(Customer(id=5, email="new@example.org"))
            session.add(Order(id=61, item="of nobody"))

        store.run(on_the_former)
        sqlite_pair.kill("primary")

        def on_the_new(session: Session) -> None:
            session.delete(session.get_one(Customer, 3))
            session.add(Customer(id=9, email="new@example.org"))

        store.run(on_the_new)
        sqlite_pair.start("primary")
        assert store.rejoin() == 3
        store.sync()
        assert orphans(store, sqlite_pair).keys() == {("orders", "[60]"), ("customer", "[5]"), ("orders", "[61]")}
        assert store.status().orphans == 3
        assert both(sqlite_pair, "SELECT id FROM customer ORDER BY id") == ([(1,), (2,), (9,)], [(1,), (2,), (9,)])
        assert both(sqlite_pair, "SELECT id FROM orders") == ([], [])


def test_the_records_survive_the_writer_that_made_them(parted: tuple[local.Pair, Store]) -> None:
    pair, store = parted
    store.rejoin()
    store.sync()
    known = orphans(store, pair)
    store.switchover()
    assert orphans(store, pair) == known


def test_a_rejoin_that_dies_before_the_overwrite_is_repeated_and_records_nothing_twice(
    parted: tuple[local.Pair, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, store = parted

    def dies(*_: Any, **__: Any) -> None:
        raise CompareFailed("the program died here")

    with monkeypatch.context() as patch:
        patch.setattr(rejoining, "_overwrite", dies)
        with pytest.raises(CompareFailed):
            store.rejoin()
    known = orphans(store, pair)
    assert len(known) == 3
    with pytest.raises(DBAPIError, match="not the writer"):  # fenced since
        sql(pair.primary_url, "INSERT INTO customer (id, email) VALUES (7, '7@example.org')")
    store.rejoin()
    store.sync()
    assert orphans(store, pair) == known
    assert both(pair, "SELECT count(*) FROM customer") == ([(4,)], [(4,)])


def test_a_change_that_is_under_way_at_the_former_writer_is_recorded_too(postgresql_shop: local.PostgresPair, proxy: MakeProxy) -> None:
    pair = postgresql_shop
    new_store(pair, **ASYNC).close()
    path = proxy(pair.primary_url)
    with open_store((path.url, pair.standby_url), **ASYNC) as store:
        store.sync()
        with plain(pair.primary_url) as program:
            program.execute("INSERT INTO orders (id, item) VALUES (77, 'in flight')")  # has passed the guard
            path.refuse()  # dead, as far as the Store can see
            store.run(lambda session: session.add(Order(id=1, item="on the new writer")))
            path.restore()
            ending = threading.Timer(0.3, program.commit)
            ending.start()
            assert store.rejoin() == 1  # the fence waits for the transaction, and the orphans are read behind the fence
            ending.join()
        store.sync()
        assert orphans(store, pair)["orders", "[77]"][0]["item"] == "in flight"
        assert both(pair, "SELECT id FROM orders") == ([(1,)], [(1,)])


def test_a_prepared_transaction_keeps_the_fence_waiting_and_is_named(postgresql_shop: local.PostgresPair, proxy: MakeProxy) -> None:
    pair = postgresql_shop
    new_store(pair, **ASYNC).close()
    path = proxy(pair.primary_url)
    with open_store((path.url, pair.standby_url), **ASYNC) as store:
        store.sync()
        with plain(pair.primary_url, autocommit=True) as program:
            program.execute("BEGIN")
            program.execute("INSERT INTO orders (id, item) VALUES (77, 'prepared')")
            program.execute("PREPARE TRANSACTION 'of the bank'")
            path.refuse()
            store.run(lambda session: session.add(Order(id=1, item="on the new writer")))
            path.restore()
            with pytest.raises(SwitchoverFailed, match="of the bank"):
                store.rejoin()
            program.execute("COMMIT PREPARED 'of the bank'")
        assert store.rejoin() == 1
        store.sync()
        assert orphans(store, pair)["orders", "[77]"][0]["item"] == "prepared"
        assert both(pair, "SELECT id FROM orders") == ([(1,)], [(1,)])


def test_a_new_writer_whose_journal_was_pruned_gives_the_former_one_everything(parted: tuple[local.Pair, Store]) -> None:
    pair, store = parted
    lead = store.pair.current(0.0)
    with lead.node.begin() as connection:
        lead.node.database.prune(connection, lead.node.database.position(connection))
    store.rejoin()
    store.sync()
    assert both(pair, "SELECT email FROM customer WHERE id = 3") == ([("three@new.org",)], [("three@new.org",)])
    primary, standby = both(pair, "SELECT * FROM customer ORDER BY id")
    assert primary == standby


def test_a_store_in_the_background_does_it_by_itself(shop: local.Pair) -> None:
    with new_store(shop, durability="async") as store:
        wait_until(lambda: store.status().healthy or store.status().decision == "write")
        store.sync()
        shop.kill("standby")
        store.run(lambda session: session.add(Order(id=1, item="not shipped")))
        shop.kill("primary")
        shop.start("standby")
        wait_until(lambda: _writes(store, 2))
        shop.start("primary")
        wait_until(lambda: store.status().orphans == 1)
        wait_until(lambda: both(shop, "SELECT id FROM orders") == ([(2,)], [(2,)]))


def _writes(store: Store, id: int) -> bool:
    try:
        store.takeover(force=True) if store.status().writer is None else None
        store.run(lambda session: session.merge(Order(id=id, item="on the new writer")))
    except Exception:
        return False
    return True
