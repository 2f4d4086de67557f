"""Hazard 14: a check that compares with equality instead of identity misses differences; one that reads the nodes in the wrong order invents them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from tests.fix_backups import saved_before_pruning
from tests.fix_check import SQLITE_KEYS, SQLITE_VALUES, adopted, behind_the_guard, between_the_snapshots, found, table
from tests.fix_stores import Lab, insert, put

#: Pairs of values that PostgreSQL holds for equal, or prints alike under careless settings, and that are not the same.
POSTGRESQL_VALUES = [
    ("numeric", "1.0", "1.00"),
    ("numeric", "NaN", "0"),
    ("float8", "0.0", "-0.0"),
    ("float8", "0.1", "0.10000000000000002"),
    ("float4", "0.1", "0.10000001"),
    ("interval", "1 mon", "30 days"),
    ("interval", "1 day", "24:00:00"),
    ("bpchar", "a", "a "),
    ("jsonb", '{"a": 1.0}', '{"a": 1.00}'),
    ("json", '{"a": 1}', '{"a":1}'),
    ("jsonb", "null", None),
    ("text", "", None),
    ("text", "e\u0301", "\u00e9"),
    ("timestamptz", "2024-06-01 12:00:00.000001+00", "2024-06-01 12:00:00+00"),
    ("timestamptz", "2024-06-01 12:00:00+00", "2024-06-01 12:00:00+01"),
    ("bytea", "\\x00", "\\x"),
    ("uuid", "00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000001"),
    ("int[]", "{1,2}", "[0:1]={1,2}"),
    ("int[]", "{}", None),
    ("text[]", "{NULL}", '{"NULL"}'),
    ("numrange", "[1.0,2)", "[1.00,2)"),
    ("int4range", "empty", None),
    ("point", "(0,0)", "(-0,0)"),
    ("money", "5", "5.01"),
    ("bit varying", "1", "10"),
    ("inet", "10.0.0.1/8", "10.0.0.1"),
    ("tsvector", "a:1", "a"),
    ("pair", "(,)", None),
    ("mood", "sad", "glad"),
    ("short", "a", "a "),
]


def test_values_that_postgresql_holds_for_equal_differ(postgresql_lab: Lab) -> None:
    types = ["CREATE TYPE pair AS (a int, b text)", "CREATE TYPE mood AS ENUM ('sad', 'glad')", "CREATE DOMAIN short AS bpchar"]
    columns = ", ".join(f"c{number} {kind}" for number, (kind, _, _) in enumerate(POSTGRESQL_VALUES))
    store = adopted(postgresql_lab, *types, f"CREATE TABLE kinds (id int PRIMARY KEY, {columns})")
    with store.begin() as session:
        session.execute(text("INSERT INTO kinds (id) SELECT generate_series(0, :last)"), {"last": len(POSTGRESQL_VALUES)})
        for number, (_, value, _) in enumerate(POSTGRESQL_VALUES):
            session.connection().exec_driver_sql(f"UPDATE kinds SET c{number} = {_literal(value)} WHERE id = {number}")
    assert store.check().equal
    for number, (_, _, value) in enumerate(POSTGRESQL_VALUES):
        behind_the_guard(postgresql_lab, "standby", f"UPDATE kinds SET c{number} = {_literal(value)} WHERE id = {number}")
    expected = [((number,), "changed", (f"c{number}",)) for number in range(len(POSTGRESQL_VALUES))]
    assert sorted(found(store.check(), "kinds")) == expected


@pytest.mark.parametrize("node", ["primary", "standby"])
def test_values_that_look_alike_on_sqlite_differ(sqlite_lab: Lab, node: str) -> None:
    store = adopted(sqlite_lab, "CREATE TABLE kinds (id INTEGER PRIMARY KEY, v, n TEXT COLLATE NOCASE)")
    with store.begin() as session:
        for number, (value, _) in enumerate(SQLITE_VALUES):
            session.connection().exec_driver_sql(f"INSERT INTO kinds VALUES ({number}, {value}, 'a')")
        session.connection().exec_driver_sql("INSERT INTO kinds VALUES (100, 1, 'a'), (101, 1, 'a')")
    assert store.check().equal
    changes = [f"UPDATE kinds SET v = {value} WHERE id = {number}" for number, (_, value) in enumerate(SQLITE_VALUES)]
    behind_the_guard(sqlite_lab, node, *changes, "UPDATE kinds SET n = 'A' WHERE id = 100")
    expected = [*(((number,), "changed", ("v",)) for number in range(len(SQLITE_VALUES))), ((100,), "changed", ("n",))]
    assert sorted(found(store.check(), "kinds")) == expected


# -- keys

KEYS = {
    "numeric": ("numeric", ["1.0", "2", "NaN", "-3.50", "123456789012345678901234567890.5"]),
    "text": ("text", ["", "a", "A", "ä", "Z", "a b", "\u2603", "\U0001f600", 'q"', "[1]"]),
    "uuid": ("uuid", ["00000000-0000-0000-0000-000000000001", "ffffffff-0000-0000-0000-000000000001"]),
    "bytea": ("bytea", ["\\x", "\\x00", "\\xff00", "\\x61"]),
    "float8": ("float8", ["0", "0.1", "1e300", "Infinity", "-Infinity", "NaN"]),
    "timestamptz": ("timestamptz", ["2024-01-01 00:00+00", "2024-01-01 00:00:00.000001+00", "infinity"]),
    "boolean": ("bool", ["true", "false"]),
    "interval": ("interval", ["1 mon", "3 days"]),
}


@pytest.mark.parametrize("kind", KEYS)
def test_rows_under_every_kind_of_key_are_paired(postgresql_lab: Lab, kind: str) -> None:
    lab = postgresql_lab
    type, keys = KEYS[kind]
    store = adopted(lab, f"CREATE TABLE keyed (k {type}, n int, v int, PRIMARY KEY (k, n))")
    with store.begin() as session:
        for key in keys:
            session.connection().exec_driver_sql(f"INSERT INTO keyed VALUES ({_literal(key)}, 1, 0), ({_literal(key)}, 2, 0)")
    assert store.check().equal
    first, last = _literal(keys[0]), _literal(keys[-1])
    behind_the_guard(lab, "standby", f"UPDATE keyed SET v = 1 WHERE k = {first} AND n = 1")
    behind_the_guard(lab, "primary", f"DELETE FROM keyed WHERE k = {last} AND n = 2")
    report = store.check()
    assert sorted((each.key["n"], each.kind) for each in table(report, "keyed").differences) == [(1, "changed"), (2, "missing_on_primary")]


def test_keys_of_every_storage_class_are_paired(sqlite_lab: Lab) -> None:
    store = adopted(sqlite_lab, "CREATE TABLE keyed (k NOT NULL, n INTEGER NOT NULL, v, PRIMARY KEY (k, n))")
    with store.begin() as session:
        for key in SQLITE_KEYS:
            session.connection().exec_driver_sql(f"INSERT INTO keyed VALUES ({key}, 1, 0), ({key}, 2, 0)")
    assert store.check().equal
    for node, change in (("standby", "UPDATE keyed SET v = 1 WHERE n = 1"), ("primary", "DELETE FROM keyed WHERE n = 2")):
        behind_the_guard(sqlite_lab, node, change)
    report = store.check()
    assert (table(report, "keyed").primary, table(report, "keyed").standby) == (len(SQLITE_KEYS), 2 * len(SQLITE_KEYS))
    assert table(report, "keyed").total == 2 * len(SQLITE_KEYS)
    assert {(each.key["n"], each.kind) for each in table(report, "keyed").differences} == {(1, "changed"), (2, "missing_on_primary")}


def test_text_keys_are_paired_in_files_of_another_encoding(sqlite_lab: Lab) -> None:
    """SQLite orders text by the bytes of the file's own encoding."""
    for node in ("primary", "standby"):
        sqlite_lab.sql(node, "PRAGMA encoding = 'UTF-16le'", "CREATE TABLE t (id)", "DROP TABLE t")
    store = adopted(sqlite_lab, "CREATE TABLE keyed (k TEXT NOT NULL PRIMARY KEY, v)")
    with store.begin() as session:
        for key in ("a", "Ā", "ā", "\u0201", "b", "\u0102", "\U0001f600", "\uffee", "z"):
            session.execute(text("INSERT INTO keyed VALUES (:k, 0)"), {"k": key})
    assert sqlite_lab.sql("standby", "PRAGMA encoding") == [("UTF-16le",)]
    assert store.check().equal
    behind_the_guard(sqlite_lab, "standby", "DELETE FROM keyed WHERE k = 'b'")
    assert found(store.check(), "keyed") == [(("b",), "missing_on_standby", ())]


