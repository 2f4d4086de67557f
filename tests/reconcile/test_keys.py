"""Rows are paired by their key whatever it is made of, and wherever the two databases sort or print it in another way."""

from __future__ import annotations

import marshal
from zlib import crc32

import pytest

from tests.fix_check import SQLITE_KEYS
from tests.fix_reconcile import Two, found, only
from tests.reconcile.test_types_of_postgresql import literal

MADE = (
    "CREATE TYPE mood AS ENUM ('sad', 'glad')",
    "CREATE DOMAIN short AS varchar(5)",
    "CREATE COLLATION nocase (provider = builtin, locale = 'C.UTF-8')",
)
#: By type, keys; some sort in another order than their text does, some are equal in another form.
KEYS: dict[str, list[str]] = {
    "smallint": ["-32768", "-1", "0", "1", "32767"],
    "int": ["-2147483648", "-1", "0", "7", "2147483647"],
    "bigint": ["-9223372036854775808", "-1", "0", "1", "4294967296", "9223372036854775807"],
    "numeric": ["1.0", "2", "NaN", "-3.50", "123456789012345678901234567890.5", "Infinity"],
    "float8": ["0", "0.1", "1e300", "Infinity", "-Infinity", "NaN"],
    "boolean": ["true", "false"],
    "text": ["", "a", "A", "ä", "Z", "a b", "\u2603", "\U0001f600", 'q"', "[1]", "a\\b", "10", "9"],
    'text COLLATE "C"': ["a", "A", "ä", "Z"],
    "varchar(20)": ["a", "A", "b"],
    "char(4)": ["a", "b", "c"],
    "uuid": ["00000000-0000-0000-0000-000000000001", "ffffffff-0000-0000-0000-000000000001", "10000000-0000-0000-0000-000000000000"],
    "bytea": ["\\x", "\\x00", "\\xff00", "\\x61"],
    "date": ["2024-01-01", "0044-03-15 BC", "infinity"],
    "time": ["00:00", "24:00", "12:00:00.000001"],
    "timestamp": ["2024-01-01", "infinity", "4713-01-01 BC"],
    "timestamptz": ["2024-01-01 00:00+00", "2024-01-01 00:00:00.000001+00", "infinity"],
    "interval": ["1 mon", "3 days", "-1 day"],
    "inet": ["10.0.0.1", "10.0.0.1/8", "::1"],
    "int[]": ["{}", "{1,2}", "{1,NULL}"],
    "int4range": ["empty", "[1,2)", "(,)"],
    "jsonb": ['{"a": 1}', "1", '"1"', "null"],
    "mood": ["sad", "glad"],
    "short": ["a", "A", "b"],
}


@pytest.mark.parametrize("type", KEYS)
@pytest.mark.parametrize("composite", [False, True], ids=["alone", "with another"])
def test_rows_under_every_kind_of_key_are_paired(two_servers: Two, type: str, composite: bool) -> None:
    keys = KEYS[type]
    columns = f"k {type}, n int, v int, PRIMARY KEY (k{', n' if composite else ''})"
    two_servers.both(*MADE, f"CREATE TABLE keyed ({columns})", *(f"INSERT INTO keyed VALUES ({literal(key)}, 1, 0)" for key in keys))
    assert two_servers.same()
    first, last = literal(keys[0]), literal(keys[-1])
    two_servers.sql("standby", f"UPDATE keyed SET v = 1 WHERE k = {first}")
    two_servers.sql("primary", f"DELETE FROM keyed WHERE k = {last}")
    report = two_servers.check()
    assert sorted((each.kind, each.columns) for each in only(report).differences) == [("changed", ("v",)), ("missing_on_primary", ())]
    assert (only(report).primary, only(report).standby) == (len(keys) - 1, len(keys))
    changed = next(each for each in only(report).differences if each.kind == "changed")
    assert (changed.primary, changed.standby) == ({"v": "0"}, {"v": "1"})
    missing = next(each for each in only(report).differences if each.kind == "missing_on_primary")
    assert missing.standby is not None
    assert missing.standby.keys() == {"k", "n", "v"}


def test_text_keys_are_paired_under_other_collations(two_servers: Two) -> None:
    """Sorted by its collation, a text stands elsewhere on the other node; the rows are the same."""
    (other,) = two_servers.sql(
        "standby", "SELECT quote_ident(collname) FROM pg_collation WHERE collname ~ '^(unicode|en_US|und|C.utf8|pg_c)' LIMIT 1"
    )[0]
    for node, collation in (("primary", '"C"'), ("standby", other)):
        rows = "INSERT INTO t SELECT chr(64 + i) || repeat(chr(91 + i), 2), i FROM generate_series(1, 60) i"
        two_servers.sql(node, f"CREATE TABLE t (k text COLLATE {collation} PRIMARY KEY, v int)", rows)
    report = two_servers.check()
    assert only(report).total == 0
    assert [each.table for each in report.schema] == ["public.t"]
    two_servers.sql("standby", "UPDATE t SET v = -1 WHERE v = 33")
    assert [columns for _, _, columns in found(two_servers.check())] == [("v",)]


