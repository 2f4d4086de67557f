"""A caller's own commit is shipped in as few trips as can be, and no rule of shipping is left out for it."""

from __future__ import annotations

import math
from collections import Counter
from uuid import uuid4

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, text
from sqlalchemy.orm import Session

from replstore.databases.postgresql import sessions
from replstore.databases.postgresql.brief import BriefCarrier
from replstore.databases.postgresql.pipeline import Pipeline
from replstore.errors import NotTheWriter
from replstore.replication.journal.ship import Shipper
from replstore.store import Store
from tests.fix_stores import Account, FamilyBase, Lab, commit_as_store, insert, put


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many round trips the sessions of shippers have made."""
    counted: Counter[str] = Counter()

    class Counting(Pipeline):
        def end(self) -> None:
            counted["trips"] += 1
            super().end()

    monkeypatch.setattr(sessions, "Pipeline", Counting)
    return counted


def in_pace(lab: Lab) -> Store:
    """A Store whose last batches were brief ones."""
    store = lab.migrated(background=False, ack_timeout=10.0)
    for amount in range(3):
        store.run(put(1, amount))
    return store


def carrier(store: Store) -> BriefCarrier:
    found = shipper(store).carrier
    assert isinstance(found, BriefCarrier)
    return found


def shipper(store: Store) -> Shipper:
    ((found, _),) = store.pair.shipping._shippers.values()
    return found


def was_brief(store: Store) -> bool:
    return carrier(store)._ticked is not None


def ticks(lab: Lab) -> int:
    return int(lab.sql("primary", f"SELECT count(*) FROM {lab.name('tick')}")[0][0])


def mark(lab: Lab, id: str) -> None:
    """A transaction of a program that has not yet shipped it."""
    lead, program = lab.lead(), lab.connect("primary")
    values = f"'{id}', 'committed', 'replicated', {lead.term.number}"
    for statement in ("BEGIN", f"INSERT INTO {lab.name('marker')} (id, outcome, durability, term_no) VALUES ({values})", insert(7)):
        program.execute(statement)
    commit_as_store(program, id)


# -- how many trips


def test_a_commit_takes_three_trips(postgresql_lab: Lab, trips: Counter[str]) -> None:
    store = in_pace(postgresql_lab)
    trips.clear()
    store.run(put(1, 10))
    assert trips["trips"] == 3
    assert postgresql_lab.accounts("standby") == {1: 10}


def test_what_another_process_has_shipped_is_acknowledged_without_a_batch(lab: Lab, trips: Counter[str]) -> None:
    in_pace(lab)
    id = str(uuid4())
    mark(lab, id)
    lab.ship()
    before, waiting = ticks(lab), lab.shipper()
    trips.clear()
    assert waiting.ship(transactions=[id]).req is None
    assert trips["trips"] == (2 if lab.postgresql else 0)  # the second, a ROLLBACK, is not waited for
    assert ticks(lab) == before


def test_several_are_acknowledged_so_only_if_every_one_of_them_is_there(lab: Lab) -> None:
    in_pace(lab)
    one, other = str(uuid4()), str(uuid4())
    mark(lab, one)
    lab.ship()
    lab.sql("primary", insert(8))
    assert lab.shipper().ship(transactions=[one, other]).rows == 1


def test_a_transaction_that_is_known_to_be_lost_is_not_acknowledged_so(lab: Lab) -> None:
    in_pace(lab)
    id = str(uuid4())
    mark(lab, id)
    lab.ship()
    if lab.postgresql:
        lab.sql("standby", "ALTER TABLE replstore.marker DISABLE TRIGGER ALL")
    else:
        triggers = [name for (name,) in lab.sql("standby", "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'replstore_marker'")]
        lab.sql("standby", *(f"DROP TRIGGER {name}" for name in triggers), "SELECT 1")
    lab.sql("standby", f"UPDATE {lab.name('marker')} SET outcome = 'lost' WHERE id = '{id}'")
    lab.sql("primary", insert(8))
    assert lab.shipper().ship(transactions=[id]).rows == 1


@pytest.mark.parametrize("state", ["eligible_boot = NULL", "eligible_boot = 'before the restart'", "copying = true"])
def test_nor_is_one_on_a_follower_that_could_not_take_over(lab: Lab, state: str) -> None:
    in_pace(lab)
    id = str(uuid4())
    mark(lab, id)
    lab.ship()
    lab.sql("standby", f"UPDATE {lab.name('position')} SET {state}", f"DELETE FROM {lab.name('setting')} WHERE name = 'copying'")
    if "copying" in state:
        lab.sql("standby", f"INSERT INTO {lab.name('setting')} (name, value) VALUES ('copying', '{{}}')")
    shipped = lab.shipper().ship(transactions=[id])
    assert shipped.req is not None
    follower = lab.state("standby")
    assert follower.eligible_boot == follower.boot
    assert not follower.copying


# -- what a brief batch assumes


def test_a_batch_begins_anew_when_another_process_has_shipped_in_between(lab: Lab) -> None:
    store = in_pace(lab)
    lab.sql("primary", insert(2))
    lab.ship()
    store.run(put(1, 20))
    assert lab.accounts("standby") == lab.accounts("primary") == {1: 20, 2: 0}


def test_and_asks_first_until_nobody_else_ships(postgresql_lab: Lab, trips: Counter[str]) -> None:
    lab = postgresql_lab
    store = in_pace(lab)
    taken = []
    for amount in range(4):
        if amount < 2:
            lab.ship()
            lab.sql("primary", insert(10 + amount))
            lab.ship()
        trips.clear()
        store.run(put(1, amount))
        taken.append(trips["trips"])
    assert taken == [7, 4, 4, 3]  # tried in vain and then asked; asked; asked, and found to be alone; alone


def test_a_follower_that_was_left_behind_in_between_is_not_made_eligible_again(lab: Lab) -> None:
    """Its boot identity is what it was, and so are position and tick; only what a person's solo took from it says that it lacks something (HAZARDS 24)."""
    store = in_pace(lab)
    before = lab.state("primary").req
    lab.sql("standby", f"UPDATE {lab.name('position')} SET eligible_boot = NULL")
    store.run(put(1, 20))
    assert lab.state("primary").req == before + 1  # "follower required", before it was made eligible
    assert lab.accounts("standby") == {1: 20}


