"""What ``Store`` promises about one transaction, on two SQLite files and on two PostgreSQL servers."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, exc, select, text
from sqlalchemy.orm import Session

from replstore import (
    ConfigError,
    KeyReused,
    NoWriter,
    ResultNotSerializable,
    StaleRead,
    Store,
    Token,
    TokenLost,
    TransactionLost,
    local,
)
from replstore.databases.dialect import raw
from tests.fix_shop import Customer, Order, new_store, open_store, sql, wait_until

COUNT = "SELECT count(*) FROM orders"


def markers(store: Store) -> int:
    """How many commit markers the writer has."""
    lead = store.pair.current(0.0)
    with lead.node.snapshot() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {lead.node.database.control.name('marker')}").scalar_one())


def on_both(store: Store, statement: str = COUNT) -> tuple[Any, Any]:
    values = [sql(str(node.url.render_as_string(hide_password=False)), statement)[0][0] for node in store.pair.nodes.values()]
    return values[0], values[1]


def add(session: Session, item: str = "tea", **values: Any) -> int:
    order = Order(item=item, **values)
    session.add(order)
    session.flush()
    return order.id


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


# --- the writer is lost


def test_begin_raises_transaction_lost_when_its_writer_dies_in_the_block(shop: local.Pair) -> None:
    with new_store(shop) as store:
        store.sync()  # in sync, so that the standby may take over
        with pytest.raises(TransactionLost), store.begin() as session:
            add(session)
            shop.kill("primary")
            if isinstance(shop, local.PostgresPair):
                session.execute(text("SELECT 1"))
        with store.begin() as session:  # the next one finds the new writer
            add(session, "again")
        assert store.status().writer == "standby"
        assert sql(shop.standby_url, "SELECT item FROM orders") == [("again",)]


def test_run_goes_on_at_the_standby_and_takes_effect_once(shop: local.Pair) -> None:
    calls = []

    def place(session: Session) -> int:
        calls.append(1)
        key = add(session)
        if len(calls) == 1:
            shop.kill("primary")
            session.execute(text("SELECT 1"))
        return key

    with new_store(shop) as store:
        store.sync()  # in sync, so that the standby may take over
        assert store.run(place) > 0
        assert len(calls) == 2
        assert sql(shop.standby_url, COUNT) == [(1,)]
        shop.start("primary")
        wait_until(lambda: store.status().healthy)
        assert on_both(store) == (1, 1)


def test_one_killed_backend_is_no_lost_writer(postgresql_shop: local.PostgresPair) -> None:
    with new_store(postgresql_shop) as store:
        calls = []

        def place(session: Session) -> None:
            calls.append(1)
            add(session)
            if len(calls) == 1:
                pid = session.scalar(text("SELECT pg_backend_pid()"))
                sql(postgresql_shop.primary_url, f"SELECT pg_terminate_backend({pid})")
                session.execute(text("SELECT 1"))

        store.run(place)
        assert (len(calls), store.status().writer) == (2, "primary")
        assert on_both(store) == (1, 1)


@pytest.mark.parametrize("reached", [True, False], ids=["after it reached the server", "before it reached the server"])
def test_a_commit_that_is_cut_takes_effect_once(postgresql_shop: local.PostgresPair, proxy: Any, *, reached: bool) -> None:
    path = proxy(postgresql_shop.primary_url)
    new_store(postgresql_shop, background=False).close()
    with open_store((path.url, postgresql_shop.standby_url), background=False) as store:
        calls = []

        def place(session: Session) -> None:
            calls.append(1)
            add(session)
            if len(calls) == 1:
                path.cut_after(b"COMMIT", forward=reached)

        store.run(place)
        assert path.cut.is_set()
        assert len(calls) == (1 if reached else 2)
        assert on_both(store) == (1, 1)


def test_begin_tells_a_lost_commit_from_a_commit_whose_answer_is_lost(postgresql_shop: local.PostgresPair, proxy: Any) -> None:
    path = proxy(postgresql_shop.primary_url)
    new_store(postgresql_shop, background=False).close()
    with open_store((path.url, postgresql_shop.standby_url), background=False) as store:
        with store.begin() as session:
            add(session, "answer lost")
            path.cut_after(b"COMMIT", forward=True)
        with pytest.raises(TransactionLost, match="tombstone"), store.begin() as session:
            add(session, "commit lost")
            path.cut_after(b"COMMIT", forward=False)
        assert sql(postgresql_shop.primary_url, "SELECT item FROM orders") == [("answer lost",)]


def test_no_node_is_no_writer_and_the_error_says_what_to_do(shop: local.Pair) -> None:
    with new_store(shop, takeover_timeout=0.5) as store:
        shop.kill("standby")
        shop.kill("primary")
        with pytest.raises(NoWriter, match=r"primary.*standby|standby.*primary"):
            store.run(add)


# --- calls under a key


def place_counted(session: Session) -> dict[str, Any]:
    return {"order": add(session), "pair": (1, 2)}


def place_other(session: Session) -> int:
    return add(session)


def test_a_key_takes_effect_once_and_every_caller_gets_the_same_result(shop: local.Pair) -> None:
    with new_store(shop) as store:
        first = store.run(place_counted, key="order-42")
        assert first == {"order": 1, "pair": [1, 2]}  # as JSON gives it back, the first time too
        assert store.run(place_counted, key="order-42") == first
    with open_store(shop) as another:
        assert another.run(place_counted, key="order-42") == first
        assert on_both(another) == (1, 1)


def test_a_key_of_another_function_is_refused(store: Store) -> None:
    store.run(place_counted, key="k")
    with pytest.raises(KeyReused, match=r"place_counted.*place_other"):
        store.run(place_other, key="k")
    assert on_both(store) == (1, 1)


@pytest.mark.parametrize("bad", [object(), {1, 2}, b"bytes", float("nan")], ids=["object", "set", "bytes", "nan"])
def test_a_result_that_json_cannot_hold_rolls_back(lite: Store, bad: Any) -> None:
    def place(session: Session) -> Any:
        add(session)
        return bad

    with pytest.raises(ResultNotSerializable):
        lite.run(place, key="k")
    assert on_both(lite) == (0, 0)
    assert markers(lite) == 0


def test_a_keyed_call_commits_together_with_its_result_and_not_before(store: Store) -> None:
    def early(session: Session) -> int:
        key = add(session)
        session.commit()
        return key

    with pytest.raises(exc.InvalidRequestError, match="at the end of its block"):
        store.run(early, key="k")
    assert on_both(store) == (0, 0)
    assert store.run(place_other, key="k") > 0


def test_a_keyed_call_that_fails_leaves_its_key_free(store: Store) -> None:
    calls = []

    def place(session: Session) -> int:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError
        return add(session)

    with pytest.raises(RuntimeError):
        store.run(place, key="k")
    assert store.run(place, key="k") == 1


def test_a_keyed_call_outlives_a_failover(shop: local.Pair) -> None:
    with new_store(shop) as store:
        first = store.run(place_counted, key="k")
        shop.kill("primary")
        assert store.run(place_counted, key="k") == first
        assert sql(shop.standby_url, COUNT) == [(1,)]


CALLER = """
import json, sys, time
from tests.fix_shop import Order, open_store

