"""Hazard 8: what a database or a role has for defaults, on one node only, changes neither which row a key names nor what a value is."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator
from typing import Any

import pytest

from replstore import local
from tests.fix_stores import PATIENT, Lab
from tests.hazards.test_08_every_key_and_name_is_captured import KEYS, TYPES

#: How an odd node prints values, and reads them.
DEFAULTS = {
    "timezone": "'Asia/Kathmandu'",
    "datestyle": "'SQL, DMY'",
    "intervalstyle": "'sql_standard'",
    "bytea_output": "'escape'",
    "extra_float_digits": "-15",
    "lc_monetary": "'C.utf8'",
    "client_encoding": "'LATIN1'",
    "search_path": "'nowhere'",
    "standard_conforming_strings": "off",
    "quote_all_identifiers": "on",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "enable_indexscan": "off",
}
#: Values that are no keys.
VALUES = {
    "money": ["'5.01'", "'-92233720368547758.08'"],
    "int[]": ["'{1,NULL,3}'", "'[0:1]={1,2}'"],
    "timestamptz[]": ["'{2024-03-31 01:59:59.999999+00,infinity}'", "'{}'"],
    "jsonb": ["'{\"a\": 1.00}'", "'\"2024-02-03\"'"],
    "text": ["'💾 ü'", "E'\\\\x00'"],
    "datemultirange": ["'{[2024-02-03,2024-03-02),[2025-02-03,)}'", "'{}'"],
    "interval": ["'-1 mon +1 day -00:00:00.1'", "'-1 day -02:03:04'"],
    "bytea": ["'\\x5c6e27ff'", "''"],
    "float8": ["0.1::float8 + 0.2::float8", "'-0'"],
    "point": ["'(0.1,-0)'", "'(1e-300,NaN)'"],
}
#: By key type, what gives as many keys as go by COPY.
MANY = {
    "interval": "i * interval '-1 day -1.000001 s'",
    "timestamptz": "timestamptz '2024-01-01 00:00+00' + i * interval '1.000001 h'",
    "timestamp": "timestamp '0001-01-02 BC' + i * interval '1.1 day'",
    "date": "date '2024-02-03' + i",
    "float8": "i / 7.0::float8",
    "float4": "i / 7.0::float4",
    "numeric": "i / 7.0",
    "bytea": "int8send(i)",
    "tstzrange": "tstzrange('2024-01-01 00:00+00', timestamptz '2024-01-01 00:00+00' + i * interval '1.5 h')",
    "numrange": "numrange(i / 7.0, i)",
}
#: What this test's own statements are written for.
PLAIN = [
    "SET standard_conforming_strings = on",
    "SET datestyle = 'ISO, MDY'",
    "SET intervalstyle = 'postgres'",
    "SET array_nulls = on",
    "SET client_encoding = 'UTF8'",
    "SET timezone = 'UTC'",
]


class Odd:
    """A pair one of whose nodes has odd defaults.

    Args:
        lab: two empty databases.
        node: the odd one.
        how: what has the defaults: the database, or the role in it.
    """

    def __init__(self, lab: Lab, node: str, how: str) -> None:
        self.lab = lab
        values = ", ".join(f"v{number} {type}" for number, type in enumerate(VALUES))
        tables = [f"CREATE TABLE {table(type)} (k {type} PRIMARY KEY, n int, {values})" for type in KEYS]
        lab.sql("primary", *TYPES.strip().split(";"), *tables)
        ((database, role),) = lab.sql(node, "SELECT quote_ident(current_database()), quote_ident(current_user)")
        whose = f"DATABASE {database}" if how == "database" else f"ROLE {role} IN DATABASE {database}"
        lab.sql(node, *(f"ALTER {whose} SET {name} = {value}" for name, value in DEFAULTS.items()))
        self.store = lab.store(background=False, rejoin="manual", **PATIENT)
        self.store.migrate()

    @property
    def writer(self) -> str:
        """Name of the writer."""
        return self.store.pair.settle(time.monotonic() + 5).node.name

    def run(self, *statements: str, plain: bool = True) -> None:
        """What another program does on the writer; without ``plain``, under the node's own defaults."""
        self.lab.sql(self.writer, *(PLAIN if plain else ()), *statements)

    def exactly(self, node: str, type: str) -> list[bytes]:
        """The rows as a binary COPY sends them."""
        connection = self.lab.connect(node)
        connection.execute("SET client_encoding = 'UTF8'")
        with connection.cursor() as cursor, cursor.copy(f"COPY (SELECT * FROM public.{table(type)} ORDER BY n) TO STDOUT (FORMAT binary)") as out:
            rows = [bytes(data) for data in out]
        connection.close()
        return rows[:-1]  # the last piece ends them

    def same(self, *types: str) -> dict[str, int]:
        """Ships; how many rows both nodes have then, by type."""
        self.store.sync()
        rows = {node: {type: self.exactly(node, type) for type in types} for node in ("primary", "standby")}
        assert rows["standby"] == rows["primary"]
        return {type: len(found) for type, found in rows["primary"].items()}


def table(type: str) -> str:
    return f"t_{list(KEYS).index(type)}"


@pytest.fixture(scope="module", params=[("primary", "database"), ("standby", "role")], ids=" by its ".join)
def odd(request: pytest.FixtureRequest, postgresql_servers: local.PostgresPair) -> Iterator[Odd]:
    node, how = request.param
    with postgresql_servers.fresh(f"odd_{node}") as pair, contextlib.closing(Lab(pair)) as lab:
        yield Odd(lab, node, how)


