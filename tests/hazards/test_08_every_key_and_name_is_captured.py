"""Hazard 8: keys of every type, written under whatever settings, and tables of every name are captured, shipped and guarded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from replstore import CannotReplicate, local
from replstore.databases.catalog import quote
from replstore.reconcile import check
from tests.fix_check import adopted
from tests.fix_stores import PATIENT, Lab

#: How another program's session may print values, and read them.
SETTINGS = (
    "SET timezone = 'Asia/Kathmandu'; SET datestyle = 'German'; SET intervalstyle = 'sql_standard'; SET bytea_output = 'escape'; "
    "SET extra_float_digits = -12; SET lc_monetary = 'C'; SET standard_conforming_strings = on"
)
TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'it''s', 'back\\slash "quoted"');
CREATE DOMAIN exact AS float8; CREATE DOMAIN pause AS interval; CREATE DOMAIN code AS varchar(8) CHECK (VALUE <> '')
"""
#: By type, three expressions: the second and the third are changed into each other's neighbours and deleted.
KEYS = {
    "numeric": ["1.0", "'NaN'", "'-Infinity'", "1e-30", "123456789012345678901234567890.10"],
    "numeric(10,3)": ["1.5", "0", "-7.125"],
    "float8": ["0.1::float8 + 0.2::float8", "'-0'", "'NaN'", "'-Infinity'", "1e300", "5e-324"],
    "float4": ["16777216", "'0.1'", "'NaN'", "1e-40"],
    "exact": ["0.1::float8 + 0.2::float8", "'-0'", "1.0000000000000002"],
    "timestamptz": ["'2024-03-31 01:59:59.999999+00'", "'0044-03-15 12:00:00 BC'", "'infinity'", "'1850-01-01 00:00+00'", "'294276-12-31 00:00+00'"],
    "timestamp": ["'2024-02-03 04:05:06.7'", "'4713-01-02 00:00:00 BC'", "'-infinity'"],
    "date": ["'2024-02-03'", "'0044-03-15 BC'", "'infinity'", "'5874897-12-31'"],
    "time": ["'23:59:59.999999'", "'24:00'", "'00:00'"],
    "timetz": ["'04:05:06+05:45'", "'04:05:06-12:00:01'", "'24:00+00'"],
    "interval": ["'-1 day -02:03:04'", "'-1 day +02:03:04'", "'1 mon -1 day 0.000001 s'", "'P1Y2M'", "'1 day'"],
    "pause": ["'-1 day -02:03:04'", "'-3 mon +4 days -00:00:05'", "'0'"],
    "bytea": ["'\\x00'", "'\\x5c6e27ff'", "''"],
    "uuid": ["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"],
    "boolean": ["true", "false"],
    "smallint": ["-32768", "0", "32767"],
    "bigint": ["-9223372036854775808", "9007199254740993", "9223372036854775807"],
    "oid": ["0", "4294967295", "7"],
    "text": ["'[\"x\", 1]'", "'null'", "E' \\t\\n\"\\\\ '", "''", "'Ünïcode 💾'", "E'\\x7f\\x01'", "'%s %(k)s :k $1'"],
    'text COLLATE "C"': ["'a'", "'A'", "'ä'"],
    "varchar(5)": ["'a '", "'a'", "'  a'"],
    "character(5)": ["'a'", "''", "' b'"],
    '"char"': ["'x'", "''", "'\\377'"],
    "name": ["'n'", "repeat('n', 63)", "'N'"],
    "mood": ["'sad'", "'it''s'", "'back\\slash \"quoted\"'"],
    "code": ["'a'", "'A '", "'\"'"],
    "daterange": ["'[2024-02-03,2024-03-02)'", "'empty'", "'(,2024-01-02)'"],
    "tstzrange": ["'[2024-02-03 00:00+00,2024-02-03 00:00:00.000001+00]'", "'empty'", "'(,)'"],
    "numrange": ["'[1.0,2.50)'", "'empty'", "'(1,)'"],
    "int4multirange": ["'{[1,2),[5,9)}'", "'{}'", "'{(,)}'"],
    "inet": ["'10.0.0.1/8'", "'::1'", "'10.0.0.1'"],
    "cidr": ["'10.0.0.0/8'", "'::/0'", "'10.0.0.1/32'"],
    "macaddr": ["'08:00:2b:01:02:03'", "'00:00:00:00:00:00'", "'ff:ff:ff:ff:ff:ff'"],
    "bit(3)": ["B'101'", "B'000'", "B'111'"],
    "varbit": ["B'1'", "B''", "B'00'"],
    "pg_lsn": ["'0/0'", "'16/B374D848'", "'FFFFFFFF/FFFFFFFF'"],
    "tid": ["'(0,0)'", "'(4294967295,65535)'", "'(1,2)'"],
    "xid8": ["'0'", "'18446744073709551615'", "'7'"],
    "macaddr8": ["'08:00:2b:01:02:03:04:05'", "'08:00:2b:ff:fe:03:04:05'", "'00:00:00:00:00:00:00:00'"],
    "tsvector": ["'a:1 b:2'", "''", "'it''s:3A'"],
}
NAMES = [
    ("public", "select"),
    ("public", "Größe 100%"),
    ("public", "x" * 62 + "1"),
    ("public", "x" * 62 + "2"),
    ("public", "ü" * 31),
    ("public", 'a"b.c'),
    ("public", "it's %s %(k)s :name {0} {}"),
    ("public", "back\\slash"),
    ("public", "$$ $body$ E'"),
    ("public", "journal"),
    ("public", " "),
    ("Shop 2", "orders"),
    ("shop.2", "orders"),
    ("a", "b.c"),
    ("a.b", "c"),
    ("public", "orders"),
]


