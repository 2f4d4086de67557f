"""The catalog on SQLite: what is read is exact, and what is made from it elsewhere is the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import IntegrityError

from replstore.control import Control
from replstore.databases.catalog import Table, differences, execute
from replstore.databases.sqlite import catalog
from replstore.errors import CannotReplicate

CONTROL = Control(None, "replstore_")

SCHEMA = [
    """CREATE TABLE customer (
        id INTEGER PRIMARY KEY AUTOINCREMENT,  -- counted, never given twice
        email TEXT COLLATE NOCASE NOT NULL UNIQUE ON CONFLICT REPLACE,
        "Größe (cm)" REAL DEFAULT 1.5, [select] TEXT DEFAULT 'it''s 100%, :not a parameter',
        born TEXT DEFAULT CURRENT_TIMESTAMP,
        CONSTRAINT "not-empty" CHECK (length(email) > 0 AND email <> ')')
    )""",
    """CREATE TABLE "Order Line" (
        customer INTEGER NOT NULL REFERENCES customer (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
        no INT NOT NULL, price NUMERIC(10, 2) NOT NULL DEFAULT (1 + 1), pieces INTEGER NOT NULL DEFAULT -1 CHECK (pieces <> 0),
        total NUMERIC GENERATED ALWAYS AS (price * pieces) STORED, twice AS (pieces * 2),
        parent_customer INTEGER, parent_no INT,
        PRIMARY KEY (customer, no),
        CONSTRAINT parent FOREIGN KEY (parent_customer, parent_no) REFERENCES "Order Line" ON UPDATE SET NULL NOT DEFERRABLE
    ) WITHOUT ROWID""",
    "CREATE TABLE strict_one (id INTEGER NOT NULL PRIMARY KEY, data BLOB, anything ANY, other INTEGER REFERENCES strict_two) STRICT",
    "CREATE TABLE strict_two (id INTEGER PRIMARY KEY, other INTEGER REFERENCES strict_one (id)) STRICT",
    "CREATE UNIQUE INDEX one_open ON 'Order Line' (price) WHERE pieces > 100",
    "CREATE UNIQUE INDEX by_case ON customer (lower(email))",
    "CREATE UNIQUE INDEX nocase ON strict_one (data COLLATE NOCASE)",
    "CREATE INDEX plain ON customer (born DESC, email)",
    "CREATE TRIGGER count_up AFTER INSERT ON customer BEGIN UPDATE customer SET born = 'now' WHERE id = NEW.id; END",
    'CREATE VIEW totals AS SELECT customer, sum(total) AS total FROM "Order Line" GROUP BY customer',
    "CREATE VIEW rich AS SELECT * FROM totals WHERE total > 100",
    "CREATE TRIGGER rich_insert INSTEAD OF INSERT ON rich BEGIN INSERT INTO customer (email) VALUES (NEW.customer); END",
    "CREATE TABLE replstore_role (id INTEGER PRIMARY KEY)",
    "CREATE TRIGGER replstore_capture AFTER INSERT ON customer BEGIN SELECT 1; END",
]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[Connection, Connection]]:
    engines = [create_engine(f"sqlite:///{tmp_path / name}.db") for name in ("primary", "standby")]
    with engines[0].connect() as primary, engines[1].connect() as standby:
        for connection in (primary, standby):
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
        yield primary, standby
    for engine in engines:
        engine.dispose()


def by_name(connection: Connection) -> dict[str, Table]:
    return {table.name: table for table in catalog.tables(connection, CONTROL)}


def test_tables_are_read_as_they_were_declared(nodes: tuple[Connection, Connection]) -> None:
    primary, _ = nodes
    execute(primary, SCHEMA)
    tables = by_name(primary)
    assert sorted(tables) == ["Order Line", "customer", "strict_one", "strict_two"]

    customer = tables["customer"]
    assert customer.id == "customer"
    assert customer.key == ("id",)
    assert customer.options == ("autoincrement",)
    assert customer.sequences == ("customer",)
    assert [column.name for column in customer.columns] == ["id", "email", "Größe (cm)", "select", "born"]
    assert [column.nullable for column in customer.columns] == [False, False, True, True, True]
    assert customer.column("email").collation == "NOCASE"
    assert customer.column("select").default == "'it''s 100%, :not a parameter'"
    assert customer.unique == (("email",),)
    assert customer.expression_unique == ("by_case",)
    assert customer.constraints == (
        "CONSTRAINT \"not-empty\" CHECK (LENGTH (EMAIL) > 0 AND EMAIL < > ')')",
        "email: UNIQUE ON CONFLICT REPLACE",
        "id: PRIMARY KEY AUTOINCREMENT",
    )
    assert [name for name, _ in customer.triggers] == ["count_up"]
    assert customer.indexes == ("CREATE UNIQUE INDEX by_case ON customer (lower(email))", "CREATE INDEX plain ON customer (born DESC, email)")

    line = tables["Order Line"]
    assert line.key == ("customer", "no")
    assert line.options == ("without_rowid",)
    assert line.data_columns == ("customer", "no", "price", "pieces", "parent_customer", "parent_no")
    assert (line.column("total").generated, line.column("total").default, line.column("total").type) == ("stored", "PRICE * PIECES", "NUMERIC")
    assert (line.column("twice").generated, line.column("twice").type) == ("virtual", "")
    assert line.partial_unique == (("price",),)
    assert line.unique == ()
    assert [(key.name, key.columns, key.ref_table, key.ref_columns) for key in line.foreign_keys] == [
        ("", ("customer",), "customer", ("id",)),
        ("parent", ("parent_customer", "parent_no"), "Order Line", ("customer", "no")),
    ]
    assert [key.definition for key in line.foreign_keys] == [
        'FOREIGN KEY ("customer") REFERENCES "customer" ("id") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED',
        'FOREIGN KEY ("parent_customer", "parent_no") REFERENCES "Order Line" ("customer", "no") ON UPDATE SET NULL NOT DEFERRABLE',
    ]
    assert tables["strict_one"].options == ("strict",)
    assert tables["strict_one"].expression_unique == ("nocase",)


def test_a_definition_survives_its_json(nodes: tuple[Connection, Connection]) -> None:
    primary, _ = nodes
    execute(primary, SCHEMA)
    for table in by_name(primary).values():
        assert Table.from_json(table.to_json()) == table


def test_only_the_tables_asked_for_are_read(nodes: tuple[Connection, Connection]) -> None:
    primary, _ = nodes
    execute(primary, SCHEMA)
    assert [table.id for table in catalog.tables(primary, CONTROL, only=["Order Line", "absent"])] == ["Order Line"]
    assert catalog.tables(primary, CONTROL, only=[]) == []


def test_tables_made_elsewhere_are_the_same_and_behave_the_same(nodes: tuple[Connection, Connection]) -> None:
    primary, standby = nodes
    execute(primary, SCHEMA)
    tables = list(by_name(primary).values())
    execute(standby, catalog.create_statements(tables, primary, target=standby))
    assert by_name(standby) == by_name(primary)
    texts = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'replstore%' AND name NOT LIKE 'sqlite%' ORDER BY type, name"
    assert standby.exec_driver_sql(texts).all() == primary.exec_driver_sql(texts).all()

    standby.exec_driver_sql("INSERT INTO customer (email) VALUES ('A@b')")
    standby.exec_driver_sql("INSERT OR REPLACE INTO customer (email) VALUES ('a@B')")
    row = standby.exec_driver_sql('SELECT id, "Größe (cm)", "select", born FROM customer').one()
    assert tuple(row) == (2, 1.5, "it's 100%, :not a parameter", "now")
    standby.exec_driver_sql('INSERT INTO "Order Line" (customer, no, pieces) VALUES (2, 1, 3)')
    assert standby.exec_driver_sql('SELECT price, total, twice FROM "Order Line"').one() == (2, 6, 6)
    assert standby.exec_driver_sql("SELECT * FROM totals").one() == (2, 6)
    with pytest.raises(IntegrityError, match="CHECK"):
        standby.exec_driver_sql('INSERT INTO "Order Line" (customer, no, pieces) VALUES (2, 2, 0)')
    with pytest.raises(IntegrityError, match="cannot store TEXT"):
        standby.exec_driver_sql("INSERT INTO strict_one VALUES (1, 'text', NULL, NULL)")
    standby.commit()


def test_a_view_of_another_text_is_replaced_on_the_other_node(nodes: tuple[Connection, Connection]) -> None:
    primary, standby = nodes
    execute(primary, SCHEMA)
    execute(standby, ['CREATE TABLE "Order Line" (customer, total)', "CREATE VIEW rich AS SELECT 1", f"{SCHEMA[9]} -- the same"])
    tables = list(by_name(primary).values())
    standby.exec_driver_sql('DROP TABLE "Order Line"')
    execute(standby, catalog.create_statements(tables, primary, target=standby))
    assert standby.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'rich'").scalar() == SCHEMA[10]


def test_tables_in_a_circle_of_foreign_keys_are_dropped(nodes: tuple[Connection, Connection]) -> None:
    primary, _ = nodes
    execute(primary, SCHEMA)
    primary.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
    primary.exec_driver_sql("INSERT INTO strict_one VALUES (1, NULL, NULL, 2)")
    primary.exec_driver_sql("INSERT INTO strict_two VALUES (2, 1)")
    primary.exec_driver_sql("INSERT INTO customer (id, email) VALUES (1, 'x')")
    primary.exec_driver_sql('INSERT INTO "Order Line" (customer, no) VALUES (1, 1)')
    primary.commit()
    execute(primary, ["BEGIN", *catalog.drop_statements(by_name(primary).values())])
    primary.commit()
    assert by_name(primary) == {}


KEY17 = ", ".join(f"c{n}" for n in range(17))


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("CREATE TABLE t (a, b UNIQUE)", "has no primary key: make a new table with PRIMARY KEY (…)"),
        ("CREATE TABLE t (a TEXT NOT NULL UNIQUE)", 'PRIMARY KEY ("a")'),
        ("CREATE TABLE t (a TEXT PRIMARY KEY)", "declare the column a NOT NULL"),
        ("CREATE TABLE t (a INT PRIMARY KEY)", "declare the column a NOT NULL"),
        ("CREATE TABLE t (a INTEGER PRIMARY KEY DESC)", "declare the column a NOT NULL"),
        ("CREATE TABLE t (a TEXT, b TEXT, c TEXT NOT NULL, PRIMARY KEY (a, b, c))", "declare the columns a, b NOT NULL"),
        (f"CREATE TABLE t ({KEY17.replace(',', ' INT NOT NULL,')} INT NOT NULL, PRIMARY KEY ({KEY17}))", "17 columns"),
        ("CREATE VIRTUAL TABLE t USING fts5 (body)", "virtual table"),
    ],
)
def test_a_table_that_cannot_be_replicated_is_refused_with_its_remedy(nodes: tuple[Connection, Connection], statement: str, words: str) -> None:
    primary, _ = nodes
    primary.exec_driver_sql(statement)
    (table,) = catalog.tables(primary, CONTROL)
    sentence = catalog.refusal(table)
    assert sentence is not None
    assert sentence.startswith("table t ")
    assert words in sentence


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE t (a INTEGER PRIMARY KEY)",
        "CREATE TABLE t (a INTEGER, b, PRIMARY KEY (a))",
        "CREATE TABLE t (a INTEGER PRIMARY KEY) STRICT",
        "CREATE TABLE t (a TEXT PRIMARY KEY) WITHOUT ROWID",
        "CREATE TABLE t (a TEXT NOT NULL PRIMARY KEY)",
        "CREATE TABLE t (a TEXT NOT NULL, b BLOB NOT NULL, PRIMARY KEY (b, a))",
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))",
    ],
)
def test_a_table_with_a_key_that_admits_no_null_is_not_refused(nodes: tuple[Connection, Connection], statement: str) -> None:
    primary, _ = nodes
    primary.exec_driver_sql(statement)
    (table,) = catalog.tables(primary, CONTROL)
    assert catalog.refusal(table) is None


def test_shadow_temporary_and_attached_tables_are_left_out(nodes: tuple[Connection, Connection]) -> None:
    primary, _ = nodes
    execute(primary, ["CREATE VIRTUAL TABLE search USING fts5 (body)", "CREATE TEMP TABLE scratch (a)", "CREATE TABLE t (a INTEGER PRIMARY KEY)"])
    primary.commit()
    execute(primary, ["ATTACH ':memory:' AS other", "CREATE TABLE other.t (x INTEGER PRIMARY KEY, y)", "CREATE INDEX other.i ON t (y)"])
    assert [(table.id, table.kind) for table in catalog.tables(primary, CONTROL)] == [("search", "virtual"), ("t", "ordinary")]
    assert [column.name for column in by_name(primary)["t"].columns] == ["a"]
    with pytest.raises(CannotReplicate, match="search"):
        catalog.create_statements(catalog.tables(primary, CONTROL), primary)


def test_what_differs_is_said_in_short_sentences(nodes: tuple[Connection, Connection]) -> None:
    primary, standby = nodes
    primary.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT DEFAULT 'x', b INT, g AS (b * 2), CHECK (b > 0))")
    primary.exec_driver_sql("CREATE INDEX i ON t (a)")
    standby.exec_driver_sql("create table T (b integer NOT NULL, id INTEGER, a text, extra)")
    a, b = by_name(primary)["t"], by_name(standby)["T"]
    assert [(str(each), each.ships) for each in differences(a, b)] == [
        ("column id: NOT NULL on primary, nullable on standby", True),
        ("column a: default 'x' on primary, no default on standby", True),
        ("column b: INT on primary, INTEGER on standby", False),
        ("column b: nullable on primary, NOT NULL on standby", True),
        ("column g: on primary only", True),
        ("column extra: on standby only", False),
        ("primary key: (id) on primary, none on standby", False),
        ("CHECK (B > 0): on primary only", True),
        ("id: PRIMARY KEY: on primary only", True),
        ("CREATE INDEX i ON t (a): on primary only", True),
    ]
    assert [str(each) for each in differences(a, None, ("one", "other"))] == ["table t: on one only"]
    assert [str(each) for each in differences(None, a)] == ["table t: on standby only"]
    assert differences(a, a) == []


def test_the_order_of_columns_and_the_way_sql_is_written_is_no_difference(nodes: tuple[Connection, Connection]) -> None:
    primary, standby = nodes
    primary.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT CHECK (a <> ''), b INT REFERENCES t ON DELETE SET NULL)")
    standby.exec_driver_sql("CREATE TABLE t (id integer primary   key, b int references t(id) on delete set null, a text check(a<>'') /* no */)")
    assert differences(by_name(primary)["t"], by_name(standby)["t"]) == []


def test_counters_move_forward_only_and_jump_at_takeover(nodes: tuple[Connection, Connection]) -> None:
    primary, standby = nodes
    counters = ["CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, x)", "CREATE TABLE b (id INTEGER PRIMARY KEY AUTOINCREMENT, x)"]
    for connection in nodes:
        assert catalog.sequences(connection, CONTROL) == {}
        execute(connection, [*counters, "CREATE TABLE c (id INTEGER PRIMARY KEY, 'autoincrement' TEXT)"])
        execute(connection, ["CREATE TABLE replstore_journal (seq INTEGER PRIMARY KEY AUTOINCREMENT)", "INSERT INTO replstore_journal VALUES (7)"])
    primary.exec_driver_sql("INSERT INTO a VALUES (41, 0)")
    primary.exec_driver_sql("DELETE FROM a")
    values = catalog.sequences(primary, CONTROL)
    assert values == {"a": 41, "b": None}
    assert catalog.sequences(primary, CONTROL, [by_name(primary)["b"]]) == {"b": None}

    catalog.advance_sequences(standby, {**values, "absent": 3})
    assert catalog.sequences(standby, CONTROL) == values
    standby.exec_driver_sql("INSERT INTO a (x) VALUES (0)")
    assert standby.exec_driver_sql("SELECT id FROM a").scalar() == 42
    catalog.advance_sequences(standby, values)
    assert catalog.sequences(standby, CONTROL)["a"] == 42

    standby.exec_driver_sql(f"INSERT INTO b VALUES ({2**63 - 101}, 0)")
    catalog.jump_sequences(standby, CONTROL, 1000)
    assert catalog.sequences(standby, CONTROL) == {"a": 1042, "b": 2**63 - 51}
    assert standby.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = 'replstore_journal'").scalar() == 7