def test_equal_keys_in_another_form_are_two_rows(two_servers: Two) -> None:
    for node, key in (("primary", "1.0"), ("standby", "1.00")):
        two_servers.sql(node, "CREATE TABLE t (k numeric PRIMARY KEY, v int)", f"INSERT INTO t VALUES ({key}, 1), (2, 2)")
    kinds = {(each.kind, (each.primary or each.standby or {})["k"]) for each in only(two_servers.check()).differences}
    assert kinds == {("missing_on_standby", "1.0"), ("missing_on_primary", "1.00")}


@pytest.mark.parametrize("composite", [False, True], ids=["alone", "with another"])
def test_keys_of_every_storage_class_are_paired(two_files: Two, composite: bool) -> None:
    columns = f"k, n INTEGER, v, PRIMARY KEY (k{', n' if composite else ''})"
    two_files.both(
        f"CREATE TABLE keyed ({columns})", *(f"INSERT INTO keyed VALUES ({key}, {number}, 0)" for number, key in enumerate([*SQLITE_KEYS, "NULL"]))
    )
    assert two_files.same()
    two_files.sql("standby", "UPDATE keyed SET v = 1 WHERE n % 2 = 0")
    two_files.sql("primary", "DELETE FROM keyed WHERE n % 2 = 1")
    report = two_files.check()
    assert (only(report).primary, only(report).standby) == (8, 16)
    assert sorted(each.kind for each in only(report).differences) == ["changed"] * 8 + ["missing_on_primary"] * 8
    assert {each.standby["n"] for each in only(report).differences if each.kind != "changed" and each.standby} == {str(n) for n in range(1, 16, 2)}


def test_a_key_that_holds_null_is_there_as_often_as_it_is(two_files: Two) -> None:
    two_files.both("CREATE TABLE t (k TEXT PRIMARY KEY, v)", "INSERT INTO t VALUES (NULL, 1), (NULL, 1), (NULL, 2), ('a', 1)")
    assert two_files.same()
    two_files.sql("standby", "DELETE FROM t WHERE rowid = 2", "UPDATE t SET v = 3 WHERE v = 2")
    report = two_files.check()
    assert sorted((each.kind, each.primary) for each in only(report).differences) == [
        ("changed", {"v": "2"}),
        ("missing_on_standby", {"k": None, "v": "1"}),
    ]
    assert two_files.check().total == 2


@pytest.mark.parametrize("declared", ["TEXT COLLATE NOCASE", "INTEGER", "INT"])
def test_declared_keys_of_files_are_paired(two_files: Two, declared: str) -> None:
    two_files.both(f"CREATE TABLE t (k {declared} PRIMARY KEY, v)", "INSERT INTO t VALUES (3, 'c'), (-1, 'm'), (10, 'x'), (9223372036854775807, 'z')")
    assert two_files.same()
    two_files.sql("standby", "UPDATE t SET v = 1 WHERE v = 'm'", "DELETE FROM t WHERE v = 'z'")
    assert sorted(kind for _, kind, _ in found(two_files.check())) == ["changed", "missing_on_standby"]


def test_a_whole_number_that_is_no_rowid_may_be_anything(two_files: Two) -> None:
    """INTEGER PRIMARY KEY DESC has an index of its own."""
    two_files.both(
        "CREATE TABLE t (k INTEGER PRIMARY KEY DESC, v)", "INSERT INTO t VALUES (1, 'a'), ('one', 'b'), (NULL, 'c'), (x'01', 'd'), (1.5, 'e')"
    )
    assert two_files.same()
    two_files.sql("standby", "UPDATE t SET v = v || '!'")
    assert two_files.check().total == 5


def test_files_of_another_encoding_have_the_same_text(two_files: Two) -> None:
    two_files.sql("primary", "CREATE TABLE t (k TEXT PRIMARY KEY NOT NULL, v)")
    path = two_files.urls["standby"].removeprefix("sqlite:///") + "-16"
    other = Two(two_files.urls["primary"], f"sqlite:///{path}")
    other.sql("standby", "PRAGMA encoding = 'UTF-16le'", "CREATE TABLE t (k TEXT PRIMARY KEY NOT NULL, v)")
    other.both("INSERT INTO t VALUES ('é', 'a'), ('\U0001f600', 'ö'), ('z', 1)")
    assert other.same()
    other.sql("standby", "UPDATE t SET v = 'o' WHERE v = 'ö'")
    assert found(other.check()) == [(("\U0001f600",), "changed", ("v",))]


