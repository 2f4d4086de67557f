"""BEGIN, marker and the caller's first statement share one round trip, and whatever that statement is, nothing else is different for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.orm import Session

from replstore.store import Store
from tests.fix_native import NativeLab
from tests.fix_proxy import Proxy, _Link, _Trap
from tests.fix_stores import PATIENT, Account, put
from tests.fix_streaming import on_an_installed_server_too


class Counting(Proxy):
    """Counts what clients send, by pieces: on this machine one for each round trip."""

    sent = 0

    def _springs(self, link: _Link, data: bytes) -> _Trap | None:
        self.sent += 1
        return super()._springs(link, data)


@pytest.fixture
def store(native_lab: NativeLab) -> Store:
    """A Store without background threads, with one row."""
    native_lab.migrated(background=False, **PATIENT).run(put(1))
    return native_lab.store(background=False, **PATIENT)


@pytest.fixture
def network(native_lab: NativeLab) -> Iterator[Counting]:
    with contextlib.closing(Counting(native_lab.pair.primary_url)) as proxy:
        yield proxy


def change(session: Session) -> None:
    session.get_one(Account, 1).amount += 1


def cursor(session: Session) -> Any:
    """The driver's own."""
    driver: Any = session.connection().connection.dbapi_connection
    return driver.cursor()


def connection_of(store: Store) -> Any:
    """The driver's connection that the next transaction will have."""
    with store.pair.primary.engine.connect() as connection:
        return connection.connection.dbapi_connection


@pytest.mark.parametrize("isolation", [None, "SERIALIZABLE"])
def test_a_transaction_takes_a_round_trip_less_than_its_statements(
    native_lab: NativeLab, store: Store, network: Counting, isolation: str | None
) -> None:
    through = native_lab.store(background=False, primary=network.url, **PATIENT)
    for _ in range(10):  # the driver prepares what it has seen five times
        through.run(change, isolation=isolation)
    before = network.sent
    through.run(change, isolation=isolation)
    assert network.sent - before == 3  # BEGIN, marker and SELECT; UPDATE; COMMIT
    before = network.sent
    with through.begin(isolation=isolation) as session:
        change(session)
    assert network.sent - before == 4  # BEGIN and marker by themselves: it can still fail over


def test_a_callers_isolation_level_holds_from_the_first_statement_on(store: Store) -> None:
    def level(session: Session) -> Any:
        return session.execute(text("SELECT current_setting(:name)"), {"name": "transaction_isolation"}).scalar()

    assert [store.run(level, isolation=isolation) for isolation in ("SERIALIZABLE", None, "REPEATABLE READ")] == [
        "serializable",
        "read committed",
        "repeatable read",
    ]


@pytest.mark.parametrize("statement", ["DEALLOCATE ALL", "DISCARD PLANS", "DISCARD ALL"])
def test_a_caller_may_deallocate_all_that_is_prepared(native_lab: NativeLab, store: Store, statement: str) -> None:
    for _ in range(7):
        store.run(change)
    driver = connection_of(store)
    driver.execute(statement)
    store.run(change)
    assert connection_of(store) is driver
    assert len(native_lab.markers("primary")) == 9
    assert native_lab.accounts("primary") == {1: 8}


@on_an_installed_server_too
@pytest.mark.parametrize("prepared", [False, True])
def test_a_first_statement_that_fails_raises_its_own_error_and_leaves_the_connection_usable(
    native_lab: NativeLab, store: Store, prepared: bool
) -> None:
    driver = connection_of(store)
    driver.prepare_threshold = 0 if prepared else 5
    insert = text("INSERT INTO account (id, owner, amount) VALUES (:id, 'ada', 0)")
    for _ in range(4):
        with pytest.raises(IntegrityError, match="account_pkey"):
            store.run(lambda session: session.execute(insert, {"id": 1}))
        with pytest.raises(ProgrammingError, match="syntax"):
            store.run(lambda session: session.execute(text("SELEC :id"), {"id": 1}))
        with pytest.raises(ProgrammingError, match="adapt"):
            store.run(lambda session: session.execute(text("SELECT :it"), {"it": object()}))
        store.run(change)
    assert connection_of(store) is driver
    assert (native_lab.accounts("primary"), len(native_lab.markers("primary"))) == ({1: 4}, 5)


def test_the_driver_forgets_what_it_has_prepared_as_a_part_of_a_first_statement(native_lab: NativeLab, store: Store) -> None:
    driver = connection_of(store)
    driver.prepared_max, driver.prepare_threshold = 2, 1

    def each(number: int) -> Callable[[Session], object]:
        return lambda session: cursor(session).execute(f"SELECT {number}, %s", (number,)).fetchone()

    assert [store.run(each(number // 3)) for number in range(30)] == [(number // 3, number // 3) for number in range(30)]
    for _ in range(3):
        store.run(lambda session: cursor(session).execute("ALTER TABLE account ALTER owner SET DEFAULT 'x'", {"unused": 1}))
        store.run(change)
    assert (native_lab.accounts("primary"), connection_of(store)) == ({1: 3}, driver)


def test_a_first_statement_may_be_as_large_as_it_likes_and_have_no_use_for_its_parameters(store: Store) -> None:
    large = "x" * 9_000_000
    for _ in range(7):
        assert store.run(lambda session: session.execute(text("SELECT :it"), {"it": large}).scalar()) == large
        assert store.run(lambda session: cursor(session).execute("SELECT 1", {"unused": 1}).fetchone()) == (1,)
