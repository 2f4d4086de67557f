"""Hazard 8 between the two kinds: what each kind of statement changes on one node reaches the other, which can't run that statement itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from replstore import Store, local
from tests.fix_check import statements
from tests.fix_mixed import MixedLab, mixed
from tests.fix_stores import PATIENT
from tests.hazards import test_08_every_kind_of_statement_is_captured as on_server
from tests.hazards import test_08_every_kind_of_statement_on_sqlite as on_file

SCHEMA = """
CREATE TABLE word (id integer PRIMARY KEY, text text UNIQUE, n integer DEFAULT 0);
CREATE TABLE swap (id integer NOT NULL PRIMARY KEY, text text);
CREATE TABLE parent (id integer PRIMARY KEY, code text UNIQUE);
CREATE TABLE cascaded (id integer PRIMARY KEY, up integer REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE keyed (up integer NOT NULL REFERENCES parent ON UPDATE CASCADE ON DELETE CASCADE, no integer NOT NULL, PRIMARY KEY (up, no));
CREATE TABLE tree (id integer PRIMARY KEY, up integer REFERENCES tree ON DELETE CASCADE);
CREATE TABLE filler (id text NOT NULL PRIMARY KEY, n integer)
"""
ROWS = """
DELETE FROM word; DELETE FROM swap; DELETE FROM cascaded; DELETE FROM keyed; DELETE FROM parent; DELETE FROM tree; DELETE FROM filler;
INSERT INTO word VALUES (-1, 'minus', 0), (1, 'one', 11), (2, 'two', 12), (3, 'three', 13);
INSERT INTO swap VALUES (1, 'a'), (2, 'b'), (3, 'c');
INSERT INTO parent VALUES (0, 'zero'), (1, 'one'), (2, 'two'), (3, 'three');
INSERT INTO cascaded VALUES (1, 1), (2, 1), (3, 2);
INSERT INTO keyed VALUES (1, 1), (1, 2), (2, 1);
INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 2), (4, 3)
"""
TABLES = ("word", "swap", "parent", "cascaded", "keyed", "tree", "filler")
OF_SERVER = (
    *("a key changed", "a unique value changes places", "truncate", "truncate cascade", "truncate and fill in one transaction", "merge"),
    *("on conflict do update", "merge, what the source lacks", "writable with", "update from", "delete using", "insert from itself"),
    *("where current of", "a prepared statement", "a block", "a savepoint", "on delete", "on update", "a tree", "more rows than one entry names"),
)
OF_FILE = (
    *("a key changed", "the rowid by another name", "upsert", "or ignore", "many in one", "update from", "a savepoint", "on delete", "on update"),
    *("on delete by replace", "or replace, both"),
)
STATEMENTS: dict[str, dict[str, list[str]]] = {
    "server": on_server.STATEMENTS,
    "file": {
        **on_file.STATEMENTS,
        "or replace, both": ["REPLACE INTO word VALUES (1, 'two', 5)", "UPDATE OR REPLACE word SET text = 'three' WHERE id = 1"],
    },
}


class Shop:
    """A pair of the two kinds, whose primary other programs change."""

    def __init__(self, lab: MixedLab) -> None:
        self.lab = lab
        lab.sql("primary", *statements(SCHEMA))
        self.store: Store = lab.store(background=False, **PATIENT)
        self.store.migrate()

    def rows(self, node: str) -> dict[str, list[Any]]:
        return {table: sorted(self.lab.sql(node, f"SELECT * FROM {table}"), key=repr) for table in TABLES}

    def changed(self, by: list[str]) -> None:
        self.lab.sql("primary", *statements(ROWS.replace("; ", ";\n")))
        before = self.rows("primary")
        self.lab.sql("primary", *([] if self.lab.server == "primary" else ["PRAGMA foreign_keys = ON"]), *by)
        self.store.sync()
        after = self.rows("primary")
        assert after != before
        assert self.rows("standby") == after


@pytest.fixture(scope="module")
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgresql_servers: local.PostgresPair) -> Iterator[Shop]:
    with mixed(tmp_path_factory.mktemp("statements"), postgresql_servers, request.param) as lab:
        yield Shop(lab)


@pytest.mark.parametrize("shop", ["postgresql"], indirect=True)
@pytest.mark.parametrize("what", OF_SERVER)
def test_what_a_statement_changes_on_the_server_reaches_the_file(shop: Shop, what: str) -> None:
    shop.changed(STATEMENTS["server"][what])


@pytest.mark.parametrize("shop", ["sqlite"], indirect=True)
@pytest.mark.parametrize("what", OF_FILE)
def test_what_a_statement_changes_in_the_file_reaches_the_server(shop: Shop, what: str) -> None:
    shop.changed(STATEMENTS["file"][what])
