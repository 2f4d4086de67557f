"""Status, from a process that has shipped nothing, says that changes aren't captured, or that a table isn't replicated at all."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table

from replstore import ReplicationStopped, Store, local
from replstore.pair.status import Status
from tests.fix_mixed import MixedLab
from tests.fix_stores import Lab
from tests.pair.test_status import looked, screen

LITE = "CREATE TABLE account (id INTEGER NOT NULL PRIMARY KEY, owner VARCHAR NOT NULL UNIQUE, amount INTEGER NOT NULL)"
GRES = "CREATE TABLE account (id serial PRIMARY KEY, owner varchar NOT NULL UNIQUE, amount integer NOT NULL)"
CAPTURE = "SELECT name, sql FROM sqlite_master WHERE name LIKE 'replstore_capture_insert_%' AND tbl_name = 'account'"
#: By kind of database, what a hand can do to a table so that changes of it go by.
LOSSES: dict[str, tuple[str, ...]] = {
    "sqlite: a trigger is dropped": ("DROP TRIGGER {capture}",),
    "sqlite: the table is made anew": ("DROP TABLE account", LITE),
    "sqlite: the table is gone": ("DROP TABLE account",),
    "postgresql: a trigger is dropped": ("DROP TRIGGER replstore_capture_update ON account",),
    "postgresql: a trigger is disabled": ("ALTER TABLE account DISABLE TRIGGER replstore_capture_delete",),
    "postgresql: all triggers are disabled": ("ALTER TABLE account DISABLE TRIGGER ALL",),
    "postgresql: the table is made anew": ("DROP TABLE account", GRES),
    "postgresql: the table is gone": ("DROP TABLE account",),
    "postgresql: the table becomes unlogged": ("ALTER TABLE account SET UNLOGGED",),
    "postgresql: a column is added": ("ALTER TABLE account ADD note text",),
}


def by_hand(lab: Lab, *statements: str) -> None:
    """What a person does on the primary."""
    for statement in statements:
        capture = lab.sql("primary", CAPTURE)[0][0] if "{capture}" in statement else ""
        lab.sql("primary", statement.format(capture=capture))


def warnings(status: Status) -> list[str]:
    """All but that the tests' servers write nothing to the disk."""
    return [warning for warning in status.warnings if "fsync" not in warning]


def account(lab: Lab) -> str:
    return "public.account" if lab.postgresql else "account"


@pytest.mark.parametrize("how", LOSSES)
def test_a_lost_capture_is_told_in_the_words_in_which_shipping_stops(how: str, request: pytest.FixtureRequest) -> None:
    lab: Lab = request.getfixturevalue(f"{how.split(':')[0]}_lab")
    lab.migrated(background=False).close()
    by_hand(lab, *LOSSES[how])
    status = looked(lab)
    fault = "the table is gone" if "gone" in how else "its columns or capture triggers are not those that migrate left"
    assert (
        status.stopped == f"capture_missing: table {account(lab)} on primary: {fault}; run `replstore migrate`, which mends it and copies the table"
    )
    assert not status.healthy
    assert f"Shipping: {status.stopped}" in screen(status)
    assert f"; shipping: {status.stopped}" in str(status)
    with pytest.raises(ReplicationStopped) as stops:
        lab.store(background=False).sync()
    assert str(stops.value) == status.stopped


def test_after_the_next_step_all_is_well(lab: Lab) -> None:
    store = lab.migrated(background=False)
    by_hand(lab, *LOSSES[f"{'postgresql' if lab.postgresql else 'sqlite'}: a trigger is dropped"])
    assert not looked(lab).healthy
    store.migrate()
    status = looked(lab)
    assert (status.stopped, warnings(status)) == ("", [])
    assert status.healthy


def test_a_capture_that_was_seen_lost_and_put_back_is_still_told(lab: Lab) -> None:
    lab.migrated(background=False).close()
    if lab.postgresql:
        by_hand(lab, "ALTER TABLE account DISABLE TRIGGER ALL")
        back = "ALTER TABLE account ENABLE TRIGGER ALL"
    else:
        ((_, back),) = lab.sql("primary", CAPTURE)
        by_hand(lab, "DROP TRIGGER {capture}")
    with pytest.raises(ReplicationStopped):
        lab.store(background=False).sync()
    lab.sql("primary", back)
    assert looked(lab).stopped.startswith(f"capture_missing: table {account(lab)} on primary")


