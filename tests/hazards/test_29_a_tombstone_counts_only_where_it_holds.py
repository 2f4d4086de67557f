"""Hazard 29: where a tombstone counts, how long it stays, and what is found committed is acknowledged only once it is safe."""

from __future__ import annotations

import contextlib
import time
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from replstore import CommittedNotReplicated, CommitUnknown, Store, TransactionLost
from replstore.pair.decide import Term
from replstore.pair.takeover import FORCED_JUMP
from replstore.transaction.acknowledge import acknowledge
from replstore.transaction.doubt import resolve
from tests.fix_markers import committed
from tests.fix_stores import Lab, insert, put, until


def place(session: Session) -> int:
    session.execute(text(insert(7)))
    return 7


def reaches(store: Store) -> bool:
    """Whether the Store's own shipper gets through."""
    with contextlib.suppress(Exception):
        store.sync()
        return True
    return False


def prune(store: Store) -> None:
    """The writer's journal, as far as it was shipped."""
    lead = store.pair.current(time.monotonic() + 5)
    shipped = store.status().nodes[lead.follower.name].position
    assert shipped is not None
    with lead.node.begin() as connection:
        lead.node.database.prune(connection, shipped)


# --- where


def test_a_node_of_a_lower_term_gets_no_tombstone(lab: Lab) -> None:
    """The attempt ran under term 2; the node that is left goes on under term 1, and knows of no other."""
    store = lab.migrated(background=False, durability="async", takeover_timeout=0.3)
    store.run(put(1))
    store.sync()
    lab.kill("standby")
    id = str(uuid4())
    with pytest.raises(CommitUnknown, match=id):
        resolve(store.pair, Term(2, str(uuid4())), id, "async", cause=None)
    assert id not in lab.markers("primary")
    assert store.pair.settle(time.monotonic()).term.number == 1


def test_a_node_of_the_same_number_under_another_uuid_gets_none_either(lab: Lab) -> None:
    """Two persons forced one node each; the attempt ran on the one that is gone."""
    store = lab.migrated(background=False, takeover_timeout=0.3)
    store.run(put(1))
    lab.kill("standby")
    store.takeover("primary", force=True)
    id = str(uuid4())
    with pytest.raises(CommitUnknown, match=id):
        resolve(store.pair, Term(1 + FORCED_JUMP, str(uuid4())), id, "replicated", cause=None)
    assert id not in lab.markers("primary")
    with pytest.raises(TransactionLost):
        resolve(store.pair, store.pair.settle(time.monotonic()).term, id, "replicated", cause=None)
    assert lab.markers("primary")[id] == "lost"


# --- how long


def test_markers_and_tombstones_outlive_the_journal_and_every_change_of_roles(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    lost = str(uuid4())
    with pytest.raises(TransactionLost):
        resolve(store.pair, store.pair.current(0.0).term, lost, "replicated", cause=None)
    assert store.run(place, key="order-7") == 7
    before = lab.markers("primary")
    assert (before[lost], len(before)) == ("lost", 3)
    for _ in range(2):
        store.sync()
        prune(store)
        store.switchover()
        assert lab.markers("primary") == lab.markers("standby")
        assert before.items() <= lab.markers("standby").items()
    assert store.run(place, key="order-7") == 7


def test_an_orphan_that_comes_back_after_the_journal_was_pruned_still_meets_its_tombstone(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    id, asleep = committed(lab, "primary", 2), lab.lead()
    lab.kill("primary")
    with pytest.raises(TransactionLost):
        acknowledge(store.pair, asleep, id, "replicated")
    store.run(put(3))
    with store.pair.standby.begin() as connection:
        store.pair.standby.database.prune(connection, store.pair.standby.database.position(connection))
    lab.start("primary")
    assert store.rejoin() == 1
    store.sync()
    assert lab.sql("standby", f"SELECT tx, tx_known FROM {lab.name('orphan')}") == [(id, "lost")]
    assert lab.markers("primary")[id] == lab.markers("standby")[id] == "lost"
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 3: 0}


# --- found committed


def test_a_key_that_is_found_waits_for_the_follower_like_the_call_that_used_it(lab: Lab) -> None:
    store = lab.migrated(on_follower_down="block", ack_timeout=0.3)
    store.run(put(1))
    until(lambda: store.status().healthy and store.pair.watch.contact, "the program has met both nodes")
    lab.kill("standby")
    for _ in range(2):  # the call itself, and one that finds its key
        with pytest.raises(CommittedNotReplicated):
            store.run(place, key="order-7")
    lab.start("standby")
    assert store.run(place, key="order-7") == 7
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 7: 0}


def test_a_key_that_is_found_is_acknowledged_by_a_writer_that_goes_on_alone(lab: Lab) -> None:
    store = lab.migrated()
    store.run(put(1))
    lab.kill("standby")
    assert store.run(place, key="order-7") == 7
    assert lab.state("primary").solo
    assert lab.store().run(place, key="order-7") == 7
    assert lab.accounts("primary") == {1: 0, 7: 0}


def test_a_marker_found_in_doubt_waits_for_the_follower(lab: Lab) -> None:
    """What ``resolve`` finds committed is not acknowledged by that."""
    store = lab.migrated(background=False, on_follower_down="block", ack_timeout=0.3)
    store.run(put(1))
    id = committed(lab, "primary", 2)
    lab.kill("standby")
    lead = lab.lead()
    assert resolve(store.pair, lead.term, id, "replicated", cause=None).term == lead.term
    with pytest.raises(CommittedNotReplicated) as raised:
        acknowledge(store.pair, lead, id, "replicated")
    assert raised.value.id == id
    lab.start("standby")
    until(lambda: reaches(store), "the standby is there again")  # ack_timeout is too short for that
    acknowledge(store.pair, lead, id, "replicated")
    assert lab.markers("standby")[id] == "committed"
    assert lab.accounts("standby") == {1: 0, 2: 0}
