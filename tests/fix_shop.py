"""The example that the tests of pairs share: tables of a small shop, quick settings, and direct looks at a node."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import ForeignKey, NullPool, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from replstore import local
from replstore.store import Store

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
    if isinstance(pair, local.PostgresPair) and pair.user == "postgres":
        _from_template(pair, {name: value for name, value in options.items() if name != "background"})
        return open_store(pair, **options)
    store = open_store(pair, **options)
    store.migrate(Base.metadata)
    return store


_templates: dict[tuple[Any, ...], str] = {}


def _from_template(pair: local.PostgresPair, settings: dict[str, Any]) -> None:
    """Makes the pair's databases copies of migrated ones, which is quicker than to migrate them."""
    servers = (pair.primary, pair.standby)
    known = (id(pair.primary), id(pair.standby), *sorted(settings.items()))
    if known not in _templates:
        template = f"shop_{len(_templates)}"
        for server in servers:
            server.create_database(template)
        with open_store(local.PostgresPair(*servers, template), background=False, **settings) as store:
            store.migrate(Base.metadata)
        _templates[known] = template
    for server in servers:
        server.drop_database(pair.database)
        server.execute(f'CREATE DATABASE "{pair.database}" TEMPLATE "{_templates[known]}"')


def sql(url: str, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Runs one statement on a node as any other program would, and commits; returns its rows."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        result = connection.exec_driver_sql(statement, parameters or None)
        return [tuple(row) for row in result] if result.returns_rows else []


def both(pair: local.Pair | tuple[str, str], statement: str) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """The rows of a query on the primary and on the standby."""
    primary, standby = pair if isinstance(pair, tuple) else (pair.primary_url, pair.standby_url)
    return sql(primary, statement), sql(standby, statement)


def wait_until(true: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Waits until something holds, and returns it; a failure after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "it didn't come to hold in time"
        time.sleep(0.02)
    return found