def test_a_follower_that_restarted_is_asked(lab: Lab) -> None:
    store = in_pace(lab)
    before = lab.state("primary").req
    lab.replace("standby")
    store.run(put(1, 20))
    assert lab.state("primary").req == before + 1
    follower = lab.state("standby")
    assert follower.eligible_boot == follower.boot


def test_a_follower_that_had_a_migration_more_stops_the_batch(lab: Lab) -> None:
    store = in_pace(lab)
    lab.sql("standby", f"UPDATE {lab.name('schema_no')} SET no = no + 1")
    lab.sql("primary", insert(2))
    with pytest.raises(Exception, match="schema_skew"):
        shipper(store).ship(transactions=[str(uuid4())])
    assert lab.accounts("standby") == {1: 2}


def test_a_journal_that_others_have_shipped_and_pruned_is_no_reason_to_stop(lab: Lab) -> None:
    """What the follower was after the last batch of this program is too old for the writer; what it is now isn't."""
    store = in_pace(lab)
    lab.sql("primary", insert(2))
    lab.ship()
    follower = lab.state("standby")
    lab.sql(
        "primary",
        f"UPDATE {lab.name('retention')} SET pruned_through = '{follower.position}'",
        f"DELETE FROM {lab.name('tick')} WHERE tick <> '{follower.tick}'",
    )
    store.run(put(1, 20))
    assert lab.accounts("standby") == {1: 20, 2: 0}
    assert store.pair.shipping.stopped == ""


def test_a_writer_that_acknowledges_alone_is_told_first_that_the_follower_is_back(lab: Lab) -> None:
    store = in_pace(lab)
    before = lab.state("primary").req
    lab.sql("primary", f"UPDATE {lab.name('acknowledge')} SET solo = {'true' if lab.postgresql else 1}", insert(2))
    shipper(store).ship(transactions=[str(uuid4())])
    writer = lab.state("primary")
    assert (writer.solo, writer.req) == (False, before + 1)
    assert lab.accounts("standby") == {1: 2, 2: 0}


def test_where_there_is_nothing_to_ship_the_follower_is_asked_all_the_same(lab: Lab) -> None:
    store = in_pace(lab)
    lab.sql("standby", f"UPDATE {lab.name('role')} SET role = 'writer', term_no = term_no + 1")
    with pytest.raises(NotTheWriter, match="standby is not a follower"):
        shipper(store).ship(transactions=[str(uuid4())])