# -- tables without a key


def test_rows_of_a_table_without_a_key_are_counted(two: Two) -> None:
    two.both("CREATE TABLE log (a int, b text)", "INSERT INTO log VALUES (1, 'x'), (1, 'x'), (1, 'x'), (2, NULL), (NULL, NULL)")
    report = two.check()
    assert report.equal
    assert (only(report).primary, only(report).standby) == (5, 5)
    (note,) = report.notes
    assert note == f"table {only(report).name} has no primary key: its rows are counted, and one that differs is one on each node"
    two.sql("standby", "UPDATE log SET b = 'y' WHERE a = 2")
    two.sql("primary", "INSERT INTO log VALUES (1, 'x'), (1, 'x')")
    report = two.check()
    assert all(each.key == {} for each in only(report).differences)
    rows = sorted((each.kind, str((each.primary or each.standby or {})["b"]).strip("'")) for each in only(report).differences)
    assert rows == [("missing_on_primary", "y"), ("missing_on_standby", "None"), ("missing_on_standby", "x"), ("missing_on_standby", "x")]
    assert only(report).total == 4


def test_two_of_one_row_are_not_two_of_another(two: Two) -> None:
    """What each node has twice falls out of an exclusive or, and both rows are of one bucket, of which there are 64."""
    two.both("CREATE TABLE log (a int)")
    if "sqlite" in two.urls["primary"]:
        buckets = {crc32(marshal.dumps((value,), 2)) >> 26: value for value in range(500)}
        one, other = next((value, buckets[place]) for value in range(500) if buckets[place := crc32(marshal.dumps((value,), 2)) >> 26] != value)
    else:
        place = "hash_record_extended(ROW({0}), 0) >> 58"
        numbers = "generate_series(1, 500) a(v), generate_series(1, 500) b(v)"
        same = f"{place.format('a.v')} = {place.format('b.v')}"
        ((one, other),) = two.sql("primary", f"SELECT a.v, b.v FROM {numbers} WHERE a.v < b.v AND {same} LIMIT 1")
    two.sql("primary", f"INSERT INTO log VALUES ({one}), ({one})")
    two.sql("standby", f"INSERT INTO log VALUES ({other}), ({other})")
    assert sorted(kind for _, kind, _ in found(two.check())) == ["missing_on_primary"] * 2 + ["missing_on_standby"] * 2


def test_rows_under_keys_of_another_type_are_not_compared(two: Two) -> None:
    two.sql("primary", "CREATE TABLE t (k int PRIMARY KEY)")
    two.sql("standby", "CREATE TABLE t (k text PRIMARY KEY)")
    two.both("INSERT INTO t VALUES (1)" if "sqlite" in two.urls["primary"] else "INSERT INTO t SELECT 1")
    report = two.check()
    assert (only(report).primary, only(report).standby) == (None, None)
    assert any(each.text.startswith("column k: ") for each in report.schema)
    assert not report.equal


X, Y, SAME = "(1, NULL, 'x')", "(1, NULL, 'y')", "(1, NULL, 'same')"


@pytest.mark.parametrize(
    ("primary", "standby", "kinds"),
    [
        ((X, X), (Y, Y), ["changed", "changed"]),
        ((X, SAME), (Y, SAME), ["changed"]),
        ((SAME, X), (SAME, Y), ["changed"]),
        ((X, SAME), (SAME,), ["missing_on_standby"]),
        ((SAME,), (SAME, X), ["missing_on_primary"]),
        ((SAME, SAME, X), (X, SAME), ["missing_on_standby"]),
        ((X, SAME, Y), (Y, X, SAME), []),
    ],
)
def test_rows_under_one_key_that_holds_null_are_told_apart(
    two_files: Two, primary: tuple[str, ...], standby: tuple[str, ...], kinds: list[str]
) -> None:
    two_files.both("CREATE TABLE t (a INT, b TEXT, v TEXT, PRIMARY KEY (a, b))", "INSERT INTO t VALUES (2, 'k', 'v'), (3, 'k', 'v')")
    two_files.sql("primary", f"INSERT INTO t VALUES {', '.join(primary)}")
    two_files.sql("standby", f"INSERT INTO t VALUES {', '.join(standby)}")
    table = only(two_files.check())
    assert sorted(each.kind for each in table.differences) == kinds
    assert table.total == len(kinds)
