"""Between SQLite and PostgreSQL, too, what a lost writer had alone can be replayed: exactly, whole, and only while nobody has touched it."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Date, DateTime, ForeignKey, ForeignKeyConstraint, LargeBinary, Uuid
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from replstore.replication.journal.replay import Outcome
from replstore.store import Store
from tests.fix_mixed import MixedLab
from tests.fix_stores import Account, Child, FamilyBase, Parent, put
from tests.fix_things import Thing, ThingBase, found, things

LOST: dict[str, Any] = {"background": False, "durability": "async", "rejoin": "manual"}


class KeyBase(DeclarativeBase):
    pass


class Place(KeyBase):
    """A key of every kind that may be in one."""

    __tablename__ = "place"
    uid: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[dt.date] = mapped_column(Date, primary_key=True)
    at: Mapped[dt.datetime] = mapped_column(DateTime, primary_key=True)
    raw: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    flag: Mapped[bool] = mapped_column(primary_key=True)
    amount: Mapped[int]


class Visit(KeyBase):
    __tablename__ = "visit"
    id: Mapped[int] = mapped_column(primary_key=True)
    before: Mapped[int | None] = mapped_column(ForeignKey("visit.id"))


class Leg(KeyBase):
    """Its key's texts differ between the two kinds of database, and a foreign key refers to it."""

    __tablename__ = "leg"
    uid: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    at: Mapped[dt.datetime] = mapped_column(DateTime, primary_key=True)
    before_uid: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    before_at: Mapped[dt.datetime | None] = mapped_column(DateTime)
    __table_args__ = (ForeignKeyConstraint(["before_uid", "before_at"], ["leg.uid", "leg.at"]),)


def leg(number: int, before: int | None = None) -> Leg:
    at = dt.datetime(2024, 1, 1, 1, 1, 1, 5)
    return Leg(uid=uuid.UUID(int=number), at=at, **({} if before is None else {"before_uid": uuid.UUID(int=before), "before_at": at}))


def part(lab: MixedLab, store: Store, *changes: Callable[[Session], Any]) -> None:
    """The primary is lost with these transactions and comes back as the follower."""
    for change in changes:
        store.run(change)
    lab.kill("primary")
    store.takeover("standby")
    lab.start("primary")
    store.rejoin()


def outcomes(store: Store) -> list[tuple[Outcome, str]]:
    return [(verdict.outcome, verdict.reason) for verdict in store.orphans.replay().verdicts]


def test_every_value_is_put_back_as_it_was(mixed_lab: MixedLab) -> None:
    store = mixed_lab.migrated(ThingBase.metadata, **LOST)
    rows = things()
    store.run(lambda session: session.add_all([Thing(id=row["id"], touched=-1) for row in rows[::2]]))
    store.run(lambda session: session.add(Thing(id=1000)))
    store.sync()

    def lost(session: Session) -> None:
        for row in rows:  # half of them are changed, half of them are new
            session.merge(Thing(**row))
        session.delete(session.get_one(Thing, 1000))

    before = found(mixed_lab.pair.url("primary"))
    part(mixed_lab, store, lost)
    assert found(mixed_lab.pair.url("standby")) == before
    expected = {**{row["id"]: row for row in rows}}
    assert outcomes(store) == [(Outcome.REPLAYED, "")]
    there = found(mixed_lab.pair.url("standby"))
    assert {id: {name: row[name] for name in expected[id]} for id, row in there.items()} == expected
    store.sync()
    assert found(mixed_lab.pair.url("primary")) == there
    assert store.check().equal, store.check().as_dict()


def test_rows_are_found_by_keys_of_every_kind(mixed_lab: MixedLab) -> None:
    key: dict[str, Any] = {
        "uid": uuid.UUID(int=5),
        "name": "it's ä\\x",
        "day": dt.date(2024, 2, 29),
        "at": dt.datetime(2024, 1, 1, 1, 1, 1, 5),
        "raw": b"\x00'",
        "flag": True,
    }
    other = {**key, "flag": False}
    store = mixed_lab.migrated(KeyBase.metadata, **LOST)
    store.run(lambda session: session.add_all([Place(**key, amount=1), Place(**other, amount=1)]))
    store.sync()

    def lost(session: Session) -> None:
        session.get_one(Place, key).amount = 2
        session.delete(session.get_one(Place, other))
        session.add(Place(**{**key, "name": "new"}, amount=3))

    part(mixed_lab, store, lost)
    assert outcomes(store) == [(Outcome.REPLAYED, "")]
    with store.read() as session:
        assert sorted((place.name, place.flag, place.amount) for place in session.query(Place)) == [(key["name"], True, 2), ("new", True, 3)]
    store.sync()
    assert store.check().equal


