"""Hazard 7: nothing acts on a follower although its role lost a right or somebody adds something, and a takeover waits for its tables long enough."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import text

from replstore import local
from replstore.errors import CannotReplicate, ReplstoreError, SwitchoverFailed
from replstore.pair.takeover import take_over
from replstore.pair.watch import node_view
from replstore.store import Store
from tests.fix_stores import FamilyBase, Lab, until

RIGHT = "SET ON PARAMETER session_replication_role"


@pytest.fixture
def family(ordinary_postgresql_pair: local.PostgresPair) -> Iterator[Lab]:
    """A pair whose role may not switch triggers off for its session."""
    with closing(Lab(ordinary_postgresql_pair)) as lab:
        yield lab


@pytest.fixture
def privileged(family: Lab) -> Iterator[Lab]:
    """The same while the role has the right, on tables that hold a family."""
    _superuser(family, f"GRANT {RIGHT} TO ordinary")
    try:
        store = family.store(background=False)
        store.migrate(FamilyBase.metadata)
        _run(store, "INSERT INTO parent VALUES (1, 'a')", "INSERT INTO child VALUES (1, 1)")
        store.close()
        yield family
    finally:
        _superuser(family, f"REVOKE {RIGHT} FROM ordinary")


def test_a_role_that_loses_its_right_takes_the_foreign_keys_off_before_it_ships(privileged: Lab) -> None:
    assert privileged.sql("standby", "SELECT * FROM replstore.suspended") == []
    _superuser(privileged, f"REVOKE {RIGHT} FROM ordinary")
    store = privileged.store(background=False)
    _run(store, "UPDATE parent SET name = 'b'")
    assert privileged.sql("standby", "SELECT * FROM child") == [(1, 1)]
    assert store.check().equal
    store.switchover()
    _run(store, "DELETE FROM parent")
    assert privileged.sql("standby", "SELECT * FROM child") == []


@pytest.mark.parametrize("rights", [None, "ALL", "SELECT"])
def test_a_table_of_another_role_is_refused_by_name_before_the_first_change_of_roles_fails_for_it(family: Lab, rights: str | None) -> None:
    """The writer's half needs some rights only; but a node that has lost the role of the writer couldn't follow any more."""
    database, server = family.pair.database, family.pair.server("primary")  # type: ignore[attr-defined]
    for statement in ("CREATE SCHEMA theirs", "CREATE TABLE theirs.account (id int PRIMARY KEY)"):
        server.execute(statement, database)
    if rights:
        server.execute(f"GRANT USAGE ON SCHEMA theirs TO ordinary; GRANT {rights} ON theirs.account TO ordinary", database)
    if rights == "SELECT":
        _superuser(family, f"GRANT {RIGHT} TO ordinary")
    try:
        store = family.store(background=False)
        with pytest.raises(
            CannotReplicate, match=r"table theirs\.account belongs to .*postgres.*GRANT .* TO .*ordinary.*, or ALTER TABLE .* OWNER TO"
        ):
            store.migrate()
        server.execute("GRANT postgres TO ordinary", database)
        assert store.migrate().tables == ("theirs.account",)
        store.switchover()
        store.switchover()
        assert store.status().healthy
    finally:
        server.execute("REVOKE postgres FROM ordinary", database)
        if rights == "SELECT":
            _superuser(family, f"REVOKE {RIGHT} FROM ordinary")


def test_shipping_stops_and_says_so_where_they_cannot_be_taken_off(privileged: Lab) -> None:
    _superuser(privileged, f"REVOKE {RIGHT} FROM ordinary")
    database = privileged.pair.database  # type: ignore[attr-defined]
    server = privileged.pair.server("standby")  # type: ignore[attr-defined]
    for statement in ("ALTER TABLE child OWNER TO postgres", "GRANT ALL ON child TO ordinary"):
        server.execute(statement, database)
    store = privileged.store(background=False)
    with pytest.raises(ReplstoreError):
        _run(store, "UPDATE parent SET name = 'b'")
    assert store.status().stopped.startswith("follower_acts: on standby foreign key child_parent_id_fkey on table public.")
    assert "GRANT SET ON PARAMETER" in store.status().stopped
    assert privileged.sql("standby", "SELECT * FROM child") == [(1, 1)]
    server.execute("ALTER TABLE child OWNER TO ordinary", database)
    store.sync()
    assert privileged.sql("standby", "SELECT name FROM parent") == [("b",)]
    assert privileged.sql("standby", "SELECT * FROM child") == [(1, 1)]


def test_what_somebody_puts_on_a_follower_is_taken_off_before_the_next_batch(family: Lab) -> None:
    store = family.migrated(FamilyBase.metadata, background=False)
    _run(store, "INSERT INTO parent VALUES (1, 'a')", "INSERT INTO child VALUES (1, 1)")
    function = "CREATE FUNCTION bad() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM public.child; RETURN NULL; END $$"
    key = "ALTER TABLE child ADD CONSTRAINT by_hand FOREIGN KEY (parent_id) REFERENCES parent ON DELETE CASCADE"
    family.sql("standby", function, "CREATE TRIGGER bad AFTER INSERT ON parent FOR EACH ROW EXECUTE FUNCTION bad()", key)
    _run(store, "UPDATE parent SET name = 'b'")
    assert family.sql("standby", "SELECT * FROM child") == [(1, 1)]
    found = [difference.text for difference in store.check().schema]
    assert len(found) == 2
    assert any("bad" in text for text in found)
    assert any("by_hand" in text for text in found)


def test_a_takeover_waits_until_an_autovacuum_gives_way() -> None:
    settings = {"autovacuum_naptime": "1s"}
    with (
        local.postgresql_pair("wheel", fsync=False, settings=settings) as servers,
        servers.fresh("vacuumed", owner="ordinary") as pair,
        closing(Lab(pair)) as lab,
    ):
        store = lab.migrated(FamilyBase.metadata)
        _run(
            store, "INSERT INTO parent SELECT g, g FROM generate_series(1, 30000) g", "INSERT INTO child SELECT g, g FROM generate_series(1, 30000) g"
        )
        slow = "autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1, autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0"
        lab.sql("standby", f"ALTER TABLE child SET ({slow})")
        _run(store, "UPDATE child SET parent_id = parent_id")
        until(lambda: servers.server("standby").execute("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'autovacuum: VACUUM%.child%'"), "vacuum", 30)
        lab.kill("primary")
        _run(store, "UPDATE parent SET name = 'b' WHERE id = 1")
        assert lab.state("standby").role == "writer"
        assert lab.sql("standby", "SELECT conname FROM pg_constraint WHERE contype = 'f'") == [("child_parent_id_fkey",)]


def test_who_works_on_a_table_is_named_and_only_force_goes_on_without_its_foreign_keys(family: Lab) -> None:
    store = family.migrated(FamilyBase.metadata, background=False)
    store.sync()
    vacuum = family.connect("standby")
    vacuum.execute("LOCK TABLE child IN SHARE UPDATE EXCLUSIVE MODE")  # as VACUUM does
    seen = node_view(family.state("standby"), "standby")
    with pytest.raises(SwitchoverFailed, match=r"client backend, which works on table public\.child keeps it waiting"):
        take_over(family.nodes["standby"], seen, reason="", compare_heartbeat=True, seconds=0.1)
    assert family.state("standby").role == "follower"
    family.kill("primary")
    store.takeover(force=True)
    assert family.state("standby").role == "writer"
    vacuum.rollback()
    assert any("child_parent_id_fkey of table public.child isn't in force" in warning for warning in store.status().warnings)
    store.migrate()
    assert family.sql("standby", "SELECT conname FROM pg_constraint WHERE contype = 'f'") == [("child_parent_id_fkey",)]


def test_a_heartbeat_during_a_takeover_that_waits_is_no_contact(family: Lab) -> None:
    store = family.migrated(FamilyBase.metadata, background=False, probe_timeout=5.0)
    store.sync()
    view, _ = store.pair.look()
    vacuum = family.connect("standby")
    vacuum.execute("LOCK TABLE child IN SHARE UPDATE EXCLUSIVE MODE")
    node, seen = family.nodes["standby"], view.standby
    takeover = _thread(lambda: take_over(node, seen, reason="", compare_heartbeat=True, seconds=10.0))
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '{}%' AND datname = current_database()"
    until(lambda: family.sql("standby", waiting.format("ALTER TABLE")), "the takeover waits")
    heartbeat = _thread(lambda: store.pair.watch.heartbeat(view, "primary"))
    until(lambda: family.sql("standby", waiting.format("UPDATE replstore.heartbeat")) or not heartbeat.is_alive(), "the heartbeat waits")
    vacuum.rollback()
    for thread in (takeover, heartbeat):
        thread.join(timeout=20)
    assert family.state("standby").role == "writer"
    assert store.pair.watch.contact is None


def _thread(run: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=run)
    thread.start()
    return thread


def _superuser(lab: Lab, statement: str) -> None:
    for node in ("primary", "standby"):
        lab.pair.server(node).execute(statement)  # type: ignore[attr-defined]


def _run(store: Store, *statements: str) -> None:
    store.run(lambda session: [session.execute(text(statement)) for statement in statements] and None)
