"""A former writer with many orphans: one large transaction, or many small ones.  They are recorded in pieces, and nothing knows of a piece alone."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, insert, update
from sqlalchemy.orm import Session

from replstore import CommittedNotReplicated, ConfigError, NotTheWriter
from replstore.databases.carrier import CompareFailed
from replstore.pair import rejoin as rejoining
from replstore.pair.takeover import FORCED_JUMP
from replstore.replication.journal import putting, recording
from replstore.replication.journal.groups import Recording
from tests.fix_orphans import Change, Parting, order, outcomes, reason, together
from tests.fix_shop import Customer, Order, both, sql


def orders(first: int, last: int, item: str = "of the lost one") -> Change:
    """So many orders more, in one transaction."""
    rows = [{"id": id, "item": item} for id in range(first, last + 1)]
    return lambda session: session.execute(insert(Order), rows)


def emptied(session: Session) -> None:
    """All orders at once; on SQLite that is a deletion of each."""
    connection = session.connection()
    postgresql = connection.dialect.name == "postgresql"
    for statement in ("SET CONSTRAINTS ALL IMMEDIATE", "TRUNCATE orders") if postgresql else ("DELETE FROM orders",):
        connection.exec_driver_sql(statement)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "PIECE", 100)


@pytest.mark.parametrize("change", ["inserted", "changed", "deleted", "emptied"])
@pytest.mark.usefixtures("small_pieces")
def test_a_large_transaction_is_recorded_and_overwritten_whole(parting: Parting, change: str) -> None:
    parting.shared(orders(1, 500, "shared"))
    changes: dict[str, Change] = {
        "inserted": orders(501, 1500),
        "changed": lambda session: session.execute(update(Order).values(item="of the lost one")),
        "deleted": lambda session: session.execute(delete(Order)),
        "emptied": together(orders(501, 510), emptied),
    }
    (tx,) = parting.lost(changes[change])
    parting.store.run(order(2000, "of the new one"))
    parting.back()
    assert parting.orders() == {**dict.fromkeys(range(1, 501), "shared"), 2000: "of the new one"}
    (found,) = {(record["tx"], record["state"], record["place"] is None) for record in parting.store.orphans.records()}
    assert found == (tx, "open", False)
    whole = change == "emptied" and "postgres" in parting.writer
    assert parting.store.orphans.count() == (1 if whole else {"inserted": 1000, "emptied": 510}.get(change, 500))
    assert parting.store.check().equal
    assert parting.store.status().orphans == parting.store.orphans.count()
    assert outcomes(parting.store.orphans.replay([tx], reason="all of it")) == ["replayed" if not whole else "withheld"]
    if not whole:
        kept = {"inserted": {**dict.fromkeys(range(1, 501), "shared"), **dict.fromkeys(range(501, 1501), "of the lost one")}}
        kept |= {"changed": dict.fromkeys(range(1, 501), "of the lost one"), "deleted": {}, "emptied": {}}
        assert parting.orders() == {**kept[change], 2000: "of the new one"}


@pytest.mark.usefixtures("small_pieces")
def test_many_transactions_are_recorded_each_with_its_own(parting: Parting) -> None:
    found = parting.lost(*(order(id) for id in range(1, 251)))
    parting.back()
    records = parting.store.orphans.records()
    assert sorted((record["key"], record["tx"]) for record in records) == sorted((f"[{id}]", tx) for id, tx in enumerate(found, 1))
    known = {row[0] for row in sql(parting.pair.primary_url, f"SELECT id FROM {parting.name('marker')}")}
    assert known.isdisjoint(found)  # they have taken effect nowhere


@pytest.mark.usefixtures("small_pieces")
def test_a_recording_that_broke_off_is_finished_by_the_next_and_until_then_nothing_of_it_is_replayed(
    parting: Parting, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tx,) = parting.lost(orders(1, 350))
    _break_off(parting, monkeypatch, after=2)
    book = parting.store.orphans
    assert book.count() == 200
    assert "not all of it is on record" in reason(book.plan())
    plan = book.replay([tx], out_of_order=True)
    assert "not all of it is on record" in reason(plan)
    assert sql(parting.writer, "SELECT count(*) FROM orders") == [(0,)]
    assert book.discard([tx], reason="seen in part", dry_run=True).verdicts
    parting.back()
    assert book.count() == 350
    assert len({record["id"] for record in book.records()}) == 350
    assert outcomes(book.replay()) == ["replayed"]
    assert len(parting.orders()) == 350


@pytest.mark.usefixtures("small_pieces")
def test_what_was_discarded_in_part_is_discarded_when_the_rest_is_on_record(parting: Parting, monkeypatch: pytest.MonkeyPatch) -> None:
    parting.lost(orders(1, 150))
    _break_off(parting, monkeypatch, after=1)
    book = parting.store.orphans
    with pytest.raises(CommittedNotReplicated):  # nobody follows
        book.discard(everything=True, reason="not wanted")
    parting.back()
    assert {record["state"] for record in book.records()} == {"open", "discarded"}
    with pytest.raises(ConfigError):
        book.replay()
    assert outcomes(book.discard(everything=True, reason="the rest")) == ["discarded"]
    assert {record["state"] for record in book.records()} == {"discarded"}
    assert parting.store.status().orphans == 0


def _break_off(parting: Parting, monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """A rejoin whose program dies after so many pieces."""
    put, done = recording._Recorder._put, 0

    def dies(*arguments: Any, **options: Any) -> None:
        nonlocal done
        if done == after:
            raise CompareFailed("the program died here")
        put(*arguments, **options)
        done += 1

    parting.pair.start("primary")
    with monkeypatch.context() as patch:
        patch.setattr(recording._Recorder, "_put", dies)
        with pytest.raises(CompareFailed):
            parting.store.rejoin()
    assert sql(parting.writer, f"SELECT state FROM {parting.name('orphan')} WHERE tbl = ''") == [(Recording.UNDER_WAY.value,)]


@pytest.mark.usefixtures("small_pieces")
def test_two_programs_that_record_at_once_make_each_record_once(parting: Parting, monkeypatch: pytest.MonkeyPatch) -> None:
    parting.lost(orders(1, 350))
    parting.pair.start("primary")
    pair, put = parting.store.pair, recording._Recorder._put

    def with_another(*arguments: Any, **options: Any) -> None:
        put(*arguments, **options)
        monkeypatch.setattr(recording._Recorder, "_put", put)
        rejoining.rejoin(pair.standby, pair.primary)  # another program begins later and is faster

    monkeypatch.setattr(recording._Recorder, "_put", with_another)
    with pytest.raises(NotTheWriter, match="primary is no longer fenced under term 1"):
        parting.store.rejoin()
    parting.store.sync()
    assert parting.store.orphans.count() == 350
    assert sql(parting.writer, f"SELECT state FROM {parting.name('orphan')} WHERE tbl = ''") == [(Recording.DONE.value,)]
    assert outcomes(parting.store.orphans.replay()) == ["replayed"]
    assert len(parting.orders()) == 350


@pytest.mark.usefixtures("small_pieces")
def test_each_piece_asks_again_whether_the_writer_is_still_that_of_the_term(parting: Parting, monkeypatch: pytest.MonkeyPatch) -> None:
    parting.lost(orders(1, 350))
    parting.pair.start("primary")
    put, control = recording._Recorder._put, parting.store.pair.standby.database.control

    def then_forced(*arguments: Any, **options: Any) -> None:
        put(*arguments, **options)
        with parting.store.pair.standby.begin() as connection:  # another term of the same node
            connection.execute(update(control.role).values(term_no=control.role.c.term_no + FORCED_JUMP, term_uuid="of a force"))

    monkeypatch.setattr(recording._Recorder, "_put", then_forced)
    writer, former = parting.store.pair.standby, parting.store.pair.primary
    rejoining.fence_former(former, parting.store.pair.current(0.0).term)
    with pytest.raises(NotTheWriter, match="no longer the writer of term 2"):
        rejoining.rejoin(writer, former)
    assert sql(parting.pair.standby_url, f"SELECT count(*) FROM {parting.name('orphan')} WHERE tbl <> ''") == [(100,)]
    assert sql(parting.pair.primary_url, "SELECT count(*) FROM orders") == [(350,)]


@pytest.mark.usefixtures("small_pieces")
def test_nothing_is_overwritten_of_which_a_record_is_missing(parting: Parting, monkeypatch: pytest.MonkeyPatch) -> None:
    parting.lost(orders(1, 150))
    parting.pair.start("primary")
    make_ready = rejoining._make_ready

    def taken_away(*arguments: Any) -> None:
        make_ready(*arguments)
        sql(parting.pair.standby_url, f"DELETE FROM {parting.name('orphan')} WHERE key = '[77]'")

    with monkeypatch.context() as patch:
        patch.setattr(rejoining, "_make_ready", taken_away)
        with pytest.raises(CompareFailed, match="1 of 150 orphans are no longer on record on standby"):
            parting.store.rejoin()
    assert sql(parting.pair.primary_url, "SELECT count(*) FROM orders") == [(150,)]
    parting.back()
    assert parting.store.orphans.count() == 150


def test_rows_whose_order_matters_are_written_in_it_however_many_there_are(parting: Parting, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value goes from one row to another, under a unique index that is asked at once: the row that gives it up is written first."""
    monkeypatch.setattr(putting, "ONE_BY_ONE", 100)
    parting.shared(lambda session: session.add_all([Customer(id=1, email="a"), Customer(id=2, email="b")]))

    def moved(session: Any) -> None:
        for id, email in ((2, "c"), (1, "b")):
            session.execute(update(Customer).where(Customer.id == id).values(email=email))
        session.execute(insert(Order), [{"id": id, "item": "of the lost one"} for id in range(1, 701)])

    parting.lost(moved)
    parting.back()
    assert outcomes(parting.store.orphans.replay()) == ["replayed"]
    assert parting.customers() == {1: "b", 2: "c"}
    assert both(parting.pair, "SELECT count(*) FROM orders") == ([(700,)], [(700,)])


@pytest.mark.usefixtures("small_pieces")
def test_records_are_read_page_by_page(parting: Parting) -> None:
    parting.lost(orders(1, 250))
    parting.back()
    book = parting.store.orphans
    pages = [book.records(limit=100, after=after) for after in (0, 100, 200, 300)]
    assert [len(page) for page in pages] == [100, 100, 50, 0]
    assert len({record["id"] for page in pages for record in page}) == 250
    (one,) = book.records(pages[1][0]["id"])
    assert one == pages[1][0]