def test_several_lost_captures_are_named_with_their_number(postgresql_lab: Lab) -> None:
    lab, tables = postgresql_lab, MetaData()
    for name in "abcdef":
        Table(name, tables, Column("id", Integer, primary_key=True))
    lab.migrated(tables, background=False).close()
    lab.sql("primary", *(f"ALTER TABLE {name} DISABLE TRIGGER ALL" for name in "abcde"))
    assert looked(lab).stopped == (
        "capture_missing: table public.a on primary: its columns or capture triggers are not those that migrate left, and so it is with 4 more "
        "(public.b, public.c, public.d and 1 more); run `replstore migrate`, which mends them and copies the tables"
    )


def test_a_table_that_no_migration_has_seen_is_warned_of(lab: Lab) -> None:
    store = lab.migrated(background=False)
    lab.sql("primary", "CREATE TABLE visit (id INTEGER PRIMARY KEY NOT NULL)")
    status = looked(lab)
    visit = "public.visit" if lab.postgresql else "visit"
    assert warnings(status) == [f"primary: table {visit} is not replicated: run `replstore migrate`"]
    assert f"Warning: {warnings(status)[0]}" in screen(status)
    assert status.healthy  # what is replicated is safe
    store.migrate()
    assert warnings(looked(lab)) == []