def table(number: int) -> str:
    return f"key_{number}"


SCHEMA = [
    *(statement.strip() for statement in TYPES.strip().split(";")),
    *(f"CREATE TABLE {table(number)} (k {type} PRIMARY KEY, v text, n int DEFAULT 0)" for number, type in enumerate(KEYS)),
    "CREATE TABLE composite (a text, b timestamptz, c numeric, d interval, v text, PRIMARY KEY (c, a, d, b))",
    *(f"CREATE SCHEMA IF NOT EXISTS {quote(schema)}" for schema, _ in NAMES),
    *(f"CREATE TABLE {quote(schema)}.{quote(name)} ({quote(name)} text PRIMARY KEY, v text)" for schema, name in NAMES),
]


class Pair:
    def __init__(self, lab: Lab) -> None:
        self.lab, self.store = lab, adopted(lab, *SCHEMA, **PATIENT)

    def run(self, *statements: str) -> None:
        """As a program whose session has settings of its own."""
        self.lab.sql("primary", *SETTINGS.split("; "), *statements)

    def rows(self, node: str, table: str) -> list[Any]:
        """Exactly: the bytes that a binary COPY sends."""
        connection = self.lab.connect(node)
        with (
            connection.cursor() as cursor,
            cursor.copy(f'COPY (SELECT * FROM {table} t ORDER BY t::text COLLATE "C") TO STDOUT (FORMAT binary)') as out,
        ):
            found = [bytes(data) for data in out]
        connection.close()
        return found[:-1]  # one piece a row, the last one ends them

    def same(self, table: str) -> list[Any]:
        self.store.sync()
        rows = self.rows("primary", table)
        assert self.rows("standby", table) == rows
        return rows


@pytest.fixture(scope="module")
def pair(postgresql_servers: local.PostgresPair) -> Iterator[Pair]:
    with postgresql_servers.fresh("keys") as pair, closing(Lab(pair)) as lab:
        yield Pair(lab)


