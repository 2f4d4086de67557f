"""Hazard 8: every way to change a row is recorded, and where the recording itself was lost the shipping stops and says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Column, Integer, MetaData, NullPool, create_engine

from replstore import CannotReplicate, ReplicationStopped, Store, local
from tests.fix_pairs import plain
from tests.fix_shop import new_store, open_store, sql
from tests.fix_stores import PATIENT

LITE = """
CREATE TABLE word (id INTEGER PRIMARY KEY, text TEXT UNIQUE, lang TEXT, n INTEGER DEFAULT 0);
CREATE UNIQUE INDEX word_german ON word (n) WHERE lang = 'de';
CREATE TABLE hungry (id INTEGER PRIMARY KEY, text TEXT UNIQUE ON CONFLICT REPLACE);
CREATE TABLE pair (a TEXT NOT NULL, b TEXT NOT NULL, n INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID;
CREATE TABLE parent (id INTEGER PRIMARY KEY);
CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);
INSERT INTO word VALUES (1, 'one', 'en', 1), (2, 'two', 'en', 2), (3, 'drei', 'de', 3);
INSERT INTO hungry VALUES (1, 'one'), (2, 'two');
INSERT INTO pair VALUES ('a', 'b', 1), ('c', 'd', 2);
INSERT INTO parent VALUES (1), (2);
INSERT INTO child VALUES (1, 1), (2, 1), (3, 2)
"""

GRES = """
CREATE TABLE word (id bigint PRIMARY KEY, text text UNIQUE, n int DEFAULT 0);
CREATE TABLE pair (a text, b timestamptz, n int, PRIMARY KEY (a, b));
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);
INSERT INTO word VALUES (1, 'one', 1), (2, 'two', 2), (3, 'three', 3);
INSERT INTO pair VALUES ('a', '2024-02-29 12:00:00.123456+00', 1), ('c', '-infinity', 2);
INSERT INTO parent VALUES (1), (2);
INSERT INTO child VALUES (1, 1), (2, 1), (3, 2)
"""


def execute(pair: local.Pair, node: str, *statements: str, commit: bool = True) -> None:
    """Runs statements as any other program would, on a connection of the plain driver, in one transaction."""
    engine = create_engine(pair.url(node), poolclass=NullPool)  # type: ignore[arg-type]
    with engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        if isinstance(pair, local.SqlitePair):
            driver.isolation_level = None
            driver.execute("PRAGMA foreign_keys = ON")
            driver.execute("BEGIN")
        for statement in statements:
            driver.execute(statement)
        driver.commit()


def contents(pair: local.Pair, node: str, *tables: str) -> dict[str, list[tuple[Any, ...]]]:
    """A node's rows by table; of PostgreSQL's as text, because Python can't hold all of them."""
    columns = "*" if isinstance(pair, local.SqlitePair) else "t::text"
    return {table: sorted(sql(pair.url(node), f"SELECT {columns} FROM {table} t"), key=repr) for table in tables}  # type: ignore[arg-type]


class Shop:
    """An adopted database, whose changes by other programs are shipped and compared."""

    def __init__(self, pair: local.Pair, store: Store) -> None:
        self.pair, self.store = pair, store
        self.tables = ("word", "pair", "parent", "child", *(("hungry",) if isinstance(pair, local.SqlitePair) else ()))

    def changed(self, *statements: str) -> dict[str, list[tuple[Any, ...]]]:
        """Executes, ships, and returns what both nodes hold now, which is the same and isn't what they held."""
        before = contents(self.pair, "primary", *self.tables)
        execute(self.pair, "primary", *statements)
        self.store.sync()
        after = contents(self.pair, "primary", *self.tables)
        assert after != before, "the statements change something"
        assert contents(self.pair, "standby", *self.tables) == after
        return after


@pytest.fixture
def lite(sqlite_pair: local.SqlitePair) -> Iterator[Shop]:
    sqlite_pair.path("primary").touch()
    execute(sqlite_pair, "primary", *LITE.split(";\n"))
    with open_store(sqlite_pair, background=False) as store:
        store.migrate()
        yield Shop(sqlite_pair, store)


@pytest.fixture
def gres(postgresql_pair: local.PostgresPair) -> Iterator[Shop]:
    execute(postgresql_pair, "primary", *GRES.split(";\n"))
    with open_store(postgresql_pair, background=False) as store:
        store.migrate()
        yield Shop(postgresql_pair, store)


