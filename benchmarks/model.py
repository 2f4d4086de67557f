"""The one table of all measurements, and the ways to change a row of it."""

from __future__ import annotations

import random
from collections.abc import Callable

from sqlalchemy import Engine, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from replstore import Store

#: How many rows single-row transactions choose from.
ROWS = 1000

Transaction = Callable[[], object]


class Base(DeclarativeBase):
    """The tables."""


class Item(Base):
    """A row of about 50 bytes."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    amount: Mapped[int]


def rows(first: int, count: int) -> list[dict[str, object]]:
    """New rows, as parameters."""
    return [{"id": id, "name": f"item {id}", "amount": id} for id in range(first, first + count)]


def fill(session: Session) -> None:
    """The rows that single-row transactions choose from."""
    session.execute(insert(Item), rows(1, ROWS))


def change(session: Session, first: int = 1, count: int = ROWS) -> None:
    """Gets a row and changes it; the commit is the caller's."""
    item = session.get_one(Item, random.randrange(first, first + count))
    item.amount += 1


def plainly(*engines: Engine) -> Transaction:
    """The transaction through SQLAlchemy alone; with two engines the naive double write, one after the other."""
    factories = [sessionmaker(engine) for engine in engines]

    def transaction() -> None:
        for factory in factories:
            with factory.begin() as session:
                change(session)

    return transaction


def by_run(store: Store) -> Transaction:
    """The transaction through ``store.run``."""
    return lambda: store.run(change)


def by_begin(store: Store) -> Transaction:
    """The transaction through ``store.begin``."""

    def transaction() -> None:
        with store.begin() as session:
            change(session)

    return transaction


def by_sessionmaker(store: Store) -> Transaction:
    """The transaction through a Session of ``store.sessionmaker``."""
    factory = store.sessionmaker()

    def transaction() -> None:
        with factory.begin() as session:
            change(session)

    return transaction


WAYS: dict[str, Callable[[Store], Transaction]] = {"run": by_run, "begin": by_begin, "sessionmaker": by_sessionmaker}
