"""The example's data: customers, their orders, and the lines of each order."""

from __future__ import annotations

import random
from dataclasses import dataclass

from sqlalchemy import ForeignKey, Index, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

ITEMS = ("teapot", "cup", "saucer", "spoon", "tray", "sugar bowl", "milk jug", "strainer")


class Base(DeclarativeBase):
    """The example's tables."""


class Customer(Base):
    """Who orders.

    Attributes:
        placed: how many orders the customer has placed; it changes in the order's own transaction, so that a half or doubled one would show.
    """

    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(Text)
    placed: Mapped[int] = mapped_column(default=0)


class Order(Base):
    """One order.

    Attributes:
        number: what the writing process calls it. On purpose it isn't unique: an order that is written twice has to show, not to fail.
        line_count: how many lines belong to it.
    """

    __tablename__ = "orders"
    __table_args__ = (Index("orders_by_number", "number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(Text)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    line_count: Mapped[int]
    lines: Mapped[list[OrderLine]] = relationship()


class OrderLine(Base):
    """One line of an order; ``price`` is in cents."""

    __tablename__ = "order_lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    item: Mapped[str] = mapped_column(Text)
    quantity: Mapped[int]
    price: Mapped[int]


@dataclass(frozen=True)
class NewOrder:
    """An order to be placed.

    Attributes:
        number: its number.
        customer: the customer's id.
        lines: (item, quantity, price in cents) of each line.
    """

    number: str
    customer: int
    lines: tuple[tuple[str, int, int], ...]

    @classmethod
    def draw(cls, number: str, customers: int, dice: random.Random) -> NewOrder:
        """An order as chance wants it."""
        lines = tuple((dice.choice(ITEMS), dice.randint(1, 6), dice.randint(100, 9900)) for _ in range(dice.randint(1, 3)))
        return cls(number, dice.randint(1, customers), lines)

    def place(self, session: Session) -> int:
        """Writes the order; the body of a transaction.

        Returns:
            Its total in cents.
        """
        customer = session.get_one(Customer, self.customer, with_for_update=True)  # first, so that two orders of one customer wait and don't deadlock
        customer.placed += 1
        lines = [OrderLine(item=item, quantity=quantity, price=price) for item, quantity, price in self.lines]
        session.add(Order(number=self.number, customer_id=self.customer, line_count=len(lines), lines=lines))
        return sum(quantity * price for _, quantity, price in self.lines)


def customers(count: int) -> list[Customer]:
    """Customers to begin with."""
    return [Customer(id=id, name=f"Customer {id}", placed=0) for id in range(1, count + 1)]