@pytest.mark.parametrize(("number", "type"), list(enumerate(KEYS)), ids=list(KEYS))
def test_a_key_of_every_type_names_its_row_whatever_the_settings_of_who_writes(pair: Pair, number: int, type: str) -> None:
    name, (first, second, *others) = table(number), KEYS[type]
    pair.run(*(f"INSERT INTO {name} VALUES ({value}, 'new')" for value in (first, second, *others)))
    before = pair.same(name)
    pair.run(f"UPDATE {name} SET v = 'changed'")
    changed = pair.same(name)
    assert len(changed) == len(before)
    pair.run(f"DELETE FROM {name} WHERE k = {second}")
    pair.same(name)
    pair.run(f"UPDATE {name} SET k = {second}, v = 'moved' WHERE k = {first}")
    pair.same(name)
    pair.run(f"DELETE FROM {name} WHERE v <> 'moved'")
    assert len(pair.same(name)) == 1


def test_a_key_that_is_written_otherwise_but_equal_is_one_key(pair: Pair) -> None:
    number, char = (table(list(KEYS).index(type)) for type in ("numeric", "character(5)"))
    pair.run(f"INSERT INTO {number} VALUES (5.0, 'five')", f"INSERT INTO {char} VALUES ('z', 'z')")
    pair.same(number)
    pair.run(f"UPDATE {number} SET k = 5.000 WHERE k = 5", f"UPDATE {char} SET k = 'z   ' WHERE k = 'z'")
    pair.same(number)
    pair.same(char)


def test_a_composite_key_in_another_order_than_its_columns(pair: Pair) -> None:
    pair.run(
        "INSERT INTO composite SELECT 'a' || i, '2024-01-01'::timestamptz + i * interval '1 h', i / 7.0, i * interval '-1 day -1 s' FROM generate_series(1, 50) i"
    )
    assert len(pair.same("composite")) == 50
    pair.run("UPDATE composite SET b = b + '1 h', c = c + 1, v = 'x' WHERE a < 'a3'", "DELETE FROM composite WHERE a > 'a4'")
    pair.same("composite")


@pytest.mark.parametrize(("schema", "name"), NAMES, ids=[f"{schema}.{name}" for schema, name in NAMES])
def test_a_table_of_any_name_in_any_schema_is_captured_and_guarded(pair: Pair, schema: str, name: str) -> None:
    full = f"{quote(schema)}.{quote(name)}"
    pair.run(
        f"INSERT INTO {full} VALUES ('a', {psycopg.sql.Literal(name).as_string(None)}), ('b', 'b')",
        f"UPDATE {full} SET {quote(name)} = 'c' WHERE v = 'b'",
    )
    assert len(pair.same(full)) == 2
    pair.run(f"DELETE FROM {full} WHERE {quote(name)} = 'a'")
    assert len(pair.same(full)) == 1
    for statement in (f"INSERT INTO {full} VALUES ('z', 'z')", f"UPDATE {full} SET v = 'z'", f"DELETE FROM {full}", f"TRUNCATE {full}"):
        with pytest.raises(psycopg.Error, match="not the writer"):
            pair.lab.sql("standby", statement)
    pair.run(f"TRUNCATE {full}", f"INSERT INTO {full} VALUES ('d', '')")
    assert len(pair.same(full)) == 1


def test_the_check_sees_what_the_bytes_say(pair: Pair) -> None:
    pair.run(
        *(
            f"INSERT INTO {table(number)} VALUES ({KEYS[type][0]}, 'last') ON CONFLICT (k) DO UPDATE SET v = 'again'"
            for number, type in enumerate(KEYS)
        )
    )
    pair.store.sync()
    assert check(pair.store.pair).equal


@pytest.mark.parametrize("type", ["int[]", "jsonb", "money", "part", "parts", "shaped"])
def test_a_key_whose_json_is_not_its_value_is_refused_by_name(postgresql_pair: local.PostgresPair, type: str) -> None:
    with closing(Lab(postgresql_pair)) as lab:
        lab.sql(
            "primary",
            "CREATE TYPE part AS (a int, b text)",
            "CREATE DOMAIN parts AS part",
            "CREATE DOMAIN shaped AS jsonb",
            f"CREATE TABLE odd (k {type} PRIMARY KEY)",
        )
        with pytest.raises(CannotReplicate, match=r"odd.*primary key"):
            lab.store(background=False).migrate()
