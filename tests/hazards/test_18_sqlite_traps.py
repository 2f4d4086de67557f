"""Hazard 18: SQLite's traps under a Store: a file that goes away in the middle of a transaction, a killed shipper, keys and conflict clauses."""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import IntegrityError, OperationalError

from replstore import CommittedNotReplicated, NoWriter, TransactionLost
from tests.fix_check import adopted
from tests.fix_stores import Lab, insert, put

KEYS: list[Any] = [1, "1", b"1", 2.5, -0.0, float("inf"), float("-inf"), "", b"", "ä\0b", b"\xff\x00", 2**63 - 1, -(2**63), 1e-320, "a", "A", "a "]


def path(lab: Lab, node: str) -> Path:
    return Path(str(make_url(lab.pair.url(node)).database))  # type: ignore[arg-type]


def delete_file(lab: Lab, node: str) -> None:
    """Removes a node's file; who has it open keeps a file without a name."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path(lab, node)}{suffix}").unlink(missing_ok=True)


def put_empty(lab: Lab, node: str) -> None:
    """Another database in the node's place: a whole one, without any table."""
    delete_file(lab, node)
    connection = sqlite3.connect(path(lab, node))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()


def is_empty(lab: Lab, node: str) -> bool:
    return lab.sql(node, "SELECT count(*) FROM sqlite_master") == [(0,)]


# --- transactions


def test_a_transaction_gives_up_with_busy_after_its_timeout_and_not_before(sqlite_lab: Lab) -> None:
    lab = sqlite_lab
    store = lab.migrated(background=False)
    other = lab.connect("primary")
    other.execute("BEGIN IMMEDIATE")
    other.execute(insert(1))
    impatient = lab.store(background=False, primary=f"{lab.pair.primary_url}?timeout=0.05")
    with pytest.raises(OperationalError, match="locked"):
        impatient.run(put(2), attempts=2)
    other.commit()
    store.run(put(3))
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 3: 0}


# --- keys and conflicts


def test_orphans_with_keys_of_every_storage_class_are_recorded_and_overwritten(sqlite_lab: Lab) -> None:
    lab = sqlite_lab
    store = adopted(lab, "CREATE TABLE thing (k NOT NULL PRIMARY KEY, v INTEGER)")
    program = lab.connect("primary")
    program.executemany("INSERT INTO thing VALUES (?, 0)", [(key,) for key in KEYS])
    store.sync()
    program.execute("UPDATE thing SET v = 1")
    lab.kill("primary")
    store.run(lambda session: session.execute(text("DELETE FROM thing WHERE typeof(k) = 'text'")))
    lab.start("primary")
    assert store.rejoin() == len(KEYS)
    recorded = {next(iter(json.loads(key))) for (key,) in lab.sql("standby", "SELECT key FROM replstore_orphan") if "blob" not in key}
    assert {repr(key) for key in recorded} == {repr(key) for key in KEYS if not isinstance(key, bytes)}
    rows = "SELECT typeof(k), quote(k), v FROM thing ORDER BY typeof(k), k"
    assert lab.sql("primary", rows) == lab.sql("standby", rows)
    assert lab.sql("primary", "SELECT count(*), sum(v) FROM thing") == [(sum(not isinstance(key, str) for key in KEYS), 0)]


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        ("INSERT OR IGNORE INTO account VALUES (2, 'a', 2), (1, 'b', 2), (3, 'c', 2)", {1: 0, 2: 2, 3: 2}),
        ("INSERT OR ABORT INTO account VALUES (2, 'a', 2), (1, 'b', 2), (3, 'c', 2)", {1: 0}),
        ("INSERT OR FAIL INTO account VALUES (2, 'a', 2), (1, 'b', 2), (3, 'c', 2)", {1: 0, 2: 2}),
        ("INSERT OR ROLLBACK INTO account VALUES (2, 'a', 2), (1, 'b', 2), (3, 'c', 2)", None),
        ("INSERT OR REPLACE INTO account VALUES (2, 'owner 1', 2)", {2: 2}),
    ],
    ids=lambda value: value.split()[2] if isinstance(value, str) else "",
)
def test_what_a_conflict_clause_leaves_is_what_both_nodes_hold(sqlite_lab: Lab, statement: str, left: dict[int, int] | None) -> None:
    """Within one transaction that goes on after the conflict; the clause goes for the triggers' own statements too."""
    lab = sqlite_lab
    store = lab.migrated(background=False)
    store.run(put(1))

    def change() -> None:
        with store.begin() as session:
            try:
                session.connection().exec_driver_sql(statement)
            except IntegrityError:
                assert statement.split()[2] in ("ABORT", "FAIL", "ROLLBACK")
            session.connection().exec_driver_sql(insert(9))

    if left is None:  # SQLite has ended the transaction: nothing of it is committed, the marker included
        before = lab.markers("primary")
        with pytest.raises(OperationalError, match="rolled back by an earlier statement"):
            change()
        assert lab.markers("primary") == before
        left = {1: 0}
    else:
        change()
        left = {**left, 9: 0}
    store.sync()
    assert lab.accounts("primary") == lab.accounts("standby") == left


