"""Hazard 29 (a): in a partition, and across a switchover, a tombstone counts only under a term that is not below the attempt's."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from replstore import CommitUnknown, local
from replstore.databases.base import Fault
from replstore.transaction import doubt
from tests.fix_proxy import MakeProxy
from tests.fix_shop import Order, new_store, open_store, sql


def place(session: Session) -> int:
    session.add(Order(item="tea"))
    return 1


def test_a_former_writer_that_knows_nothing_cannot_declare_a_transaction_lost(postgresql_shop: local.PostgresPair, proxy: MakeProxy) -> None:
    pair = postgresql_shop
    with new_store(pair, background=False, durability="async") as store:
        store.sync()
        pair.kill("primary")
        store.run(place)  # standby writes under term 2
    path = proxy(pair.standby_url)
    with open_store((pair.primary_url, path.url), background=False, durability="async", takeover_timeout=1.0) as store, ThreadPoolExecutor(1) as pool:

        def commit() -> None:
            with store.begin() as session:
                place(session)
                session.flush()
                path.cut_after(b"COMMIT", forward=False, then="black hole")

        committing = pool.submit(commit)
        assert path.cut.wait(10)
        pair.start("primary")  # its own row still says writer, of term 1
        deadline = time.monotonic() + 10
        while not committing.done() and time.monotonic() < deadline:
            store.pair.look()  # notices that the standby is silent, and frees who waits for it
            time.sleep(0.05)
        with pytest.raises(CommitUnknown):
            committing.result(10)
        assert sql(pair.primary_url, "SELECT count(*) FROM replstore.marker WHERE outcome = 'lost'") == [(0,)]


def test_a_node_refuses_a_tombstone_of_a_term_that_is_not_its_own(shop: local.Pair) -> None:
    with new_store(shop, background=False) as store:
        store.run(place)
        old = store.pair.current(0.0)
        store.switchover()
        with pytest.raises(DBAPIError) as refused:
            doubt._bury(store.pair, old, "some transaction", "replicated")
        assert old.node.database.classify(refused.value) is Fault.NOT_THE_WRITER
        new = store.pair.current(0.0)
        assert doubt._bury(store.pair, new, "some transaction", "replicated") is doubt.Outcome.LOST
