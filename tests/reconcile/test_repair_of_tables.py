"""What a repair does with keys that refer to one another, with triggers, sequences, other types, and tables that it can't repair."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import closing

import pytest
from sqlalchemy import text

from replstore import local
from replstore.errors import CannotRepair, ConfigError, ReplicationStopped
from replstore.reconcile import repair
from replstore.reconcile.saved import Numbered
from replstore.reconcile.writing import Hand, Refused, Written
from replstore.store import Store
from tests.fix_check import adopted, behind_the_guard
from tests.fix_mixed import MixedLab
from tests.fix_repair import NODES, carried_out, changed, filled, left, other, planned, spoiled
from tests.fix_stores import FamilyBase, Lab, insert


def family(lab: Lab, count: int) -> Store:
    """Parents with a child each."""
    store = lab.migrated(FamilyBase.metadata, background=False)
    with store.begin() as session:
        for id in range(count):
            session.execute(text(f"INSERT INTO parent VALUES ({id}, 'p{id}')"))
        for id in range(count):
            session.execute(text(f"INSERT INTO child VALUES ({id}, {id})"))
    store.sync()
    return store


def refusals(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collects why a database has refused rows in a transaction of a repair."""
    found: list[str] = []
    write = Hand.write

    def watched(hand: Hand, node: str, changes: Sequence[Numbered]) -> Written:
        try:
            return write(hand, node, changes)
        except Refused as refused:
            found.append(str(refused))
            raise

    monkeypatch.setattr(Hand, "write", watched)
    return found


def rows(lab: Lab, node: str, name: str) -> list[tuple[object, ...]]:
    return sorted(lab.sql(node, f"SELECT * FROM {name}"))


# -- rows that refer to one another


@pytest.mark.parametrize("source", NODES)
def test_parents_and_children_are_taken_and_put_in_an_order_that_keeps_every_reference(
    lab: Lab, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "CHUNK", 3)
    refused = refusals(monkeypatch)
    store = family(lab, 10)
    behind_the_guard(lab, "standby", "DELETE FROM child WHERE id < 5", "DELETE FROM parent WHERE id < 5")
    behind_the_guard(lab, "standby", *(f"INSERT INTO parent VALUES ({id}, 'new{id}')" for id in range(20, 25)))
    behind_the_guard(lab, "standby", *(f"INSERT INTO child VALUES ({id}, {id})" for id in range(20, 25)))
    wanted = [rows(lab, source, name) for name in ("parent", "child")]
    done = store.repair(source=source, dry_run=False)  # type: ignore[arg-type]
    assert done.left == ()
    assert len(done.done) == 20
    assert refused == []
    assert [rows(lab, node, name) for node in NODES for name in ("parent", "child")] == wanted * 2
    assert store.check().equal


def test_a_follower_s_parent_is_repaired_and_its_children_stay(lab: Lab) -> None:
    store = family(lab, 3)
    behind_the_guard(lab, "standby", "UPDATE parent SET name = 'x' WHERE id = 1")
    assert store.repair(dry_run=False).complete
    assert rows(lab, "standby", "child") == [(0, 0), (1, 1), (2, 2)]
    assert store.check().equal


def test_a_row_that_others_refer_to_is_left_on_the_writer_and_all_others_are_repaired(lab: Lab) -> None:
    store = family(lab, 4)
    behind_the_guard(lab, "standby", "UPDATE parent SET name = 'x' WHERE id = 3", "DELETE FROM child WHERE id = 1", "DELETE FROM parent WHERE id = 1")
    behind_the_guard(lab, "primary", "INSERT INTO child VALUES (11, 1)")
    behind_the_guard(lab, "standby", *_without_keys(lab, "INSERT INTO child VALUES (11, 1)"))
    done = store.repair(source="standby", dry_run=False)
    assert "refers to" in left(done)["[1]"]
    assert ("primary", "[3]", "update") in changed(done)
    assert (1, "p1") in rows(lab, "primary", "parent")


def _without_keys(lab: Lab, statement: str) -> list[str]:
    return ["SET LOCAL session_replication_role = replica", statement] if lab.postgresql else [statement]


