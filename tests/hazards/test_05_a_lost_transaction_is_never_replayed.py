"""Hazard 5: before TransactionLost is raised its tombstone stands on the surviving writer, so a rejoin knows that its caller has been told."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.orm import Session

from replstore import CommitUnknown, Store, TransactionLost, local
from tests.fix_proxy import MakeProxy
from tests.fix_shop import Order, both, new_store, open_store, sql, wait_until


def orphans(store: Store, pair: local.Pair) -> list[tuple[Any, ...]]:
    """What the writer has recorded: table, how the transaction is known, may it have been acknowledged."""
    lead = store.pair.current(0.0)
    name = lead.node.database.control.name("orphan")
    return sql(pair.url(lead.node.name), f"SELECT tbl, tx_known, maybe_acknowledged FROM {name} ORDER BY tbl")  # type: ignore[arg-type]


def test_a_commit_that_only_the_dead_writer_has_is_lost_for_good(sqlite_pair: local.SqlitePair) -> None:
    with new_store(sqlite_pair) as store:
        wait_until(lambda: store.status().healthy)
        with pytest.raises(TransactionLost, match="tombstone is on standby"), store.begin() as session:
            session.add(Order(item="told that it is lost"))
            session.flush()
            sqlite_pair.kill("primary")  # COMMIT goes on into the file that was moved away
        store.run(lambda session: session.add(Order(item="repeated by hand")))
        sqlite_pair.start("primary")
        assert ("told that it is lost",) in sql(sqlite_pair.primary_url, "SELECT item FROM orders")
        wait_until(lambda: store.status().healthy)
        assert both(sqlite_pair, "SELECT item FROM orders") == ([("repeated by hand",)], [("repeated by hand",)])
        assert orphans(store, sqlite_pair) == [("orders", "lost", 0)]


def test_the_same_when_the_writer_falls_silent_in_commit(postgresql_shop: local.PostgresPair, proxy: MakeProxy) -> None:
    pair = postgresql_shop
    new_store(pair, background=False).close()
    path = proxy(pair.primary_url)
    with open_store((path.url, pair.standby_url)) as store:
        wait_until(lambda: store.status().healthy)
        with pytest.raises(TransactionLost, match="tombstone is on standby"), store.begin() as session:
            session.add(Order(item="told that it is lost"))
            session.flush()
            path.cut_after(b"COMMIT", forward=True, then="black hole")
        assert sql(pair.primary_url, "SELECT item FROM orders") == [("told that it is lost",)]
        store.run(lambda session: session.add(Order(item="repeated by hand")))
        path.restore()
        wait_until(lambda: store.status().healthy)
        assert both(pair, "SELECT item FROM orders") == ([("repeated by hand",)], [("repeated by hand",)])
        assert orphans(store, pair) == [("public.orders", "lost", False)]


def test_run_repeats_it_itself_and_it_takes_effect_once(shop: local.Pair) -> None:
    calls = []

    def place(session: Session) -> None:
        calls.append(1)
        session.add(Order(item="tea"))
        session.flush()
        if len(calls) == 1:
            shop.kill("primary")

    with new_store(shop) as store:
        wait_until(lambda: store.status().healthy)
        store.run(place)
        assert len(calls) == 2
        shop.start("primary")
        wait_until(lambda: store.status().healthy)
        assert both(shop, "SELECT item FROM orders") == ([("tea",)], [("tea",)])


def test_without_a_tombstone_nobody_is_told_that_it_is_lost(sqlite_pair: local.SqlitePair) -> None:
    calls = []

    def place(session: Session) -> None:
        calls.append(1)
        session.add(Order(item="tea"))
        session.flush()
        sqlite_pair.kill("standby")
        sqlite_pair.kill("primary")

    with new_store(sqlite_pair, takeover_timeout=0.5) as store:
        wait_until(lambda: store.status().healthy)
        with pytest.raises(CommitUnknown, match="look for its marker") as raised:
            store.run(place)
        assert len(calls) == 1
        sqlite_pair.start("primary")
        assert sql(sqlite_pair.primary_url, "SELECT id, outcome FROM replstore_marker") == [(raised.value.id, "committed")]


def test_an_orphan_says_whether_its_caller_may_have_been_told_that_it_committed(shop: local.Pair) -> None:
    with new_store(shop, background=False, durability="async") as store:
        store.sync()
        store.run(lambda session: session.add(Order(item="acknowledged")))
        shop.kill("primary")
        store.run(lambda session: session.add(Order(item="after")))
        shop.start("primary")
        store.rejoin()
        store.sync()
        assert both(shop, "SELECT item FROM orders") == ([("after",)], [("after",)])
        ((_, known, maybe_acknowledged),) = orphans(store, shop)
        assert (known, bool(maybe_acknowledged)) == (None, True)