# --- files


@pytest.mark.parametrize("durability", ["replicated", "async"])
def test_a_commit_into_a_file_without_a_name_is_not_acknowledged(sqlite_lab: Lab, durability: str) -> None:
    lab = sqlite_lab
    store = lab.migrated(background=False, durability=durability)
    store.run(put(1))
    store.sync()
    with pytest.raises(TransactionLost, match="tombstone is on standby"), store.begin() as session:
        put(2)(session)
        session.flush()
        delete_file(lab, "primary")
    store.run(put(3))
    assert not path(lab, "primary").exists()
    assert lab.accounts("standby") == {1: 0, 3: 0}


def test_an_empty_database_in_the_follower_s_place_is_neither_a_dead_nor_a_new_follower(sqlite_lab: Lab) -> None:
    lab = sqlite_lab
    lab.migrated(background=False).run(put(1))
    put_empty(lab, "standby")
    late = lab.store(ack_timeout=0.3, takeover_timeout=0.3)
    with pytest.raises((CommittedNotReplicated, NoWriter), match="standby"):
        late.run(put(2))
    assert not lab.state("primary").solo
    assert is_empty(lab, "standby")


def test_an_empty_database_in_the_writer_s_place_is_neither_a_dead_nor_a_new_writer(sqlite_lab: Lab) -> None:
    lab = sqlite_lab
    lab.migrated(background=False).run(put(1))
    put_empty(lab, "primary")
    with pytest.raises(NoWriter, match=r"primary.*no replstore control tables"):
        lab.store(takeover_timeout=0.3).run(put(2))
    assert lab.state("standby").role == "follower"
    assert is_empty(lab, "primary")


def test_a_copy_of_another_time_in_the_follower_s_place_is_noticed(sqlite_lab: Lab) -> None:
    """The shipper has the file open; the path names another one now."""
    lab = sqlite_lab
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.save("standby")
    store.run(put(2))
    lab.restore("standby")
    store.run(put(3))
    assert lab.accounts("standby") == {1: 0, 2: 0, 3: 0}


# --- the shipper's mark

SHIPPER = """
import sys, time
from sqlalchemy import make_url
from replstore.databases.sqlite.carrier import SQLiteCarrier
from replstore.node import Node
from replstore.replication.journal.ship import Shipper

class Stops(SQLiteCarrier):
    def _advance_sequences(self):
        assert self._both.execute("SELECT mark FROM main.replstore_mark").fetchone() == ("apply",)
        print("inside", flush=True)
        time.sleep(60)

shipper = Shipper(*(Node(name, make_url(url)) for name, url in zip(("primary", "standby"), sys.argv[1:])))
shipper.carrier = Stops(*(make_url(url).database for url in sys.argv[1:]))
shipper.ship()
"""


def test_a_shipper_killed_in_the_middle_of_a_batch_leaves_neither_rows_nor_mark(sqlite_lab: Lab) -> None:
    lab = sqlite_lab
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.sql("primary", insert(2))
    shipper = lab.program(SHIPPER)
    assert shipper.says() == "inside"
    assert lab.sql("standby", "SELECT mark FROM replstore_mark") == [(None,)]  # nobody else sees it
    assert lab.accounts("standby") == {1: 0}
    shipper.kill()
    assert lab.sql("standby", "SELECT mark FROM replstore_mark") == [(None,)]
    with pytest.raises(sqlite3.IntegrityError, match="not the writer"):
        lab.sql("standby", insert(9))
    assert lab.accounts("standby") == {1: 0}
    store.run(put(3))
    assert lab.accounts("standby") == {1: 0, 2: 0, 3: 0}


def test_a_file_that_others_write_to_all_the_time_becomes_a_node(sqlite_lab: Lab) -> None:
    """SQLite doesn't wait for the moment in which a file can be switched to WAL mode."""
    other = sqlite3.connect(path(sqlite_lab, "primary"), isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO t VALUES (1)")
    writes = threading.Timer(0.3, other.execute, ("COMMIT",))
    writes.start()
    with sqlite_lab.nodes["primary"].service.connect() as connection:
        sqlite_lab.nodes["primary"].database.prepare(connection)
    writes.join()
    other.close()
    assert sqlite_lab.sql("primary", "PRAGMA journal_mode") == [("wal",)]