def test_a_key_changed_to_an_equal_one_is_on_its_way_under_both_forms(postgresql_lab: Lab) -> None:
    store = adopted(postgresql_lab, "CREATE TABLE keyed (k numeric PRIMARY KEY, v int)", durability="async")
    store.run(lambda session: session.execute(text("INSERT INTO keyed VALUES (1.0, 1), (2, 2)")) and None)
    postgresql_lab.ship()
    store.run(lambda session: session.execute(text("UPDATE keyed SET k = 1.00 WHERE k = 1")) and None)
    report = store.check()
    assert (report.equal, report.waiting) == (True, 2)
    postgresql_lab.ship()
    assert postgresql_lab.sql("standby", "SELECT k::text FROM keyed WHERE k = 1") == [("1.00",)]
    assert (store.check().equal, store.check().waiting) == (True, 0)


@pytest.mark.parametrize("declared", ["TEXT COLLATE NOCASE", ""])
def test_a_key_changed_to_an_equal_one_is_on_its_way_under_both_forms_on_sqlite(sqlite_lab: Lab, declared: str) -> None:
    before, after = ("'a'", "'A'") if declared else ("1", "1.0")
    store = adopted(sqlite_lab, f"CREATE TABLE keyed (k {declared} NOT NULL PRIMARY KEY, v)", durability="async")
    store.run(lambda session: session.execute(text(f"INSERT INTO keyed VALUES ({before}, 1), ('b', 2)")) and None)
    sqlite_lab.ship()
    store.run(lambda session: session.execute(text(f"UPDATE keyed SET k = {after} WHERE k = {before}")) and None)
    report = store.check()
    assert (report.equal, report.waiting) == (True, 2), report.as_dict()
    sqlite_lab.ship()
    assert (store.check().equal, store.check().waiting) == (True, 0)


