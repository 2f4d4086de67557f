"""Hazard 3: no transaction of anybody's commits under the old term once a switchover is done."""

from __future__ import annotations

import logging
import sqlite3
from typing import Any

import psycopg
import pytest

from replstore.errors import NotTheWriter, SwitchoverFailed
from replstore.pair import by_hand, takeover
from replstore.pair.decide import Term
from replstore.pair.flip import settle_guard
from replstore.pair.rejoin import fence_former, rejoin
from replstore.pair.switchover import hand_over, take_back
from replstore.pair.takeover import take_over
from replstore.pair.view import View
from replstore.pair.watch import node_view
from tests.fix_stores import Lab, insert, put


class Died(Exception):
    """A program ended at this place."""


def test_an_open_transaction_that_has_written_ends_first_or_is_named(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    store = lab.migrated(background=False)
    program = lab.connect("primary")
    program.execute(insert(1))
    with pytest.raises(SwitchoverFailed, match=f"backend {program.info.backend_pid}"):
        store.switchover(timeout=0.5)
    assert lab.state("primary").role == "writer"
    program.commit()
    store.switchover()
    assert lab.accounts("standby") == {1: 0}


def test_a_file_whose_write_lock_is_held_keeps_its_role(sqlite_lab: Lab) -> None:
    lab = sqlite_lab
    store = lab.migrated(background=False)
    program = lab.connect("primary")
    program.execute("BEGIN IMMEDIATE")
    program.execute(insert(1))
    with pytest.raises(SwitchoverFailed, match="write lock"):
        store.switchover(timeout=0.5)
    assert lab.state("primary").role == "writer"
    program.execute("COMMIT")
    store.switchover()
    assert lab.accounts("standby") == {1: 0}


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_a_transaction_begun_before_the_switchover_writes_nothing_after_it(postgresql_lab: Lab, isolation: str) -> None:
    lab = postgresql_lab
    store = lab.migrated(background=False)
    program = lab.connect("primary")
    program.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
    assert program.execute("SELECT count(*) FROM account").fetchone() == (0,)  # the snapshot is older than the flip
    assert program.execute(f"SELECT role FROM {lab.name('role')}").fetchone() == ("writer",)
    store.switchover()
    with pytest.raises(psycopg.Error) as refused:
        program.execute(insert(1))
        program.commit()
    assert refused.value.sqlstate in ("RS001", "40001")
    program.rollback()
    assert lab.accounts("primary") == lab.accounts("standby") == {}


def test_a_file_s_reader_from_before_the_switchover_writes_nothing_after_it(sqlite_lab: Lab) -> None:
    lab = sqlite_lab
    store = lab.migrated(background=False)
    program = lab.connect("primary")
    program.execute("BEGIN")
    assert program.execute("SELECT count(*) FROM account").fetchone() == (0,)
    store.switchover()
    with pytest.raises(sqlite3.OperationalError):
        program.execute(insert(1))
    program.execute("ROLLBACK")
    with pytest.raises(sqlite3.IntegrityError, match="not the writer"):
        program.execute(insert(1))
    assert lab.accounts("primary") == lab.accounts("standby") == {}


def test_a_prepared_transaction_is_named_and_holds_the_switchover_up_even_over_a_crash(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    store = lab.migrated(background=False)
    program = lab.connect("primary")
    program.execute(insert(1))
    program.execute("PREPARE TRANSACTION 'two phases'")
    program.commit()
    lab.crash("primary")
    with pytest.raises(SwitchoverFailed, match="two phases"):
        store.switchover(timeout=0.5)
    lab.sql("primary", "COMMIT PREPARED 'two phases'")
    store.switchover()
    assert lab.accounts("standby") == {1: 0}


def test_after_a_switchover_the_former_writer_refuses_everybody(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    store.switchover()
    for statement in (insert(2), "UPDATE account SET amount = 1", "DELETE FROM account"):
        with pytest.raises((psycopg.Error, sqlite3.Error), match="not the writer"):
            lab.sql("primary", statement)
    store.run(put(3))
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 3: 0}


def test_a_node_that_writes_again_refuses_a_transaction_of_its_earlier_term(lab: Lab) -> None:
    """The marker is a transaction's first act, and carries the term under which its program believes the node to write."""
    store = lab.migrated(background=False)
    store.switchover()
    store.switchover()
    assert (lab.state("primary").role, lab.state("primary").term_no) == ("writer", 3)
    marker = f"INSERT INTO {lab.name('marker')} (id, outcome, durability, term_no) VALUES ('{{0}}', 'committed', 'async', {{0}})"
    for term in (1, 2, 4):
        with pytest.raises((psycopg.Error, sqlite3.Error), match="not the writer of"):
            lab.sql("primary", marker.format(term))
    lab.sql("primary", marker.format(3))
    assert "3" in lab.markers("primary")


@pytest.mark.parametrize("changed", ["role", "term"])
def test_a_node_that_is_no_longer_the_writer_of_that_term_hands_nothing_over(sqlite_lab: Lab, changed: str) -> None:
    lab = sqlite_lab
    lab.migrated(background=False)
    node, term = ("standby", lab.lead().term) if changed == "role" else ("primary", Term(1, "another"))
    before = lab.state(node)
    with pytest.raises(NotTheWriter, match=f"{node} is no longer the writer of term 1"):
        hand_over(lab.nodes[node], term, seconds=1.0)
    assert lab.state(node) == before


def test_only_an_unfinished_switchover_of_the_same_term_is_taken_back(sqlite_lab: Lab) -> None:
    lab = sqlite_lab
    lab.migrated(background=False)
    primary, term = lab.nodes["primary"], lab.lead().term
    take_back(lab.nodes["standby"], term)
    assert lab.state("standby").role == "follower"
    hand_over(primary, term, seconds=1.0)
    take_back(primary, Term(1, "another"))
    assert lab.state("primary").role == "fenced"
    take_back(primary, term)
    assert lab.state("primary").role == "writer"
    fence_former(primary, Term(2, "later"))
    take_back(primary, term)  # the follower has taken over since
    assert lab.state("primary").role == "fenced"


# -- on PostgreSQL the guard is a sequence, which no rollback touches: it opens last, and only where the role row says writer


def test_a_takeover_that_fails_leaves_the_guard_closed(postgresql_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = postgresql_lab
    lab.migrated(background=False)
    standby = lab.nodes["standby"]
    monkeypatch.setattr(standby.database, "jump_sequences", _die)
    with pytest.raises(Died):
        take_over(standby, node_view(lab.state("standby"), "standby"), reason="a test", compare_heartbeat=True)
    assert lab.state("standby").role == "follower"
    with pytest.raises(psycopg.Error, match="not the writer"):
        lab.sql("standby", insert(1))


def test_a_takeover_whose_program_dies_before_the_guard_opens_is_finished_by_the_next_one(
    postgresql_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = postgresql_lab
    store = lab.migrated(background=False)
    lab.kill("primary")
    with monkeypatch.context() as patch:
        patch.setattr(takeover, "settle_guard", _die)
        with pytest.raises(Died):
            take_over(lab.nodes["standby"], node_view(lab.state("standby"), "standby"), reason="a test", compare_heartbeat=True)
    assert lab.state("standby").role == "writer"
    with pytest.raises(psycopg.Error, match="not the writer"):
        lab.sql("standby", insert(1))
    store.run(put(1))
    assert lab.accounts("standby") == {1: 0}


def test_the_second_half_of_a_takeover_that_comes_late_opens_no_guard(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    lab.migrated(background=False)
    settle_guard(lab.nodes["standby"])  # which isn't the writer, or not any more
    with pytest.raises(psycopg.Error, match="not the writer"):
        lab.sql("standby", insert(1))


def _die(*_: Any, **__: Any) -> None:
    raise Died


def test_a_store_s_transaction_that_was_open_during_a_switchover_takes_effect_once_at_the_new_writer(lab: Lab) -> None:
    store = lab.migrated()
    other = lab.store(background=False)
    with other.begin() as session:  # it has begun, with its marker, on the first writer
        with pytest.raises(SwitchoverFailed):
            store.switchover(timeout=0.3)
        put(1)(session)
    store.switchover()
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0}
    assert other.run(put(2)) is None
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 2: 0}
    assert lab.state("standby").role == "writer"


def test_a_follower_that_is_slow_to_answer_is_asked_again(
    postgresql_lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lab = postgresql_lab
    store = lab.migrated(background=False)
    view, looks = store.pair.watch.view, []

    def slow() -> View:
        looks.append(lab.state("primary").role)
        if looks[-1] != "fenced" or looks.count("fenced") > 2:
            return view()
        lab.pair.freeze("standby")
        try:
            return view()
        finally:
            lab.pair.thaw("standby")

    monkeypatch.setattr(store.pair.watch, "view", slow)
    store.switchover()
    assert "another program finishes the switchover" not in caplog.text
    assert (lab.state("primary").role, lab.state("standby").role) == ("follower", "writer")


def test_a_former_writer_follows_though_its_first_attempt_to_rejoin_fails(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    store, fails = lab.migrated(background=False), [OSError("the network")]

    def rejoins(*args: Any, **options: Any) -> int:
        if fails:
            raise fails.pop()
        return rejoin(*args, **options)

    monkeypatch.setattr(by_hand, "rejoin", rejoins)
    store.switchover()
    assert not fails
    assert (lab.state("primary").role, lab.state("standby").role) == ("follower", "writer")
