"""Hazard 8, the rarer ways to change a row without the journal; `test_08_no_change_escapes_the_capture.py` has the usual ones."""

from __future__ import annotations

import pytest

from replstore import ReplicationStopped
from replstore.reconcile import check
from tests.fix_check import adopted, statements
from tests.fix_stores import Lab, insert, until

RARE = """
CREATE TABLE word (id INTEGER PRIMARY KEY, code TEXT NOT NULL DEFAULT 'none' UNIQUE, n INT NOT NULL DEFAULT 7);
CREATE TABLE name (id TEXT PRIMARY KEY NOT NULL, n INTEGER);
CREATE TABLE strict (id INTEGER PRIMARY KEY, price REAL NOT NULL, cents INT GENERATED ALWAYS AS (CAST(price * 100 AS INT)) STORED UNIQUE) STRICT;
CREATE TABLE tree (id INTEGER PRIMARY KEY, up INTEGER REFERENCES tree ON DELETE CASCADE);
CREATE TABLE leaf (id INTEGER PRIMARY KEY, up INTEGER DEFAULT 1 REFERENCES tree ON DELETE SET NULL);
CREATE TABLE account (id INTEGER PRIMARY KEY, owner TEXT, amount INTEGER, changes INTEGER DEFAULT 0);
CREATE TRIGGER changes AFTER UPDATE OF amount ON account BEGIN UPDATE account SET changes = changes + 1 WHERE id <> NEW.id; END;
INSERT INTO word VALUES (-1, 'minus', 1), (1, 'none', 1), (2, 'two', 2);
INSERT INTO name (rowid, id) VALUES (1, 'a'), (2, 'b'), (3, 'c');
INSERT INTO strict (id, price) VALUES (1, 1.5), (2, 2.5);
INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 2);
INSERT INTO leaf VALUES (1, 3), (2, 2);
INSERT INTO account (id, owner, amount) VALUES (1, 'a', 1), (2, 'b', 2)
"""


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("INSERT OR REPLACE INTO word (id, code) VALUES (5, NULL)", id="a default in the place of NULL"),
        pytest.param("UPDATE OR REPLACE word SET code = NULL WHERE id = 2", id="the same by an update"),
        pytest.param("INSERT OR REPLACE INTO word (code) VALUES ('minus')", id="a row whose key is -1"),
        pytest.param("INSERT OR REPLACE INTO name (rowid, id) VALUES (2, 'd')", id="a row of the same rowid"),
        pytest.param("UPDATE OR REPLACE name SET rowid = 1 WHERE id = 'c'", id="the same by an update of the rowid"),
        pytest.param("INSERT OR REPLACE INTO strict (id, price) VALUES (3, 2.5)", id="a generated column that is unique"),
        pytest.param("DELETE FROM tree WHERE id = 1", id="a cascade down a tree, and SET NULL"),
        pytest.param("REPLACE INTO tree VALUES (2, NULL)", id="a cascade from a row that is replaced"),
        pytest.param("UPDATE account SET amount = 3 WHERE id = 1", id="a trigger of the user that changes other rows of the table"),
    ],
)
def test_what_sqlite_deletes_or_changes_besides_is_shipped(sqlite_lab: Lab, statement: str) -> None:
    lab, store = sqlite_lab, adopted(sqlite_lab, *statements(RARE))
    before = _contents(lab, "primary")
    lab.sql("primary", "PRAGMA foreign_keys = ON", statement)
    lab.ship()
    after = _contents(lab, "primary")
    assert after != before
    assert _contents(lab, "standby") == after
    assert check(store.pair).equal


def _contents(lab: Lab, node: str) -> dict[str, list[tuple[object, ...]]]:
    return {table: lab.sql(node, f"SELECT * FROM {table} ORDER BY id") for table in ("word", "name", "strict", "tree", "leaf", "account")}


def test_a_capture_that_was_mended_while_the_follower_was_down_is_made_up_for(lab: Lab) -> None:
    store = lab.migrated(background=False)
    lab.sql("primary", insert(1, 10))
    store.sync()
    _lose_the_triggers(lab)
    lab.sql("primary", insert(2, 20), "UPDATE account SET amount = 11 WHERE id = 1")
    lab.kill("standby")
    assert store.migrate().behind == "standby"
    lab.start("standby")
    store.close()
    other = lab.store()  # a program that knows nothing of the migration
    until(lambda: lab.accounts("standby") == {1: 11, 2: 20}, "the standby has caught up")
    until(lambda: other.status().healthy, "and may take over")


def test_a_capture_that_somebody_puts_back_is_not_trusted_before_the_table_is_copied(lab: Lab) -> None:
    store = lab.migrated(background=False)
    lab.sql("primary", insert(1, 10))
    store.sync()
    if lab.postgresql:
        back = ["ALTER TABLE account ENABLE TRIGGER USER"]
        lab.sql("primary", "ALTER TABLE account DISABLE TRIGGER USER")
    else:
        back = [row[0] for row in lab.sql("primary", "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'account'")]
        _lose_the_triggers(lab)
    lab.sql("primary", insert(2, 20), "UPDATE account SET amount = 11 WHERE id = 1")
    with pytest.raises(ReplicationStopped, match="capture_missing"):
        store.sync()
    lab.sql("primary", *back)
    for each in (store, lab.store(background=False)):
        with pytest.raises(ReplicationStopped, match="capture_missing"):
            each.sync()
    store.migrate()
    store.sync()
    assert lab.accounts("standby") == {1: 11, 2: 20}


def _lose_the_triggers(lab: Lab) -> None:
    if lab.postgresql:
        names = [row[0] for row in lab.sql("primary", "SELECT tgname FROM pg_trigger WHERE tgrelid = 'account'::regclass AND NOT tgisinternal")]
    else:
        names = [row[0] for row in lab.sql("primary", "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'account'")]
    assert names
    lab.sql("primary", *(f"DROP TRIGGER {name} {'ON account' if lab.postgresql else ''}" for name in names))
