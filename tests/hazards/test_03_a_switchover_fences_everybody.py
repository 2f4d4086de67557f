"""Hazard 3: no transaction of anybody's commits under the old term once a switchover is done."""

from __future__ import annotations

import sqlite3

import psycopg
import pytest

from replstore.errors import SwitchoverFailed
from tests.fix_stores import Lab, insert, put


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
