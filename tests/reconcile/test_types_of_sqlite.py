"""SQLite keeps a value's storage class beside it, and the check compares both; beside PostgreSQL it compares what the two can say alike."""

from __future__ import annotations

import pytest

from tests.fix_check import SQLITE_VALUES
from tests.fix_reconcile import Two, found, only

#: Pairs of values that differ, though they look alike or are equal to SQLite.
DIFFERENT = [*SQLITE_VALUES, ("4294967296", "1"), ("-1", "1"), ("NULL", "0")]


@pytest.mark.parametrize("key", ["id INTEGER PRIMARY KEY", "id INT PRIMARY KEY", "id INT", "id INT NOT NULL PRIMARY KEY) WITHOUT ROWID --"])
def test_every_divergence_is_found_and_none_is_invented(two_files: Two, key: str) -> None:
    table, _, rest = key.partition(")")
    two_files.both(f"CREATE TABLE kinds ({table}, v, n TEXT COLLATE NOCASE){rest}")
    for number, (value, _) in enumerate(DIFFERENT):
        two_files.both(f"INSERT INTO kinds VALUES ({number}, {value}, 'a')")
    two_files.both("INSERT INTO kinds VALUES (100, 1, 'a'), (101, 1, 'a')")
    assert two_files.same()
    two_files.sql("standby", *(f"UPDATE kinds SET v = {value} WHERE id = {number}" for number, (_, value) in enumerate(DIFFERENT)))
    two_files.sql("primary", "UPDATE kinds SET n = 'A' WHERE id = 100")
    report = two_files.check()
    if "KEY" in key:
        expected = [*(((number,), "changed", ("v",)) for number in range(len(DIFFERENT))), ((100,), "changed", ("n",))]
        assert sorted(found(report)) == expected
    else:
        assert only(report).total == 2 * (len(DIFFERENT) + 1)


def test_a_text_that_is_no_utf_8_hides_nothing(two_files: Two) -> None:
    two_files.both("CREATE TABLE t (id INTEGER PRIMARY KEY, v)", "INSERT INTO t VALUES (1, 'a'), (2, CAST(x'61ff' AS TEXT)), (3, 'é')")
    assert two_files.same()
    two_files.sql("standby", "UPDATE t SET v = 'b' WHERE id = 1", "UPDATE t SET v = 'e' WHERE id = 3")
    assert found(two_files.check()) == [((1,), "changed", ("v",)), ((3,), "changed", ("v",))]


# -- beside PostgreSQL

#: By type on PostgreSQL: the type in the file, and pairs of values that differ, each as both write it.
CROSSING: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "smallint": ("SMALLINT", [("1", "2")]),
    "int": ("INTEGER", [("1", "-1")]),
    "bigint": ("BIGINT", [("1", "4294967296")]),
    "boolean": ("BOOLEAN", [("true", "false")]),
    "double precision": ("DOUBLE", [("0.1", "0.10000000000000002"), ("1e16", "1e17"), ("1", "100000000000000000000")]),
    "numeric(10,2)": ("NUMERIC(10, 2)", [("1.00", "1.01"), ("5", "-5")]),
    "text": ("TEXT", [("'a'", "'A'"), ("''", "NULL"), ("'é'", "'e'"), ("'1'", "'1.0'")]),
    "varchar(10)": ("VARCHAR(10)", [("'a'", "'a '")]),
    "json": ("JSON", [("'{\"a\": 1}'", "'{\"a\":1}'")]),
    "bytea": ("BLOB", [("X'00'", "X''"), ("X'00'", "X'0000'")]),
    "uuid": ("CHAR(32)", [("'00000000000000000000000000000000'", "'00000000000000000000000000000001'")]),
    "date": ("DATE", [("'2024-01-01'", "'2024-01-02'")]),
    "timestamp": ("DATETIME", [("'2024-01-01 00:00:00.000000'", "'2024-01-01 00:00:00.000001'")]),
    "timestamptz": ("TIMESTAMP", [("'2024-01-01 00:00:00.000000'", "'2024-01-01 01:00:00.000000'")]),
    "time": ("TIME", [("'12:00:00.000000'", "'12:00:00.000001'")]),
}
CASES = [(type, pair) for type, (_, pairs) in CROSSING.items() for pair in pairs]


def server(value: str, type: str) -> str:
    if value.startswith("X'"):
        return f"'\\x{value[2:-1]}'"
    return f"{value[:-1]}+00'" if type == "timestamptz" else value


def node_of(two: Two, kind: str) -> str:
    return next(node for node, url in two.urls.items() if url.startswith(kind))


