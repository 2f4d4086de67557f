"""A pair whose writer was lost with transactions that only it had: orphans, made by a real takeover and recorded by a real rejoin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy.orm import Session

from replstore import local
from replstore.replication.journal.replay import Outcome
from replstore.store import Store
from replstore.transaction.orphans import Plan
from tests.fix_shop import Customer, Order, both, new_store, sql

ASYNC: dict[str, Any] = {"background": False, "durability": "async", "rejoin": "manual"}
Change = Callable[[Session], Any]


class Parting:
    """A pair in the hands of one Store.

    Args:
        pair: its databases.
        store: without background threads, so nothing ships unless the test does.
    """

    def __init__(self, pair: local.Pair, store: Store) -> None:
        self.pair, self.store = pair, store

    def ids(self, *changes: Change, **options: Any) -> list[str]:
        """Runs transactions one after the other, and returns their markers' ids."""
        found = []
        for change in changes:
            before = {row[0] for row in self.markers()}
            self.store.run(change, **options)
            found += [row[0] for row in self.markers() if row[0] not in before]
        return found

    def markers(self) -> list[tuple[Any, ...]]:
        """The writer's: id and outcome."""
        return sql(self.writer, f"SELECT id, outcome FROM {self.name('marker')}")

    @property
    def writer(self) -> str:
        """URL of the writer."""
        return self.pair.url(self.store.pair.current(0.0).node.name)  # type: ignore[arg-type]

    def name(self, table: str) -> str:
        """The SQL name of a control table."""
        return self.store.pair.primary.database.control.name(table)

    def shared(self, *changes: Change) -> None:
        """Transactions that both nodes have."""
        for change in changes:
            self.store.run(change)
        self.store.sync()

    def lost(self, *changes: Change, **options: Any) -> list[str]:
        """Transactions that only the primary has; it is lost with them, and the standby writes."""
        found = self.ids(*changes, **options)
        self.part()
        return found

    def part(self) -> None:
        """The primary is lost, and the standby writes."""
        self.pair.kill("primary")
        self.store.takeover("standby")

    def back(self) -> None:
        """The primary rejoins, its orphans are recorded."""
        self.pair.start("primary")
        self.store.rejoin()
        self.store.sync()

    def orders(self) -> dict[int, str]:
        """The orders by id, which must be the same on both nodes."""
        one, other = both(self.pair, "SELECT id, item FROM orders ORDER BY id")
        assert one == other
        return dict(one)

    def customers(self) -> dict[int, str]:
        """The customers by id, which must be the same on both nodes."""
        one, other = both(self.pair, "SELECT id, email FROM customer ORDER BY id")
        assert one == other
        return dict(one)

    def states(self) -> dict[str, str]:
        """What became of each record, by key, which must be the same on both nodes."""
        one, other = both(self.pair, f"SELECT tbl, key, state FROM {self.name('orphan')} ORDER BY tbl, key")
        assert one == other
        return {f"{table.rpartition('.')[2]} {key}": state for table, key, state in one}


def order(id: int, item: str = "tea", customer: int | None = None) -> Change:
    """One order more, or another item in it."""
    return lambda session: session.merge(Order(id=id, item=item, customer_id=customer))


def customer(id: int, email: str | None = None) -> Change:
    """One customer more, or another address."""
    return lambda session: session.merge(Customer(id=id, email=email or f"{id}@example.org"))


def removed(kind: type[Any], id: int) -> Change:
    """One row less."""
    return lambda session: session.delete(session.get_one(kind, id))


def together(*changes: Change) -> Change:
    """Several changes in one transaction."""

    def change(session: Session) -> None:
        for each in changes:
            each(session)
            session.flush()

    return change


def outcomes(plan: Plan) -> list[str]:
    """Of each group, in order."""
    return [str(verdict.outcome) for verdict in plan.verdicts]


def reason(plan: Plan, group: int = 0) -> str:
    """Why a group is withheld."""
    assert plan.verdicts[group].outcome is Outcome.WITHHELD
    return plan.verdicts[group].reason


@pytest.fixture
def postgresql_parting(postgresql_shop: local.Pair) -> Iterator[Parting]:
    """The same, of servers."""
    with new_store(postgresql_shop, **ASYNC) as store:
        store.sync()
        yield Parting(postgresql_shop, store)


@pytest.fixture
def parting(shop: local.Pair) -> Iterator[Parting]:
    """An asynchronous pair, which can lose what its caller was told is committed."""
    with new_store(shop, **ASYNC) as store:
        store.sync()
        yield Parting(shop, store)