def test_what_the_writer_has_touched_since_is_withheld(mixed_lab: MixedLab) -> None:
    store = mixed_lab.migrated(**LOST)
    store.run(put(1, 10))
    store.run(put(2, 20))
    store.sync()
    store.run(put(1, 11))
    store.run(put(2, 22))
    mixed_lab.kill("primary")
    store.takeover("standby")
    store.run(put(2, 23))
    mixed_lab.start("primary")
    store.rejoin()
    store.run(put(2, 20))  # back to what it was: touched all the same
    assert outcomes(store) == [
        (Outcome.REPLAYED, ""),
        (Outcome.WITHHELD, "the writer had changed row [2] of public.account before the orphan was recorded"),
    ]
    assert mixed_lab.accounts("standby") == {1: 11, 2: 20}
    store.sync()
    assert mixed_lab.accounts("primary") == {1: 11, 2: 20}
    assert [verdict.outcome for verdict in store.orphans.discard(everything=True, reason="a test").verdicts] == [Outcome.DISCARDED]


@pytest.mark.parametrize("named", [True, False], ids=["every row is named", "a row isn't named"])
def test_a_table_that_was_written_anew_is_put_back_only_if_its_journal_names_every_row(mixed_lab: MixedLab, named: bool) -> None:
    store = mixed_lab.migrated(**LOST)
    for id in (1, 2):
        store.run(put(id, id))
    store.sync()
    node = mixed_lab.nodes["primary"]
    with node.begin() as connection:  # as a migration that finds the table's capture lost
        node.database.journal_whole(connection, node.database.tables(connection, only=["public.account"]))
    part(mixed_lab, store, *([put(1, 10)] if named else []), put(3, 30), lambda session: session.delete(session.get_one(Account, 2)))
    ((outcome, why),) = outcomes(store)
    if named:
        assert outcome is Outcome.REPLAYED
    else:
        assert why == "table public.account was written anew as a whole, and what it held isn't all on record"
    assert mixed_lab.accounts("standby") == ({1: 10, 3: 30} if named else {1: 1, 2: 2})
    store.sync()
    assert store.check().equal, store.check().as_dict()


def test_a_row_that_the_writer_refers_to_does_not_go(mixed_lab: MixedLab) -> None:
    store = mixed_lab.migrated(KeyBase.metadata, **LOST)
    store.run(lambda session: session.add_all([Visit(id=1), Visit(id=2)]))
    store.sync()
    part(
        mixed_lab,
        store,
        lambda session: session.delete(session.get_one(Visit, 1)),
        lambda session: session.add(Visit(id=3, before=2)),
        lambda session: session.add(Visit(id=4, before=3)),
    )
    store.run(lambda session: session.add(Visit(id=10, before=1)))
    ((first, why), *others) = [(verdict.outcome, verdict.reason) for verdict in store.orphans.replay(out_of_order=True).verdicts]
    assert first is Outcome.WITHHELD
    assert why == "the writer has changed row [10] of public.visit since, which refers to one of the group's"
    assert others == [(Outcome.REPLAYED, "")] * 2
    with store.read() as session:
        assert sorted((visit.id, visit.before) for visit in session.query(Visit)) == [(1, None), (2, None), (3, 2), (4, 3), (10, 1)]
    store.sync()
    assert store.check().equal


def test_a_row_that_the_writer_refers_to_is_found_and_named_by_a_key_of_any_kind(mixed_lab: MixedLab) -> None:
    store = mixed_lab.migrated(KeyBase.metadata, **LOST)
    store.run(lambda session: session.add_all([leg(1), leg(2)]))
    store.sync()
    part(
        mixed_lab,
        store,
        lambda session: session.delete(session.get_one(Leg, (leg(1).uid, leg(1).at))),
        lambda session: session.add_all([leg(3, before=2), leg(4, before=3)]),
    )
    store.run(lambda session: session.add(leg(10, before=1)))
    shown = f'["{leg(10).uid}", "2024-01-01 01:01:01.000005"]'
    assert [(verdict.outcome, verdict.reason) for verdict in store.orphans.replay(out_of_order=True).verdicts] == [
        (Outcome.WITHHELD, f"the writer has changed row {shown} of public.leg since, which refers to one of the group's"),
        (Outcome.REPLAYED, ""),
    ]
    store.sync()
    assert store.check().equal


def test_the_user_s_triggers_do_not_fire_again(mixed_lab: MixedLab) -> None:
    lab = mixed_lab
    store = lab.migrated(FamilyBase.metadata, **LOST)
    function = "CREATE FUNCTION double() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO child VALUES (NEW.id, NEW.id); RETURN NULL; END $$"
    on = "AFTER INSERT ON parent FOR EACH ROW"
    for node in ("primary", "standby"):
        if node == lab.server:
            lab.sql(node, function, f"CREATE TRIGGER fires {on} EXECUTE FUNCTION double()")
        else:
            lab.sql(node, f"CREATE TRIGGER fires {on} BEGIN INSERT INTO child VALUES (NEW.id, NEW.id); END")
    store.migrate(FamilyBase.metadata)
    part(lab, store, lambda session: session.add(Parent(id=5, name="five")))
    assert outcomes(store) == [(Outcome.REPLAYED, "")]
    with store.read() as session:
        assert [(parent.id, parent.name) for parent in session.query(Parent)] == [(5, "five")]
        assert [(child.id, child.parent_id) for child in session.query(Child)] == [(5, 5)]
    store.run(lambda session: session.add(Parent(id=6, name="six")))
    with store.read() as session:
        assert sorted(child.id for child in session.query(Child)) == [5, 6]