@pytest.mark.parametrize("source", NODES)
def test_values_that_changed_places_are_put_back(lab: Lab, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "CHUNK", 1)  # no row alone can be written
    store = filled(lab)
    swap = ["UPDATE account SET owner = 'x' WHERE id = 1", "UPDATE account SET owner = 'owner 1' WHERE id = 2"]
    behind_the_guard(lab, "standby", *swap, "UPDATE account SET owner = 'owner 2' WHERE id = 1")
    done = store.repair(source=source, dry_run=False)  # type: ignore[arg-type]
    assert done.left == ()
    assert store.check().equal
    owners = dict(lab.sql("primary", "SELECT id, owner FROM account WHERE id < 3"))
    assert owners[1] == ("owner 1" if source == "primary" else "owner 2")


def test_one_row_that_can_t_be_written_keeps_no_other(lab: Lab) -> None:
    store = filled(lab)
    spoiled(lab, "standby")
    behind_the_guard(lab, "standby", "UPDATE account SET owner = 'x' WHERE id = 1")
    store.run(lambda session: session.execute(text(insert(30))) and None)
    behind_the_guard(lab, "primary", "UPDATE account SET owner = 'x' WHERE id = 30")
    done = store.repair(source="standby", tables=["account"], where="id <> 30", dry_run=False)
    assert left(done).keys() == {"[1]"}
    assert {key for _, key, _ in changed(done)} == {"[5]", "[7]", "[100]"}


# -- the newest


def test_of_each_row_the_newest_is_right(lab: Lab) -> None:
    store = filled(lab)
    behind_the_guard(lab, "standby", "UPDATE account SET amount = 9 WHERE id = 1", "UPDATE account SET amount = -9 WHERE id = 2")
    behind_the_guard(lab, "standby", "UPDATE account SET owner = 'same amount' WHERE id = 3", "DELETE FROM account WHERE id = 4", insert(50))
    store.run(lambda session: session.execute(text("UPDATE account SET amount = 10 WHERE id = 6")) and None)
    behind_the_guard(lab, "standby", "UPDATE account SET amount = 9 WHERE id = 6")  # as numbers, not as texts
    done = store.repair(source="newest", column="amount", dry_run=False)
    assert changed(done) == {
        ("primary", "[1]", "update"),
        ("standby", "[2]", "update"),
        ("standby", "[4]", "insert"),
        ("standby", "[6]", "update"),
        ("primary", "[50]", "insert"),
    }
    assert left(done) == {"[3]": "neither row is newer by amount"}
    assert {id: amount for id, amount in lab.accounts("primary").items() if id in (1, 2, 4, 6, 50)} == {1: 9, 2: 0, 4: 0, 6: 10, 50: 0}
    assert lab.accounts("primary") == lab.accounts("standby")
    with pytest.raises(ConfigError, match="has no column"):
        store.repair(source="newest", column="changed_at")


# -- what can't be repaired


def test_tables_that_differ_otherwise_are_named_and_nothing_is_changed(lab: Lab) -> None:
    store = filled(lab)
    spoiled(lab, "standby")
    for node in NODES:
        lab.sql(node, "CREATE TABLE note (what text)")
    lab.sql("standby", "INSERT INTO note VALUES ('x')")
    with pytest.raises(CannotRepair, match=r"note: it has no primary key"):
        store.repair(dry_run=False)
    lab.sql("standby", "DROP TABLE note", "CREATE TABLE note (what text, more text)")
    with pytest.raises(CannotRepair, match=r"note: .*more"):
        store.repair(dry_run=False)
    assert lab.accounts("standby")[5] == 99
    assert store.repair(exclude=["note"], dry_run=False).complete
    assert store.check(exclude=["note"]).equal


def test_a_table_that_is_not_replicated_is_named(lab: Lab) -> None:
    store = filled(lab)
    for node in NODES:
        lab.sql(node, "CREATE TABLE note (id integer PRIMARY KEY)")
    lab.sql("standby", "INSERT INTO note VALUES (1)")
    with pytest.raises(CannotRepair, match="note: it isn't replicated"):
        store.repair(dry_run=False)


