"""What ``Store`` promises about one transaction, on two SQLite files and on two PostgreSQL servers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, exc, select, text
from sqlalchemy.orm import Session

from replstore import (
    Store,
    TransactionLost,
    local,
)
from replstore.databases.dialect import raw
from tests.fix_shop import Customer, Order, add, markers, new_store, on_both, sql, wait_until

# --- commit and rollback


def test_begin_commits_on_both_nodes_before_the_block_is_left(store: Store) -> None:
    with store.begin() as session:
        session.add(Order(item="tea"))
    assert on_both(store) == (1, 1)


def test_an_exception_rolls_back_and_is_raised_as_it_is(store: Store) -> None:
    error = RuntimeError("the caller's own")
    with pytest.raises(RuntimeError) as raised, store.begin() as session:
        add(session)
        raise error
    assert raised.value is error
    calls = []

    def fail(session: Session) -> None:
        calls.append(add(session))
        raise error

    with pytest.raises(RuntimeError):
        store.run(fail)
    assert len(calls) == 1
    assert on_both(store) == (0, 0)
    assert markers(store) == 0


def test_run_returns_what_the_function_returned_and_its_objects_stay_loaded(store: Store) -> None:
    def place(session: Session) -> Order:
        order = Order(item="tea", quantity=3)
        session.add(order)
        return order

    order = store.run(place)
    assert (order.id, order.item, order.quantity) == (1, "tea", 3)


def test_attempts_takes_effect_once(store: Store) -> None:
    blocks = 0
    for attempt in store.attempts():
        with attempt as session:
            blocks += 1
            add(session)
    assert blocks == 1
    assert on_both(store) == (1, 1)


def test_sessionmaker_sessions_commit_with_a_marker_and_reach_both_nodes(store: Store) -> None:
    factory = store.sessionmaker()
    with factory() as session:
        add(session)
        session.commit()
        add(session, "second transaction of one session")
        session.commit()
        add(session, "rolled back")
        session.rollback()
    assert on_both(store) == (2, 2)
    assert markers(store) == 2


def test_a_transaction_of_a_sessionmaker_never_moves_to_another_node_half_way(shop: local.Pair) -> None:
    with new_store(shop) as store:
        wait_until(lambda: store.status().healthy)
        with store.sessionmaker()() as session:
            session.add(Order(id=1, item="on the primary"))
            session.flush()
            shop.kill("primary")
            store.run(lambda other: other.add(Order(id=2, item="on the standby")))
            session.add(Order(id=3, item="where?"))
            with pytest.raises((exc.DBAPIError, TransactionLost)):
                session.commit()
            session.rollback()
            session.add(Order(id=4, item="again"))
            session.commit()
        assert sql(shop.standby_url, "SELECT id FROM orders ORDER BY id") == [(2,), (4,)]


def test_a_plain_connection_of_the_writers_engine_keeps_the_promises_too(store: Store) -> None:
    with store.pair.current(0.0).node.engine.begin() as connection:
        connection.execute(text("INSERT INTO orders (item) VALUES ('tea')"))
    assert on_both(store) == (1, 1)
    assert markers(store) == 1


def test_an_empty_transaction_leaves_no_marker_on_postgresql(pg: Store) -> None:
    pg.run(lambda session: None)
    with pg.sessionmaker()() as session:
        session.commit()
    with pg.pair.current(0.0).node.engine.begin():
        pass
    assert markers(pg) == 0


# --- errors of the caller


def test_an_integrity_error_of_a_statement_stays_sqlalchemys_and_is_not_retried(store: Store) -> None:
    store.run(lambda session: session.add(Customer(id=1, email="a@example.org")))
    calls = []

    def twice(session: Session) -> None:
        calls.append(1)
        session.add(Customer(id=2, email="a@example.org"))

    with pytest.raises(exc.IntegrityError):
        store.run(twice)
    assert len(calls) == 1
    assert on_both(store, "SELECT count(*) FROM customer") == (1, 1)


def test_an_integrity_error_of_commit_stays_sqlalchemys_and_is_not_retried(pg: Store) -> None:
    calls = []

    def orphaned(session: Session) -> None:
        calls.append(1)
        session.add(Order(item="tea", customer_id=99))
        session.flush()  # deferred: nothing is wrong yet

    with pytest.raises(exc.IntegrityError):
        pg.run(orphaned)
    assert len(calls) == 1
    assert on_both(pg) == (0, 0)
    pg.run(add)
    assert on_both(pg) == (1, 1)


def test_a_deferred_foreign_key_of_sqlite_fails_at_commit_and_is_not_retried(sqlite_pair: local.SqlitePair) -> None:
    with new_store(sqlite_pair) as store:
        calls = []
        engine = store.pair.primary.engine
        with engine.connect() as connection:  # outside of a transaction, on the one connection that the pool then gives
            raw(connection.connection).execute("PRAGMA foreign_keys = ON")

        def orphaned(session: Session) -> None:
            calls.append(session.scalar(text("PRAGMA foreign_keys")))
            session.add(Order(item="tea", customer_id=99))
            session.flush()

        with pytest.raises(exc.IntegrityError):
            store.run(orphaned)
        assert calls == [1]
        assert on_both(store) == (0, 0)


def test_a_swallowed_error_is_never_acknowledged_on_postgresql(pg: Store) -> None:
    def swallow(session: Session) -> None:
        add(session)
        with pytest.raises(exc.ProgrammingError):
            session.connection().exec_driver_sql("SELECT nonsense")

    with pytest.raises(exc.DBAPIError, match="nothing was committed"):
        pg.run(swallow)
    assert on_both(pg) == (0, 0)


def test_a_transaction_that_sqlite_ended_by_itself_is_never_acknowledged(sqlite_pair: local.SqlitePair) -> None:
    with new_store(sqlite_pair) as store:
        store.run(lambda session: session.add(Customer(id=1, email="a@example.org")))

        def end_it(session: Session) -> Connection:
            add(session, "before")
            connection = session.connection()
            with pytest.raises(exc.IntegrityError):
                connection.exec_driver_sql("INSERT OR ROLLBACK INTO customer (id, email) VALUES (1, 'b@example.org')")
            return connection

        with pytest.raises(exc.DBAPIError, match="nothing was committed"):
            store.run(end_it)

        def go_on(session: Session) -> None:
            end_it(session).exec_driver_sql("INSERT INTO orders (item) VALUES ('after')")

        with pytest.raises(exc.DBAPIError, match="rolled back by an earlier statement"):
            store.run(go_on)
        assert on_both(store) == (0, 0)
        store.run(add)
        assert on_both(store) == (1, 1)


# --- retry on the same node


def test_a_deadlock_is_retried(pg: Store) -> None:
    pg.run(lambda session: session.add_all([Order(id=1, item="a"), Order(id=2, item="b")]))
    met, calls = threading.Barrier(2, timeout=10), []

    def update(first: int, second: int) -> None:
        def body(session: Session) -> None:
            calls.append(first)
            session.execute(text(f"UPDATE orders SET quantity = quantity + 1 WHERE id = {first}"))
            if len(calls) <= 2:
                met.wait()  # only the first attempts block each other
            session.execute(text(f"UPDATE orders SET quantity = quantity + 1 WHERE id = {second}"))

        pg.run(body)

    with ThreadPoolExecutor(2) as pool:
        for done in (pool.submit(update, 1, 2), pool.submit(update, 2, 1)):
            done.result()
    assert len(calls) == 3
    assert on_both(pg, "SELECT sum(quantity) FROM orders") == (6, 6)


def test_a_serialization_failure_is_retried(pg: Store) -> None:
    pg.run(lambda session: session.add(Order(id=1, item="a", quantity=0)))
    met, calls = threading.Barrier(2, timeout=10), []

    def increment() -> None:
        def body(session: Session) -> None:
            calls.append(1)
            first = len(calls) <= 2
            quantity = session.scalar(select(Order.quantity))
            if first:
                met.wait()
            session.execute(text("UPDATE orders SET quantity = :value"), {"value": (quantity or 0) + 1})

        pg.run(body, isolation="SERIALIZABLE")

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(increment) for _ in range(2)]:
            done.result()
    assert len(calls) == 3
    assert on_both(pg, "SELECT quantity FROM orders") == (2, 2)


def test_attempts_is_retried_as_run_is(pg: Store) -> None:
    blocks = 0
    for attempt in pg.attempts():
        with attempt as session:
            blocks += 1
            add(session)
            if blocks == 1:  # what a server says when it can't serialize
                session.execute(text("DO $$ BEGIN RAISE EXCEPTION 'conflict' USING ERRCODE = '40001'; END $$"))
    assert blocks == 2
    assert on_both(pg) == (1, 1)


def test_run_gives_up_after_the_attempts_it_was_given(pg: Store) -> None:
    calls = []

    def conflict(session: Session) -> None:
        calls.append(1)
        session.execute(text("DO $$ BEGIN RAISE EXCEPTION 'conflict' USING ERRCODE = '40001'; END $$"))

    with pytest.raises(exc.OperationalError):
        pg.run(conflict, attempts=3)
    assert len(calls) == 3
