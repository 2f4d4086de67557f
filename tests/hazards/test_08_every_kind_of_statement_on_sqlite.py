"""Hazard 8, word by word: every kind of statement on SQLite, every key, every name, and what else acts beside them, reaches the follower."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from replstore import CannotReplicate, ReplicationStopped, local
from replstore.databases.catalog import quote
from replstore.reconcile import check
from tests.fix_check import adopted, statements
from tests.fix_stores import Lab

SCHEMA = """
CREATE TABLE word (id INTEGER PRIMARY KEY, text TEXT UNIQUE, n INTEGER DEFAULT 0);
CREATE TABLE swap (id INT NOT NULL PRIMARY KEY, text TEXT);
CREATE TABLE pair (a TEXT NOT NULL, b BLOB NOT NULL, n INTEGER UNIQUE, PRIMARY KEY (b, a)) WITHOUT ROWID;
CREATE TABLE strict (id INTEGER PRIMARY KEY, x ANY UNIQUE, r REAL) STRICT;
CREATE TABLE loose (k NOT NULL PRIMARY KEY, v);
CREATE TABLE nocase (k TEXT COLLATE NOCASE NOT NULL PRIMARY KEY, v TEXT COLLATE RTRIM UNIQUE);
CREATE TABLE real (k REAL NOT NULL PRIMARY KEY, v);
CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT);
CREATE TABLE computed (id INTEGER PRIMARY KEY, n INT, twice INT AS (n * 2) STORED UNIQUE, thrice AS (n * 3));
CREATE TABLE eager (id TEXT NOT NULL PRIMARY KEY ON CONFLICT REPLACE, n INT UNIQUE ON CONFLICT REPLACE);
CREATE TABLE parent (id INTEGER PRIMARY KEY, code TEXT UNIQUE);
CREATE TABLE cascaded (id INTEGER PRIMARY KEY, up INT REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE nulled (id INTEGER PRIMARY KEY, up INT REFERENCES parent ON DELETE SET NULL ON UPDATE SET NULL, code TEXT REFERENCES parent (code) ON UPDATE CASCADE
    ON DELETE SET NULL);
CREATE TABLE defaulted (id INTEGER PRIMARY KEY, up INT DEFAULT 0 REFERENCES parent ON DELETE SET DEFAULT ON UPDATE SET DEFAULT);
CREATE TABLE keyed (up INT NOT NULL REFERENCES parent ON UPDATE CASCADE ON DELETE CASCADE, no INT NOT NULL, PRIMARY KEY (up, no));
CREATE TABLE acting (id INTEGER PRIMARY KEY, text TEXT);
CREATE TABLE log (id INTEGER PRIMARY KEY, text TEXT);
CREATE TRIGGER before BEFORE INSERT ON acting WHEN NEW.text = 'skip' BEGIN DELETE FROM swap; SELECT RAISE(IGNORE); END;
CREATE TRIGGER after AFTER INSERT ON acting BEGIN INSERT INTO log (text) VALUES ('got ' || NEW.id); UPDATE acting SET text = text || '!' WHERE id = NEW.id - 1; END;
CREATE TRIGGER gone AFTER DELETE ON acting BEGIN DELETE FROM word WHERE id = OLD.id; INSERT OR REPLACE INTO eager VALUES ('x', OLD.id); END;
CREATE VIEW joined AS SELECT w.id, w.text, s.text AS other FROM word w JOIN swap s USING (id);
CREATE TRIGGER instead INSTEAD OF INSERT ON joined BEGIN INSERT INTO word (id, text) VALUES (NEW.id, NEW.text); INSERT INTO swap VALUES (NEW.id, NEW.other); END
"""
ROWS = """
INSERT INTO word VALUES (-1, 'minus', 0), (1, 'one', 1), (2, 'two', 2), (3, 'three', 3);
INSERT INTO swap VALUES (1, 'a'), (2, 'b'), (3, 'c');
INSERT INTO pair VALUES ('a', x'00', 1), ('a', x'ff00', 2), ('', x'', 3);
INSERT INTO strict VALUES (1, 1, 1.5), (2, '1', 2.5), (3, x'31', -0.0);
INSERT INTO loose VALUES (1, 'int'), ('1', 'text'), (x'31', 'blob'), (1.5, 'real'), (9007199254740993, 'big'), (-9e999, 'inf'), ('a' || char(0) || 'b', 'nul');
INSERT INTO loose VALUES (CAST(x'ff41' AS TEXT), 'no text'), ('', 'empty'), (x'', 'empty blob'), (9223372036854775807, 'max'), ('null', 'word');
INSERT INTO nocase VALUES ('a', 'x'), ('b', 'y'), ('ä', 'z');
INSERT INTO real VALUES (0.1, 1), (-0.0, 2), (1e308, 3), (9e999, 4), (3, 5);
INSERT INTO counted (text) VALUES ('a'), ('b');
INSERT INTO computed (id, n) VALUES (1, 1), (2, 2);
INSERT INTO eager VALUES ('a', 1), ('b', 2);
INSERT INTO parent VALUES (0, 'zero'), (1, 'one'), (2, 'two'), (3, 'three');
INSERT INTO cascaded VALUES (1, 1), (2, 1), (3, 2);
INSERT INTO nulled VALUES (1, 1, 'one'), (2, 2, 'two'), (3, NULL, 'three');
INSERT INTO defaulted VALUES (1, 1), (2, 2);
INSERT INTO keyed VALUES (1, 1), (1, 2), (2, 1);
INSERT INTO acting VALUES (1, 'x'), (2, 'y')
"""
TABLES = (
    *("word", "swap", "pair", "strict", "loose", "nocase", "real", "counted", "computed", "eager"),
    *("parent", "cascaded", "nulled", "defaulted", "keyed", "acting", "log"),
)
STATEMENTS = {
    "a key changed": ["UPDATE word SET id = id + 10 WHERE id = 2"],
    "all keys moved on": ["UPDATE swap SET id = -id", "UPDATE swap SET id = 1 - id"],
    "the rowid by another name": ["UPDATE word SET _rowid_ = 77 WHERE oid = 1", "INSERT INTO word (rowid, text) VALUES (78, 'x')"],
    "the rowid of a table with another key": ["UPDATE swap SET rowid = rowid + 100", "UPDATE OR REPLACE swap SET rowid = 101 WHERE id = 3"],
    "a key by itself": [
        "INSERT INTO word (text) VALUES ('x')",
        "INSERT INTO word VALUES (NULL, 'y', 1)",
        "INSERT INTO counted (text) VALUES ('c') RETURNING id",
    ],
    "everything deleted": ["DELETE FROM word", "DELETE FROM pair", "INSERT INTO word VALUES (1, 'again', 0)"],
    "upsert": ["INSERT INTO word VALUES (1, 'x', 5), (9, 'nine', 9) ON CONFLICT (id) DO UPDATE SET n = excluded.n, id = 90 ON CONFLICT DO NOTHING"],
    "or ignore": ["INSERT OR IGNORE INTO word VALUES (1, 'x', 5), (9, 'two', 9), (10, 'ten', 9)", "UPDATE OR IGNORE word SET text = 'one'"],
    "or fail": ["UPDATE OR FAIL word SET text = 'same'"],
    "or replace": [
        "INSERT OR REPLACE INTO word VALUES (1, 'two', 5)",
        "UPDATE OR REPLACE word SET text = 'three'",
        "REPLACE INTO pair VALUES ('', x'ff00', 1)",
    ],
    "or replace, by a generated value": [
        "INSERT OR REPLACE INTO computed (id, n) VALUES (9, 1)",
        "UPDATE OR REPLACE computed SET n = 2 WHERE id = 9",
    ],
    "or replace, of another type": [
        "INSERT OR REPLACE INTO strict VALUES (9, '1', 0)",
        "REPLACE INTO loose VALUES (1.0, 'one again'), ('1', 'x')",
        "REPLACE INTO word VALUES (8, 'minus', '7')",
    ],
    "or replace, by another letter": ["REPLACE INTO nocase VALUES ('A', 'y ')", "UPDATE OR REPLACE nocase SET k = 'Ä', v = 'z  '"],
    "or replace, on two kinds of zero": ["REPLACE INTO real VALUES (0, 'zero'), (3.0, 'three')"],
    "tables that replace by themselves": ["INSERT INTO eager VALUES ('a', 2)", "INSERT INTO eager VALUES ('c', 9), ('d', 9)"],
    "many in one": [
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 500) INSERT INTO word SELECT n + 1000, 'w' || n, n FROM c"
    ],
    "update from": ["UPDATE word SET n = s.id + 50 FROM swap s WHERE s.id = word.id"],
    "a savepoint": [
        "BEGIN",
        "DELETE FROM swap",
        "SAVEPOINT s",
        "DELETE FROM word",
        "ROLLBACK TO s",
        "INSERT INTO word VALUES (70, 'x', 0)",
        "COMMIT",
    ],
    "on delete": ["DELETE FROM parent WHERE id IN (1, 2)"],
    "on update": ["UPDATE parent SET id = id + 10 WHERE id > 0", "UPDATE parent SET code = code || '!'"],
    "on delete by replace": ["REPLACE INTO parent VALUES (1, 'uno')"],
    "a view": ["INSERT INTO joined VALUES (50, 'w', 's')"],
    "triggers of the user": ["INSERT INTO acting VALUES (3, 'z'), (4, 'skip')", "DELETE FROM acting WHERE id < 3"],
    "triggers that call triggers": [
        "PRAGMA recursive_triggers = ON",
        "INSERT INTO acting VALUES (3, 'z')",
        "REPLACE INTO acting VALUES (3, 'zz')",
        "REPLACE INTO word VALUES (1, 'two', 9)",
    ],
    "a key of bytes": ["UPDATE pair SET b = b || x'00' WHERE n = 2", "DELETE FROM pair WHERE b = x''"],
    "a key of any type": [
        "UPDATE loose SET v = 'changed'",
        "DELETE FROM loose WHERE typeof(k) = 'text'",
        "UPDATE loose SET k = -k WHERE typeof(k) IN ('integer', 'real')",
    ],
    "a key of another letter": ["UPDATE nocase SET k = upper(k)", "DELETE FROM nocase WHERE k = 'b'"],
    "a key that is a float": ["UPDATE real SET k = k + 1e-17", "UPDATE real SET k = -k WHERE v = 2", "DELETE FROM real WHERE k > 1e307"],
    "values that are converted": [
        "INSERT INTO word VALUES ('17', 17, '0x')",
        "INSERT INTO swap VALUES ('18', 1), (19.0, 2)",
        "INSERT INTO real VALUES ('7', 0)",
    ],
    "a temporary table of the same name": [
        "CREATE TEMP TABLE word (id INTEGER PRIMARY KEY, text)",
        "CREATE TEMP TABLE replstore_journal (seq, tbl, k1)",
        "CREATE TEMP TABLE replstore_mark (mark)",
        "INSERT INTO temp.replstore_mark VALUES ('apply')",
        "INSERT INTO word VALUES (1, 'hidden')",
        "INSERT INTO main.word VALUES (90, 'seen', 0)",
        "DELETE FROM main.word WHERE id = 1",
    ],
    "a temporary trigger": [
        "CREATE TEMP TRIGGER t AFTER INSERT ON main.word BEGIN DELETE FROM swap WHERE id = NEW.id; END",
        "INSERT INTO word VALUES (2000, 'x', 0), (-3, 'y', 0)",
        "REPLACE INTO word VALUES (3, 'drei', 0)",
    ],
}
NAMES = ["select", "Größe 100%", "it's [a] `name`", 'a"b', "a.b", "%s :k ?1 @x $y", "Journal", "x" * 300, "x" * 299 + "y", " ", "--", "replace"]


class Shop:
    """A pair of files, which other programs change on plain connections."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.store = adopted(
            lab, *statements(SCHEMA), *(f"CREATE TABLE {quote(name)} ({quote(name)} TEXT NOT NULL PRIMARY KEY, v UNIQUE)" for name in NAMES)
        )

    def rows(self, node: str, tables: tuple[str, ...] = TABLES) -> dict[str, list[Any]]:
        with closing(sqlite3.connect(self.lab.pair.url(node).removeprefix("sqlite:///"))) as connection:  # type: ignore[arg-type]
            found = {}
            for table in tables:
                columns = [row[1] for row in connection.execute(f"PRAGMA table_xinfo({table})")]
                values = ", ".join(f"typeof({column}), hex({column}), quote({column})" for column in columns)
                connection.text_factory = bytes
                found[table] = sorted(connection.execute(f"SELECT {values} FROM {table}"))
                connection.text_factory = str
            return found

    def fill(self) -> None:
        self.lab.sql("primary", *(f"DELETE FROM {table}" for table in reversed(TABLES)), *statements(ROWS))
        self.store.sync()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with local.sqlite_pair(tmp_path_factory.mktemp("statements")) as pair, closing(Lab(pair)) as lab:
        yield Shop(lab)