def test_control_tables_of_an_older_layout_are_refused_and_migrate_brings_them_up_to_date(lab: Lab) -> None:
    store = filled(lab)
    spoiled(lab, "standby")
    for node in NODES:
        lab.sql(
            node,
            *(f"DROP TABLE {lab.name(each)}" for each in ("repair", "timeline")),
            f"UPDATE {lab.name('alembic_version')} SET version_num = '0002'",
        )
    with pytest.raises(ConfigError, match="run `replstore migrate` first"):
        store.repair(dry_run=False)
    with pytest.raises(ConfigError, match="run `replstore migrate` first"):
        store.repairs()
    assert lab.accounts("standby")[5] == 99
    store.migrate()
    assert store.repair(dry_run=False).complete
    assert store.check().equal


# -- more than rows


def test_sequences_are_set_forward(lab: Lab) -> None:
    key = "bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY" if lab.postgresql else "integer PRIMARY KEY AUTOINCREMENT"
    store = adopted(lab, f"CREATE TABLE note (id {key}, what text)")
    for _ in range(5):
        store.run(lambda session: session.execute(text("INSERT INTO note (what) VALUES ('x')")) and None)
    back = "SELECT setval('note_id_seq', 2)" if lab.postgresql else "UPDATE sqlite_sequence SET seq = 2 WHERE name = 'note'"
    lab.sql("standby", back)
    assert len(store.check().sequences) == 1
    plan = store.repair()
    assert list(plan.plan.sequences.values()) == [5]
    assert not plan.complete
    assert store.repair(dry_run=False).complete
    assert store.check().equal


def test_a_writer_that_gets_rows_does_not_give_their_keys_again(lab: Lab) -> None:
    key = "bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY" if lab.postgresql else "integer PRIMARY KEY AUTOINCREMENT"
    store = adopted(lab, f"CREATE TABLE note (id {key}, what text)")
    store.run(lambda session: session.execute(text("INSERT INTO note (what) VALUES ('x')")) and None)
    behind_the_guard(lab, "standby", *["INSERT INTO note (what) VALUES ('y')"] * 3)
    assert store.repair(source="standby", dry_run=False).complete
    store.run(lambda session: session.execute(text("INSERT INTO note (what) VALUES ('z')")) and None)
    assert [id for id, _ in rows(lab, "primary", "note")] == [1, 2, 3, 4, 5]
    assert store.check().equal


def test_the_user_s_triggers_do_nothing_when_a_row_is_repaired(lab: Lab) -> None:
    """On either node: what they would do is among the rows that differ already, or isn't wanted."""
    if lab.postgresql:
        body = "CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE public.total SET n = n + 1; RETURN NULL; END $$"
        trigger = [body, "CREATE TRIGGER more AFTER INSERT OR UPDATE OR DELETE ON item FOR EACH ROW EXECUTE FUNCTION more()"]
    else:
        each = ("INSERT", "UPDATE", "DELETE")
        trigger = [f"CREATE TRIGGER more_{event} AFTER {event} ON item BEGIN UPDATE total SET n = n + 1; END" for event in each]
    tables = ["CREATE TABLE total (id integer PRIMARY KEY, n integer)", "CREATE TABLE item (id integer PRIMARY KEY, what text)"]
    store = adopted(lab, *tables, "INSERT INTO total VALUES (1, 0)", *trigger)
    store.run(lambda session: session.execute(text("INSERT INTO item VALUES (1, 'a'), (2, 'b')")) and None)
    store.sync()
    for source in NODES:
        quiet = ["SET LOCAL session_replication_role = replica"] if lab.postgresql else []
        behind_the_guard(lab, "standby", *quiet, f"UPDATE item SET what = '{source}' WHERE id = 1")
        assert store.repair(source=source, dry_run=False).complete  # type: ignore[arg-type]
        assert rows(lab, "primary", "total") == rows(lab, "standby", "total") == [(1, 2)]
    assert store.check().equal


VALUES = {
    "postgresql": (
        "a numeric, b jsonb, c bytea, d timestamptz, e double precision, f text[], g interval, h text, i int4range, j numeric GENERATED ALWAYS AS (a * 2) STORED",
        "1.00, '{\"a\": 1.0}', '\\x00ff', '2020-02-30'::text::date - 1, '-0', ARRAY['a', NULL], '1 mon', E'a''%\\\\b', '[1,5)'",
    ),
    "sqlite": (
        "a numeric, b blob, c, d text, e real, f text, g, h text, i integer",
        "1.5, x'00ff', '1', 'a''%b', -1e400, '', NULL, 'é\u2028', -9223372036854775808",
    ),
}


