"""Hazard 12, as a property: however transactions overlap, and whatever batch runs among them, the follower equals the writer at that batch's snapshot."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replstore import local
from tests.fix_check import adopted
from tests.fix_stores import PATIENT, Lab, Steps

SCHEMA = (
    "CREATE TABLE parent (id int NOT NULL PRIMARY KEY, name text UNIQUE)",
    "CREATE TABLE child (a int NOT NULL, b int NOT NULL, up int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE, n int, PRIMARY KEY (a, b))",
)
SESSIONS, KEYS = 5, 6
Step = tuple[Any, ...]
key = st.integers(1, KEYS)
session = st.integers(0, SESSIONS - 1)
change = st.one_of(
    st.builds("INSERT INTO parent VALUES ({0}, 'name {1}') ON CONFLICT (id) DO UPDATE SET name = excluded.name".format, key, key),
    st.builds("INSERT INTO child VALUES ({0}, {1}, {2}, {0})".format, key, key, key),
    st.builds("UPDATE parent SET id = {1} WHERE id = {0}".format, key, key),
    st.builds("UPDATE parent SET name = NULL WHERE id <= {0}".format, key),
    st.builds("UPDATE child SET n = coalesce(n, 0) + 1, b = {1} WHERE a = {0}".format, key, key),
    st.builds("DELETE FROM parent WHERE id = {0}".format, key),
    st.builds("DELETE FROM child WHERE b = {0}".format, key),
)
others = st.sampled_from(["commit"] * 5 + ["prepare"] * 2 + ["prune"] * 3 + ["commit prepared", "roll back", "save", "roll back to"])
whole = st.tuples(st.just("change and commit"), session, change)
step = st.one_of(st.tuples(st.just("change"), session, change), whole, st.tuples(others, session))
#: Batches among transactions; what a batch has in its list happens between its snapshot and its rows.
story = st.lists(st.one_of(step, step, step, st.tuples(st.just("ship"), st.lists(st.one_of(whole, step), max_size=6))), min_size=20, max_size=60)


class Teller:
    """Carries out stories on one pair, one after the other.

    Args:
        lab: the pair; it goes on from where the last story has left it.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.store = adopted(lab, *SCHEMA, **PATIENT)
        self.shipper = lab.shipper()
        self.sessions = [lab.connect("primary") for _ in range(SESSIONS if lab.postgresql else 1)]
        for each in self.sessions:
            each.execute("SET lock_timeout = '5ms'" if lab.postgresql else "PRAGMA foreign_keys = ON")
            each.commit()
        self.reader = lab.connect("primary"), lab.connect("standby")
        self.prepared: list[str] = []
        self.number = 0

    def tell(self, story: list[Step]) -> None:
        for name, *values in story:
            if name == "ship":
                self.ship(*values)
            else:
                self.do(name, *values)
        for each in self.sessions:
            self.end(each)
        while self.prepared:
            self.do("commit prepared")
        self.ship([])

    def do(self, name: str, number: int = 0, statement: str = "") -> None:
        program = self.sessions[number % len(self.sessions)]
        try:
            if name in ("change", "change and commit"):
                self.begin(program)
                program.execute(statement)
                if name == "change and commit":
                    program.commit()
            elif name == "commit":
                program.commit()
            elif name == "roll back":
                program.rollback()
            elif name == "save":
                self.begin(program)
                program.execute("SAVEPOINT s")
            elif name == "roll back to":
                program.execute("ROLLBACK TO s")
            elif name == "prepare" and self.lab.postgresql:
                self.number += 1
                program.execute(f"PREPARE TRANSACTION 'number {self.number}'")
                program.rollback()
                self.prepared.append(f"number {self.number}")
            elif name == "commit prepared" and self.prepared:
                self.lab.sql("primary", f"COMMIT PREPARED '{self.prepared.pop(0)}'")
            elif name == "prune" and not self.busy:
                position = self.lab.state("standby").position
                with self.lab.nodes["primary"].begin() as connection:
                    self.lab.nodes["primary"].database.prune(connection, str(position))
        except (psycopg.Error, sqlite3.Error):
            program.rollback()

    def begin(self, program: Any) -> None:
        if not self.lab.postgresql and not program.in_transaction:
            program.execute("BEGIN IMMEDIATE")

    def end(self, program: Any) -> None:
        with contextlib.suppress(psycopg.Error, sqlite3.Error):
            program.commit()

    @property
    def busy(self) -> bool:
        """On SQLite a batch needs the writer's lock for its tick."""
        return not self.lab.postgresql and self.sessions[0].in_transaction

    def ship(self, meanwhile: list[Step]) -> None:
        if self.busy:
            self.end(self.sessions[0])
        expected: list[Any] = []

        def after() -> None:
            expected.append(self.rows(0))
            for each in meanwhile:
                self.do(*each)
            if self.busy:
                self.end(self.sessions[0])

        carrier = self.shipper.carrier
        self.shipper.carrier = Steps(carrier, after={"snapshot": after})
        try:
            self.shipper.ship()
        finally:
            self.shipper.carrier = carrier
        assert self.rows(1) == expected[0]

    def rows(self, node: int) -> list[Any]:
        reader = self.reader[node]
        found = [sorted(reader.execute(f"SELECT * FROM {table}").fetchall(), key=repr) for table in ("parent", "child")]
        if self.lab.postgresql:
            reader.commit()
        return found


@pytest.fixture(scope="module")
def teller(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Teller]:
    with contextlib.ExitStack() as stack:
        if request.param == "postgresql":
            pair: local.Pair = stack.enter_context(request.getfixturevalue("postgresql_servers").fresh("interleaving"))
        else:
            pair = stack.enter_context(local.sqlite_pair(tmp_path_factory.mktemp("interleaving")))
        yield Teller(stack.enter_context(contextlib.closing(Lab(pair))))


@pytest.mark.parametrize("teller", ["sqlite", "postgresql"], indirect=True)
def test_after_every_batch_the_follower_equals_the_writer_at_its_snapshot(teller: Teller) -> None:
    @settings(max_examples=40, derandomize=True, deadline=None, database=None)
    @given(story)
    def any_story(told: list[Step]) -> None:
        teller.tell(told)

    any_story()
