"""Retention: journal, markers and ticks stay small however long a pair runs, and nothing that reads them minds."""

from __future__ import annotations

import time
from uuid import uuid4

import pytest

from replstore import Store
from replstore.reconcile.snapshots import both_nodes
from replstore.replication.journal import retain
from replstore.replication.journal.retain import Retention, prune_journal
from tests.fix_check import between_the_snapshots
from tests.fix_mixed import MixedLab
from tests.fix_stores import Lab, count, insert, put, until
from tests.hazards.test_29_a_tombstone_counts_only_where_it_holds import place
from tests.hazards.test_29_markers_are_pruned_only_when_no_one_needs_them import DAY, age, at_once, both, bury, work

__all__ = ["at_once"]


def rows(lab: Lab, node: str, table: str) -> int:
    return int(lab.sql(node, f"SELECT count(*) FROM {lab.name(table)}")[0][0])


def sizes(lab: Lab) -> dict[str, int]:
    """The rows of what could grow, on both nodes."""
    return {f"{node} {table}": rows(lab, node, table) for node in ("primary", "standby") for table in ("journal", "marker", "tick")}


@pytest.mark.slow
def test_after_many_transactions_and_changes_of_roles_everything_is_small(lab: Lab, at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper itself prunes, of a Store whose programs write; each round is a day, and ends with a switchover or a lost writer."""
    store = lab.migrated(durability="async", takeover_timeout=20.0)
    store.run(place, key="order-7")
    writers = []
    for round in range(4):
        writer = store.status().writer
        assert writer is not None
        writers.append(writer)
        for n in range(300):
            store.run(lambda session, n=n: [put(id, n)(session) for id in range(10 * n, 10 * n + 3)])
        store.sync()
        age(lab, only="key IS NULL")
        until(lambda: max(sizes(lab).values()) < 250, f"round {round}: {sizes(lab)}", 30.0)
        store.switchover()
        until(lambda: store.status().healthy, "the former writer follows")
    assert writers == ["primary", "standby", "primary", "standby"]
    age(lab, only="key IS NULL")
    store.sync()
    until(lambda: rows(lab, "primary", "marker") == rows(lab, "standby", "marker") == 1, "one key is left")
    assert store.run(place, key="order-7") == 7
    assert store.check().equal


def test_a_former_writer_that_follows_has_no_ticks_and_no_journal_of_its_own(lab: Lab) -> None:
    store = lab.migrated(background=False)
    for turn in range(3):
        writer, follower = ("primary", "standby") if turn % 2 == 0 else ("standby", "primary")
        for id in range(10):
            store.run(put(id, turn))
        assert rows(lab, writer, "tick") >= 10
        assert (rows(lab, follower, "tick"), rows(lab, follower, "journal")) == (0, 0)
        store.switchover()


def test_a_journal_of_many_entries_goes_in_short_transactions_between_which_others_write(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retain, "PIECE", 10)
    store = lab.migrated(background=False)
    for start in range(0, 60, 3):
        store.run(lambda session, start=start: [put(id)(session) for id in range(start, start + 3)])
    ahead, behind = lab.state("primary"), lab.state("standby")
    assert behind.position is not None
    before = rows(lab, "primary", "journal")
    assert not prune_journal(lab.nodes["primary"], ahead, behind, behind.position, until=time.monotonic())
    assert rows(lab, "primary", "journal") == before - 10
    store.run(put(99))
    assert prune_journal(lab.nodes["primary"], ahead, behind, behind.position, until=time.monotonic() + 60)
    assert rows(lab, "primary", "journal") <= 4  # what was written since
    assert lab.accounts("standby").keys() == {*range(60), 99}


def test_markers_are_looked_through_in_pieces_whatever_stays_in_between(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replstore.databases.postgresql.retention.PAGES", 1)
    monkeypatch.setattr("replstore.databases.sqlite.retention.PIECE", 7)
    store = lab.migrated(background=False)
    columns = f"INSERT INTO {lab.name('marker')} (id, key, outcome, durability, term_no) VALUES "
    ids = [str(uuid4()) for _ in range(200)]
    lab.sql("primary", columns + ", ".join(f"('{id}', {'NULL' if n % 3 else repr(id)}, 'committed', 'async', 1)" for n, id in enumerate(ids)))
    store.sync()
    age(lab)
    position = lab.state("standby").position
    assert position is not None
    found, after, pieces = list[str](), None, 0
    while pieces == 0 or after is not None:
        with lab.nodes["primary"].begin() as connection:
            more, after = lab.nodes["primary"].database.old_markers(connection, position, seconds=DAY, after=after)
        found, pieces = found + more, pieces + 1
    assert sorted(found) == sorted(id for n, id in enumerate(ids) if n % 3)
    assert pieces > 2


def test_what_was_pruned_further_is_never_said_to_be_pruned_less(lab: Lab) -> None:
    """Two programs prune by what each of them has seen of the follower: the later position counts, else a follower from between them would go on."""
    store = lab.migrated(background=False)
    positions = []
    for id in (1, 2, 3):
        store.run(put(id))
        positions.append(lab.state("standby").position)
    node = lab.nodes["primary"]
    for position in (positions[2], positions[0]):
        with node.begin() as connection:
            node.database.prune(connection, str(position))
    assert lab.sql("primary", f"SELECT pruned_through FROM {lab.name('retention')}") == [(positions[2],)]


def test_a_program_prunes_what_the_follower_confirmed_a_while_ago_only(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a check that has read the follower just now finds in the writer's journal what the follower doesn't have."""
    clock = [1000.0]
    monkeypatch.setattr(retain.time, "monotonic", lambda: clock[0])
    store = lab.migrated(background=False)
    retention = Retention(DAY)
    monkeypatch.setattr(retention, "_next_walk", 0.0)

    def look() -> None:
        retention.work(*both(lab), lab.state("primary"), lab.state("standby"))

    store.run(put(1))
    age(lab)
    lab.ship()
    look()
    store.run(put(2))
    clock[0] += retain.CONFIRMED - 0.1
    look()
    assert (rows(lab, "primary", "journal") > 3, rows(lab, "primary", "marker")) == (True, 2)
    clock[0] += 0.1
    look()
    assert 0 < rows(lab, "primary", "journal") <= 3
    assert rows(lab, "primary", "marker") == 2
    clock[0] += retain.SETTLED - retain.CONFIRMED - 0.1
    look()
    assert rows(lab, "primary", "marker") == 2
    clock[0] += 0.1
    look()
    assert rows(lab, "primary", "marker") == rows(lab, "standby", "marker") == 1


def test_a_mixed_pair_forgets_on_both_sides_whichever_writes(mixed_lab: MixedLab, at_once: None) -> None:
    store = mixed_lab.migrated(background=False)
    for turn, writer in enumerate(("primary", "standby")):
        store.run(put(turn))
        store.run(place, key="order-7") if turn else bury(store)
        store.sync()
        mixed_lab.sql(mixed_lab.server, "UPDATE replstore.marker SET at = at - interval '2 days'")
        mixed_lab.sql(
            mixed_lab.sqlite,
            "UPDATE replstore_mark SET mark = 'apply'",
            "UPDATE replstore_marker SET at = strftime('%Y-%m-%d %H:%M:%f', at, '-2 days')",
            "UPDATE replstore_mark SET mark = NULL",
        )
        store.run(put(10 + turn))
        store.sync()
        work(mixed_lab, Retention(DAY), writer)
        assert mixed_lab.markers("primary") == mixed_lab.markers("standby")
        assert len(mixed_lab.markers("primary")) == 1 + turn  # a young one, and the key
        store.switchover()


# --- with those who read it


def test_a_check_is_exact_while_a_keeper_prunes(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    retention = Retention(DAY)

    def write_ship_and_prune() -> None:
        for id in (2, 3):
            lab.sql("primary", insert(id))
            lab.ship()
            work(lab, retention)
        lab.sql("primary", insert(4))

    with between_the_snapshots(store, write_ship_and_prune) as opened:
        report = store.check()
    assert (report.equal, report.exact, report.waiting) == (True, True, 3)
    assert opened == ["standby", "primary"]


def test_what_a_check_has_read_stays_read_when_it_is_pruned(lab: Lab, at_once: None) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.sql("primary", insert(2))
    with both_nodes(store.pair) as nodes:
        lab.ship()
        age(lab)
        work(lab, Retention(DAY))
        assert rows(lab, "primary", "journal") == rows(lab, "primary", "marker") == 0
        assert {table: len(keys or ()) for table, keys in nodes.pending.items()} in ({"account": 1}, {"public.account": 1})
        assert nodes.writer.node.database.unshipped_keys(nodes.writer.connection, nodes.follower.state.position or "") == nodes.pending


def test_tokens_hold_before_and_after_all_that_they_stand_for_was_pruned(lab: Lab, at_once: None) -> None:
    store = lab.migrated(background=False, ack_timeout=10.0)
    store.run(put(1))
    before = store.token()
    age(lab)
    work(lab, Retention(DAY))
    assert sizes(lab)["primary journal"] == sizes(lab)["primary marker"] == 0
    after = store.token()
    tokens = [before, after]
    for expected in (1, 2):
        for token in tokens:
            with store.read(node="follower", after=token) as session:
                assert count(session) == expected
        store.run(put(2))
        tokens.append(store.token())
    store.switchover()
    for token in tokens:
        with store.read(after=token) as session:
            assert count(session) == 2


def test_a_token_of_what_was_not_shipped_is_not_on_the_follower_although_all_else_was_pruned(lab: Lab, at_once: None) -> None:
    store = lab.migrated(background=False, durability="async")
    store.run(put(1))
    store.sync()
    age(lab)
    work(lab, Retention(DAY))
    store.run(put(2))
    with store.read(node="any", after=store.token()) as session:  # the writer: nobody waits for the follower here
        assert count(session) == 2
    assert len(lab.accounts("standby")) == 1


# --- what status says


def test_status_names_what_keeps_the_journal_from_being_pruned(postgresql_lab: Lab) -> None:
    store: Store = postgresql_lab.migrated(background=False)
    assert store.status().pinned == []
    one = postgresql_lab.connect("primary")
    one.execute(insert(1))
    one.execute("PREPARE TRANSACTION 'forgotten'")
    store.run(put(2))
    (sentence,) = store.status().pinned
    assert sentence.startswith("primary: prepared transaction 'forgotten' of ")
    assert sentence.endswith("keeps what was journalled since from being pruned (1 entries by now)")
    assert store.status().healthy
    postgresql_lab.sql("primary", "ROLLBACK PREPARED 'forgotten'")
    assert store.status().pinned == []


def test_status_counts_what_is_not_known_to_be_on_the_follower(lab: Lab) -> None:
    store = lab.migrated(background=False, durability="async", max_backlog=1000)
    store.run(put(1))
    store.sync()
    status = store.status()
    assert (status.unconfirmed, status.unconfirmed_for, status.max_backlog) == (0, None, 1000)
    lab.kill("standby")
    for id in (2, 3):
        store.run(put(id))
    lab.sql("primary", insert(4))
    status = store.status()
    assert status.unconfirmed == 2
    assert status.unconfirmed_for is not None
    assert 0 <= status.unconfirmed_for < 60
    assert status.nodes["standby"].waiting == 3
    late = lab.store(background=False).status()  # which has never seen the follower, and counts what the journal still has
    assert (late.unconfirmed or 0) >= 2
