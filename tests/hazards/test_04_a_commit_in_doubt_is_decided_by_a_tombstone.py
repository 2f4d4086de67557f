"""Hazard 4: whether a COMMIT whose answer was lost has happened is decided by a tombstone, never by a look."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.orm import Session

from replstore import CommitUnknown, Store, TransactionLost, local
from tests.fix_proxy import MakeProxy, Proxy
from tests.fix_shop import Order, both, new_store, open_store, sql

SLEEP = """
CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER sleep AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.item = 'slow')
EXECUTE FUNCTION sleep()
"""


class Cut:
    """A Store whose first transaction commits slowly, and is cut off in the middle of it.

    Args:
        seconds: that COMMIT takes inside the server.
    """

    def __init__(self, pair: local.Pair, store: Store, path: Proxy, seconds: float) -> None:
        self.pair, self.store, self.path, self.calls = pair, store, path, 0
        sql(pair.primary_url, SLEEP.format(seconds=seconds))

    def place(self, session: Session) -> str:
        self.calls += 1
        item = "slow" if self.calls == 1 else "again"
        session.add(Order(item=item))
        session.flush()
        if self.calls == 1:
            self.path.cut_after(b"COMMIT", forward=True)
        return item

    def outcomes(self) -> list[str]:
        return [outcome for (outcome,) in sql(self.pair.primary_url, "SELECT outcome FROM replstore.marker ORDER BY outcome")]


@pytest.fixture
def cut(postgresql_shop: local.PostgresPair, proxy: MakeProxy, request: pytest.FixtureRequest) -> Iterator[Cut]:
    new_store(postgresql_shop, background=False).close()
    path = proxy(postgresql_shop.primary_url)
    with open_store((path.url, postgresql_shop.standby_url), background=False) as store:
        yield Cut(postgresql_shop, store, path, request.param)


@pytest.mark.parametrize("cut", [0.5], indirect=True, ids=["ends while the tombstone waits"])
def test_a_commit_that_is_still_running_is_waited_for(cut: Cut) -> None:
    assert cut.store.run(cut.place) == "slow"
    assert cut.path.cut.is_set()
    assert cut.calls == 1
    assert both(cut.pair, "SELECT item FROM orders") == ([("slow",)], [("slow",)])
    assert cut.outcomes() == ["committed"]


@pytest.mark.parametrize("cut", [0.5], indirect=True, ids=["ends while the tombstone waits"])
def test_the_same_with_begin(cut: Cut) -> None:
    with cut.store.begin() as session:
        cut.place(session)
    assert both(cut.pair, "SELECT item FROM orders") == ([("slow",)], [("slow",)])


@pytest.mark.parametrize("cut", [60], indirect=True, ids=["never ends"])
def test_a_commit_that_does_not_end_is_ended_and_only_then_repeated(cut: Cut) -> None:
    began = time.monotonic()
    assert cut.store.run(cut.place) == "again"
    assert time.monotonic() - began < 20
    assert cut.calls == 2
    assert both(cut.pair, "SELECT item FROM orders") == ([("again",)], [("again",)])
    assert cut.outcomes() == ["committed", "lost"]


@pytest.mark.parametrize("cut", [60], indirect=True, ids=["never ends"])
def test_transaction_lost_is_said_only_once_it_is_final(cut: Cut) -> None:
    with pytest.raises(TransactionLost, match="tombstone is on primary"), cut.store.begin() as session:
        cut.place(session)
    assert sql(cut.pair.primary_url, "SELECT count(*) FROM pg_stat_activity WHERE query = 'COMMIT' AND state = 'active'") == [(0,)]
    assert cut.outcomes() == ["lost"]
    assert both(cut.pair, "SELECT item FROM orders") == ([], [])


@pytest.mark.parametrize("cut", [0], indirect=True, ids=["at once"])
def test_what_cannot_be_decided_is_unknown_and_not_repeated(cut: Cut) -> None:
    def place(session: Session) -> Any:
        item = cut.place(session)
        cut.path.cut_after(b"COMMIT", forward=True, then="refuse")
        cut.pair.kill("standby")  # nobody is left who could take a tombstone
        return item

    with pytest.raises(CommitUnknown) as unknown:
        cut.store.run(place)
    assert cut.calls == 1
    assert sql(cut.pair.primary_url, "SELECT id, outcome FROM replstore.marker") == [(unknown.value.id, "committed")]
