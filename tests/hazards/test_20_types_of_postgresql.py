"""Hazard 20, between PostgreSQL servers: a column's values travel exactly and are compared exactly, or the column is refused by name."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from replstore import CannotReplicate, Store, local
from tests.fix_check import adopted, behind_the_guard, found
from tests.fix_stores import PATIENT, Lab

MADE = """
CREATE TYPE part AS (a int, b regclass); CREATE DOMAIN whole AS part; CREATE DOMAIN number AS regtype; CREATE DOMAIN numbers AS regtype[];
CREATE TYPE deep AS (p whole[]); CREATE TYPE span AS RANGE (subtype = tid); CREATE TYPE asked AS (q tsquery); CREATE VIEW seen AS SELECT 'pg_class'::regclass AS r
"""
#: By column type, what the refusal names and what it says to do.
REFUSED = {
    **{
        f"reg{kind}": (f"type reg{kind}, which is stored as a number that means something else on the other node", "store the name as text")
        for kind in ("class", "proc", "procedure", "oper", "operator", "type", "role", "namespace", "config", "dictionary", "collation")
    },
    "regclass[]": ("is regclass[], which has parts of type regclass", "store the name as text"),
    "part": ("is public.part, which has parts of type regclass", "store the name as text"),
    "whole": ("is public.whole, which has parts of type regclass", "store the name as text"),
    "number": ("is public.number, which has parts of type regtype", "store the name as text"),
    "numbers": ("is public.numbers, which has parts of type regtype", "store the name as text"),
    "deep": ("is public.deep, which has parts of type regclass", "store the name as text"),
    "deep[]": ("is public.deep[], which has parts of type regclass", "store the name as text"),
    "seen": ("is public.seen, which has parts of type regclass", "store the name as text"),
    "aclitem": ("type aclitem, which has no binary form", "store it as text"),
    "aclitem[]": ("is aclitem[], which has parts of type aclitem", "store it as text"),
    "gtsvector": ("type gtsvector, which has no binary form", "store it as text"),
    "pg_node_tree": ("type pg_node_tree, which no program can write", "leave the column out"),
    "pg_mcv_list": ("type pg_mcv_list, which no program can write", "leave the column out"),
    "int2vector": ("type int2vector, of which the other node can't take an empty one", "make it an array"),
    "oidvector": ("type oidvector, of which the other node can't take an empty one", "make it an array"),
    "tsquery": ("type tsquery, of which the other node can't take an empty one", "store it as text"),
    "asked": ("is public.asked, which has parts of type tsquery", "store it as text"),
    "xml": ("type xml, of which the other node gets another one", "store it as text"),
}
#: By column type, values that all differ, though the database may hold some of them for equal, or print them alike elsewhere.
TRAVELS = {
    "oid": ["'0'", "'4294967295'", "'2147483648'"],
    "xid": ["'0'", "'3'", "'4294967295'"],
    "xid8": ["'0'", "'18446744073709551615'"],
    "cid": ["'0'", "'4294967295'"],
    "tid": ["'(0,0)'", "'(4294967295,65535)'"],
    "pg_lsn": ["'0/0'", "'FFFFFFFF/FFFFFFFF'"],
    "pg_snapshot": ["'1:1:'", "'10:20:10,14,15'"],
    "txid_snapshot": ["'1:1:'", "'10:20:10,14,15'"],
    "refcursor": ["''", "'a cursor'", "'a cursor '"],
    '"char"': ["''", "'x'", "'\\377'", "' '"],
    "name": ["''", "repeat('n', 63)", "'N'"],
    "tsvector": ["''", "'a:1A b:2,3'", "'a:1B b:2,3'", "'a b'"],
    "jsonpath": [
        "'$.a[*] ? (@ > 1.50)'",
        "'$.a[*] ? (@ > 1.5)'",
        "'strict $.\"a b\"'",
        '\'$ ? (@ like_regex "^a" flag "i")\'',
        "'$.a.**{2 to last}'",
    ],
    "money": ["'0'", "'-92233720368547758.08'", "'0.01'"],
    "interval": ["'1 mon'", "'30 days'", "'-1 day +00:00:00.000001'", "'-1 mon +1 day -00:00:00.1'"],
    "box": ["'(1,2),(3,4)'", "'(0,0),(-0,0)'"],
    "path": ["'[(0,0),(1,1)]'", "'((0,0),(1,1))'"],
    "polygon": ["'((0,0),(1,1))'", "'((0,0),(1,1.0000000000000002))'"],
    "circle": ["'<(0,0),1>'", "'<(0,0),0.1>'"],
    "line": ["'{1,2,3}'", "'{2,4,6}'"],
    "lseg": ["'[(0,0),(1,0)]'", "'[(0,0),(1,-0)]'"],
    "varbit": ["B''", "B'0'", "B'00'"],
    "macaddr8": ["'08:00:2b:01:02:03:04:05'", "'08:00:2b:ff:fe:03:04:05'"],
    "json": ["'{\"a\": 1}'", "' {\"a\":1}'", '\'{"a": 1, "a": 2}\''],
    "jsonb": ["'1.0'", "'1.00'", "'\"\\u0001\"'"],
    "span": ['\'["(0,0)","(0,1)")\'', "'empty'", "'(,)'"],
}
#: Rows that a batch of few keys doesn't have, so that it goes by COPY.
MANY = 150


def column(number: int) -> str:
    return f"c{number}"


@pytest.fixture(scope="module")
def typed(postgresql_servers: local.PostgresPair) -> Iterator[tuple[Lab, Store]]:
    with postgresql_servers.fresh("types") as pair, closing(Lab(pair)) as lab:
        columns = ", ".join(f"{column(number)} {type}" for number, type in enumerate(TRAVELS))
        yield lab, adopted(lab, "CREATE TYPE span AS RANGE (subtype = tid)", f"CREATE TABLE kinds (id int PRIMARY KEY, {columns})", **PATIENT)


@pytest.mark.parametrize("type", REFUSED)
def test_a_type_that_does_not_travel_is_refused_by_name(bare: Lab, type: str) -> None:
    bare.sql("primary", "DROP TABLE IF EXISTS odd", f"CREATE TABLE odd (id int PRIMARY KEY, fine text, strange {type})")
    with pytest.raises(CannotReplicate) as refused:
        bare.store(background=False).migrate()
    what, remedy = REFUSED[type]
    assert str(refused.value).startswith("table public.odd can't be replicated: its column strange ")
    assert what in str(refused.value)
    assert remedy in str(refused.value)


@pytest.fixture(scope="module")
def bare(postgresql_servers: local.PostgresPair) -> Iterator[Lab]:
    """Two databases that never become a pair."""
    with postgresql_servers.fresh("refused_types") as pair, closing(Lab(pair)) as lab:
        lab.sql("primary", *MADE.split("; "))
        yield lab


def test_a_column_that_each_node_computes_does_not_travel_and_is_not_refused(postgresql_lab: Lab) -> None:
    store = adopted(
        postgresql_lab, "CREATE TABLE t (id int PRIMARY KEY, body text, q tsquery GENERATED ALWAYS AS (plainto_tsquery('simple', body)) STORED)"
    )
    postgresql_lab.sql("primary", "INSERT INTO t VALUES (1, 'a b'), (2, '')")
    store.sync()
    assert postgresql_lab.sql("standby", "SELECT q::text FROM t ORDER BY id") == [("'a' & 'b'",), ("",)]


def exactly(lab: Lab, node: str) -> list[bytes]:
    """The rows as a binary COPY sends them."""
    connection = lab.connect(node)
    with connection.cursor() as cursor, cursor.copy("COPY (SELECT * FROM kinds ORDER BY id) TO STDOUT (FORMAT binary)") as out:
        rows = [bytes(data) for data in out]
    connection.close()
    return rows


@pytest.mark.parametrize("rows", [1, MANY], ids=["few", "many"])
def test_what_travels_travels_exactly(typed: tuple[Lab, Store], rows: int) -> None:
    lab, store = typed
    lab.sql("primary", "DELETE FROM kinds")
    for number, values in enumerate(TRAVELS.values()):
        for place, value in enumerate(values):
            ids = f"SELECT {number * 10_000 + place * 1000} + i, {value} FROM generate_series(1, {rows}) i"
            lab.sql("primary", f"INSERT INTO kinds (id, {column(number)}) {ids}")
            if rows == 1:
                store.sync()
    store.sync()
    assert exactly(lab, "standby") == exactly(lab, "primary")
    assert store.check().equal
    lab.sql("primary", "DELETE FROM kinds")
    store.sync()


@pytest.mark.parametrize(("number", "type"), list(enumerate(TRAVELS)), ids=list(TRAVELS))
def test_what_travels_is_compared_exactly(typed: tuple[Lab, Store], number: int, type: str) -> None:
    lab, store = typed
    first, *others = TRAVELS[type]
    lab.sql("primary", "DELETE FROM kinds", f"INSERT INTO kinds (id, {column(number)}) VALUES (1, {first})")
    store.sync()
    for other in [*others, "NULL"]:
        behind_the_guard(lab, "standby", f"UPDATE kinds SET {column(number)} = {other}")
        assert found(store.check(), "kinds") == [((1,), "changed", (column(number),))], other
    behind_the_guard(lab, "standby", f"UPDATE kinds SET {column(number)} = {first}")
    assert store.check().equal


@pytest.fixture
def yen(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Servers that have a locale without decimal places besides the usual ones."""
    if shutil.which("localedef") is None:
        pytest.skip("no locale can be made for the servers here")
    made = subprocess.run(["localedef", "-i", "ja_JP", "-f", "UTF-8", place / "ja_JP.utf8"], check=False, capture_output=True)
    if not (place / "ja_JP.utf8").exists():
        pytest.skip(f"no locale can be made here: {made.stderr.decode()}")
    monkeypatch.setenv("LOCPATH", str(place))
    with local.postgresql_pair("wheel", fsync=False) as pair, closing(Lab(pair)) as lab:
        yield lab


