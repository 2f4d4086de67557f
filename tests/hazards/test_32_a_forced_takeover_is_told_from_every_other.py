"""Hazard 32: a person may force a node to write; its term can't be taken for another's, and what that overrules is reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from replstore import NoWriter, Store, TransactionLost, local
from tests.fix_shop import Order, both, new_store, open_store, sql


def order(id: int) -> Callable[[Session], None]:
    return lambda session: session.add(Order(id=id, item="tea"))


def control(store: Store, table: str) -> str:
    return store.pair.primary.database.control.name(table)


def orphans(store: Store, pair: local.Pair, node: str) -> list[tuple[Any, ...]]:
    columns = "tbl, key, tx_known, maybe_acknowledged"
    return sql(pair.url(node), f"SELECT {columns} FROM {control(store, 'orphan')} ORDER BY tbl, key")  # type: ignore[arg-type]


def back_to_the_first_writer(pair: local.Pair, store: Store) -> None:
    """The primary died, the standby took over and wrote alone, the standby died; the primary is back and a person forces it."""
    pair.kill("primary")
    store.run(order(2))
    pair.kill("standby")
    pair.start("primary")
    with pytest.raises(NoWriter, match=r"--force primary"):
        store.run(order(3))
    store.takeover("primary", force=True)


def test_a_forced_term_jumps_and_the_other_writer_is_fenced_when_it_is_back(shop: local.Pair) -> None:
    with new_store(shop, background=False, takeover_timeout=0.5) as store:
        store.run(order(1))
        back_to_the_first_writer(shop, store)
        store.run(order(3))
        forced = store.status().term
        assert forced is not None
        assert forced > 1000
        shop.start("standby")
        ((role, term),) = sql(shop.standby_url, f"SELECT role, term_no FROM {control(store, 'role')}")
        assert (role, term) == ("writer", 2)
        store.rejoin(copy=True)
        store.sync()
        assert both(shop, "SELECT id FROM orders ORDER BY id") == ([(1,), (3,)], [(1,), (3,)])
        with pytest.raises(DBAPIError, match="not the writer"):
            sql(shop.standby_url, "INSERT INTO orders (id, item) VALUES (9, 'tea')")


def test_what_was_acknowledged_by_a_node_alone_is_reported_as_maybe_acknowledged(shop: local.Pair) -> None:
    with new_store(shop, background=False, takeover_timeout=0.5) as store:
        store.run(order(1))
        back_to_the_first_writer(shop, store)
        shop.start("standby")
        store.rejoin(copy=True)
        _, key, known, maybe_acknowledged = next(row for row in orphans(store, shop, "primary") if row[0].endswith("orders"))
        assert (key, known, bool(maybe_acknowledged)) == ("[2]", None, True)


def test_a_tombstone_for_what_the_forced_writer_holds_committed_is_reported(sqlite_pair: local.SqlitePair) -> None:
    with new_store(sqlite_pair, background=False, takeover_timeout=0.5) as store:
        store.run(order(1))
        with pytest.raises(TransactionLost), store.begin() as session:
            session.add(Order(id=2, item="told that it is lost"))
            session.flush()
            sqlite_pair.kill("primary")  # COMMIT goes on into the file that was moved away
        ((lost,),) = sql(sqlite_pair.standby_url, "SELECT id FROM replstore_marker WHERE outcome = 'lost'")
        sqlite_pair.kill("standby")
        sqlite_pair.start("primary")
        store.takeover("primary", force=True)
        assert sql(sqlite_pair.primary_url, "SELECT outcome FROM replstore_marker WHERE id = ?", lost) == [("committed",)]
        sqlite_pair.start("standby")
        store.rejoin(copy=True)
        assert ("replstore_marker", f'["{lost}"]', "committed") in [row[:3] for row in orphans(store, sqlite_pair, "primary")]


def test_two_writers_of_one_number_stop_both_until_a_person_names_one(shop: local.Pair) -> None:
    with new_store(shop, background=False, takeover_timeout=0.5) as store:
        store.run(order(1))
        shop.kill("primary")
        store.run(order(2))  # standby writes under term 2
        shop.start("primary")
        # what an older version's --force would have left: the same number under another uuid
        sql(shop.primary_url, f"UPDATE {control(store, 'role')} SET term_no = 2, term_uuid = '{uuid4()}'")
        if isinstance(shop, local.PostgresPair):
            sql(shop.primary_url, "SELECT setval('replstore.guard', 5)")
        with open_store(shop, background=False, takeover_timeout=0.5) as another, pytest.raises(NoWriter, match=r"(?s)term 2.*--force"):
            another.run(order(3))
        with pytest.raises(NoWriter):
            store.pair.look()
            store.run(order(3))
        store.takeover("standby", force=True)
        store.run(order(3))
        assert store.status().writer == "standby"
        store.rejoin(copy=True)
        store.sync()
        assert both(shop, "SELECT id FROM orders ORDER BY id") == ([(1,), (2,), (3,)], [(1,), (2,), (3,)])