def test_of_many_tables_that_no_migration_has_seen_a_few_are_named(lab: Lab) -> None:
    lab.migrated(background=False).close()
    lab.sql("primary", *(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY NOT NULL)" for name in ("e", "d", "c", "b", "a")))
    schema = "public." if lab.postgresql else ""
    assert warnings(looked(lab)) == [f"primary: 5 tables are not replicated ({schema}a, {schema}b, {schema}c and 2 more): run `replstore migrate`"]


def test_what_is_no_table_of_the_users_is_not_warned_of(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    lab.sql("primary", "CREATE TABLE sale (id int PRIMARY KEY) PARTITION BY RANGE (id)", "CREATE TABLE sale_1 PARTITION OF sale DEFAULT")
    lab.migrated(background=False).close()
    lab.sql("primary", "CREATE VIEW several AS SELECT * FROM account", "CREATE MATERIALIZED VIEW kept AS SELECT * FROM account")
    assert warnings(looked(lab)) == []


def test_a_follower_that_would_capture_nothing_after_a_takeover_is_warned_of(lab: Lab) -> None:
    store = lab.migrated(background=False)
    drop = "ALTER TABLE account DISABLE TRIGGER ALL" if lab.postgresql else f"DROP TRIGGER {lab.sql('standby', CAPTURE)[0][0]}"
    lab.sql("standby", drop)
    status = looked(lab)
    assert warnings(status) == [
        f"standby: table {account(lab)}: its columns or capture triggers are not those that migrate left, so nothing would record its changes after a "
        "takeover: run `replstore migrate`"
    ]
    assert (status.stopped, status.healthy) == ("", True)  # it takes every batch
    store.migrate()
    assert warnings(looked(lab)) == []
    store.switchover()
    assert (looked(lab).stopped, warnings(looked(lab))) == ("", [])


@pytest.mark.parametrize("pair", ["sqlite_pair", "postgresql_pair", "ordinary_postgresql_pair"])
def test_what_replstore_itself_does_to_a_node_is_no_loss(pair: str, request: pytest.FixtureRequest) -> None:
    with contextlib.closing(Lab(request.getfixturevalue(pair))) as lab:
        tables = ["CREATE TABLE parent (id INTEGER PRIMARY KEY NOT NULL)", "CREATE TABLE child (id INTEGER PRIMARY KEY NOT NULL REFERENCES parent)"]
        trigger = "CREATE TRIGGER t AFTER INSERT ON child BEGIN UPDATE parent SET id = id; END"
        if lab.postgresql:
            tables += ["CREATE TABLE sale (id int PRIMARY KEY) PARTITION BY RANGE (id)", "CREATE TABLE sale_1 PARTITION OF sale DEFAULT"]
            trigger = "CREATE TRIGGER t BEFORE UPDATE ON child FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
        lab.sql("primary", *tables, trigger)
        store = lab.store(background=False, rejoin="manual")
        store.migrate()
        for former in ("primary", "standby"):
            lab.sql(former, "INSERT INTO parent VALUES (1)" if former == "primary" else "DELETE FROM parent")
            lab.kill(former)
            store.takeover("standby" if former == "primary" else "primary")
            assert warnings(store.status()) == []
            lab.start(former)
            store.rejoin()
            store.sync()
            assert (store.status().stopped, warnings(store.status())) == ("", [])


def test_a_table_of_the_follower_s_own_is_told_once_it_writes(lab: Lab) -> None:
    store = lab.migrated(background=False)
    lab.sql("standby", "CREATE TABLE visit (id INTEGER PRIMARY KEY NOT NULL)")
    assert (warnings(looked(lab)), looked(lab).healthy) == ([], True)
    store.takeover("standby", force=True)
    assert [warning for warning in warnings(looked(lab)) if "visit" in warning]


def test_status_waits_for_nobody_who_has_locked_a_table(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    lab.migrated(background=False).close()
    lab.sql("primary", "CREATE TABLE visit (id int PRIMARY KEY DEFAULT 1)", "ALTER TABLE account DISABLE TRIGGER ALL")
    hand = lab.connect("primary")
    hand.execute("LOCK TABLE account, visit IN ACCESS EXCLUSIVE MODE")
    status = looked(lab)
    assert status.stopped.startswith("capture_missing: table public.account")
    assert len(warnings(status)) == 1


def test_status_waits_for_nobody_who_writes_to_a_file(sqlite_lab: Lab) -> None:
    lab = sqlite_lab
    lab.migrated(background=False).close()
    by_hand(lab, "DROP TRIGGER {capture}")
    lab.connect("primary").execute("BEGIN IMMEDIATE")
    assert looked(lab).stopped.startswith("capture_missing: table account")


def test_a_pair_of_two_kinds_is_asked_as_well(mixed_lab: MixedLab) -> None:
    lab = mixed_lab
    lab.migrated(background=False).close()
    assert (looked(lab).stopped, warnings(looked(lab))) == ("", [])
    lab.sql("primary", "CREATE TABLE visit (id INTEGER PRIMARY KEY NOT NULL)")
    by_hand(lab, LOSSES["sqlite: a trigger is dropped" if lab.server == "standby" else "postgresql: a trigger is dropped"][0])
    status = looked(lab)
    assert warnings(status) == ["primary: table public.visit is not replicated: run `replstore migrate`"]
    with pytest.raises(ReplicationStopped) as stops:
        lab.store(background=False).sync()
    assert str(stops.value) == status.stopped


def test_a_file_that_gets_a_partner_of_the_other_kind_has_lost_nothing(sqlite_lab: Lab, postgresql_pair: local.PostgresPair) -> None:
    sqlite_lab.migrated(background=False).solo()
    with Store(primary=sqlite_lab.pair.primary_url, standby=postgresql_pair.standby_url, background=False) as store:
        status = store.status()
    assert (status.writer, status.stopped) == ("primary", "")


def test_what_status_says_of_a_lost_capture_is_in_its_json(sqlite_lab: Lab) -> None:
    sqlite_lab.migrated(background=False).close()
    sqlite_lab.sql("primary", "CREATE TABLE visit (id INTEGER PRIMARY KEY NOT NULL)")
    by_hand(sqlite_lab, "DROP TRIGGER {capture}")
    facts: dict[str, Any] = looked(sqlite_lab).as_dict()
    assert facts["stopped"].startswith("capture_missing: table account on primary")
    assert facts["warnings"] == ["primary: table visit is not replicated: run `replstore migrate`"]