def test_a_copy_s_parts_are_read_in_an_open_snapshot(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    store = in_pace(lab)
    lab.sql("standby", "UPDATE replstore.position SET copying = true, batch = batch + 1")
    lab.sql("standby", """UPDATE replstore.setting SET value = '{"public.account": null}' WHERE name = 'copying'""")
    lab.sql("primary", insert(2))
    shipper(store).ship(transactions=[str(uuid4())])
    assert not was_brief(store)
    assert lab.accounts("standby") == {1: 2, 2: 0}


def test_who_waits_for_everything_is_not_content_with_another_s_transaction(lab: Lab) -> None:
    store = in_pace(lab)
    id = str(uuid4())
    mark(lab, id)
    lab.ship()
    lab.sql("primary", insert(8))
    store.pair.shipping._ship(shipper(store), math.inf, [id, None])
    assert lab.accounts("standby") == {1: 2, 7: 0, 8: 0}


# -- the tick


def test_the_tick_of_a_brief_batch_is_committed_after_its_snapshot(postgresql_lab: Lab) -> None:
    """What the snapshot saw is earlier in the writer's log than the tick that the follower keeps (HAZARDS 23)."""
    lab = postgresql_lab
    store = in_pace(lab)
    store.run(put(1, 10))
    assert was_brief(store)
    ((position, tick),) = lab.sql("standby", "SELECT position, tick FROM replstore.position")
    visible = f"SELECT pg_visible_in_snapshot(xmin::text::xid8, '{position}') FROM replstore.tick WHERE tick = '{tick}'"
    assert lab.sql("primary", visible) == [(False,)]


def test_a_writer_that_went_back_in_time_is_found_by_a_brief_batch(lab: Lab) -> None:
    store = in_pace(lab)
    lab.sql("primary", f"DELETE FROM {lab.name('tick')}", insert(2))
    with pytest.raises(Exception, match="writer_rewound"):
        shipper(store).ship(transactions=[str(uuid4())])
    assert lab.accounts("standby") == {1: 2}


def test_old_ticks_go(lab: Lab) -> None:
    store = in_pace(lab)
    lab.sql("primary", *(f"INSERT INTO {lab.name('tick')} (tick, batch, at) VALUES ('old {n}', {n - 5000}, '')" for n in range(10)))
    for amount in range(100):
        store.run(put(1, amount))
    assert lab.sql("primary", f"SELECT count(*) FROM {lab.name('tick')} WHERE tick LIKE 'old%'") == [(0,)]


# -- what doesn't fit


def test_more_rows_than_a_brief_batch_takes_travel_as_in_any_other(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    store = in_pace(lab)
    store.run(lambda session: session.execute(text("INSERT INTO account SELECT n, 'owner ' || n, n FROM generate_series(100, 999) n")))
    assert not was_brief(store)
    assert lab.accounts("standby") == lab.accounts("primary")


def test_so_do_rows_of_a_table_that_no_batch_had_before(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    store = lab.migrated(FamilyBase.metadata, background=False, ack_timeout=10.0)
    brief = []
    for number in range(3):
        store.run(lambda session, number=number: session.execute(text(f"INSERT INTO parent VALUES ({number}, 'parent {number}')")))
        brief.append(was_brief(store))
    for number in range(3):
        store.run(lambda session, number=number: session.execute(text(f"INSERT INTO child VALUES ({number}, {number})")))
        brief.append(was_brief(store))
    assert brief == [False, True, True, False, True, True]
    assert lab.sql("standby", "SELECT id, parent_id FROM child ORDER BY id") == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize("change", ["TRUNCATE account", "INSERT INTO replstore.journal (tbl, keys) VALUES ('public.account', NULL)"])
def test_a_whole_table_is_read_in_an_open_snapshot(postgresql_lab: Lab, change: str) -> None:
    lab = postgresql_lab
    store = in_pace(lab)
    store.run(lambda session: session.execute(text(change)))
    assert not was_brief(store)
    assert lab.accounts("standby") == lab.accounts("primary")


def test_a_row_that_went_and_one_that_changed_its_key(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    store = in_pace(lab)
    store.run(put(2, 5))

    def change(session: Session) -> None:
        session.execute(text("DELETE FROM account WHERE id = 1"))
        session.execute(text("UPDATE account SET id = 3 WHERE id = 2"))

    store.run(change)
    assert was_brief(store)
    assert lab.accounts("standby") == {3: 5}


# -- what is read in full only when something has changed


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE account DISABLE TRIGGER USER",
        "DO $$ DECLARE t name; BEGIN SELECT tgname INTO t FROM pg_trigger WHERE tgrelid = 'account'::regclass AND tgname LIKE 'replstore%' LIMIT 1; "
        "EXECUTE format('DROP TRIGGER %I ON account', t); END $$",
        "ALTER TABLE account ADD COLUMN more int",
        "ALTER TABLE account ALTER COLUMN amount TYPE bigint",
        "ALTER TABLE account RENAME COLUMN amount TO sum",
        "ALTER TABLE account RENAME TO konto",
        "CREATE TABLE heir () INHERITS (account)",
        "CREATE RULE nothing AS ON DELETE TO account DO INSTEAD NOTHING",
        "ALTER TABLE account SET UNLOGGED",
        "UPDATE replstore.replicated SET fingerprint = '' WHERE tbl = 'public.account'",
    ],
    ids=["triggers off", "trigger dropped", "column", "type", "column's name", "name", "heir", "rule", "unlogged", "seen to be lost"],
)
def test_a_capture_that_is_lost_between_two_brief_batches_stops_the_second(postgresql_lab: Lab, change: str) -> None:
    lab = postgresql_lab
    store = in_pace(lab)
    lab.sql("primary", change)
    with pytest.raises(Exception, match="capture_missing"):
        shipper(store).ship(transactions=[str(uuid4())])


@pytest.mark.parametrize("change", ["ALTER TABLE child RENAME COLUMN parent_id TO father_id", "ALTER TABLE child DISABLE TRIGGER USER"])
def test_so_does_one_that_is_lost_on_a_table_of_which_no_batch_is(postgresql_lab: Lab, change: str) -> None:
    lab = postgresql_lab
    store = lab.migrated(FamilyBase.metadata, background=False, ack_timeout=10.0)
    for number in range(3):
        store.run(lambda session, number=number: session.execute(text(f"INSERT INTO parent VALUES ({number}, 'parent {number}')")))
    assert was_brief(store)
    lab.sql("primary", change)
    with pytest.raises(Exception, match=r"capture_missing: .*child"):
        shipper(store).ship(transactions=[str(uuid4())])


def test_a_sequence_that_moved_or_is_new_is_carried_by_a_brief_batch(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    lab.sql("primary", "CREATE SEQUENCE old")
    lab.sql("standby", "CREATE SEQUENCE old", "CREATE SEQUENCE new")
    store = in_pace(lab)
    lab.sql("primary", "SELECT nextval('old') FROM generate_series(1, 5)")
    store.run(put(1, 10))
    assert was_brief(store)
    assert lab.sql("standby", "SELECT last_value FROM old") == [(5,)]
    lab.sql("primary", "CREATE SEQUENCE new START 100", "SELECT nextval('new')")
    store.run(put(1, 11))
    assert lab.sql("standby", "SELECT last_value FROM new") == [(100,)]
    lab.sql("primary", "DROP SEQUENCE old")
    store.run(put(1, 12))
    assert lab.accounts("standby") == {1: 12}


def test_sequences_are_carried_anew_by_a_session_that_has_not_carried_them(postgresql_lab: Lab) -> None:
    """Whatever has become of the follower while the last one was lost."""
    lab = postgresql_lab
    for node in ("primary", "standby"):
        lab.sql(node, "CREATE SEQUENCE counter")
    store = in_pace(lab)
    lab.sql("primary", "SELECT setval('counter', 50)")
    store.run(put(1, 10))
    lab.sql("standby", "SELECT setval('counter', 3)")
    lab.sql(
        "standby",
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'replstore service' AND datname = current_database()",
    )
    store.run(put(1, 11))
    assert lab.sql("standby", "SELECT last_value FROM counter") == [(50,)]


def test_a_file_s_counters_are_carried(sqlite_lab: Lab) -> None:
    """A number that was given is never given again, also if its row has gone before any batch."""
    lab = sqlite_lab
    metadata = MetaData()
    Table("ticket", metadata, Column("id", Integer, primary_key=True), sqlite_autoincrement=True)
    store = lab.migrated(metadata, background=False, ack_timeout=10.0)
    for id in (1, 5, 9):
        with store.begin() as session:
            session.execute(text(f"INSERT INTO ticket VALUES ({id})"))
            session.execute(text("DELETE FROM ticket"))
        assert lab.sql("standby", "SELECT seq FROM sqlite_sequence WHERE name = 'ticket'") == [(id,)]


def test_many_brief_batches_leave_the_follower_equal(lab: Lab) -> None:
    store = in_pace(lab)
    for number in range(60):
        store.run(put(number % 7, number))
    assert lab.accounts("standby") == lab.accounts("primary")
    with Session(store.pair.primary.engine) as session:
        assert session.query(Account).count() == 7
