"""HAZARDS 30: a table that can't be shipped stops the shipping of the pair at a batch's end, so no transaction is ever on the follower by half."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from replstore.errors import CommittedNotReplicated, ReplicationStopped
from replstore.store import Store
from tests.fix_stores import Lab


class TwoBase(DeclarativeBase):
    pass


class Debit(TwoBase):
    """The table that is shipped."""

    __tablename__ = "debit"
    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]


class Credit(TwoBase):
    """The table that isn't."""

    __tablename__ = "credit"
    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]


def book(id: int, amount: int = 5) -> Callable[[Session], None]:
    """A transaction over both tables."""

    def change(session: Session) -> None:
        session.add_all([Debit(id=id, amount=amount), Credit(id=id, amount=amount)])

    return change


def debit(session: Session) -> None:
    session.add(Debit(id=100, amount=1))


def lose_capture(lab: Lab, node: str = "primary") -> None:
    """A hand takes the capture off one table."""
    if lab.postgresql:
        lab.sql(node, "ALTER TABLE credit DISABLE TRIGGER replstore_capture_insert")
    else:
        ((name,),) = lab.sql(node, "SELECT name FROM sqlite_master WHERE name LIKE 'replstore_capture_insert_%' AND tbl_name = 'credit'")
        lab.sql(node, f"DROP TRIGGER {name}")


def refuse_rows(lab: Lab) -> None:
    """A hand gives the follower's table an index that its rows don't keep."""
    lab.sql("standby", "CREATE UNIQUE INDEX once ON credit (amount)")


def rows(lab: Lab, node: str) -> tuple[set[int], set[int]]:
    """The keys in both tables."""
    return tuple({id for (id,) in lab.sql(node, f"SELECT id FROM {table}")} for table in ("debit", "credit"))  # type: ignore[return-value]


def stopped(lab: Lab, how: str) -> Store:
    """A pair with one booking, whose table credit can't be shipped any more; a second booking is on the primary only, and its caller knows."""
    store = lab.migrated(TwoBase.metadata, background=False, ack_timeout=0.5)
    store.run(book(1))
    lose_capture(lab) if how == "capture lost" else refuse_rows(lab)
    with pytest.raises(CommittedNotReplicated):
        store.run(book(2))
    return store


@pytest.mark.parametrize("how", ["capture lost", "rows refused"])
def test_nothing_of_the_pair_is_shipped_or_acknowledged_while_one_table_is_not(lab: Lab, how: str) -> None:
    store = stopped(lab, how)
    with pytest.raises(CommittedNotReplicated):
        store.run(debit)  # has nothing to do with that table, but may have read the booking
    assert rows(lab, "primary") == ({1, 2, 100}, {1, 2})
    assert rows(lab, "standby") == ({1}, {1})
    assert store.status().stopped.startswith("capture_missing" if how == "capture lost" else "batch_refused: a batch from primary to standby fails")
    assert any("has waited for the follower for" in warning for warning in lab.store(background=False, ack_timeout=0.5).status().warnings)
    with store.read(node="follower") as session:  # old, and whole
        assert session.get(Debit, 2) is None


def test_the_follower_takes_over_with_whole_transactions_and_all_that_was_acknowledged(lab: Lab) -> None:
    store = stopped(lab, "capture lost")
    lab.kill("primary")
    store.run(book(3))
    assert rows(lab, "standby") == ({1, 3}, {1, 3})


def test_what_went_by_uncaptured_on_a_former_writer_is_recorded_and_taken_back(lab: Lab) -> None:
    """Its journal knows nothing of it: left alone it would stay there, on a follower that calls itself equal."""
    store = stopped(lab, "capture lost")
    lab.kill("primary")
    store.run(book(3))
    lab.start("primary")
    store.rejoin()
    store.sync()
    assert rows(lab, "primary") == ({1, 3}, {1, 3})
    assert store.check().equal
    recorded = {(record["tbl"].split(".")[-1], record["key"]) for record in store.orphans.records()}
    assert recorded == {("debit", "[2]"), ("credit", "[2]")}
    store.switchover()
    store.run(book(4))
    assert rows(lab, "standby") == ({1, 3, 4}, {1, 3, 4})


def test_what_went_by_is_found_although_somebody_put_the_capture_back(lab: Lab) -> None:
    store = stopped(lab, "capture lost")
    with pytest.raises(ReplicationStopped):
        store.sync()
    if lab.postgresql:
        lab.sql("primary", "ALTER TABLE credit ENABLE TRIGGER replstore_capture_insert")
    lab.kill("primary")
    store.run(book(3))
    lab.start("primary")
    store.rejoin()
    assert rows(lab, "primary") == ({1, 3}, {1, 3})


@pytest.mark.parametrize("how", ["capture lost", "rows refused"])
def test_a_migration_lets_shipping_go_on_with_everything(lab: Lab, how: str) -> None:
    store = stopped(lab, how)
    store.migrate(TwoBase)
    store.run(debit)
    assert rows(lab, "standby") == ({1, 2, 100}, {1, 2})
    assert store.check().equal
