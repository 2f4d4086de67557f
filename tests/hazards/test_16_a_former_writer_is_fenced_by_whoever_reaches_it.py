"""Hazard 16: between a takeover and the rejoin nobody has told the former writer; once any Store reaches it, its own database refuses everybody."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace

import psycopg
import pytest

from replstore.errors import CommittedNotReplicated, NoWriter, TransactionLost
from tests.fix_stores import Lab, insert, put, until

REFUSED = (psycopg.Error, sqlite3.Error)


def test_what_others_write_on_a_former_writer_is_an_orphan_until_a_store_reaches_it_and_refused_from_then_on(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.kill("primary")
    store.run(put(2))
    lab.start("primary")
    lab.sql("primary", insert(3))  # nobody has told it yet
    store.close()
    late = lab.store()  # its monitor reaches the former writer, fences it and lets it rejoin
    until(lambda: late.status().healthy, "the former writer follows")
    with pytest.raises(REFUSED, match="not the writer"):
        lab.sql("primary", insert(4))
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 2: 0}
    assert lab.sql("standby", f"SELECT key FROM {lab.name('orphan')}") == [("[3]",)]


def test_a_fenced_writer_refuses_every_kind_of_change_and_stays_readable(lab: Lab) -> None:
    store = lab.migrated(background=False, rejoin="manual")
    store.run(put(1))
    lab.kill("primary")
    store.run(put(2))
    lab.start("primary")
    view, decision = store.pair.look()
    store.pair.act(view, decision)
    assert lab.state("primary").role == "fenced"
    changes = [insert(3), "UPDATE account SET amount = 1 WHERE id = 1", "DELETE FROM account"]
    for change in [*changes, "TRUNCATE account"] if lab.postgresql else changes:
        with pytest.raises(REFUSED, match="not the writer"):
            lab.sql("primary", change)
    assert lab.accounts("primary") == {1: 0}


def test_a_store_that_still_believes_in_the_former_writer_is_not_acknowledged(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    sleeper = lab.store(background=False, takeover_timeout=2.0)
    sleeper.run(put(2))
    believed = sleeper.pair.lead
    assert believed is not None
    lab.kill("primary")
    store.run(put(3))
    lab.start("primary")
    sleeper.pair.primary.engine.dispose()
    sleeper.pair.lead = replace(believed, confirmed=time.monotonic())  # as a program that looked just before all this
    with pytest.raises((TransactionLost, CommittedNotReplicated, NoWriter)), sleeper.begin() as session:
        put(4)(session)
    assert 4 not in lab.accounts("standby")


def test_a_new_store_confirms_the_term_at_the_other_node_before_it_acknowledges(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.kill("primary")
    store.run(put(2))
    store.close()
    lab.kill("standby")
    lab.start("primary")  # its row says writer, and it can't know of term 2
    assert lab.state("primary").role == "writer"
    alone = lab.store(takeover_timeout=1.0)
    with pytest.raises(NoWriter, match="unconfirmed"):
        alone.run(put(3))
    lab.start("standby")
    alone.run(put(3))
    assert lab.accounts("standby") == {1: 0, 2: 0, 3: 0}
    assert lab.state("standby").role == "writer"