@pytest.mark.parametrize("source", NODES)
def test_values_of_many_types_arrive_exactly(lab: Lab, source: str) -> None:
    columns, values = VALUES["postgresql" if lab.postgresql else "sqlite"]
    values = values.replace("'2020-02-30'::text::date - 1", "'2020-02-29 12:00:00.123456+01'")
    names = ", ".join(part.split()[0] for part in columns.split(", ") if "GENERATED" not in part)
    store = adopted(
        lab, f"CREATE TABLE kinds (id integer PRIMARY KEY, {columns})", f"INSERT INTO kinds (id, {names}) VALUES (1, {values}), (2, {values})"
    )
    store.sync()
    behind_the_guard(lab, "standby", "DELETE FROM kinds WHERE id = 1", "UPDATE kinds SET a = 7, h = 'x' WHERE id = 2")
    behind_the_guard(lab, "standby", f"INSERT INTO kinds (id, {names}) VALUES (3, {values})")
    assert store.repair(source=source, dry_run=False).complete  # type: ignore[arg-type]
    report = store.check()
    assert report.equal, report.as_dict()
    assert {id for (id, *_) in rows(lab, "primary", "kinds")} == ({1, 2} if source == "primary" else {2, 3})


@pytest.mark.parametrize(("source", "switched"), list(itertools.product(NODES, (False, True))))
def test_a_mixed_pair_is_repaired_and_brought_back(mixed_lab: MixedLab, source: str, switched: bool) -> None:
    lab = mixed_lab
    store = filled(lab, "standby" if switched else "primary")
    spoiled(lab, "standby")
    wrong = other(source)
    before = lab.accounts(wrong)
    done = store.repair(source=source, dry_run=False)  # type: ignore[arg-type]
    assert (done.complete, len(done.done)) == (True, 3)
    report = store.check()
    assert report.equal, report.as_dict()
    assert done.id is not None
    assert len(store.undo_repair(done.id).done) == 3
    assert lab.accounts(wrong) == before


@pytest.mark.parametrize("source", NODES)
def test_keys_that_are_equal_to_the_database_and_written_otherwise_are_made_alike(lab: Lab, source: str) -> None:
    type, one, two = ("numeric", "1.0", "1.00") if lab.postgresql else ("text COLLATE NOCASE", "'a'", "'A'")
    store = adopted(lab, f"CREATE TABLE thing (id {type} PRIMARY KEY NOT NULL, what text)", f"INSERT INTO thing VALUES ({one}, 'x')")
    store.sync()
    behind_the_guard(lab, "standby", f"UPDATE thing SET id = {two}")
    assert store.repair(source=source, dry_run=False).complete  # type: ignore[arg-type]
    assert store.check().equal
    ((id, _),) = rows(lab, "primary", "thing")
    assert str(id) == (one if source == "primary" else two).strip("'")


@pytest.mark.parametrize("source", NODES)
def test_a_role_without_special_rights_repairs_too(ordinary_postgresql_pair: local.PostgresPair, source: str) -> None:
    with closing(Lab(ordinary_postgresql_pair)) as lab:
        store = family(lab, 3)
        behind_the_guard(lab, "standby", "UPDATE parent SET name = 'x' WHERE id = 1", "DELETE FROM child WHERE id = 2")
        done = store.repair(source=source, dry_run=False)  # type: ignore[arg-type]
        assert (done.complete, len(done.done)) == (True, 2)
        assert rows(lab, "primary", "child") == rows(lab, "standby", "child") == [(0, 0), (1, 1), (2, 2)][: 3 if source == "primary" else 2]
        assert store.check().equal
        behind_the_guard(lab, "standby", "UPDATE parent SET name = 'y' WHERE id = 1")
        plan = planned(store)
        lab.sql("standby", "ALTER TABLE child ADD CONSTRAINT by_hand FOREIGN KEY (parent_id) REFERENCES parent ON DELETE CASCADE")
        with pytest.raises(ReplicationStopped, match=r"foreign key by_hand on table .* would act"):
            carried_out(store, plan)
        assert (1, 1) in rows(lab, "standby", "child")
