"""What users do with a connection of a Store happens inside its transaction, or is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy import exc, select, text
from sqlalchemy.orm import Session

from replstore import (
    Store,
)
from replstore.databases.dialect import raw
from tests.fix_shop import Order, add, markers, on_both


def assert_inside(store: Store, use: Callable[[Session], Any], rows: int) -> None:
    """What a use of the connection writes goes with the transaction, and comes with it.

    Args:
        rows: how many it writes.
    """

    def fail(session: Session) -> None:
        use(session)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.run(fail)
    assert on_both(store) == (0, 0)
    store.run(use)
    assert on_both(store) == (rows, rows)
    assert markers(store) == 1


def test_deallocate_all_in_the_users_session_breaks_nothing(pg: Store) -> None:
    for _ in range(12):  # more often than it takes the driver to prepare a statement
        pg.run(add)
    pg.run(lambda session: session.execute(text("DEALLOCATE ALL")))
    for _ in range(12):
        pg.run(add)
    with pg.begin() as session:
        session.execute(text("DEALLOCATE ALL"))
    with pg.begin() as session:
        add(session)
    assert on_both(pg) == (25, 25)
    for _ in range(3):
        with pg.read() as session:
            assert session.scalar(text("SELECT count(*) FROM orders")) == 25
            session.execute(text("DEALLOCATE ALL"))


def test_a_read_deallocates_nothing_that_was_prepared(pg: Store) -> None:
    pg.run(add)
    for _ in range(20):  # more often than it takes the driver to prepare a statement
        with pg.read() as session:
            session.get(Order, 1)
            found = raw(session.connection().connection).execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
    assert found is not None
    assert found[0] >= 3  # the look at the node, its end, and the driver's own


def test_sessions_keep_no_more_prepared_statements_however_often_they_roll_back(pg: Store) -> None:
    def fail(session: Session) -> None:
        add(session)
        raise ZeroDivisionError

    kept = set()
    for number in range(40):
        with pytest.raises(ZeroDivisionError):
            pg.run(fail)
        with pg.begin() as session:
            kept.add(session.scalar(text(f"SELECT count(*) + 0 * {number} FROM pg_prepared_statements WHERE name LIKE 'replstore%'")))
    assert max(kept) <= 3


def test_a_raw_cursor_as_the_first_use_of_a_transaction_is_inside_it(store: Store) -> None:
    def by_cursor(session: Session) -> None:
        cursor = session.connection().connection.cursor()
        cursor.execute("INSERT INTO orders (item) VALUES ('raw')")
        cursor.executemany(f"INSERT INTO orders (item) VALUES ({'?' if store.pair.primary.database.name == 'sqlite' else '%s'})", [("a",), ("b",)])
        cursor.close()

    assert_inside(store, by_cursor, rows=3)


def test_copy_as_the_first_use_of_a_transaction_is_inside_it(pg: Store) -> None:
    def load(session: Session) -> None:
        driver: psycopg.Connection[Any] = raw(session.connection().connection)
        with driver.cursor() as cursor, cursor.copy("COPY orders (item) FROM STDIN") as rows:
            for item in ("a", "b", "c"):
                rows.write_row((item,))

    assert_inside(pg, load, rows=3)


def test_the_drivers_own_execute_and_a_named_cursor_are_inside_the_transaction(pg: Store) -> None:
    with pytest.raises(RuntimeError):

        def own(session: Session) -> None:
            raw(session.connection().connection).execute("INSERT INTO orders (item) VALUES ('a')")
            raise RuntimeError

        pg.run(own)
    assert on_both(pg) == (0, 0)
    pg.run(add)

    def named(session: Session) -> list[Any]:
        with raw(session.connection().connection).cursor("named") as cursor:  # needs a transaction
            cursor.execute("SELECT item FROM orders")
            return list(cursor)

    assert pg.run(named) == [("tea",)]
    with pg.read() as session:
        assert [order.item for order in session.scalars(select(Order).execution_options(stream_results=True))] == ["tea"]


def test_several_statements_in_one_string_are_inside_the_transaction(pg: Store) -> None:
    def several(session: Session) -> None:
        session.connection().exec_driver_sql("INSERT INTO orders (item) VALUES ('a'); INSERT INTO orders (item) VALUES ('b')")

    assert_inside(pg, several, rows=2)


@pytest.mark.parametrize("end", ["COMMIT", "rollback", " END"])
def test_a_statement_that_ends_the_transaction_is_no_success(store: Store, end: str) -> None:
    def end_it(session: Session) -> None:
        add(session)
        session.execute(text(end))

    with pytest.raises(exc.DBAPIError, match="block"):
        store.run(end_it)
    store.run(add)


def test_a_script_would_commit_half_of_a_transaction_and_is_refused(lite: Store) -> None:
    def script(session: Session) -> None:
        add(session)
        session.connection().connection.cursor().executescript("INSERT INTO orders (item) VALUES ('by script')")

    with pytest.raises(sqlite3.ProgrammingError, match="executescript"):
        lite.run(script)
    assert on_both(lite) == (0, 0)


def test_savepoints_roll_back_alone(store: Store) -> None:
    def nested(session: Session) -> None:
        add(session, "kept")
        with pytest.raises(RuntimeError), session.begin_nested():
            add(session, "dropped")
            raise RuntimeError
        add(session, "kept too")

    store.run(nested)
    assert on_both(store) == (2, 2)


def test_an_isolation_level_may_be_a_transactions_first_statement(pg: Store) -> None:
    def level(session: Session) -> str:
        session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        add(session)
        return str(session.scalar(text("SHOW transaction_isolation")))

    assert pg.run(level) == "repeatable read"


def test_an_isolation_level_holds_for_its_transaction_only(pg: Store) -> None:
    def level(session: Session) -> str:
        return str(session.scalar(text("SHOW transaction_isolation")))

    assert pg.run(level, isolation="SERIALIZABLE") == "serializable"
    assert pg.run(level) == "read committed"
    with pg.begin(isolation="REPEATABLE READ") as session:
        assert level(session) == "repeatable read"
    for attempt in pg.attempts(isolation="SERIALIZABLE"):
        with attempt as session:
            assert level(session) == "serializable"
    assert pg.run(level) == "read committed"


def test_autocommit_is_refused_where_a_transaction_is_promised(store: Store) -> None:
    with pytest.raises(ValueError, match="AUTOCOMMIT"):
        store.run(add, isolation="AUTOCOMMIT")
    with pytest.raises(ValueError, match="AUTOCOMMIT"), store.begin(isolation="AUTOCOMMIT"):
        pass
    assert on_both(store) == (0, 0)
    store.run(add)
    assert on_both(store) == (1, 1)
