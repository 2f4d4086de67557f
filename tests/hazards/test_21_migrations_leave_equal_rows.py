"""Hazard 21: a user's migration runs on both nodes, and whatever it does to rows, the writer's rows are those of both afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from replstore.errors import ReplicationStopped
from replstore.reconcile import check
from tests.fix_alembic import Environment
from tests.fix_stores import Lab, in_contact, until

CREATE = (
    'op.create_table("account", sa.Column("id", sa.Integer, primary_key=True), sa.Column("owner", sa.String(50)), sa.Column("amount", sa.Integer))',
    "op.execute(\"INSERT INTO account VALUES (1, 'a', 10), (2, 'b', 20)\")",
)
RANDOM = "abs(random() % 1000000)", "(random() * 1000000)::integer"  # SQLite's, PostgreSQL's


class Migrating:
    """A pair with an Alembic environment, and accounts.

    Args:
        lab: the pair.
        directory: of the environment.
        background: of the Store.
    """

    def __init__(self, lab: Lab, directory: Path, *, background: bool = False) -> None:
        self.lab, self.environment = lab, Environment(directory)
        self.random = RANDOM[lab.postgresql]
        self.store = lab.store(background=background)
        self.environment.revision(*CREATE)
        self.migrate()

    def migrate(self) -> None:
        self.store.migrate(alembic_config=self.environment.ini)

    def revision(self, *statements: str) -> None:
        """A revision of plain SQL; ``RANDOM`` in it gives another number each time."""
        self.environment.revision(*(f"op.execute({statement.replace('RANDOM', self.random)!r})" for statement in statements))

    def rows(self, node: str, table: str = "account") -> list[tuple[object, ...]]:
        return self.lab.sql(node, f"SELECT * FROM {table} ORDER BY 1")

    def equal(self, *, of: str = "account") -> list[tuple[object, ...]]:
        """The rows of a table, which both nodes have, as the check says too."""
        self.store.sync()
        report = check(self.store.pair)
        assert report.equal, report.as_dict()
        assert self.rows("primary", of) == self.rows("standby", of)
        return self.rows("primary", of)


NEW_TABLE = "CREATE TABLE level (id {serial}, name varchar(20), secret integer DEFAULT (RANDOM), since timestamp DEFAULT CURRENT_TIMESTAMP)"


@pytest.mark.parametrize("background", [False, True], ids=["by itself", "while others ship"])
def test_a_migration_that_gives_other_rows_each_time_gives_the_same_on_both_nodes(lab: Lab, tmp_path: Path, background: bool) -> None:
    migrating = Migrating(lab, tmp_path, background=background)
    serial = "serial PRIMARY KEY" if lab.postgresql else "INTEGER PRIMARY KEY"
    migrating.revision(
        NEW_TABLE.format(serial=serial),
        "INSERT INTO level (name) VALUES ('low'), ('high')",
        "UPDATE account SET amount = RANDOM",
        "INSERT INTO account (id, owner, amount) SELECT RANDOM, 'c', 30",
    )
    migrating.migrate()
    assert [row[:2] for row in migrating.equal(of="level")] == [(1, "low"), (2, "high")]
    assert len(migrating.equal()) == 3
    migrating.store.run(lambda session: session.execute(text("INSERT INTO level (name) VALUES ('top')")))
    assert [row[:2] for row in migrating.equal(of="level")][2:] == [(3, "top")]


def test_nothing_is_applied_twice(lab: Lab, tmp_path: Path) -> None:
    migrating = Migrating(lab, tmp_path, background=True)
    migrating.revision("UPDATE account SET amount = amount + 1")
    migrating.migrate()
    assert [row[2] for row in migrating.equal()] == [11, 21]
    migrating.revision("UPDATE account SET amount = amount * 2 WHERE id = 1", "DELETE FROM account WHERE id = 2")
    migrating.migrate()
    migrating.migrate()
    assert [row[2] for row in migrating.equal()] == [22]


REWRITES = {
    False: (
        "CREATE TABLE other (id INTEGER NOT NULL PRIMARY KEY, owner VARCHAR(50), amount INTEGER)",
        "INSERT INTO other SELECT id, owner, RANDOM FROM account",
        "DROP TABLE account",
        "ALTER TABLE other RENAME TO account",
    ),
    True: ("ALTER TABLE account ALTER COLUMN amount TYPE integer USING RANDOM",),
}


@pytest.mark.parametrize("down", [False, True], ids=["with both nodes", "while the follower is down"])
def test_rows_that_are_rewritten_without_a_trigger_are_copied(lab: Lab, tmp_path: Path, down: bool) -> None:
    migrating = Migrating(lab, tmp_path)
    before = migrating.equal()
    migrating.revision(*REWRITES[lab.postgresql])
    if down:
        lab.kill("standby")
    migrating.migrate()
    if down:
        lab.start("standby")
        migrating.store.close()
        migrating.store = lab.store()
        until(lambda: migrating.store.status().healthy, "the standby is back")
    assert migrating.equal() != before


def test_nothing_is_shipped_while_one_node_lacks_a_migration(lab: Lab, tmp_path: Path) -> None:
    """Whatever it does: also rows of a table that is the same on both nodes wait for it."""
    migrating = Migrating(lab, tmp_path)
    before = migrating.equal()
    migrating.revision("CREATE TABLE later (id INTEGER PRIMARY KEY)")
    lab.kill("standby")
    migrating.migrate()
    lab.start("standby")
    lab.sql("primary", "UPDATE account SET amount = 99")
    with pytest.raises(ReplicationStopped, match="schema_skew: primary has had 2 migrations and standby 1; run `replstore migrate`"):
        lab.ship()
    assert migrating.rows("standby") == before
    migrating.migrate()
    assert {row[2] for row in migrating.equal()} == {99}


def test_a_column_that_gets_another_value_in_each_row_is_copied(postgresql_lab: Lab, tmp_path: Path) -> None:
    migrating = Migrating(postgresql_lab, tmp_path)
    migrating.revision("ALTER TABLE account ADD COLUMN token integer DEFAULT RANDOM", "ALTER TABLE account ADD COLUMN no serial")
    migrating.migrate()
    assert len({row[3] for row in migrating.equal()}) == 2


def test_a_migration_that_a_lost_writer_had_by_itself_is_overwritten_by_the_new_writer_s(lab: Lab, tmp_path: Path) -> None:
    migrating = Migrating(lab, tmp_path, background=True)
    in_contact(migrating.store)
    lab.kill("standby")
    until(lambda: migrating.store.status().acknowledge == "solo", "the primary goes on alone")
    migrating.revision(*REWRITES[lab.postgresql])
    migrating.migrate()
    migrating.store.close()
    lost = migrating.rows("primary")
    lab.kill("primary")
    lab.start("standby")
    migrating.store = lab.store()
    if lab.postgresql:  # a server that was restarted doesn't take over by itself; a file that was moved away and back does
        migrating.store.takeover("standby", force=True)
    migrating.migrate()
    lab.start("primary")
    until(lambda: migrating.store.status().healthy, "the former writer follows", 20.0)
    assert migrating.equal() != lost