@pytest.fixture(scope="module")
def shared(postgresql_servers: local.PostgresPair) -> Iterator[Shop]:
    with postgresql_servers.fresh("capture") as pair:
        execute(pair, "primary", *GRES.split(";\n"))
        with open_store(pair, background=False, **PATIENT) as store:
            store.migrate()
            yield Shop(pair, store)


@pytest.fixture
def calm(shared: Shop) -> Shop:
    """The same as ``gres`` for tests that change rows only: they share one pair."""
    inserts = [statement for statement in GRES.split(";\n") if statement.startswith("INSERT")]
    execute(shared.pair, "primary", f"TRUNCATE {', '.join(shared.tables)}", *inserts)
    shared.store.sync()
    return shared


# --- SQLite


def test_replace_on_sqlite_takes_every_row_in_its_way_along(lite: Shop) -> None:
    # by the primary key, by a unique column, by both, by a partial index; and by UPDATE
    assert len(lite.changed("INSERT OR REPLACE INTO word VALUES (1, 'eins', 'en', 1)")["word"]) == 3
    assert len(lite.changed("INSERT OR REPLACE INTO word VALUES (4, 'two', 'en', 4)")["word"]) == 3
    assert len(lite.changed("REPLACE INTO word VALUES (4, 'eins', 'en', 4)")["word"]) == 2
    assert len(lite.changed("REPLACE INTO word VALUES (5, 'fünf', 'de', 3)")["word"]) == 2
    lite.changed("INSERT INTO word VALUES (6, 'six', 'en', 6), (7, 'seven', 'en', 7)")
    assert len(lite.changed("UPDATE OR REPLACE word SET text = 'six' WHERE id = 7")["word"]) == 3
    assert len(lite.changed("UPDATE OR REPLACE word SET id = 7 WHERE id = 4")["word"]) == 2
    assert len(lite.changed("REPLACE INTO pair VALUES ('a', 'b', 9)")["pair"]) == 2


def test_a_table_that_replaces_by_itself_is_captured(lite: Shop) -> None:
    assert lite.changed("INSERT INTO hungry VALUES (3, 'one')")["hungry"] == [(2, "two"), (3, "one")]
    assert lite.changed("UPDATE hungry SET text = 'one' WHERE id = 2")["hungry"] == [(2, "one")]


def test_upserts_key_changes_and_cascades_of_sqlite_are_captured(lite: Shop) -> None:
    lite.changed("INSERT INTO word VALUES (1, 'x', 'en', 0) ON CONFLICT (id) DO UPDATE SET n = 100")
    lite.changed("UPDATE word SET id = id + 10")
    lite.changed("UPDATE pair SET a = 'z', b = 'y' WHERE a = 'a'")
    assert lite.changed("DELETE FROM parent WHERE id = 1")["child"] == [(3, 2)]
    assert lite.changed("UPDATE parent SET id = 20")["child"] == [(3, 20)]
    assert lite.changed("DELETE FROM word")["word"] == []


def test_a_unique_index_that_a_trigger_cannot_look_up_is_refused_by_name(sqlite_pair: local.SqlitePair) -> None:
    sqlite_pair.path("primary").touch()
    execute(sqlite_pair, "primary", "CREATE TABLE word (id INTEGER PRIMARY KEY, text TEXT)", "CREATE UNIQUE INDEX folded ON word (lower(text))")
    with open_store(sqlite_pair) as store, pytest.raises(CannotReplicate, match=r"word.*folded"):
        store.migrate()


def batch_alter(url: str) -> None:
    """What Alembic's batch mode does on SQLite: a new table, the rows copied, the old table dropped, the new one renamed."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        operations = Operations(MigrationContext.configure(connection))
        with operations.batch_alter_table("word", recreate="always") as batch:
            batch.add_column(Column("extra", Integer, server_default="7"))


def stops(shop: Shop, table: str) -> None:
    """Shipping stops with the table's name and the remedy; the remedy helps, and nothing that was changed meanwhile is missing."""
    with pytest.raises(ReplicationStopped, match=rf"capture_missing: table (public\.)?{table} .*replstore migrate"):
        shop.store.sync()
    assert table in shop.store.status().stopped
    assert not shop.store.status().healthy
    migrated = shop.store.migrate()
    assert {table, f"public.{table}"} & set(migrated.copied)
    shop.store.sync()
    assert contents(shop.pair, "primary", *shop.tables) == contents(shop.pair, "standby", *shop.tables)
    assert shop.store.status().stopped == ""


