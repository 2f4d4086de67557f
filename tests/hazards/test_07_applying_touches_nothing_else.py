"""Hazard 7: foreign keys, cascades and the user's triggers don't act when a follower applies a batch, and are back when it becomes the writer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from replstore import local
from replstore.databases.sqlite import carrier
from replstore.databases.sqlite.dialect import StoreConnection, open_file
from replstore.store import Store
from tests.fix_stores import FamilyBase, Lab, until


@pytest.fixture(params=["sqlite", "postgresql", "ordinary_postgresql"])
def family(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Also with a role that may not switch triggers off for its session."""
    pair: local.Pair = request.getfixturevalue(f"{request.param}_pair")
    with closing(Lab(pair)) as lab:
        yield lab


def test_a_child_outside_the_batch_survives_a_swap_of_its_parent_s_unique_value(family: Lab) -> None:
    store = _with_a_family(family)
    _swap_names(store)
    assert family.sql("standby", "SELECT id, name FROM parent ORDER BY id") == [(1, "b"), (2, "a")]
    assert family.sql("standby", "SELECT id, parent_id FROM child ORDER BY id") == [(10, 1), (20, 2)]


def test_a_sqlite_that_minds_foreign_keys_by_default_touches_nothing_else_either(sqlite_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def built_to_mind_them(path: str, **options: Any) -> StoreConnection:
        connection = open_file(path, **options)
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    monkeypatch.setattr(carrier, "open_file", built_to_mind_them)
    store = _with_a_family(sqlite_lab)
    _swap_names(store)
    assert sqlite_lab.sql("standby", "SELECT id, parent_id FROM child ORDER BY id") == [(10, 1), (20, 2)]


def test_a_cascade_of_the_writer_arrives_as_the_rows_that_it_left(family: Lab) -> None:
    store = _with_a_family(family)
    with store.begin() as session:
        if not family.postgresql:
            session.execute(text("DELETE FROM child WHERE parent_id = 1"))
        session.execute(text("DELETE FROM parent WHERE id = 1"))
    assert family.sql("standby", "SELECT id FROM parent") == [(2,)]
    assert family.sql("standby", "SELECT id FROM child") == [(20,)]


def test_a_trigger_of_the_user_s_acts_once_on_the_writer_and_its_rows_are_shipped(family: Lab) -> None:
    store = _with_a_family(family)
    _log_names(family, store)
    _swap_names(store)
    _same_log(family)


def test_foreign_keys_and_triggers_act_on_the_new_writer_and_not_on_the_rejoined_follower(family: Lab) -> None:
    store = _with_a_family(family)
    _log_names(family, store)
    store.switchover()
    assert family.state("standby").role == "writer"
    _swap_names(store)
    assert len(family.sql("standby", "SELECT * FROM log")) == 3
    _same_log(family)
    assert family.sql("primary", "SELECT id, parent_id FROM child ORDER BY id") == [(10, 1), (20, 2)]
    if family.postgresql:  # SQLite's foreign keys are off unless a connection asks for them
        with pytest.raises(DBAPIError, match="foreign key"):
            store.run(lambda session: session.execute(text("INSERT INTO child VALUES (30, 99)")))
        store.run(lambda session: session.execute(text("DELETE FROM parent WHERE id = 1")))
        assert family.sql("standby", "SELECT id FROM child") == family.sql("primary", "SELECT id FROM child") == [(20,)]


def test_the_same_after_the_loss_of_the_writer_and_its_return(family: Lab) -> None:
    store = _with_a_family(family, background=True)
    _log_names(family, store)
    family.kill("primary")
    _swap_names(store)
    assert len(family.sql("standby", "SELECT * FROM log")) == 3
    family.start("primary")
    until(lambda: store.status().healthy, "the former writer follows")
    _swap_names(store)
    _same_log(family)
    assert family.sql("primary", "SELECT id, parent_id FROM child ORDER BY id") == [(10, 1), (20, 2)]


def _with_a_family(lab: Lab, *, background: bool = False) -> Store:
    store = lab.migrated(FamilyBase.metadata, background=background)
    with store.begin() as session:
        session.execute(text("INSERT INTO parent VALUES (1, 'a'), (2, 'b')"))
        session.execute(text("INSERT INTO child VALUES (10, 1), (20, 2)"))
    return store


def _swap_names(store: Store) -> None:
    with store.begin() as session:
        (first,) = session.execute(text("SELECT name FROM parent WHERE id = 1")).one()
        session.execute(text("UPDATE parent SET name = 'x' WHERE id = 1"))
        session.execute(text("UPDATE parent SET name = :name WHERE id = 2"), {"name": first})
        session.execute(text("UPDATE parent SET name = :name WHERE id = 1"), {"name": "b" if first == "a" else "a"})


def _log_names(lab: Lab, store: Store) -> None:
    """A trigger that writes each new name into a table."""
    insert = "INSERT INTO log (id, name) SELECT coalesce(max(id), 0) + 1, NEW.name FROM log"
    if lab.postgresql:
        lab.sql(
            "primary",
            "CREATE TABLE log (id int PRIMARY KEY, name text)",
            f"CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {insert}; RETURN NULL; END $$",
            "CREATE TRIGGER log AFTER INSERT OR UPDATE ON parent FOR EACH ROW EXECUTE FUNCTION log()",
        )
        lab.sql("standby", f"CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {insert}; RETURN NULL; END $$")
    else:
        lab.sql(
            "primary",
            "CREATE TABLE log (id INTEGER PRIMARY KEY NOT NULL, name TEXT)",
            f"CREATE TRIGGER log AFTER UPDATE ON parent BEGIN {insert}; END",
            f"CREATE TRIGGER log_new AFTER INSERT ON parent BEGIN {insert}; END",
        )
    store.migrate()


def _same_log(lab: Lab) -> None:
    logs = [lab.sql(node, "SELECT id, name FROM log ORDER BY id") for node in ("primary", "standby")]
    assert logs[0] == logs[1] != []
