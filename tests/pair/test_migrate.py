"""Migrations of a pair, on two SQLite files and on two PostgreSQL servers."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from sqlalchemy import Column, Inspector, Integer, MetaData, NullPool, Table, create_engine, inspect, text

from replstore import CannotReplicate, ConfigError, MigrationFailed, NotAPair, Store
from replstore.migrate import migrate
from replstore.reconcile import check
from tests.fix_alembic import FROM_ATTRIBUTES, USUAL, Environment
from tests.fix_programs import at_once
from tests.fix_stores import Base, FamilyBase, Lab, in_contact, insert, put, until

CREATE = (
    'op.create_table("account", sa.Column("id", sa.Integer, primary_key=True), sa.Column("owner", sa.String(50)), sa.Column("amount", sa.Integer))'
)
ADD_NOTE = 'op.execute("ALTER TABLE account ADD COLUMN note varchar(20)")'


def look(lab: Lab, node: str) -> Inspector:
    """What SQLAlchemy finds there."""
    return inspect(create_engine(lab.pair.url(node), poolclass=NullPool))  # type: ignore[arg-type]


def columns(lab: Lab, node: str, table: str = "account") -> list[str]:
    return [column["name"] for column in look(lab, node).get_columns(table)]


def tables(lab: Lab, node: str) -> set[str]:
    return set(look(lab, node).get_table_names())


def equal(store: Store) -> bool:
    """Whether both nodes hold the same, and nothing is on its way."""
    report = check(store.pair)
    assert report.exact, report.notes
    assert report.equal, report.as_dict()
    return report.waiting == 0


# -- a pair


def test_metadata_makes_a_pair_of_two_empty_databases_and_again_nothing_changes(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1, 10))
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 10}
    before = [lab.state(node) for node in ("primary", "standby")], tables(lab, "primary"), tables(lab, "standby")
    again = lab.store(background=False).migrate(Base.metadata)
    assert (again.copied, again.behind) == ((), None)
    states, *names = [lab.state(node) for node in ("primary", "standby")], tables(lab, "primary"), tables(lab, "standby")
    assert ([(s.node, s.schema_no, s.term_uuid, s.batch) for s in before[0]], *before[1:]) == (
        [(s.node, s.schema_no, s.term_uuid, s.batch) for s in states],
        *names,
    )
    assert store.status().healthy


def test_an_existing_database_is_adopted_with_rows_keys_indexes_and_triggers(lab: Lab) -> None:
    trigger = (
        [
            "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name = upper(NEW.name); RETURN NEW; END $$",
            "CREATE TRIGGER shout BEFORE INSERT ON parent FOR EACH ROW EXECUTE FUNCTION shout()",
        ]
        if lab.postgresql
        else ["CREATE TRIGGER shout AFTER INSERT ON parent BEGIN UPDATE parent SET name = upper(name) WHERE id = NEW.id; END"]
    )
    lab.sql(
        "primary",
        "CREATE TABLE parent (id integer PRIMARY KEY NOT NULL, name varchar(20) NOT NULL CHECK (name <> ''))",
        "CREATE TABLE child (id integer PRIMARY KEY NOT NULL, parent_id integer NOT NULL REFERENCES parent (id) ON DELETE CASCADE)",
        "CREATE UNIQUE INDEX parent_name ON parent (name)",
        *trigger,
        "INSERT INTO parent VALUES (1, 'a'), (2, 'b')",
        "INSERT INTO child VALUES (10, 1)",
    )
    store = lab.store(background=False)
    done = store.migrate()
    assert {name.removeprefix("public.") for name in done.tables} == {"parent", "child"}
    assert lab.sql("standby", "SELECT id, name FROM parent ORDER BY id") == [(1, "A"), (2, "B")]
    assert lab.sql("standby", "SELECT id, parent_id FROM child") == [(10, 1)]
    assert equal(store)
    assert store.migrate().copied == ()


def test_a_table_without_a_key_is_refused_by_name_and_nothing_is_made(lab: Lab) -> None:
    metadata = MetaData()
    Table("fine", metadata, Column("id", Integer, primary_key=True))
    Table("keyless", metadata, Column("id", Integer))
    with pytest.raises(CannotReplicate, match="keyless"):
        lab.store(background=False).migrate(metadata)
    if lab.postgresql:
        assert tables(lab, "primary") == tables(lab, "standby") == set()
        assert not look(lab, "primary").has_schema("replstore")
    else:
        assert not any(Path(str(node.url.database)).exists() for node in lab.nodes.values())


def test_a_table_without_a_key_that_is_there_already_is_refused_and_nothing_is_changed(lab: Lab) -> None:
    lab.sql("primary", "CREATE TABLE fine (id integer PRIMARY KEY NOT NULL)", "CREATE TABLE keyless (id integer)")
    with pytest.raises(CannotReplicate, match="keyless has no primary key"):
        lab.store(background=False).migrate()
    assert tables(lab, "primary") == {"fine", "keyless"}
    assert lab.sql("primary", f"SELECT count(*) FROM {'pg_trigger WHERE NOT tgisinternal' if lab.postgresql else 'sqlite_master'}") == [
        (0 if lab.postgresql else 2,)
    ]


def test_a_standby_with_tables_of_its_own_is_refused(lab: Lab) -> None:
    lab.sql("standby", "CREATE TABLE theirs (id integer PRIMARY KEY NOT NULL)")
    with pytest.raises(NotAPair, match="theirs"):
        lab.migrated(background=False)
    assert tables(lab, "standby") == {"theirs"}


# -- a lost node


def test_an_empty_database_takes_a_lost_node_s_place_only_when_it_is_told_to(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1, 10))
    store.close()
    old = lab.state("standby").node
    _lose(lab, "standby")
    store = lab.store(background=False)
    with pytest.raises(NotAPair, match="--replace standby"):
        migrate(store.pair, Base.metadata)
    migrate(store.pair, Base.metadata, replace="standby")
    assert lab.state("standby").node != old
    assert lab.accounts("standby") == {1: 10}
    store.run(put(2, 20))
    assert lab.accounts("standby") == {1: 10, 2: 20}
    assert equal(store)
    with pytest.raises(ConfigError, match="only a node that was lost"):
        migrate(store.pair, Base.metadata, replace="standby")


def _lose(lab: Lab, node: str) -> None:
    """An empty database where a node was."""
    if lab.postgresql:
        lab.sql(node, "DROP SCHEMA replstore CASCADE", "DROP TABLE account")
    else:
        path = Path(str(lab.nodes[node].url.database))
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        lab.sql(node, "PRAGMA journal_mode = WAL")
    lab.nodes[node].service.dispose()


# -- the user's Alembic environment


@pytest.mark.parametrize("kind", [USUAL, FROM_ATTRIBUTES])
def test_an_environment_is_brought_to_its_head_on_both_nodes_twice(lab: Lab, tmp_path: Path, kind: str) -> None:
    environment, store = Environment(tmp_path, kind), lab.store(background=False)
    environment.revision(CREATE, "op.execute(\"INSERT INTO account VALUES (1, 'a', 10), (2, 'b', 20)\")")
    done = store.migrate(alembic_config=environment.ini)
    assert done.user_revision == "r1"
    assert {name.removeprefix("public.") for name in done.tables} == {"account", "alembic_version"}
    environment.revision(
        'with op.batch_alter_table("account") as batch:',
        '    batch.add_column(sa.Column("note", sa.String(20), server_default="new"))',
        '    batch.alter_column("owner", existing_type=sa.String(50), nullable=False)',
        '    batch.create_unique_constraint("one_owner", ["owner"])',
        'op.execute("UPDATE account SET amount = amount + 1")',
    )
    assert store.migrate(alembic_config=environment.ini).user_revision == "r2"
    for node in ("primary", "standby"):
        assert lab.sql(node, "SELECT id, owner, amount, note FROM account ORDER BY id") == [(1, "a", 11, "new"), (2, "b", 21, "new")]
        assert lab.sql(node, "SELECT version_num FROM alembic_version") == [("r2",)]
        assert look(lab, node).get_unique_constraints("account")
    assert equal(store)
    assert store.migrate(alembic_config=environment.ini).copied == ()
    store.run(lambda session: session.execute(text("UPDATE account SET note = 'x' WHERE id = 1")))
    assert lab.sql("standby", "SELECT note FROM account WHERE id = 1") == [("x",)]


def test_a_failed_migration_says_where_and_is_gone_on_with(lab: Lab, tmp_path: Path) -> None:
    environment, store = Environment(tmp_path), lab.store(background=False)
    environment.revision(CREATE)
    store.migrate(alembic_config=environment.ini)
    environment.revision(ADD_NOTE, 'op.execute("INSERT INTO nowhere VALUES (1)")')
    with pytest.raises(MigrationFailed, match=r"failed on primary.*nowhere.*run it again"):
        store.migrate(alembic_config=environment.ini)
    if lab.postgresql:  # the whole revision was rolled back, so the pair works as before
        store.run(lambda session: session.execute(text(insert(1, 10))))
        assert lab.accounts("standby") == {1: 10}
    environment.correct("pass" if "note" in columns(lab, "primary") else ADD_NOTE)
    store.migrate(alembic_config=environment.ini)
    assert columns(lab, "primary") == columns(lab, "standby") == ["id", "owner", "amount", "note"]
    store.run(lambda session: session.execute(text(insert(2, 20))))
    assert lab.accounts("standby")[2] == 20
    assert equal(store)


def test_an_environment_that_goes_to_a_database_of_its_own_is_noticed(lab: Lab, tmp_path: Path) -> None:
    environment = Environment(tmp_path, f"sqlite:///{tmp_path / 'elsewhere.db'}")
    environment.revision(CREATE)
    with pytest.raises(MigrationFailed, match=r"primary is at no revision, not at r1: does env.py take its URL"):
        lab.store(background=False).migrate(alembic_config=environment.ini)
    assert "account" not in tables(lab, "primary") | tables(lab, "standby")


def test_an_environment_does_not_silence_the_loggers_of_the_program(lab: Lab, tmp_path: Path) -> None:
    environment, logger = Environment(tmp_path), logging.getLogger("a program's own")
    environment.revision(CREATE)
    before = logging.getLogger().level, list(logging.getLogger().handlers)
    lab.store(background=False).migrate(alembic_config=environment.ini)
    assert not logger.disabled
    assert (logging.getLogger().level, logging.getLogger().handlers) == before


# -- a node that is down


def test_a_follower_that_was_down_is_brought_to_the_revision_by_a_running_store(lab: Lab, tmp_path: Path) -> None:
    environment, store = _with_accounts(lab, tmp_path, background=True)
    in_contact(store)
    lab.kill("standby")
    store.run(lambda session: session.execute(text(insert(1, 10))))
    environment.revision(
        ADD_NOTE, "op.execute(\"UPDATE account SET note = 'n'\")", 'op.create_table("more", sa.Column("id", sa.Integer, primary_key=True))'
    )
    assert store.migrate(alembic_config=environment.ini).behind == "standby"
    store.run(lambda session: session.execute(text(insert(2, 20))))
    lab.start("standby")
    until(lambda: store.status().healthy, "the standby has the same revision")
    assert columns(lab, "standby") == columns(lab, "primary") == ["id", "owner", "amount", "note"]
    assert "more" in tables(lab, "standby")
    assert lab.sql("standby", "SELECT id, note FROM account ORDER BY id") == [(1, "n"), (2, None)]
    assert equal(store)


def test_or_by_the_next_migration_and_the_skew_is_in_the_status_until_then(lab: Lab, tmp_path: Path) -> None:
    environment, store = _with_accounts(lab, tmp_path, background=False)
    store.run(lambda session: session.execute(text(insert(1, 10))))
    lab.kill("standby")
    environment.revision(ADD_NOTE, "op.execute(\"UPDATE account SET note = 'n'\")")
    assert store.migrate(alembic_config=environment.ini).behind == "standby"
    lab.start("standby")
    status = store.status()
    assert status.stopped.startswith("schema_skew")
    assert status.nodes["primary"].schema_no != status.nodes["standby"].schema_no
    assert columns(lab, "standby") == ["id", "owner", "amount"]
    assert store.migrate(alembic_config=environment.ini).behind is None
    assert store.status().healthy
    assert lab.sql("standby", "SELECT id, note FROM account") == [(1, "n")]
    assert equal(store)


def test_a_former_writer_that_missed_a_migration_comes_back_with_it(lab: Lab, tmp_path: Path) -> None:
    environment, store = _with_accounts(lab, tmp_path, background=True)
    store.run(lambda session: session.execute(text(insert(1, 10))))
    lab.kill("primary")
    store.run(lambda session: session.execute(text(insert(2, 20))))
    environment.revision(ADD_NOTE, "op.execute(\"UPDATE account SET note = 'n'\")")
    assert store.migrate(alembic_config=environment.ini).behind == "primary"
    lab.start("primary")
    until(lambda: store.status().healthy, "the former writer follows")
    assert store.status().writer == "standby"
    assert lab.sql("primary", "SELECT id, note FROM account ORDER BY id") == [(1, "n"), (2, "n")]
    assert equal(store)


def _with_accounts(lab: Lab, tmp_path: Path, *, background: bool) -> tuple[Environment, Store]:
    environment, store = Environment(tmp_path), lab.store(background=background)
    environment.revision(CREATE)
    store.migrate(alembic_config=environment.ini)
    return environment, store


# -- two at once

MIGRATE = """
import json, sys
from replstore import Store
primary, standby, ini = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
store = Store(primary=primary, standby=standby, background=False)
done = store.migrate(alembic_config=ini)
store.close()
print(done.user_revision, flush=True)
"""


def test_processes_that_migrate_at_once_make_one_pair_and_run_each_revision_once(lab: Lab, tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    environment.revision(CREATE, "op.execute(\"INSERT INTO account VALUES (1, 'a', 10)\")", "import time; time.sleep(0.3)")
    environment.revision('op.execute("UPDATE account SET amount = amount + 1")')
    assert at_once([lab.program(MIGRATE, str(environment.ini)) for _ in range(3)]) == ["r2"] * 3
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 11}
    assert equal(Store(primary=lab.pair.primary_url, standby=lab.pair.standby_url, background=False))


# -- what becomes of tables


def test_a_table_that_others_refer_to_is_made_anew_with_them_when_the_follower_missed_its_change(lab: Lab) -> None:
    store = lab.migrated(FamilyBase.metadata, background=False)
    with store.begin() as session:
        session.execute(text("INSERT INTO parent VALUES (1, 'a')"))
        session.execute(text("INSERT INTO child VALUES (10, 1)"))
    lab.sql("primary", "ALTER TABLE parent ADD COLUMN born integer DEFAULT 1970")
    done = store.migrate()
    assert {name.removeprefix("public.") for name in done.copied} == {"parent", "child"}
    assert lab.sql("standby", "SELECT id, name, born FROM parent") == [(1, "a", 1970)]
    assert lab.sql("standby", "SELECT id, parent_id FROM child") == [(10, 1)]
    assert equal(store)
    assert "parent" in [key["referred_table"] for key in look(lab, "standby").get_foreign_keys("child")]


def test_a_dropped_table_goes_on_both_nodes(lab: Lab) -> None:
    store = lab.migrated(FamilyBase.metadata, background=False)
    store.run(lambda session: session.execute(text("INSERT INTO parent VALUES (1, 'a')")))
    lab.sql("primary", "DROP TABLE child")
    done = store.migrate()
    assert {name.removeprefix("public.") for name in done.tables} == {"parent"}
    assert "child" not in tables(lab, "standby")
    store.run(lambda session: session.execute(text("INSERT INTO parent VALUES (2, 'b')")))
    assert lab.sql("standby", "SELECT count(*) FROM parent") == [(2,)]
    assert equal(store)


def test_keys_go_on_after_a_takeover_without_one_given_twice(lab: Lab) -> None:
    number = "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY" if lab.postgresql else "INTEGER PRIMARY KEY AUTOINCREMENT"
    serial = ", code serial" if lab.postgresql else ""
    lab.sql("primary", f"CREATE TABLE line (id {number}{serial}, item text)", "INSERT INTO line (item) VALUES ('a'), ('b')")
    store = lab.store(background=False)
    store.migrate()
    with store.begin() as session:  # a million keys, of which no row is left
        if lab.postgresql:
            session.execute(text("SELECT setval('line_id_seq', 1000000), setval('line_code_seq', 1000000)"))
        else:
            session.execute(text("INSERT INTO line (id, item) VALUES (1000000, 'c')"))
            session.execute(text("DELETE FROM line WHERE id = 1000000"))
        session.execute(text("UPDATE line SET item = 'A' WHERE item = 'a'"))
    lab.kill("primary")
    store.run(lambda session: session.execute(text("INSERT INTO line (item) VALUES ('d')")))
    rows = lab.sql("standby", f"SELECT item, id {', code' if lab.postgresql else ''} FROM line ORDER BY id")
    assert [row[0] for row in rows] == ["A", "b", "d"]
    assert min(rows[2][1:]) > 1_000_000, "what the lost writer gave is not given again"
    lab.start("primary")