def test_money_is_refused_where_its_amounts_would_be_others_on_the_other_node(yen: Lab) -> None:
    """12.34 is stored as 1234, which is 1234 by a locale without decimal places, and no comparison of rows would see it."""
    (database,) = yen.sql("standby", "SELECT quote_ident(current_database())")[0]
    yen.sql("standby", f"ALTER DATABASE {database} SET lc_monetary = 'ja_JP.utf8'")
    yen.sql(
        "primary", "CREATE DOMAIN price AS money", "CREATE TABLE item (id int PRIMARY KEY, cost price)", "CREATE TABLE other (id int PRIMARY KEY)"
    )
    refusal = (
        r"table public\.item can't be replicated: its column cost is money, and lc_monetary is 'C' .*2 decimal.*'ja_JP\.utf8' on the other \(0\)"
    )
    with pytest.raises(CannotReplicate, match=refusal):
        yen.store(background=False).migrate()
    yen.sql("standby", f"ALTER DATABASE {database} SET lc_monetary = 'C'")
    store = yen.store(background=False)
    store.migrate()
    yen.sql("primary", "INSERT INTO item VALUES (1, '12.34')")
    store.sync()
    assert yen.sql("standby", "SELECT cost::text FROM item") == yen.sql("primary", "SELECT cost::text FROM item")