def test_keys_written_under_other_settings_are_on_their_way(postgresql_lab: Lab) -> None:
    """The journal holds a key as the settings of the session that wrote it print it."""
    lab = postgresql_lab
    store = adopted(lab, "CREATE TABLE keyed (at timestamptz, b bytea, i interval, v int, PRIMARY KEY (at, b, i))", durability="async")
    store.run(lambda session: session.execute(text("INSERT INTO keyed VALUES ('2024-01-01 00:00+00', '\\x6162', '1 day 02:03:04', 1)")) and None)
    lab.ship()
    lab.sql(
        "primary",
        "SET timezone = 'America/New_York'",
        "SET bytea_output = 'escape'",
        "SET intervalstyle = 'iso_8601'",
        "UPDATE keyed SET v = 2",
        "INSERT INTO keyed VALUES ('2024-07-01 00:00+00', '\\x63', '3 days', 1)",
    )
    report = store.check()
    assert (report.equal, report.waiting) == (True, 2), report.as_dict()
    node, since = lab.nodes["primary"], lab.state("standby").position
    with node.snapshot() as connection:
        (definition,) = (each for each in node.database.tables(connection) if each.name == "keyed")
        named = {entry.key for entry in node.database.entries(connection, str(since)) if entry.table and entry.key}
        assert dict(node.database.rows(connection, definition, named)).keys() == named  # what becomes an orphan is found under its key


