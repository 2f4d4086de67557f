"""Hazard 7: what a takeover brings back is what the writer has, whatever migrations did to it since it was taken off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from replstore import local
from replstore.store import Store
from tests.fix_alembic import Environment
from tests.fix_stores import FamilyBase, Lab

FAMILY = ("CREATE TABLE parent (id int PRIMARY KEY, name text CONSTRAINT named UNIQUE)", "CREATE TABLE child (id int PRIMARY KEY, parent_id int)")
ADD = "ALTER TABLE child ADD CONSTRAINT fk FOREIGN KEY (parent_id) REFERENCES parent (id) ON DELETE {}"
DROP = "ALTER TABLE child DROP CONSTRAINT fk"
TRIGGER = "CREATE TRIGGER {} AFTER INSERT ON account BEGIN INSERT INTO audit (what) VALUES ('{}'); END"
LOGGED = (
    "CREATE TABLE account (id INTEGER PRIMARY KEY NOT NULL, amount INT)",
    "CREATE TABLE audit (id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT)",
)


@pytest.fixture
def family(ordinary_postgresql_pair: local.PostgresPair) -> Iterator[Lab]:
    """A pair whose role may not switch triggers off for its session."""
    with closing(Lab(ordinary_postgresql_pair)) as lab:
        yield lab


class Migrating:
    """A pair's first Store with the user's Alembic environment."""

    def __init__(self, lab: Lab, directory: Path, *statements: str) -> None:
        self.store, self._environment = lab.store(background=False), Environment(directory)
        self.migrate(*statements)

    def migrate(self, *statements: str) -> tuple[str, ...]:
        """One more revision, on both nodes; returns what was copied."""
        self._environment.revision(*(f"op.execute({statement!r})" for statement in statements))
        return self.store.migrate(alembic_config=self._environment.ini).copied


def test_a_foreign_key_that_a_migration_adds_does_not_act_on_the_follower(family: Lab, tmp_path: Path) -> None:
    pair = Migrating(family, tmp_path, *FAMILY)
    _a_family(pair.store)
    assert "public.child" not in pair.migrate(ADD.format("CASCADE"))
    _run(pair.store, "UPDATE parent SET name = 'b'")
    assert family.sql("standby", "SELECT * FROM child") == [(1, 1)]
    pair.store.switchover()
    _run(pair.store, "DELETE FROM parent")
    assert family.sql("standby", "SELECT * FROM child") == []


def test_a_foreign_key_that_a_migration_changes_comes_back_as_it_is_on_the_writer(family: Lab, tmp_path: Path) -> None:
    pair = Migrating(family, tmp_path, *FAMILY, ADD.format("CASCADE"))
    _a_family(pair.store)
    pair.migrate(DROP, ADD.format("RESTRICT"))
    assert pair.store.check().equal
    pair.store.switchover()
    with pytest.raises(IntegrityError, match="RESTRICT"):
        _run(pair.store, "DELETE FROM parent")
    assert family.sql("standby", "SELECT * FROM child") == [(1, 1)]


def test_a_foreign_key_that_was_dropped_with_the_key_it_needs_does_not_come_back(family: Lab) -> None:
    family.sql(
        "primary", *FAMILY, "ALTER TABLE child ADD pname text", "ALTER TABLE child ADD CONSTRAINT fk FOREIGN KEY (pname) REFERENCES parent (name)"
    )
    store = family.store(background=False)
    store.migrate()
    assert family.sql("standby", "SELECT name FROM replstore.suspended") == [("fk",)]
    family.sql("primary", DROP, "ALTER TABLE parent DROP CONSTRAINT named")
    store.migrate()
    family.kill("primary")
    _run(store, "INSERT INTO child VALUES (2, 2, 'nobody')")
    assert family.state("standby").role == "writer"


def test_the_check_compares_what_would_come_back(family: Lab) -> None:
    store = family.store(background=False)
    family.sql("primary", *FAMILY, ADD.format("CASCADE"))
    store.migrate()
    assert store.check().equal
    family.sql("primary", DROP, ADD.format("RESTRICT"))
    (cascade, restrict) = sorted(difference.text for difference in store.check().schema)
    assert cascade.endswith("ON DELETE CASCADE: on standby only")
    assert restrict.endswith("ON DELETE RESTRICT: on primary only")
    store.migrate()
    assert store.check().equal


def test_a_trigger_that_is_disabled_on_the_writer_is_not_enabled_by_a_takeover(family: Lab) -> None:
    log = "CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO child VALUES (NEW.id); RETURN NULL; END $$"
    create = "CREATE TRIGGER {0} AFTER INSERT ON parent FOR EACH ROW EXECUTE FUNCTION log()"
    family.sql("primary", *FAMILY, log, create.format("on_"), create.format("off"), "ALTER TABLE parent DISABLE TRIGGER off")
    store = family.store(background=False)
    store.migrate()
    store.switchover()
    states = "SELECT tgname, tgenabled::text FROM pg_trigger WHERE tgname IN ('on_', 'off') ORDER BY tgname DESC"
    assert family.sql("standby", states) == [("on_", "O"), ("off", "D")]
    store.switchover()
    assert family.sql("primary", states) == [("on_", "O"), ("off", "D")]


def test_a_trigger_that_fires_always_does_not_on_a_follower_of_a_role_that_may_switch_triggers_off(postgresql_lab: Lab) -> None:
    log = "CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.child VALUES (NEW.id + 100); RETURN NULL; END $$"
    create = "CREATE TRIGGER log AFTER INSERT ON parent FOR EACH ROW EXECUTE FUNCTION log()"
    postgresql_lab.sql("primary", *FAMILY, log, create, "ALTER TABLE parent ENABLE ALWAYS TRIGGER log")
    store = postgresql_lab.store(background=False)
    store.migrate()
    _run(store, "INSERT INTO parent VALUES (1)")
    _run(store, "DELETE FROM child", "UPDATE parent SET name = 'a'")  # which the follower sees as a row that comes
    assert postgresql_lab.sql("standby", "SELECT * FROM child") == []
    store.switchover()
    _run(store, "INSERT INTO parent VALUES (2)")
    assert [row[0] for row in postgresql_lab.sql("standby", "SELECT * FROM child")] == [102]


def test_a_superuser_s_pair_gets_a_foreign_key_that_only_the_writer_has_at_the_takeover(postgresql_lab: Lab) -> None:
    store = postgresql_lab.store(background=False)
    postgresql_lab.sql("primary", *FAMILY)
    store.migrate()
    _a_family(store)
    postgresql_lab.sql("primary", ADD.format("RESTRICT"))
    assert "public.child" not in store.migrate().copied
    assert store.check().equal
    store.switchover()
    with pytest.raises(IntegrityError, match="RESTRICT"):
        _run(store, "DELETE FROM parent")


def test_a_trigger_that_a_migration_adds_on_sqlite_fires_on_the_writer_only(sqlite_lab: Lab, tmp_path: Path) -> None:
    pair = Migrating(sqlite_lab, tmp_path, *LOGGED)
    pair.migrate(TRIGGER.format("logged", "once"))
    for id in (1, 2):
        _run(pair.store, f"INSERT INTO account VALUES ({id}, 0)")
    assert sqlite_lab.sql("standby", "SELECT * FROM audit") == [(1, "once"), (2, "once")]
    pair.store.switchover()
    _run(pair.store, "INSERT INTO account VALUES (3, 0)")
    assert sqlite_lab.sql("standby", "SELECT count(*) FROM audit") == sqlite_lab.sql("primary", "SELECT count(*) FROM audit") == [(3,)]


@pytest.mark.parametrize("where", ["on both nodes", "on the writer"])
def test_a_trigger_that_is_changed_or_dropped_on_sqlite_stays_so(sqlite_lab: Lab, tmp_path: Path, where: str) -> None:
    pair = Migrating(sqlite_lab, tmp_path, *LOGGED, TRIGGER.format("changed", "old"), TRIGGER.format("gone", "dropped"))
    changes = ("DROP TRIGGER changed", TRIGGER.format("changed", "new"), "DROP TRIGGER gone")
    if where == "on both nodes":
        pair.migrate(*changes)
    else:
        sqlite_lab.sql("primary", *changes)
        assert not pair.store.check().equal
        pair.store.migrate()
    assert pair.store.check().equal
    pair.store.switchover()
    _run(pair.store, "INSERT INTO account VALUES (1, 0)")
    assert sqlite_lab.sql("standby", "SELECT what FROM audit") == [("new",)]
    assert pair.store.check().equal


def test_what_cannot_come_back_is_told_and_kept_and_does_not_forbid_the_takeover(family: Lab) -> None:
    store = family.store(background=False)
    family.sql("primary", *FAMILY, ADD.format("CASCADE"), "ALTER TABLE child ADD CONSTRAINT second FOREIGN KEY (id) REFERENCES parent (id)")
    store.migrate()
    family.sql("standby", "ALTER TABLE parent RENAME COLUMN id TO other")  # nobody should: now neither key can be made
    store.close()
    store = family.store(background=False)
    family.kill("primary")
    store.takeover(force=True)
    assert family.state("standby").role == "writer"
    warnings = [warning for warning in store.status().warnings if "isn't in force" in warning]
    assert len(warnings) == 2
    assert "foreign key fk of table public.child" in warnings[0]
    family.sql(
        "standby", "ALTER TABLE parent RENAME COLUMN other TO id", "ALTER TABLE child ADD CONSTRAINT second FOREIGN KEY (id) REFERENCES parent (id)"
    )
    store.solo()
    store.migrate()  # one was made by hand, the other it makes
    assert family.sql("standby", "SELECT * FROM replstore.suspended") == []
    assert not [warning for warning in store.status().warnings if "isn't in force" in warning]
    with pytest.raises(IntegrityError, match="fk"):
        _run(store, "INSERT INTO parent VALUES (1)", "INSERT INTO child VALUES (1, 7)")


def test_what_the_writer_itself_lacks_since_its_takeover_is_not_forgotten_by_its_follower(family: Lab) -> None:
    store = family.migrated(FamilyBase.metadata, background=False)
    family.sql("standby", "ALTER TABLE parent RENAME COLUMN id TO other")
    store.switchover()
    assert family.state("standby").role == "writer"
    family.sql("standby", "ALTER TABLE parent RENAME COLUMN other TO id", "UPDATE replstore.suspended SET restore = 'ALTER TABLE child ' || restore")
    store.migrate()
    (kept,) = family.sql("primary", "SELECT name FROM replstore.suspended")
    assert kept == ("child_parent_id_fkey",)


def test_a_trigger_that_cannot_come_back_on_sqlite_does_not_forbid_the_takeover(sqlite_lab: Lab) -> None:
    store = sqlite_lab.store(background=False)
    sqlite_lab.sql("primary", *LOGGED, TRIGGER.format("first", "1"), TRIGGER.format("second", "2"))
    store.migrate()
    sqlite_lab.sql("standby", "CREATE TRIGGER first AFTER DELETE ON audit BEGIN SELECT 1; END")  # takes the name
    store.switchover()
    _run(store, "INSERT INTO account VALUES (1, 0)")
    assert sqlite_lab.sql("standby", "SELECT what FROM audit") == [("2",)]
    assert any("trigger first of table account isn't in force" in warning for warning in store.status().warnings)
    sqlite_lab.sql("standby", "DROP TRIGGER first")
    store.migrate()
    assert not any("isn't in force" in warning for warning in store.status().warnings)
    _run(store, "INSERT INTO account VALUES (2, 0)")
    assert sorted(sqlite_lab.sql("standby", "SELECT what FROM audit")) == [("1",), ("2",), ("2",)]


def _run(store: Store, *statements: str) -> None:
    store.run(lambda session: [session.execute(text(statement)) for statement in statements] and None)


def _a_family(store: Store) -> None:
    _run(store, "INSERT INTO parent VALUES (1, 'a')", "INSERT INTO child VALUES (1, 1)")