def place(session):
    order = Order(item="tea")
    session.add(order)
    session.flush()
    time.sleep(0.3)
    return order.id

with open_store((sys.argv[1], sys.argv[2])) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(store.run(place, key="order-42")))
"""


def test_two_processes_with_one_key_at_once_take_effect_once(shop: local.Pair) -> None:
    with new_store(shop) as store:
        command = [sys.executable, "-c", CALLER, shop.primary_url, shop.standby_url]
        processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        results = [json.loads(process.communicate(timeout=20)[0]) for process in processes]
        assert results == [1, 1]
        assert on_both(store) == (1, 1)


# --- what users do with a connection


def test_deallocate_all_in_the_users_session_breaks_nothing(pg: Store) -> None:
    for _ in range(12):  # more often than it takes the driver to prepare a statement
        pg.run(add)
    pg.run(lambda session: session.execute(text("DEALLOCATE ALL")))
    for _ in range(12):
        pg.run(add)
    assert on_both(pg) == (24, 24)


def test_a_raw_cursor_as_the_first_use_of_a_transaction_is_inside_it(store: Store) -> None:
    def by_cursor(session: Session, *, fail: bool) -> None:
        cursor = session.connection().connection.cursor()
        cursor.execute("INSERT INTO orders (item) VALUES ('raw')")
        cursor.executemany(f"INSERT INTO orders (item) VALUES ({'?' if store.pair.primary.database.name == 'sqlite' else '%s'})", [("a",), ("b",)])
        cursor.close()
        if fail:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        store.run(lambda session: by_cursor(session, fail=True))
    assert on_both(store) == (0, 0)
    store.run(lambda session: by_cursor(session, fail=False))
    assert on_both(store) == (3, 3)
    assert markers(store) == 1


def test_copy_as_the_first_use_of_a_transaction_is_inside_it(pg: Store) -> None:
    def load(session: Session, *, fail: bool) -> None:
        driver: psycopg.Connection[Any] = raw(session.connection().connection)
        with driver.cursor() as cursor, cursor.copy("COPY orders (item) FROM STDIN") as rows:
            for item in ("a", "b", "c"):
                rows.write_row((item,))
        if fail:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        pg.run(lambda session: load(session, fail=True))
    assert on_both(pg) == (0, 0)
    pg.run(lambda session: load(session, fail=False))
    assert on_both(pg) == (3, 3)
    assert markers(pg) == 1


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
    def several(session: Session, *, fail: bool) -> None:
        session.connection().exec_driver_sql("INSERT INTO orders (item) VALUES ('a'); INSERT INTO orders (item) VALUES ('b')")
        if fail:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        pg.run(lambda session: several(session, fail=True))
    assert on_both(pg) == (0, 0)
    pg.run(lambda session: several(session, fail=False))
    assert on_both(pg) == (2, 2)
    assert markers(pg) == 1


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


# --- reading


def test_reads_see_committed_rows_on_either_node_and_their_objects_stay_loaded(store: Store) -> None:
    store.run(add)
    for node in ("writer", "follower", "any"):
        with store.read(node=node) as session:
            order = session.scalars(select(Order)).one()
        assert order.item == "tea"


def test_a_read_names_a_node_that_exists(store: Store) -> None:
    with pytest.raises(ValueError, match="writer"), store.read(node="standby"):
        pass


@pytest.mark.parametrize("node", ["writer", "follower"])
def test_a_read_changes_nothing(store: Store, node: str) -> None:
    with pytest.raises(exc.DBAPIError), store.read(node=node) as session:
        add(session)
    with pytest.raises(exc.DBAPIError), store.read(node=node) as session:
        add(session)
        session.commit()
    store.run(add)  # on the same connection of the pool
    assert on_both(store) == (1, 1)


def test_a_follower_read_is_served_by_the_follower(pg: Store) -> None:
    ports = {name: int(node.url.port or 0) for name, node in pg.pair.nodes.items()}
    for node, expected in (("writer", "primary"), ("follower", "standby"), ("any", "standby")):
        with pg.read(node=node, max_lag=5.0) as session:
            assert session.scalar(text("SELECT inet_server_port()")) == ports[expected]


def test_max_lag_ships_what_is_missing_before_it_reads(shop: local.Pair) -> None:
    with new_store(shop, background=False, durability="async") as store:
        store.run(add)
        with store.read(node="follower") as session:
            assert session.scalar(text(COUNT)) == 0  # no bound was asked for
        with store.read(node="follower", max_lag=0.0) as session:
            assert session.scalar(text(COUNT)) == 1


def test_a_token_makes_a_read_see_its_commits_on_the_follower_or_go_to_the_writer(shop: local.Pair) -> None:
    with new_store(shop, background=False, durability="async") as store:
        store.run(add)
        token = store.token()
        with store.read(node="follower", after=token) as session:  # the follower doesn't have it, so the writer serves
            assert session.scalar(text(COUNT)) == 1
        store.sync()
        shop.kill("primary")
        with store.read(node="follower", after=token) as session:
            assert session.scalar(text(COUNT)) == 1


def test_a_token_travels_as_text(store: Store) -> None:
    store.run(add)
    token = store.token()
    assert Token.parse(str(token)) == token
    with store.read(node="follower", after=Token.parse(str(token))) as session:
        assert session.scalar(text(COUNT)) == 1
    for bad in ("", "[]", "nonsense", "[1, 2]"):
        with pytest.raises(ValueError, match="token"):
            Token.parse(bad)


def test_a_token_of_commits_that_went_down_with_their_writer_is_lost(shop: local.Pair) -> None:
    with new_store(shop, background=False, durability="async") as store:
        store.run(add)
        store.sync()
        kept = store.token()
        store.run(add)
        lost = store.token()
        shop.kill("primary")
        with store.read(after=kept) as session:
            assert session.scalar(text(COUNT)) == 1
        with pytest.raises(TokenLost), store.read(after=lost):
            pass


def test_a_token_still_holds_after_a_switchover(shop: local.Pair) -> None:
    with new_store(shop) as store:
        store.run(add)
        token = store.token()
        store.switchover()
        for node in ("writer", "follower"):
            with store.read(node=node, after=token) as session:
                assert session.scalar(text(COUNT)) == 1


def test_a_token_is_not_taken_for_granted_when_its_node_writes_again(shop: local.Pair) -> None:
    with new_store(shop, background=False, durability="async") as store:
        store.sync()
        store.run(add)
        lost = store.token()
        shop.kill("primary")
        store.run(add)
        shop.start("primary")
        store.rejoin()
        store.sync()
        store.switchover()
        assert store.status().writer == "primary"
        with pytest.raises(TokenLost), store.read(after=lost):
            pass


def test_reads_fall_back_to_the_node_that_is_left(shop: local.Pair) -> None:
    with new_store(shop) as store:
        store.run(add)
        shop.kill("standby")
        for node in ("writer", "follower", "any"):
            with store.read(node=node) as session:
                assert session.scalar(text(COUNT)) == 1
        shop.start("standby")
        wait_until(lambda: store.status().healthy)
        shop.kill("primary")
        for node in ("writer", "follower", "any"):
            with store.read(node=node) as session:
                assert session.scalar(text(COUNT)) == 1


def test_a_read_that_no_node_can_serve_within_its_terms_is_stale(shop: local.Pair) -> None:
    with new_store(shop, background=False, durability="async", takeover="manual", takeover_timeout=0.3) as store:
        store.run(add)
        token = store.token()
        shop.kill("primary")
        with pytest.raises(StaleRead), store.read(node="writer"):
            pass
        with pytest.raises(StaleRead), store.read(node="follower", after=token):
            pass
        with pytest.raises(StaleRead), store.read(node="any", max_lag=0.0):
            pass
        with store.read(node="follower") as session:  # no terms: the follower is what it says it is
            assert session.scalar(text(COUNT)) == 0


# --- sync, status, settings


def test_sync_ships_everything_that_was_committed_before(shop: local.Pair) -> None:
    with new_store(shop, background=False, durability="async") as store:
        for _ in range(3):
            store.run(add)
        sql(shop.primary_url, "INSERT INTO orders (item) VALUES ('by another program')")
        assert on_both(store) == (4, 0)
        assert store.status().nodes["standby"].waiting == 4
        store.sync()
        assert on_both(store) == (4, 4)
        assert store.status().nodes["standby"].waiting == 0


def test_the_background_ships_what_other_programs_write(shop: local.Pair) -> None:
    with new_store(shop) as store:
        sql(shop.primary_url, "INSERT INTO orders (item) VALUES ('by another program')")
        wait_until(lambda: on_both(store) == (1, 1))


def test_status_says_who_writes_and_how_each_node_is(shop: local.Pair) -> None:
    with new_store(shop) as store:
        wait_until(lambda: store.status().healthy)
        status = store.status()
        assert (status.writer, status.term, status.acknowledge, status.durability, status.stopped) == ("primary", 1, "replicated", "replicated", "")
        assert {name: node.role for name, node in status.nodes.items()} == {"primary": "writer", "standby": "follower"}
        assert {node.health for node in status.nodes.values()} == {"up"}
        assert json.loads(json.dumps(status.as_dict()))["nodes"]["standby"]["waiting"] == 0
        shop.kill("standby")
        store.run(add)
        status = wait_until(lambda: found if (found := store.status()).acknowledge == "solo" else None)
        assert status.nodes["standby"].health.startswith("refused")
        assert "standby" in status.next_step
        assert not status.healthy


def test_status_shows_no_password(postgresql_shop: local.PostgresPair) -> None:
    secret = postgresql_shop.standby_url.replace("postgres@", "postgres:geheim@")
    new_store(postgresql_shop).close()
    with open_store((postgresql_shop.primary_url, secret)) as store:
        assert "geheim" not in json.dumps(store.status().as_dict())
        assert "geheim" not in repr(store.pair.nodes)


def test_a_store_on_databases_that_are_no_pair_says_migrate(any_pair: local.Pair) -> None:
    if isinstance(any_pair, local.SqlitePair):
        for name in ("primary", "standby"):
            sqlite3.connect(any_pair.path(name)).close()
    with open_store(any_pair, takeover_timeout=0.3) as store, pytest.raises((NoWriter, ConfigError), match="replstore migrate"):
        store.run(add)


def test_close_ends_the_threads_and_leaves_nothing_open(shop: local.Pair) -> None:
    before = threading.active_count()
    store = new_store(shop)
    store.run(add)
    store.close()
    wait_until(lambda: threading.active_count() <= before, 2.0)
    if isinstance(shop, local.PostgresPair):
        for url in (shop.primary_url, shop.standby_url):
            others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            wait_until(lambda url=url, others=others: sql(url, others) == [(0,)], 2.0)  # type: ignore[misc]