def test_batch_mode_drops_the_triggers_and_shipping_stops_until_migrate(lite: Shop) -> None:
    batch_alter(lite.pair.primary_url)
    assert sql(lite.pair.primary_url, "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'word'") == [(0,)]
    execute(lite.pair, "primary", "INSERT INTO word VALUES (9, 'recorded by nobody', 'en', 9, 9)")
    stops(lite, "word")
    assert lite.changed("INSERT INTO word VALUES (10, 'recorded again', 'en', 10, 10)")["word"][0] == (1, "one", "en", 1, 7)


@pytest.mark.parametrize(
    "fault",
    [
        ["DROP TRIGGER {trigger}"],
        ["ALTER TABLE word ADD COLUMN extra TEXT"],
        ["ALTER TABLE word RENAME TO old", "CREATE TABLE word (id INTEGER PRIMARY KEY, text TEXT UNIQUE, lang TEXT, n INTEGER)", "DROP TABLE old"],
    ],
    ids=["a trigger dropped", "a column added", "the table exchanged"],
)
def test_capture_that_was_changed_on_sqlite_stops_the_shipping(lite: Shop, fault: list[str]) -> None:
    ((trigger,), *_) = sql(lite.pair.primary_url, "SELECT name FROM sqlite_master WHERE name LIKE 'replstore_capture_insert%' AND tbl_name = 'word'")
    execute(lite.pair, "primary", *(statement.format(trigger=trigger) for statement in fault))
    execute(lite.pair, "primary", "INSERT INTO word (id, text) VALUES (9, 'recorded by nobody')")
    stops(lite, "word")


# --- PostgreSQL


def test_truncate_is_captured(calm: Shop) -> None:
    assert calm.changed("TRUNCATE word")["word"] == []
    after = calm.changed("INSERT INTO word VALUES (5, 'five')", "TRUNCATE parent CASCADE", "INSERT INTO parent VALUES (7)")
    assert (after["parent"], after["child"]) == ([("(7)",)], [])


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO word VALUES (1, 'x', 5), (9, 'nine', 9) ON CONFLICT (id) DO UPDATE SET n = excluded.n",
        "UPDATE word SET id = id + 10",
        "UPDATE pair SET b = 'infinity' WHERE a = 'a'",
        "DELETE FROM parent WHERE id = 1",
        "UPDATE parent SET id = 20 WHERE id = 1",
        "MERGE INTO word w USING (VALUES (1, 'uno'), (8, 'ocho')) v(id, t) ON w.id = v.id "
        "WHEN MATCHED THEN UPDATE SET text = v.t WHEN NOT MATCHED THEN INSERT (id, text) VALUES (v.id, v.t) "
        "WHEN NOT MATCHED BY SOURCE THEN DELETE",
        "WITH gone AS (DELETE FROM word WHERE id < 3 RETURNING *), moved AS (INSERT INTO pair SELECT text, now(), n FROM gone RETURNING 1) "
        "UPDATE word SET n = 0 WHERE id = 3",
        "DO $$ BEGIN EXECUTE 'DELETE FROM word WHERE id = 2'; END $$",
    ],
    ids=["on conflict", "key change", "timestamp key", "cascade", "key cascade", "merge", "writable with", "in a block"],
)
def test_every_kind_of_statement_is_captured(calm: Shop, statement: str) -> None:
    calm.changed(statement)


def test_keys_that_change_places_in_one_statement_are_captured(gres: Shop) -> None:
    execute(gres.pair, "primary", "ALTER TABLE word DROP CONSTRAINT word_pkey, ADD PRIMARY KEY (id) DEFERRABLE")
    gres.store.migrate()
    gres.changed("UPDATE word SET id = CASE id WHEN 1 THEN 3 WHEN 3 THEN 1 ELSE id END")


def test_copy_is_captured(calm: Shop) -> None:
    with (
        plain(calm.pair.primary_url) as connection,
        connection.cursor() as cursor,
        cursor.copy("COPY word (id, text) FROM STDIN") as rows,
    ):
        for number in range(100, 200):
            rows.write_row((number, f"number {number}"))
    calm.store.sync()
    assert contents(calm.pair, "standby", "word") == contents(calm.pair, "primary", "word")
    assert len(contents(calm.pair, "standby", "word")["word"]) == 103