@pytest.mark.parametrize("key", ["int", "text"])
def test_every_divergence_between_a_file_and_a_server_is_found(unlike: Two, key: str) -> None:
    file, postgresql = node_of(unlike, "sqlite"), node_of(unlike, "postgresql")
    keys = {"int": ("INTEGER", "bigint"), "text": ("TEXT", "text")}[key]
    columns = ", ".join(f'"{type}" {here}' for type, (here, _) in CROSSING.items())
    unlike.sql(file, f"CREATE TABLE kinds (id {keys[0]} NOT NULL PRIMARY KEY, {columns})")
    columns = ", ".join(f'"{type}" {type}' for type in reversed(CROSSING))
    unlike.sql(postgresql, f"CREATE TABLE kinds ({columns}, id {keys[1]} PRIMARY KEY)")
    for number, (type, (value, _)) in enumerate(CASES):
        unlike.sql(file, f'INSERT INTO kinds (id, "{type}") VALUES ({number}, {value})')
        unlike.sql(postgresql, f'INSERT INTO kinds (id, "{type}") VALUES ({number}, {server(value, type)})')
    assert unlike.check().equal, unlike.check().as_dict()
    assert unlike.same()
    for number, (type, (_, value)) in enumerate(CASES):
        if number % 2:
            unlike.sql(file, f'UPDATE kinds SET "{type}" = {value} WHERE id = {number if key == "int" else repr(str(number))}')
        else:
            unlike.sql(postgresql, f"UPDATE kinds SET \"{type}\" = {server(value, type)} WHERE id = '{number}'")
    names = {str(number): type for number, (type, _) in enumerate(CASES)}
    report = unlike.check()
    assert {(str(key[0]), kind, columns) for key, kind, columns in found(report)} == {(id, "changed", (type,)) for id, type in names.items()}
    assert only(report).total == len(CASES)


def test_texts_that_are_the_same_only_together_differ(unlike: Two) -> None:
    unlike.both("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b TEXT)", "INSERT INTO t VALUES (1, 'ab', 'c'), (2, '', '1:x'), (3, NULL, '')")
    unlike.sql("standby", "UPDATE t SET a = 'a', b = 'bc' WHERE id = 1", "UPDATE t SET a = '1:x', b = '' WHERE id = 2")
    unlike.sql("primary", "UPDATE t SET a = '', b = NULL WHERE id = 3")
    assert found(unlike.check()) == [((1,), "changed", ("a", "b")), ((2,), "changed", ("a", "b")), ((3,), "changed", ("a", "b"))]


def test_what_a_server_can_t_have_is_a_difference(unlike: Two) -> None:
    file, postgresql = node_of(unlike, "sqlite"), node_of(unlike, "postgresql")
    unlike.sql(file, "CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER, w DOUBLE)", "INSERT INTO t VALUES (1, 1, 0.5), (2, 'two', 0.0), (3, 3, 1.0)")
    unlike.sql(postgresql, "CREATE TABLE t (id bigint PRIMARY KEY, v bigint, w float8)", "INSERT INTO t VALUES (1, 1, 0.5), (2, 2, 0), (3, 3, 'NaN')")
    assert found(unlike.check()) == [((2,), "changed", ("v",)), ((3,), "changed", ("w",))]


def test_columns_that_can_t_cross_are_named_and_the_others_compared(unlike: Two) -> None:
    file, postgresql = node_of(unlike, "sqlite"), node_of(unlike, "postgresql")
    unlike.sql(file, "CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER, odd TEXT)", "INSERT INTO t VALUES (1, 1, '1 day'), (2, 2, NULL)")
    unlike.sql(postgresql, "CREATE TABLE t (id bigint PRIMARY KEY, v bigint, odd interval)", "INSERT INTO t VALUES (1, 1, '1 day'), (2, 0, NULL)")
    report = unlike.check()
    assert [each.text.partition(":")[0] for each in report.schema] == ["column odd"]
    assert found(report) == [((2,), "changed", ("v",))]


def test_tables_without_a_key_are_counted_between_a_file_and_a_server(unlike: Two) -> None:
    file, postgresql = node_of(unlike, "sqlite"), node_of(unlike, "postgresql")
    unlike.sql(file, "CREATE TABLE t (a INTEGER, b TEXT, c DOUBLE)")
    unlike.sql(postgresql, "CREATE TABLE t (a bigint, b text, c float8)")
    unlike.both("INSERT INTO t VALUES (1, 'é', 0.1), (1, 'é', 0.1), (NULL, NULL, 1e300)")
    assert unlike.same()
    unlike.sql(file, "INSERT INTO t VALUES (1, 'é', 0.1)")
    (difference,) = only(unlike.check()).differences
    assert difference.kind == f"missing_on_{postgresql}"
    assert (difference.primary or difference.standby) == {"a": "1", "b": "é", "c": "0.1"}
