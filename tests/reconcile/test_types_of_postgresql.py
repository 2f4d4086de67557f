"""One divergence in every built-in type of PostgreSQL, and of those that users make: each is found, and none is invented.

The second value of each pair is one that the server holds for equal to the first, or hashes alike, wherever there is one: these are what a comparison by
equality misses (HAZARDS 14).
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.fix_reconcile import Two, found, only

MADE = (
    "CREATE TYPE mood AS ENUM ('sad', 'glad', 'other')",
    "CREATE TYPE part AS (a int, b text)",
    "CREATE DOMAIN short AS bpchar",
    "CREATE DOMAIN positive AS numeric(12, 2)",
    "CREATE DOMAIN whole AS bigint",
    "CREATE DOMAIN deep AS whole",
    "CREATE TYPE span AS RANGE (subtype = float8)",
    "CREATE DOMAIN parts AS part[]",
)
#: By type, pairs of values that differ.
DIFFERENT: dict[str, list[tuple[str, str | None]]] = {
    "smallint": [("1", "2"), ("0", None), ("-32768", "32767")],
    "int": [("1", "2"), ("-1", "1"), ("0", None)],
    "bigint": [("1", "4294967296"), ("-1", "1"), ("0", "-4294967297"), ("9223372036854775807", "-9223372036854775808")],
    "oid": [("1", "2"), ("4294967295", "0")],
    "boolean": [("true", "false"), ("false", None)],
    "real": [("0.1", "0.10000001"), ("0", "-0"), ("NaN", "Infinity"), ("-Infinity", "Infinity")],
    "float8": [("0.1", "0.10000000000000002"), ("0", "-0"), ("NaN", "0"), ("-Infinity", "Infinity"), ("5e-324", "0")],
    "numeric": [("1.0", "1.00"), ("5", "-5"), ("NaN", "Infinity"), ("Infinity", "-Infinity"), ("0", "0.0"), ("1e100", "1.0000000001e100")],
    "numeric(12, 2)": [("5", "-5"), ("NaN", "0"), ("0.01", "0.10"), ("100", "1"), ("NaN", None), ("1000000", "100")],
    "money": [("5", "5.01"), ("-5", "5"), ("0", None)],
    "text": [("", None), ("a", "A"), ("a", "a "), ("e\u0301", "\u00e9"), ("1", "1.0")],
    'text COLLATE "C"': [("a", "A"), ("a", "a ")],
    "varchar": [("", None), ("a", "a ")],
    "varchar(10)": [("a", "a "), ("ä", "a")],
    "char(5)": [("a", "b"), ("", None)],
    "bpchar": [("a", "a "), ("", None)],
    "name": [("a", "A"), ("a", "a ")],
    '"char"': [("a", "b"), ("", " ")],
    "bytea": [("\\x", None), ("\\x00", "\\x"), ("\\x00", "\\x0000"), ("\\x6100", "\\x6101")],
    "uuid": [("00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000001")],
    "date": [("2024-01-01", "2024-01-02"), ("infinity", "-infinity"), ("0001-01-01", "0001-01-01 BC")],
    "time": [("12:00", "12:00:00.000001"), ("00:00:00.000001", "01:11:34.967296"), ("00:00", "24:00")],
    "timetz": [("12:00+00", "13:00+01"), ("00:00:00.000001+00", "01:11:34.967296+00"), ("12:00+00", "12:00:00.000001+00")],
    "timestamp": [
        ("2024-01-01", "2024-01-01 00:00:00.000001"),
        ("infinity", "-infinity"),
        ("2000-01-01 00:00:00.000001", "2000-01-01 01:11:34.967296"),
    ],
    "timestamptz": [
        ("2024-01-01 00:00+00", "2024-01-01 00:00+01"),
        ("infinity", "-infinity"),
        ("2000-01-01 00:00:00.000001+00", "2000-01-01 01:11:34.967296+00"),
    ],
    "interval": [("1 mon", "30 days"), ("1 day", "24:00:00"), ("0", None), ("-1 mon +1 day", "-29 days")],
    "bit(3)": [("101", "100")],
    "bit varying": [("1", "10"), ("", "0"), ("", None)],
    "json": [('{"a": 1}', '{"a":1}'), ("null", None), ('{"a": 1, "a": 2}', '{"a": 2}')],
    "jsonb": [('{"a": 1.0}', '{"a": 1.00}'), ("null", None), ('"1"', "1"), ("5", "-5"), ("[]", "{}")],
    "jsonpath": [("$.a", "$.b"), ("$ ? (@ > 1.50)", "$ ? (@ > 1.5)")],
    "inet": [("10.0.0.1/8", "10.0.0.1"), ("::1", "::2")],
    "cidr": [("10.0.0.0/8", "10.0.0.0/9")],
    "macaddr": [("08:00:2b:01:02:03", "08:00:2b:01:02:04")],
    "macaddr8": [("08:00:2b:01:02:03:04:05", "08:00:2b:01:02:03:04:06")],
    "point": [("(0,0)", "(-0,0)"), ("(0,0)", "(0,1e-7)")],
    "line": [("{1,2,3}", "{2,4,6}")],
    "lseg": [("[(0,0),(1,0)]", "[(0,0),(1,-0)]"), ("[(0,0),(1,0)]", "[(1,0),(0,0)]")],
    "box": [("(1,2),(3,4)", "(1,2),(3,5)"), ("(0,0),(0,0)", "(0,0),(-0,0)")],
    "path": [("[(0,0),(1,1)]", "((0,0),(1,1))")],
    "polygon": [("((0,0),(1,1))", "((0,0),(1,1.0000000000000002))")],
    "circle": [("<(0,0),1>", "<(0,0),1.0000000000000002>")],
    "tsvector": [("a:1", "a"), ("a:1A", "a:1B"), ("", None)],
    "tsquery": [("a & b", "a | b"), ("'a'", "'a':*")],
    "pg_lsn": [("0/0", "0/1"), ("1/0", "0/1")],
    "xid8": [("1", "4294967296")],
    "txid_snapshot": [("1:1:", "1:2:")],
    "regtype": [("int4", "int8")],
    "int[]": [("{1,2}", "[0:1]={1,2}"), ("{}", None), ("{1,NULL}", "{1}"), ("{1,2}", "{{1,2}}")],
    "text[]": [("{NULL}", '{"NULL"}'), ("{a}", "{A}")],
    "numeric[]": [("{1.0}", "{1.00}")],
    "float8[]": [("{0}", "{-0}")],
    "jsonb[]": [('{"1.0"}', '{"1.00"}')],
    "int4range": [("empty", None), ("[1,2)", "[1,3)"), ("(,)", "empty")],
    "int8range": [("[1,2)", "[1,4294967297)")],
    "numrange": [("[1.0,2)", "[1.00,2)"), ("[1,2)", "[1,2]")],
    "daterange": [("[2024-01-01,)", "[2024-01-02,)")],
    "tsrange": [("[2024-01-01,infinity)", "[2024-01-01,)")],
    "tstzrange": [("[2024-01-01 00:00+00,)", "[2024-01-01 00:00+01,)")],
    "nummultirange": [("{[1.0,2)}", "{[1.00,2)}"), ("{}", None)],
    "mood": [("sad", "glad"), ("sad", None)],
    "mood[]": [("{sad}", "{glad}")],
    "part": [("(,)", None), ("(1,)", '(1,"")'), ("(1,a)", "(1,A)")],
    "part[]": [('{"(1,a)"}', '{"(1,b)"}')],
    "parts": [('{"(1,a)"}', '{"(1,b)"}')],
    "short": [("a", "a "), ("", None)],
    "positive": [("5", "-5"), ("NaN", "0")],
    "whole": [("1", "4294967296")],
    "deep": [("1", "4294967296")],
    "span": [("[0,1)", "[-0,1)"), ("empty", None)],
}
#: What the server stores in more than one way, and is the same for whoever reads it.
SAME = {
    "float8": ("'NaN'", "('Infinity'::float8 - 'Infinity')"),
    "real": ("'NaN'", "('Infinity'::real - 'Infinity')::real"),
    "int[]": ("'{1,2}'", "array_remove('{1,NULL,2}'::int[], NULL)"),
    "numeric": ("1000", "1e3::numeric"),
    "numeric(12, 2)": ("1000", "1000.004"),
    "tsquery": ("'''a'''", "to_tsquery('simple', 'a')"),
    "text": ("'é'", "chr(233)"),
}


def literal(value: str | None) -> str:
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"


def column(type: str) -> str:
    return f'"{type}"'.replace('""', '"') if '"' not in type else '"' + type.replace('"', "'") + '"'


@pytest.fixture
def kinds(two_servers: Two) -> Two:
    """A table with a column of every type; on the second node they stand in another order."""
    columns = [f"{column(type)} {type}" for type in DIFFERENT]
    two_servers.both(*MADE)
    two_servers.sql("primary", f"CREATE TABLE kinds (id int PRIMARY KEY, {', '.join(columns)})")
    two_servers.sql("standby", f"CREATE TABLE kinds ({', '.join(reversed(columns))}, id int PRIMARY KEY)")
    return two_servers


CASES = [(type, pair) for type, pairs in DIFFERENT.items() for pair in pairs]


def test_every_divergence_is_found_and_none_is_invented(kinds: Two) -> None:
    for node in ("primary", "standby"):
        rows = [f"INSERT INTO kinds (id, {column(type)}) VALUES ({number}, {literal(pair[0])})" for number, (type, pair) in enumerate(CASES)]
        kinds.sql(node, *rows, "INSERT INTO kinds (id) SELECT 1000 + i FROM generate_series(1, 500) i")
    assert kinds.same()
    for node in ("primary", "standby"):
        changes = [f"UPDATE kinds SET {column(type)} = {literal(pair[1])} WHERE id = {number}" for number, (type, pair) in enumerate(CASES)]
        kinds.sql(node, *changes[:: 1 if node == "standby" else 2])
        report = kinds.check()
        # at first the primary alone has changed every other row; then the standby has changed all, so that these differ no more
        expected = [number for number in range(len(CASES)) if (number % 2 == 0) == (node == "primary")]
        assert found(report) == [((number,), "changed", (column(CASES[number][0]).strip('"'),)) for number in expected]
        assert only(report).total == len(expected)


def test_both_values_are_shown_as_the_server_prints_them(kinds: Two) -> None:
    kinds.both("INSERT INTO kinds (id, numeric) VALUES (1, 1.0)")
    kinds.sql("standby", "UPDATE kinds SET numeric = 1.00")
    (difference,) = only(kinds.check()).differences
    assert (difference.primary, difference.standby) == ({"numeric": "1.0"}, {"numeric": "1.00"})


@pytest.mark.parametrize("type", SAME)
def test_what_prints_alike_is_the_same(two_servers: Two, type: str) -> None:
    for node, value in zip(("primary", "standby"), SAME[type], strict=True):
        two_servers.sql(node, f"CREATE TABLE t (id int PRIMARY KEY, v {type})", f"INSERT INTO t VALUES (1, {value})")
    assert two_servers.same()


def test_an_array_that_has_had_a_null_is_the_same(two_servers: Two) -> None:
    """It keeps room for NULLs, which its binary form says and nobody sees."""
    two_servers.both("CREATE TABLE t (id int PRIMARY KEY, v int[])")
    two_servers.sql("primary", "INSERT INTO t VALUES (1, '{1,2}')")
    two_servers.sql("standby", "INSERT INTO t VALUES (1, '{1,NULL}')", "UPDATE t SET v[2] = 2")
    assert two_servers.same()


def test_values_exchanged_by_two_rows_are_found(two_servers: Two) -> None:
    two_servers.both("CREATE TABLE t (id int PRIMARY KEY, a int, b text)", "INSERT INTO t SELECT i, i * 7, 'b' || i FROM generate_series(1, 100) i")
    two_servers.sql("standby", "UPDATE t SET a = (id # 1) * 7 WHERE id BETWEEN 40 AND 43")  # in each bucket there are two
    assert found(two_servers.check()) == [((id,), "changed", ("a",)) for id in range(40, 44)]


@pytest.mark.parametrize("change", ["SET a = b, b = a", "SET a = NULL, b = a"])
def test_values_in_another_column_are_found(two_servers: Two, change: str) -> None:
    two_servers.both("CREATE TABLE t (id int PRIMARY KEY, a int, b int)", "INSERT INTO t VALUES (1, 2, 3), (4, 5, NULL)")
    two_servers.sql("standby", f"UPDATE t {change} WHERE id = 1")
    assert found(two_servers.check()) == [((1,), "changed", ("a", "b"))]


@pytest.mark.parametrize("there", ["10000, 1", "NULL, NULL"])
@pytest.mark.parametrize("here", ["1, 10000", "'NaN', 0"])
def test_numbers_whose_hashes_have_much_in_common_do_not_cancel_out(two_servers: Two, here: str, there: str) -> None:
    two_servers.both("CREATE TABLE t (id int PRIMARY KEY, a numeric(12, 2), b numeric(12, 2))")
    for node, values in zip(("primary", "standby"), (here, there), strict=True):
        two_servers.sql(node, f"INSERT INTO t VALUES (1, {values})")
    assert found(two_servers.check()) == [((1,), "changed", ("a", "b"))]


def test_a_server_without_callable_hashes_of_bytes_has_the_same_digests(kinds: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those before PostgreSQL 18."""
    from replstore.databases.postgresql.digests import PostgreSQLDigests

    def older(self: PostgreSQLDigests, *given: Any) -> None:
        real(self, *given)
        made.append(self)
        self._callable = self._callable and len(made) % 2 == 0

    made, real = list[PostgreSQLDigests](), PostgreSQLDigests.__init__
    rows = [f"INSERT INTO kinds (id, {column(type)}) VALUES ({number}, {literal(pair[0])})" for number, (type, pair) in enumerate(CASES)]
    kinds.both(*rows)
    monkeypatch.setattr(PostgreSQLDigests, "__init__", older)
    assert kinds.same()
    assert len(made) == 2