def test_the_settings_of_a_role_or_a_database_don_t_matter(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    store = adopted(lab, "CREATE TABLE keyed (at timestamptz PRIMARY KEY, f float8, i interval, b bytea, d date)")
    with store.begin() as session:
        session.execute(text("INSERT INTO keyed VALUES ('2024-01-01 00:00+00', 0.1, '1 mon 2 days', '\\x6162', '2024-02-03')"))
    settings = {"timezone": "Asia/Tokyo", "extra_float_digits": "-3", "intervalstyle": "iso_8601", "bytea_output": "escape", "datestyle": "SQL, DMY"}
    (database,) = lab.sql("standby", "SELECT current_database()")[0]
    lab.sql("standby", *(f"ALTER DATABASE {database} SET {name} = '{value}'" for name, value in settings.items()))
    with lab.store(background=False) as fresh:
        assert fresh.check().equal
        behind_the_guard(lab, "standby", "UPDATE keyed SET f = 0.10000000000000002")
        assert found(fresh.check(), "keyed")[0][2] == ("f",)


def test_the_order_of_columns_does_not_matter(lab: Lab) -> None:
    store = adopted(lab, "CREATE TABLE wide (id int NOT NULL PRIMARY KEY, a int, b int)")
    with store.begin() as session:
        session.execute(text("INSERT INTO wide VALUES (1, 2, 3), (4, 5, 6)"))
    behind_the_guard(lab, "standby", "ALTER TABLE wide DROP COLUMN a", "ALTER TABLE wide ADD COLUMN a int", "UPDATE wide SET a = id + 1")
    report = store.check()
    assert table(report, "wide").total == 0
    behind_the_guard(lab, "standby", "UPDATE wide SET a = b, b = a WHERE id = 4")
    assert found(store.check(), "wide") == [((4,), "changed", ("a", "b"))]


def test_a_table_of_many_columns_is_compared(lab: Lab) -> None:
    columns = [f'"c%{number}"' for number in range(120)]
    store = adopted(lab, f"CREATE TABLE wide (id int NOT NULL PRIMARY KEY, {', '.join(f'{name} int' for name in columns)})")
    lab.sql("primary", "INSERT INTO wide (id) VALUES (1)")
    store.sync()
    assert store.check().equal
    behind_the_guard(lab, "standby", f"UPDATE wide SET {columns[-1]} = 1")
    assert found(store.check(), "wide") == [((1,), "changed", ("c%119",))]
    node = lab.nodes["standby"]
    with node.snapshot() as connection:
        (definition,) = (each for each in node.database.tables(connection) if each.name == "wide")
        for keys in (None, ["[1]"]):
            ((key, row),) = node.database.rows(connection, definition, keys)
            assert (key, json.loads(row)["c%119"], json.loads(row)["c%5"]) == ("[1]", "1", None)


# -- the order of reading


@pytest.mark.parametrize("writer", ["primary", "standby"])
def test_what_is_written_and_shipped_between_both_snapshots_is_on_its_way(lab: Lab, writer: str) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    if writer == "standby":
        store.switchover()
        store.sync()

    def write_and_ship() -> None:
        lab.sql(writer, insert(2), "UPDATE account SET amount = 5 WHERE id = 1", insert(3), "DELETE FROM account WHERE id = 3")
        lab.ship(writer)

    with between_the_snapshots(store, write_and_ship) as opened:
        report = store.check()
    assert report.equal, report.as_dict()
    assert report.waiting == 2
    assert opened == (["standby", "primary"] if writer == "primary" else ["primary", "standby"])
    assert store.check().waiting == 0


def test_a_journal_pruned_between_both_snapshots_is_no_false_alarm(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    writer = lab.nodes["primary"]

    def write_ship_and_prune() -> None:
        lab.sql("primary", insert(2))
        lab.ship()
        shipped = lab.state("standby").position
        assert shipped is not None
        with writer.begin() as connection:
            writer.database.prune(connection, shipped)

    with between_the_snapshots(store, write_ship_and_prune) as opened:
        report = store.check()
    assert lab.sql("primary", f"SELECT count(*) FROM {lab.name('journal')}") == [(0,)]
    assert report.equal, report.as_dict()
    assert report.exact
    assert opened == ["standby", "primary", "standby", "primary"]


def test_roles_that_change_between_both_snapshots_are_read_again(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    another = lab.store(background=False)

    def switch_over_and_write() -> None:
        another.switchover()
        another.run(put(2))

    with between_the_snapshots(store, switch_over_and_write) as opened:
        report = store.check()
    assert (report.equal, report.exact, report.writer) == (True, True, "standby"), report.as_dict()
    assert opened[-2:] == ["primary", "standby"]


def test_a_writer_that_went_back_in_time_lets_nothing_pass_as_on_its_way(restorable_lab: Lab) -> None:
    """On SQLite, the change after the restore has a number that the follower counts as shipped, or as not shipped: neither will be."""
    lab = restorable_lab
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.save("primary")
    store.run(put(2))
    lab.restore("primary")
    lab.sql("primary", *(insert(id) for id in range(3, 8)))
    store.close()
    with lab.store(background=False) as fresh:
        report = fresh.check()
    assert not report.exact
    assert any("went back in time" in note for note in report.notes)
    expected = [((2,), "missing_on_primary", ()), *(((id,), "missing_on_standby", ()) for id in range(3, 8))]
    assert sorted(found(report, "account")) == expected


def test_a_follower_behind_a_pruned_journal_is_compared_as_it_is(restorable_lab: Lab) -> None:
    lab = restorable_lab
    store = saved_before_pruning(lab)
    store.close()
    lab.restore("standby")
    with lab.store(background=False) as fresh:
        report = fresh.check()
    assert not report.exact
    assert found(report, "account") == [((2,), "missing_on_standby", ())]


def test_rows_that_the_role_can_t_see_are_an_error_and_not_a_difference(ordinary_lab: Lab) -> None:
    lab = ordinary_lab
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.sql("standby", "ALTER TABLE account ENABLE ROW LEVEL SECURITY", "ALTER TABLE account FORCE ROW LEVEL SECURITY")
    with pytest.raises(Exception, match=r"standby can't be read: .*row-level security"):
        store.check()


@pytest.fixture
def ordinary_lab(ordinary_postgresql_pair: Any) -> Iterator[Lab]:
    lab = Lab(ordinary_postgresql_pair)
    yield lab
    lab.close()


def _literal(value: str | None) -> str:
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"