def of_some(types: Collection[str], number: int) -> list[Any]:
    """So many types at a time: they travel in one batch, which takes less time than one for each."""
    return [pytest.param(group, id=", ".join(group)) for group in [list(types)[at : at + number] for at in range(0, len(types), number)]]


@pytest.mark.parametrize("types", of_some(KEYS, 8))
def test_a_key_of_every_type_names_its_row_from_either_node_to_the_other(odd: Odd, types: list[str]) -> None:
    columns = ", ".join(f"v{number}" for number in range(len(VALUES)))
    for _ in range(2):
        rows = {type: [(key, [values[number % 2] for values in VALUES.values()]) for number, key in enumerate(KEYS[type])] for type in types}
        whole = {type: len(rows[type]) for type in types}
        odd.run(
            *(
                f"INSERT INTO public.{table(type)} (n, k, {columns}) VALUES ({n}, {key}, {', '.join(values)})"
                for type in types
                for n, (key, values) in enumerate(rows[type])
            )
        )
        assert odd.same(*types) == whole
        odd.run(*(f"UPDATE public.{table(type)} SET n = n + 10" for type in types), plain=False)
        assert odd.same(*types) == whole
        odd.run(*(f"DELETE FROM public.{table(type)} WHERE k = {KEYS[type][1]}" for type in types))
        odd.same(*types)
        odd.run(*(f"UPDATE public.{table(type)} SET k = {KEYS[type][1]} WHERE k = {KEYS[type][0]}" for type in types))
        assert odd.same(*types) == {type: number - 1 for type, number in whole.items()}
        odd.run(*(f"DELETE FROM public.{table(type)}" for type in types), plain=False)
        assert odd.same(*types) == dict.fromkeys(types, 0)
        odd.store.switchover()


@pytest.mark.parametrize("types", of_some(MANY, 5))
def test_many_keys_name_their_rows(odd: Odd, types: list[str]) -> None:
    names = {type: f"public.{table(type)}" for type in types}
    for _ in range(2):
        odd.run(
            *(
                f"INSERT INTO {name} (n, k, v0, v6) SELECT i, {MANY[type]}, '5.01', i * interval '-1 month 1 day' FROM generate_series(1, 250) i"
                for type, name in names.items()
            )
        )
        assert odd.same(*types) == dict.fromkeys(types, 250)
        changes = ((f"UPDATE {name} SET v0 = '-0.01', v6 = -v6 WHERE n % 2 = 0", f"DELETE FROM {name} WHERE n > 125") for name in names.values())
        odd.run(*(statement for each in changes for statement in each), plain=False)
        assert odd.same(*types) == dict.fromkeys(types, 125)
        odd.run(*(f"DELETE FROM {name}" for name in names.values()))
        assert odd.same(*types) == dict.fromkeys(types, 0)
        odd.store.switchover()


def test_every_value_is_compared_and_an_orphan_s_rows_are_recorded(odd: Odd) -> None:
    name, columns = f"public.{table('text')}", ", ".join(f"v{number}" for number in range(len(VALUES)))
    for former in ("primary", "standby"):
        rows = [(key, [values[number % 2] for values in VALUES.values()]) for number, key in enumerate(KEYS["text"])]
        odd.run(*(f"INSERT INTO {name} (n, k, {columns}) VALUES ({n}, {key}, {', '.join(values)})" for n, (key, values) in enumerate(rows)))
        odd.store.sync()
        assert odd.store.check().equal
        behind = "standby" if former == "primary" else "primary"
        connection = odd.lab.connect(behind)
        connection.execute("SELECT set_config('replstore.mark', 'apply', true)")
        connection.execute(f"UPDATE {name} SET v6 = v6 + '1 day -24:00:00', v0 = v0 + '0.01' WHERE n = 4")
        connection.commit()
        ((difference, *others),) = (each.differences for each in odd.store.check().tables if each.differences)
        assert (difference.columns, others) == (("v0", "v6"), [])
        odd.run(f"UPDATE {name} SET n = n + 10")
        odd.lab.kill(former)
        odd.store.takeover(behind)
        odd.lab.start(former)
        assert odd.store.rejoin() == len(rows)
        assert odd.same("text") == {"text": len(rows)}
        odd.run(f"DELETE FROM {name}")
        assert odd.same("text") == {"text": 0}


def test_orphans_of_every_type_are_found_and_the_check_is_right(odd: Odd) -> None:
    odd.run(*(f"INSERT INTO public.{table(type)} (n, k) VALUES (1, {keys[0]}), (2, {keys[1]})" for type, keys in KEYS.items()))
    odd.store.sync()
    assert odd.store.check().equal
    for former in ("primary", "standby"):
        assert odd.writer == former
        changes = (
            (f"UPDATE public.{table(type)} SET n = n + 10 WHERE k = {keys[0]}", f"DELETE FROM public.{table(type)} WHERE k = {keys[1]}")
            for type, keys in KEYS.items()
        )
        odd.run(*(statement for each in changes for statement in each))
        odd.lab.kill(former)
        odd.store.takeover("standby" if former == "primary" else "primary")
        odd.lab.start(former)
        assert odd.store.rejoin() == 2 * len(KEYS)
        odd.store.sync()
        assert odd.store.check().equal
        assert odd.same(*KEYS) == dict.fromkeys(KEYS, 2)