def test_a_role_without_rights_on_the_journal_writes_and_is_captured(gres: Shop) -> None:
    assert isinstance(gres.pair, local.PostgresPair)
    gres.pair.primary.create_role("clerk")
    execute(gres.pair, "primary", "GRANT ALL ON ALL TABLES IN SCHEMA public TO clerk")
    evil = "CREATE SCHEMA clerk AUTHORIZATION clerk; CREATE TABLE clerk.journal (tbl text, keys jsonb)"
    execute(gres.pair, "primary", *evil.split("; "))
    gres.changed(
        "SET LOCAL ROLE clerk",
        "SET LOCAL search_path TO clerk, public",
        "INSERT INTO public.word VALUES (50, 'by the clerk')",
        "DELETE FROM public.pair",
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        execute(gres.pair, "primary", "SET LOCAL ROLE clerk", "DELETE FROM replstore.journal")


@pytest.mark.parametrize(
    "fault",
    [
        ["ALTER TABLE word DISABLE TRIGGER replstore_capture_insert"],
        ["ALTER TABLE word DISABLE TRIGGER ALL"],
        ["DROP TRIGGER replstore_capture_insert ON word"],
        ["ALTER TABLE word ADD COLUMN extra text"],
        ["ALTER TABLE word RENAME TO old_word", "CREATE TABLE word (LIKE old_word INCLUDING ALL)", "DROP TABLE old_word"],
        ["ALTER TABLE word SET UNLOGGED", "ALTER TABLE word SET LOGGED", "ALTER TABLE word DROP COLUMN n"],
    ],
    ids=["a trigger disabled", "all triggers disabled", "a trigger dropped", "a column added", "the table exchanged", "a column dropped"],
)
def test_capture_that_was_changed_on_postgresql_stops_the_shipping(gres: Shop, fault: list[str]) -> None:
    execute(gres.pair, "primary", *fault)
    execute(gres.pair, "primary", "INSERT INTO word (id, text) VALUES (9, 'perhaps recorded by nobody')")
    stops(gres, "word")
    gres.changed("UPDATE word SET text = 'recorded again' WHERE id = 9")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("ALTER TABLE word SET UNLOGGED", "unlogged"),
        ("CREATE TABLE heir () INHERITS (word)", "inherit"),
    ],
    ids=["unlogged", "inherited from"],
)
def test_a_table_that_becomes_one_of_a_kind_that_cannot_be_captured_stops_the_shipping(gres: Shop, fault: str, reason: str) -> None:
    execute(gres.pair, "primary", fault)
    execute(gres.pair, "primary", "INSERT INTO word (id, text) VALUES (9, 'perhaps recorded by nobody')")
    with pytest.raises(ReplicationStopped, match=r"capture_missing: table public\.word"):
        gres.store.sync()
    with pytest.raises(CannotReplicate, match=rf"(?s)word.*{reason}|{reason}.*word"):
        gres.store.migrate()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE UNLOGGED TABLE odd (id int PRIMARY KEY)",
        "CREATE TABLE odd (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE UNLOGGED TABLE odd_one PARTITION OF odd DEFAULT",
        "CREATE TABLE odd (n int)",
    ],
    ids=["unlogged", "with an unlogged partition", "without key"],
)
def test_a_table_that_cannot_be_captured_is_refused_by_name(postgresql_shop: local.PostgresPair, statement: str) -> None:
    with new_store(postgresql_shop, background=False) as store:
        execute(postgresql_shop, "primary", statement)
        with pytest.raises(CannotReplicate, match="odd"):
            store.migrate()
        store.run(lambda session: None)  # the pair goes on with the tables that it has
        store.sync()


def test_a_table_without_key_in_metadata_is_refused_before_it_is_created(shop: local.Pair) -> None:
    metadata = MetaData()
    from sqlalchemy import Table

    Table("keyless", metadata, Column("n", Integer))
    with new_store(shop, background=False) as store:
        with pytest.raises(CannotReplicate, match="keyless"):
            store.migrate(metadata)
        with pytest.raises(Exception, match="keyless"):
            sql(shop.primary_url, "SELECT * FROM keyless")