@pytest.mark.parametrize("what", STATEMENTS)
@pytest.mark.parametrize("foreign_keys", ["ON", "OFF"])
def test_what_a_statement_changes_reaches_the_follower(shop: Shop, what: str, foreign_keys: str) -> None:
    shop.fill()
    before = shop.rows("primary")
    assert shop.rows("standby") == before
    connection = shop.lab.connect("primary")
    connection.execute(f"PRAGMA foreign_keys = {foreign_keys}")
    for statement in STATEMENTS[what]:
        try:
            connection.execute(statement).fetchall()
        except sqlite3.IntegrityError:
            assert what == "or fail"
    connection.close()
    shop.store.sync()
    after = shop.rows("primary")
    assert after != before
    assert shop.rows("standby") == after


def test_the_check_agrees(shop: Shop) -> None:
    shop.fill()
    assert check(shop.store.pair).equal


@pytest.mark.parametrize("name", NAMES)
def test_a_table_of_any_name_is_captured_and_guarded(shop: Shop, name: str) -> None:
    lab, table, rows = shop.lab, quote(name), f"SELECT * FROM {quote(name)} ORDER BY 1"
    lab.sql(
        "primary",
        f"INSERT INTO {table} VALUES ('a', 1), ('b', 2)",
        f"REPLACE INTO {table} VALUES ('c', 2)",
        f"UPDATE {table} SET {quote(name)} = 'd' WHERE v = 1",
    )
    shop.store.sync()
    assert lab.sql("standby", rows) == lab.sql("primary", rows) == [("c", 2), ("d", 1)]
    for statement in (f"INSERT INTO {table} VALUES ('z', 'z')", f"UPDATE {table} SET v = 9", f"DELETE FROM {table}"):
        with pytest.raises(sqlite3.IntegrityError, match="not the writer"):
            lab.sql("standby", statement)