@pytest.mark.parametrize("type", ["integer", "text", "numeric"])
def test_a_column_of_another_type_is_compared_by_its_text(two_servers: Two, type: str) -> None:
    for node, there in (("primary", "bigint"), ("standby", type)):
        two_servers.sql(node, f"CREATE TABLE t (id int PRIMARY KEY, v {there})", "INSERT INTO t SELECT i, i FROM generate_series(1, 9) i")
    report = two_servers.check()
    assert [each.text for each in report.schema] == [f"column v: bigint on primary, {type} on standby"]
    assert two_servers.same()
    two_servers.sql("standby", "UPDATE t SET v = 0 WHERE id = 5")
    assert found(two_servers.check()) == [((5,), "changed", ("v",))]


def test_databases_of_another_encoding_have_the_same_text(two_servers: Two) -> None:
    url = two_servers.urls["standby"]
    name = url.rpartition("/")[2].partition("?")[0]
    two_servers.sql("primary", "CREATE TABLE t (k text PRIMARY KEY, v jsonb)", "INSERT INTO t VALUES ('é', '\"ü\"'), ('a', NULL)")
    two_servers.sql("standby", f"CREATE DATABASE \"{name}_latin\" ENCODING latin1 LOCALE 'C' TEMPLATE template0")
    latin = Two(two_servers.urls["primary"], url.replace(name, f"{name}_latin"))
    try:
        latin.sql("standby", "CREATE TABLE t (k text PRIMARY KEY, v jsonb)", "INSERT INTO t VALUES ('é', '\"ü\"'), ('a', NULL)")
        assert latin.same()
        latin.sql("standby", "UPDATE t SET v = '\"u\"' WHERE v IS NOT NULL")
        assert found(latin.check()) == [(("é",), "changed", ("v",))]
    finally:
        two_servers.sql("standby", f'DROP DATABASE "{name}_latin"')


def test_servers_whose_hashes_differ_are_compared_by_portable_ones(two_servers: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """As between machines that lay out their numbers in another way."""
    from replstore.databases.postgresql import digests

    two_servers.both("CREATE TABLE t (id int, k text, v numeric, PRIMARY KEY (id, k))", "INSERT INTO t SELECT i, i, i FROM generate_series(1, 500) i")
    two_servers.sql("standby", "UPDATE t SET v = 250.0 WHERE id = 250", "UPDATE t SET v = NULL WHERE id = 251")
    asked = iter((1, 2, 1, 2))
    real = digests.forms
    monkeypatch.setattr(digests, "forms", lambda *given: type(real(*given))(real(*given).columns, real(*given).numbered, str(next(asked))))
    used: list[str] = []
    hashed = digests.PostgreSQLDigests._hash
    monkeypatch.setattr(digests.PostgreSQLDigests, "_hash", lambda self, columns: used.append(hashed(self, columns)) or used[-1])
    assert sorted(found(two_servers.check())) == [((250, "250"), "changed", ("v",)), ((251, "251"), "changed", ("v",))]
    assert all("md5" in each for each in used)
