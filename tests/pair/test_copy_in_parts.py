"""A filled writer's tables are copied to a follower in parts, while writes go on; a copy that breaks off goes on where it was."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from replstore.errors import CommittedNotReplicated
from replstore.replication.journal import copying
from replstore.replication.mirror import to_copy
from tests.fix_copies import Broken, die_at, filled, half_copied, parts, watched
from tests.fix_stores import Base, Lab, put

pytestmark = pytest.mark.usefixtures("small_parts")


def test_a_large_table_comes_in_parts_and_each_row_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(lab)
    store = lab.store(background=False)
    batches = watched(store, monkeypatch, lambda batch: None)
    store.migrate(Base)
    assert parts(batches) == [(None, "[9]"), ("[9]", "[19]"), ("[19]", "[29]"), ("[29]", "[39]"), ("[39]", None)]
    assert lab.accounts("standby") == lab.accounts("primary") == {id: id for id in range(45)}
    assert store.check().equal
    assert store.status().healthy


def test_a_copy_that_broke_off_goes_on_where_it_was(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    store = half_copied(lab, monkeypatch)
    assert set(lab.accounts("standby")) == set(range(30))
    assert "it is being copied; " in store.status().nodes["standby"].state
    assert "up to key [29]" in store.status().nodes["standby"].state
    store.close()
    later = lab.store(background=False)
    batches = watched(later, monkeypatch, lambda batch: None)
    later.sync()
    assert parts(batches) == [("[29]", "[39]"), ("[39]", None)]
    assert lab.accounts("standby") == lab.accounts("primary")
    assert later.check().equal


def test_a_follower_is_neither_read_nor_promoted_before_its_copy_is_whole(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    store = half_copied(lab, monkeypatch)
    follower = lab.state("standby")
    assert (follower.copying, follower.eligible_boot) == (True, None)
    with store.read(node="follower") as session:
        assert session.scalar(text("SELECT count(*) FROM account")) == 45  # from the writer


def test_what_is_written_during_the_copy_is_acknowledged_and_arrives(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The follower has nothing yet and can't take over, so the writer may acknowledge alone; in parts behind and before the copy's place alike."""
    filled(lab)
    store = lab.store(background=False)
    program = lab.connect("primary")
    if lab.postgresql:
        program.autocommit = True

    def write(batch: int) -> None:
        if batch < 5:
            assert lab.state("primary").solo
            # in a part that is there, in one that is still to come; moved from one to the other, and removed from both
            for statement in (
                f"UPDATE account SET amount = {100 + batch} WHERE id IN (1, 44)",
                f"UPDATE account SET id = {50 + batch} WHERE id = {2 + batch}",
                f"DELETE FROM account WHERE id IN ({10 + batch}, {40 - batch})",
                f"INSERT INTO account VALUES ({-1 - batch}, 'new {batch}', 0)",
            ):
                program.execute(statement)

    watched(store, monkeypatch, write)
    store.migrate(Base)
    assert lab.accounts("standby") == lab.accounts("primary") == {**lab.accounts("primary"), 1: 104, 44: 104, 54: 6, -5: 0}
    assert not lab.state("primary").solo
    assert store.check().equal


def test_what_was_journalled_before_the_first_part_is_in_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    store = half_copied(lab, monkeypatch, at=0)
    lab.sql("primary", "UPDATE account SET amount = 7 WHERE id = 3", "INSERT INTO account VALUES (100, 'new', 0)", "DELETE FROM account WHERE id = 5")
    store.sync()
    assert lab.accounts("standby") == lab.accounts("primary")
    assert (lab.accounts("standby")[3], lab.accounts("standby")[100], len(lab.accounts("standby"))) == (7, 0, 45)


def test_a_pair_that_never_goes_solo_acknowledges_nothing_during_the_copy(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    store = half_copied(lab, monkeypatch, on_follower_down="block", ack_timeout=0.3)
    monkeypatch.setattr(store.pair.shipping, "_ship", lambda shipper: (_ for _ in ()).throw(Broken()))
    with pytest.raises(CommittedNotReplicated):
        store.run(put(1000))


def test_a_migration_during_the_copy_begins_anew_what_it_changed_and_only_that(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(lab)
    key = "serial" if lab.postgresql else "INTEGER NOT NULL"
    lab.sql(
        "primary", f"CREATE TABLE zoo (id {key} PRIMARY KEY, name text)", "INSERT INTO zoo VALUES " + ", ".join(f"({id}, 'a')" for id in range(25))
    )
    store = lab.store(background=False)
    with monkeypatch.context() as patch, pytest.raises(Broken):
        watched(store, patch, die_at(3))
        store.migrate()
    with lab.nodes["standby"].snapshot() as connection:
        left = {name.split(".")[-1]: at for name, at in to_copy(lab.nodes["standby"], connection).items()}
    assert left["account"] == "[29]"
    assert left["zoo"] is None
    lab.sql("primary", "ALTER TABLE zoo ADD COLUMN age integer")
    batches = watched(store, monkeypatch, lambda batch: None)
    store.migrate()
    assert parts(batches)[0] == ("[29]", "[39]")
    assert len(parts(batches)) == 2  # zoo comes once, whole, with what its journal says
    assert store.check().equal


KEYS = {
    "text": ("varchar(20)", [f"'{word}'" for word in ("", "A", "B", "Z", "a", "b", "quo''te", "z", "ä", "%s", "back\\\\slash", "{x}")]),
    "two columns": ("integer, b varchar(9)", [f"{a}, '{b}'" for a in (1, 2, 3, -1) for b in ("x", "y", "Z")]),
    "blob": ("{blob}", ["{x}'00'", "{x}''", "{x}'ff'", "{x}'00ff'", "{x}'41'", "{x}'4142'", "{x}'80'", "{x}'7f'", "{x}'aa'", "{x}'ab'", "{x}'ac'"]),
}


@pytest.mark.parametrize("of", KEYS)
def test_parts_of_any_key_lose_no_row(lab: Lab, of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "ROWS", 3)
    type, values = KEYS[of]
    blob, x = ("bytea", "'\\x") if lab.postgresql else ("blob", "x")
    column = type.replace("{blob}", blob)
    names = "a, b" if " b " in column else "a"
    rows = [value.replace("{x}'", x if lab.postgresql else "x'") for value in values if of == "blob"] or values
    nulls = column.replace(", b", " NOT NULL, b")
    lab.sql("primary", f"CREATE TABLE t (a {nulls} NOT NULL, v integer, PRIMARY KEY ({names}))")
    lab.sql("primary", f"INSERT INTO t ({names}, v) VALUES " + ", ".join(f"({row}, 1)" for row in rows))
    store = lab.store(background=False)
    batches = watched(store, monkeypatch, lambda batch: None)
    store.migrate()
    assert len(parts(batches)) == (len(rows) + 2) // 3 or len(rows) % 3 == 0
    assert all(json.loads(upto) for _, upto in parts(batches) if upto)
    assert sorted(lab.sql("standby", "SELECT * FROM t")) == sorted(lab.sql("primary", "SELECT * FROM t"))
    assert store.check().equal
