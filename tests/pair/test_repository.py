"""Repository: the everyday operations on one class, each exactly once, and objects that can be used anywhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import ForeignKey
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

from replstore import NotTheWriter, Repository, Store, local
from tests.fix_shop import both, open_store, sql, wait_until


class Base(DeclarativeBase):
    pass


class Basket(Base):
    __tablename__ = "basket"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(unique=True)
    state: Mapped[str] = mapped_column(server_default="open")
    node: Mapped[str | None]
    lines: Mapped[list[Line]] = relationship(cascade="all, delete-orphan", order_by="Line.position")


class Line(Base):
    """Its key has two columns, one of them its basket's."""

    __tablename__ = "line"
    basket_id: Mapped[int] = mapped_column(ForeignKey("basket.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]
    quantity: Mapped[int] = mapped_column(server_default="1")


@pytest.fixture
def store(any_pair: local.Pair) -> Iterator[Store]:
    with open_store(any_pair) as store:
        store.migrate(Base.metadata)
        yield store


@pytest.fixture
def lite(sqlite_pair: local.SqlitePair) -> Iterator[Store]:
    with open_store(sqlite_pair, background=False) as store:
        store.migrate(Base.metadata)
        yield store


def test_the_everyday_operations_on_both_databases(any_pair: local.Pair, store: Store) -> None:
    baskets, lines = Repository(store, Basket), Repository(store, Line)
    ann = baskets.add(Basket(owner="ann", lines=[Line(position=1, item="tea"), Line(position=2, item="milk")]))
    bob, cid = baskets.add_all([Basket(owner="bob"), Basket(owner="cid", state="paid")])
    assert (ann.id, ann.owner, ann.state, cid.state) == (1, "ann", "open", "paid")  # what the database gave is there
    assert [line.quantity for line in ann.lines] == [1, 1]

    got = baskets.get(ann.id)
    assert got is not None
    assert got is not ann
    assert (got.owner, got.state) == ("ann", "open")
    assert baskets.get(99) is None
    line = lines.get((ann.id, 2))
    assert line is not None
    assert line.item == "milk"

    assert [basket.owner for basket in baskets.find(order_by=Basket.id)] == ["ann", "bob", "cid"]
    assert [basket.owner for basket in baskets.find(state="open", order_by=Basket.owner.desc())] == ["bob", "ann"]
    assert [basket.owner for basket in baskets.find(Basket.id > 1, Basket.id < 3)] == ["bob"]
    assert [basket.owner for basket in baskets.find(order_by=[Basket.state, Basket.owner], limit=1, offset=1)] == ["bob"]
    assert baskets.find(owner="nobody") == []
    assert (baskets.count(), baskets.count(state="open"), baskets.count(Basket.id == 3)) == (3, 2, 1)

    assert baskets.update(bob.id, state="paid").state == "paid"
    assert lines.update((ann.id, 1), quantity=Line.quantity + 4).quantity == 5
    assert baskets.delete(ann.id) is True
    assert baskets.delete(ann.id) is False
    assert lines.count() == 0
    assert both(any_pair, "SELECT owner, state FROM basket ORDER BY id") == ([("bob", "paid"), ("cid", "paid")],) * 2


def test_objects_come_back_with_what_was_asked_for(lite: Store) -> None:
    baskets = Repository(lite, Basket)
    baskets.add(Basket(owner="ann", lines=[Line(position=n, item="tea") for n in (2, 1)]))
    basket = baskets.get(1, options=[selectinload(Basket.lines)])
    assert basket is not None
    assert [line.position for line in basket.lines] == [1, 2]
    (basket,) = baskets.find(owner="ann", options=[selectinload(Basket.lines)])
    assert [line.position for line in basket.lines] == [1, 2]


def test_an_attribute_that_is_named_like_an_option_is_found_by_a_condition(lite: Store) -> None:
    baskets = Repository(lite, Basket)
    baskets.add_all([Basket(owner="ann", node="a"), Basket(owner="bob")])
    assert [basket.owner for basket in baskets.find(Basket.node == "a")] == ["ann"]
    assert [basket.owner for basket in baskets.find(Basket.node.is_(None))] == ["bob"]


def test_what_the_caller_did_wrong_is_told_before_anything_is_sent(lite: Store) -> None:
    baskets = Repository(lite, Basket)
    baskets.add(Basket(owner="ann"))
    with pytest.raises(TypeError, match=r"Basket has no attribute 'ownr'"):
        baskets.find(ownr="ann")
    with pytest.raises(TypeError, match="'ownr'"):
        baskets.update(1, ownr="ann")
    with pytest.raises(LookupError, match="no Basket with key 9"):
        baskets.update(9, owner="ann")
    with pytest.raises(IntegrityError):
        baskets.add(Basket(owner="ann"))
    with pytest.raises(ValueError, match="node"):
        baskets.count(node="standby")
    assert baskets.count() == 1


def test_several_repositories_work_in_one_transaction(any_pair: local.Pair, store: Store) -> None:
    baskets, lines = Repository(store, Basket), Repository(store, Line)

    def fill(session: Session, *, fail: bool = False) -> int:
        basket = baskets.in_(session).add(Basket(owner="ann"))
        lines.in_(session).add(Line(basket_id=basket.id, position=1, item="tea"))
        assert lines.in_(session).count(basket_id=basket.id) == 1  # sees its own changes
        assert baskets.in_(session).get(basket.id) is basket
        baskets.in_(session).update(basket.id, state="paid")
        if fail:
            raise RuntimeError
        return basket.id

    with pytest.raises(RuntimeError):
        store.run(lambda session: fill(session, fail=True))
    assert (baskets.count(), lines.count()) == (0, 0)
    key = store.run(fill, key="basket of ann")
    assert store.run(fill, key="basket of ann") == key
    assert both(any_pair, "SELECT owner, state FROM basket") == ([("ann", "paid")], [("ann", "paid")])
    with store.read(node="follower", max_lag=1.0) as session:
        assert [line.item for line in lines.in_(session).find(order_by=Line.position)] == ["tea"]
        with pytest.raises(ValueError, match="max_lag"):
            lines.in_(session).count(max_lag=1.0)
        with pytest.raises(DBAPIError):
            lines.in_(session).add(Line(basket_id=key, position=2, item="milk"))


def test_reads_take_the_terms_of_the_store(any_pair: local.Pair) -> None:
    with open_store(any_pair, background=False, durability="async") as store:
        store.migrate(Base.metadata)
        baskets = Repository(store, Basket)
        baskets.add(Basket(owner="ann"))
        token = store.token()
        assert baskets.count() == 1
        assert baskets.count(node="follower") == 0
        assert baskets.find(node="follower") == []
        assert baskets.count(node="follower", after=token) == 1  # the writer serves, because the follower doesn't have it yet
        assert baskets.count(node="any", max_lag=0.0) == 1
        assert baskets.get(1, node="follower") is not None


def test_an_add_that_fails_over_takes_effect_once_and_its_key_is_the_new_writers(any_pair: local.Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(any_pair) as store:
        store.migrate(Base.metadata)
        wait_until(lambda: store.status().healthy)
        baskets = Repository(store, Basket)
        flush, flushed = Session.flush, []

        def lose_the_writer(session: Session, *arguments: object) -> None:
            flush(session, *arguments)  # type: ignore[arg-type]
            flushed.append(1)
            if len(flushed) == 1:
                any_pair.kill("primary")

        monkeypatch.setattr(Session, "flush", lose_the_writer)
        basket = baskets.add(Basket(owner="ann", lines=[Line(position=1, item="tea")]))
        monkeypatch.undo()
        assert len(flushed) > 1
        assert sql(any_pair.standby_url, "SELECT id, owner FROM basket") == [(basket.id, "ann")]
        assert sql(any_pair.standby_url, "SELECT basket_id, item FROM line") == [(basket.id, "tea")]


def test_another_attempt_takes_another_key_if_its_first_one_was_given_away(lite: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite gives a key again that was rolled back: between two attempts somebody else may have got it."""
    call = lite._call

    def interrupted(fn: Any, *arguments: Any) -> Any:
        def body(session: Session) -> None:
            fn(session)
            raise NotTheWriter("the roles change just now")

        monkeypatch.undo()
        try:
            return call(body, *arguments)
        finally:
            lite.run(lambda session: session.add(Basket(owner="bob")))

    monkeypatch.setattr(lite, "_call", interrupted)
    baskets = Repository(lite, Basket)
    ann = baskets.add(Basket(owner="ann", lines=[Line(position=1, item="tea")]))
    assert [(each.id, each.owner) for each in baskets.find(order_by=Basket.id)] == [(1, "bob"), (ann.id, "ann")]
    assert [line.basket_id for line in Repository(lite, Line).find()] == [ann.id]


def test_importing_replstore_imports_nothing_else() -> None:
    program = "import sys, replstore; print(sorted({name.split('.')[0] for name in sys.modules} & {'sqlalchemy', 'alembic', 'pydantic', 'psycopg'}))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_public_name_is_there() -> None:
    import replstore

    for name in replstore.__all__:
        assert getattr(replstore, name) is not None
    assert set(replstore.__all__) <= set(dir(replstore))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = replstore.nonsense