def test_the_guard_is_on_every_table_whoever_writes(shop: Shop) -> None:
    shop.fill()
    before = shop.rows("standby")
    path = shop.lab.pair.url("standby").removeprefix("sqlite:///")
    other = sqlite3.connect(":memory:", isolation_level=None)
    other.execute("ATTACH ? AS far", (path,))
    for connection, schema in ((shop.lab.connect("standby"), "main"), (other, "far")):
        for table in TABLES:
            column = connection.execute(f"SELECT name FROM pragma_table_xinfo('{table}', '{schema}') WHERE hidden = 0 AND cid = 1").fetchone()[0]
            name = f"{schema}.{table}"
            for statement in (
                f"INSERT INTO {name} DEFAULT VALUES",
                f"INSERT OR REPLACE INTO {name} SELECT * FROM {name}",
                f"UPDATE OR IGNORE {name} SET {column} = NULL",
                f"DELETE FROM {name}",
            ):
                if table == "computed" and "SELECT *" in statement:
                    continue
                with pytest.raises(sqlite3.IntegrityError, match="not the writer"):
                    connection.execute(statement)
        connection.close()
    assert shop.rows("standby") == before


CHANGED_BY_HAND = {
    "a table renamed": ["ALTER TABLE word RENAME TO speech", "INSERT INTO speech (id, text) VALUES (9, 'x')"],
    "a column renamed": ["ALTER TABLE word RENAME text TO speech", "INSERT INTO word (id, speech) VALUES (9, 'x')"],
    "a key's column renamed": ["ALTER TABLE word RENAME id TO number", "INSERT INTO word (number, text) VALUES (9, 'x')"],
    "a column dropped": ["ALTER TABLE word DROP COLUMN n", "INSERT INTO word VALUES (9, 'x', 'en')"],
    "a unique index more": ["CREATE UNIQUE INDEX once ON word (lang)", "REPLACE INTO word (id, text, lang) VALUES (9, 'x', 'en')"],
    "a unique index less and another": [
        "DROP INDEX german",
        "CREATE UNIQUE INDEX german ON word (lang)",
        "REPLACE INTO word (id, text, lang) VALUES (9, 'x', 'en')",
    ],
    "a trigger of the user that leaves ours out": [
        "CREATE TRIGGER mean AFTER INSERT ON word BEGIN SELECT RAISE(IGNORE); END",
        "INSERT INTO word (id, text) VALUES (9, 'x')",
        "DROP TRIGGER mean",
    ],
}


