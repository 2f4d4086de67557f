"""Stores over the tables of a small shop, quick settings, and direct looks at a node."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import ForeignKey, NullPool, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from replstore import local
from replstore.store import Store
from tests.fix_migrated import copied
from tests.fix_pairs import FreshPair
from tests.fix_stores import PATIENT

#: Short enough for tests; detection is still longer than two heartbeats.
QUICK: dict[str, Any] = {"detection_time": 0.4, "probe_interval": 0.1, "ack_timeout": 1.0, "takeover_timeout": 3.0}


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    orders: Mapped[list[Order]] = relationship(back_populates="customer")


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]
    quantity: Mapped[int] = mapped_column(server_default="1")
    customer_id: Mapped[int | None] = mapped_column(ForeignKey("customer.id", ondelete="CASCADE", deferrable=True, initially="DEFERRED"))
    customer: Mapped[Customer | None] = relationship(back_populates="orders")


def open_store(pair: local.Pair | tuple[str, str], **options: Any) -> Store:
    """A Store on a pair, or on two URLs, with quick settings."""
    primary, standby = pair if isinstance(pair, tuple) else (pair.primary_url, pair.standby_url)
    return Store(primary=primary, standby=standby, **{**QUICK, **options})


def new_store(pair: local.Pair, **options: Any) -> Store:
    """The same, with the shop's tables on both nodes."""
    ready = copied(pair, Base.metadata, {name: value for name, value in {**QUICK, **options}.items() if name != "background"})
    store = open_store(pair, **options)
    if ready:
        store.pair.look()
    else:
        store.migrate(Base.metadata)
    if options.get("background", True):  # a follower that dies before the first contact proves nothing
        wait_until(lambda: store.pair.watch.contact is not None)
    return store


def sql(url: str, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Runs one statement on a node as any other program would, and commits; returns its rows."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        result = connection.exec_driver_sql(statement, parameters or None)
        return [tuple(row) for row in result] if result.returns_rows else []


def both(pair: local.Pair, statement: str) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """The rows of a query on the primary and on the standby."""
    return sql(pair.primary_url, statement), sql(pair.standby_url, statement)


COUNT = "SELECT count(*) FROM orders"


def on_both(store: Store, statement: str = COUNT) -> tuple[Any, Any]:
    """One value of a query on the primary and on the standby."""
    values = [sql(node.url.render_as_string(hide_password=False), statement)[0][0] for node in store.pair.nodes.values()]
    return values[0], values[1]


def markers(store: Store) -> int:
    """How many commit markers the writer has."""
    lead = store.pair.current(0.0)
    with lead.node.snapshot() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {lead.node.database.control.name('marker')}").scalar_one())


def add(session: Session, item: str = "tea", **values: Any) -> int:
    """One order more; returns its id."""
    order = Order(item=item, **values)
    session.add(order)
    session.flush()
    return order.id


def wait_until(true: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Waits until something holds, and returns it; a failure after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "it didn't come to hold in time"
        time.sleep(0.02)
    return found


@pytest.fixture
def postgresql_shop(postgresql_pair: local.PostgresPair) -> local.PostgresPair:
    """A PostgreSQL pair for one ``new_store``."""
    return postgresql_pair


@pytest.fixture
def shop(any_pair: local.Pair) -> local.Pair:
    """A pair of each kind, in turn, for one ``new_store``."""
    return any_pair


@pytest.fixture(scope="module")
def calm_postgresql_store(postgresql_servers: local.PostgresPair) -> Iterator[Store]:
    with FreshPair(postgresql_servers) as pair, new_store(pair, background=False, **PATIENT) as store:
        yield store


@pytest.fixture
def pg(calm_postgresql_store: Store) -> Store:
    """A Store on PostgreSQL, without background threads, for tests that leave the pair as it is: they share it."""
    store = calm_postgresql_store
    for node in store.pair.nodes.values():  # another test of the module may have killed the servers
        node.engine.dispose()
        node.service.dispose()
    primary, standby = (node.url.render_as_string(hide_password=False) for node in store.pair.nodes.values())
    sql(primary, "TRUNCATE orders, customer RESTART IDENTITY")
    store.sync()
    for url in (primary, standby):
        sql(url, "DELETE FROM replstore.marker")
    return store


@pytest.fixture
def lite(sqlite_pair: local.SqlitePair) -> Iterator[Store]:
    """A Store on two SQLite files, without background threads."""
    with new_store(sqlite_pair, background=False) as store:
        yield store


@pytest.fixture(params=["lite", "pg"])
def store(request: pytest.FixtureRequest) -> Store:
    """Both, in turn."""
    store: Store = request.getfixturevalue(request.param)
    return store
