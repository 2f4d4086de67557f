"""Hazard 18: SQLite's own traps: lost updates, keys of any storage class, statements that override conflicts, files that go away while they are open."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from replstore import CannotReplicate, NotAPair, Store, local
from tests.fix_programs import Program
from tests.fix_shop import Order, both, new_store, open_store, sql, wait_until


@pytest.fixture
def store(sqlite_pair: local.SqlitePair) -> Iterator[Store]:
    with new_store(sqlite_pair, background=False) as store:
        yield store


def adopt(pair: local.SqlitePair, *statements: str) -> Store:
    """A Store on a file that another program has made."""
    with sqlite3.connect(pair.path("primary")) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    store = open_store(pair, background=False)
    store.migrate()
    return store


# --- transactions


def test_two_that_read_add_and_commit_lose_no_update(sqlite_pair: local.SqlitePair, store: Store) -> None:
    store.run(lambda session: session.add(Order(id=1, item="tea", quantity=0)))

    def increment(own: Store) -> None:
        for _ in range(5):
            with own.begin() as session:  # no retry: a transaction waits for its turn before it reads
                order = session.scalars(select(Order)).one()
                order.quantity += 1

    with open_store(sqlite_pair, background=False) as another, ThreadPoolExecutor(2) as pool:
        for done in (pool.submit(increment, store), pool.submit(increment, another)):
            done.result()
    assert both(sqlite_pair, "SELECT quantity FROM orders") == ([(10,)], [(10,)])


def test_a_transaction_waits_for_the_one_before_it_and_neither_fails(store: Store) -> None:
    reading, order = threading.Event(), []

    def first() -> None:
        with store.begin() as session:
            session.scalars(select(Order)).all()
            reading.set()
            order.append("first reads")
            wait_until(lambda: waiting.is_set())
            session.add(Order(item="first"))
        order.append("first done")

    waiting = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(first)
        assert reading.wait(10)
        waiting.set()
        with store.begin() as session:
            order.append("second reads")
            assert [each.item for each in session.scalars(select(Order))] == ["first"]
            session.add(Order(item="second"))
        running.result()
    assert order.index("first reads") < order.index("second reads")


# --- keys


def test_keys_of_every_storage_class_are_told_apart_and_arrive_as_they_are(sqlite_pair: local.SqlitePair) -> None:
    keys = [1, "1", b"1", 2.5, -0.0, float("inf"), float("-inf"), "", b"", "ä\0b", b"\xff\x00", 2**63 - 1, -(2**63), 1e-320, "a", "A", "a "]
    with adopt(sqlite_pair, "CREATE TABLE thing (k NOT NULL PRIMARY KEY, v INTEGER)") as store:
        with sqlite3.connect(sqlite_pair.path("primary")) as connection:
            connection.executemany("INSERT INTO thing VALUES (?, 0)", [(key,) for key in keys])
        store.sync()
        shown = "SELECT typeof(k), quote(k), hex(k), v FROM thing ORDER BY typeof(k), k"
        primary, standby = both(sqlite_pair, shown)
        assert standby == primary
        assert len(standby) == len(keys)
        with sqlite3.connect(sqlite_pair.path("primary")) as connection:
            connection.execute("UPDATE thing SET v = 1 WHERE typeof(k) = 'text'")
            connection.execute("UPDATE thing SET k = x'00' WHERE typeof(k) = 'real' AND k = 2.5")
            connection.execute("DELETE FROM thing WHERE typeof(k) = 'blob' AND k = x'31'")
        connection.close()
        store.sync()
        primary, standby = both(sqlite_pair, shown)
        assert standby == primary
        assert len(standby) == len(keys) - 1


def test_a_key_that_admits_null_is_refused_by_name(sqlite_pair: local.SqlitePair) -> None:
    with pytest.raises(CannotReplicate, match=r"nullable.*NOT NULL"):
        adopt(sqlite_pair, "CREATE TABLE nullable (k TEXT PRIMARY KEY, v TEXT)")


@pytest.mark.parametrize(
    ("statement", "fails"),
    [
        ("INSERT OR IGNORE INTO word VALUES (1, 'x'), (4, 'two'), (5, 'five')", False),
        ("UPDATE OR IGNORE word SET text = 'four' WHERE id < 4", False),
        ("UPDATE OR ABORT word SET id = id + 10", False),
        ("UPDATE OR FAIL word SET text = 'same'", True),  # the rows before the conflict stay changed
        ("UPDATE OR ROLLBACK word SET text = text || '!'", False),
        ("INSERT OR FAIL INTO word VALUES (6, 'six'), (7, 'one'), (8, 'eight')", True),
    ],
)
def test_a_conflict_clause_of_the_user_does_not_disturb_the_capture(sqlite_pair: local.SqlitePair, statement: str, *, fails: bool) -> None:
    tables = "CREATE TABLE word (id INTEGER PRIMARY KEY, text TEXT UNIQUE)", "INSERT INTO word VALUES (1, 'one'), (2, 'two'), (3, 'three')"
    with adopt(sqlite_pair, *tables) as store:
        connection = sqlite3.connect(sqlite_pair.path("primary"), isolation_level=None)
        before = connection.execute("SELECT * FROM word").fetchall()
        if fails:
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute(statement)
        else:
            connection.execute(statement)
        assert connection.execute("SELECT * FROM word").fetchall() != before
        connection.close()
        store.sync()
        primary, standby = both(sqlite_pair, "SELECT * FROM word ORDER BY id")
        assert primary == standby


# --- files


def test_a_file_that_was_deleted_takes_no_commit_and_is_not_made_anew(sqlite_pair: local.SqlitePair, store: Store) -> None:
    store.run(lambda session: session.add(Order(item="before")))
    path = sqlite_pair.path("primary")
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)  # the Store's connections still have it open
    store.run(lambda session: session.add(Order(item="after")))
    assert not path.exists()
    assert [item for (item,) in sql(sqlite_pair.standby_url, "SELECT item FROM orders ORDER BY id")] == ["before", "after"]


def test_a_file_that_was_exchanged_takes_the_next_commit_itself(sqlite_pair: local.SqlitePair, store: Store) -> None:
    store.run(lambda session: session.add(Order(item="before")))
    path = sqlite_pair.path("primary")
    copy = path.with_suffix(".copy")
    with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    source.close()
    target.close()
    old = sqlite3.connect(path)  # keeps the file that is about to have no name
    old.execute("SELECT count(*) FROM orders").fetchone()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    os.replace(copy, path)
    store.run(lambda session: session.add(Order(item="after")))
    writer = store.status().writer
    assert writer is not None
    assert sql(sqlite_pair.url(writer), "SELECT item FROM orders ORDER BY id") == [("before",), ("after",)]  # type: ignore[arg-type]
    old.close()


def test_an_empty_file_in_a_node_s_place_is_an_error_and_no_new_node(sqlite_pair: local.SqlitePair, store: Store) -> None:
    store.run(lambda session: session.add(Order(item="before")))
    store.close()
    sqlite_pair.kill("standby")
    sqlite3.connect(sqlite_pair.path("standby")).close()
    sqlite_pair.path("standby").touch()
    with open_store(sqlite_pair, background=False) as again, pytest.raises(NotAPair, match=r"standby.*--replace standby"):
        again.migrate()
    assert sql(sqlite_pair.standby_url, "SELECT count(*) FROM sqlite_master") == [(0,)]


def test_opening_a_store_creates_no_file(sqlite_pair: local.SqlitePair, store: Store) -> None:
    store.close()
    shutil.move(sqlite_pair.path("standby"), sqlite_pair.path("standby").with_suffix(".away"))
    with open_store(sqlite_pair) as again:
        again.status()
    assert not sqlite_pair.path("standby").exists()


# --- the shipper's mark

SHIPPER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE replstore_mark SET mark = 'apply'")
connection.execute("INSERT INTO orders (id, item) VALUES (99, 'passes the guard')")
print("marked", flush=True)
time.sleep(60)
"""


def test_a_shipper_that_dies_leaves_no_mark_behind_and_nobody_sees_it_before(
    sqlite_pair: local.SqlitePair, store: Store, program: Callable[..., Program]
) -> None:
    shipper = program(SHIPPER, str(sqlite_pair.path("standby")))
    assert shipper.says() == "marked"
    assert sql(sqlite_pair.standby_url, "SELECT mark FROM replstore_mark") == [(None,)]
    shipper.kill()
    assert sql(sqlite_pair.standby_url, "SELECT mark FROM replstore_mark") == [(None,)]
    with pytest.raises(DBAPIError, match="not the writer"):
        sql(sqlite_pair.standby_url, "INSERT INTO orders (id, item) VALUES (99, 'does not')")
    store.run(lambda session: session.add(Order(item="shipped")))
    assert both(sqlite_pair, "SELECT item FROM orders") == ([("shipped",)], [("shipped",)])