@pytest.mark.parametrize("what", CHANGED_BY_HAND)
def test_what_was_changed_by_hand_stops_the_shipping_until_migrate_mends_it(sqlite_lab: Lab, what: str) -> None:
    lab = sqlite_lab
    store = adopted(lab, "CREATE TABLE word (id INTEGER PRIMARY KEY, text TEXT UNIQUE, lang TEXT, n INT)",
                    "CREATE UNIQUE INDEX german ON word (lang) WHERE lang = 'de'",
                    "INSERT INTO word VALUES (1, 'one', 'en', 1), (2, 'zwei', 'de', 2)")  # fmt: skip
    store.sync()
    *statements, last = CHANGED_BY_HAND[what]
    lab.sql("primary", *statements, *([] if last.startswith("DROP") else [last]))
    with pytest.raises(ReplicationStopped, match=r"capture_missing: table word .*replstore migrate"):
        store.sync()
    if last.startswith("DROP"):
        with pytest.raises(CannotReplicate, match="mean"):
            store.migrate()
        lab.sql("primary", last)
    store.migrate()
    store.sync()
    name = "speech" if what == "a table renamed" else "word"
    rows = f"SELECT * FROM {name} ORDER BY 1"
    assert lab.sql("standby", rows) == lab.sql("primary", rows)
    lab.sql("primary", f"DELETE FROM {name} WHERE rowid = 1")
    store.sync()
    assert lab.sql("standby", rows) == lab.sql("primary", rows)
    assert check(store.pair).equal


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("CREATE TABLE odd (k TEXT NOT NULL, PRIMARY KEY (k COLLATE NOCASE))", "collation"),
        ("CREATE TABLE odd (k TEXT NOT NULL, PRIMARY KEY (k COLLATE NOCASE)) WITHOUT ROWID", "collation"),
        (
            "CREATE TABLE odd (k INTEGER PRIMARY KEY); CREATE TRIGGER mean AFTER UPDATE ON odd BEGIN SELECT raise /* */ (ignore) WHERE NEW.k = 1; END",
            "mean",
        ),
    ],
)
def test_what_a_trigger_cannot_see_is_refused_by_name(sqlite_lab: Lab, statement: str, words: str) -> None:
    sqlite_lab.sql("primary", *statement.split("; CREATE TRIGGER")[:1])
    if "TRIGGER" in statement:
        sqlite_lab.sql("primary", "CREATE TRIGGER" + statement.split("; CREATE TRIGGER")[1])
    with pytest.raises(CannotReplicate, match=rf"odd.*{words}"):
        sqlite_lab.store(background=False).migrate()
