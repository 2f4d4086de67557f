"""Hazard 25: an older batch that was frozen is never applied over a newer one."""

from __future__ import annotations

import dataclasses

import pytest

from replstore.databases.carrier import CompareFailed, Moved
from tests.fix_programs import BATCH
from tests.fix_stores import Batch, Lab, insert, put


def test_a_batch_frozen_after_its_snapshot_does_not_overtake_a_newer_one(lab: Lab) -> None:
    store = lab.migrated(background=False, ack_timeout=10.0)
    store.run(put(1, 10))
    lab.sql("primary", "UPDATE account SET amount = 11 WHERE id = 1", insert(2))
    frozen = lab.program(BATCH)
    assert frozen.says() == "read"
    frozen.freeze()
    store.run(put(1, 12))  # shipped by another process, and acknowledged
    newer = lab.state("standby")
    assert lab.accounts("standby") == {1: 12, 2: 0}
    frozen.wake()
    assert frozen.ask("go on").startswith("failed:")
    assert lab.accounts("standby") == {1: 12, 2: 0}
    assert lab.state("standby").position == newer.position
    lab.kill("primary")
    store.run(put(3))
    assert lab.accounts("standby") == {1: 12, 2: 0, 3: 0}


def test_a_frozen_batch_does_not_stop_a_takeover(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.sql("primary", insert(2))
    frozen = lab.program(BATCH)
    assert frozen.says() == "read"
    frozen.freeze()
    lab.kill("primary")
    store.run(put(3))
    assert lab.state("standby").role == "writer"
    frozen.wake()
    assert frozen.ask("go on").startswith("failed:")
    assert lab.accounts("standby") == {1: 0, 3: 0}


@pytest.mark.parametrize("moved", ["position", "tick"])
def test_a_batch_is_not_applied_over_a_position_or_a_tick_that_it_did_not_begin_from(lab: Lab, moved: str) -> None:
    """Whatever let another one in: the follower's own row is compared in the transaction that changes it."""
    store = lab.migrated(background=False)
    store.run(put(1, 10))
    lab.sql("primary", "UPDATE account SET amount = 11 WHERE id = 1")
    batch = Batch(lab.shipper())
    batch.base = dataclasses.replace(batch.base, **{moved: "0:0:" if lab.postgresql and moved == "position" else "0"})
    with pytest.raises(CompareFailed, match=r"(position moved|the follower changed) since the batch began"):
        batch.go_on()
    assert lab.accounts("standby") == {1: 10}


def test_a_file_s_batch_sees_one_moment_of_the_follower_from_its_first_step_to_its_last(sqlite_lab: Lab) -> None:
    lab = sqlite_lab
    store = lab.migrated(background=False)
    store.run(put(1, 10))
    lab.sql("primary", "UPDATE account SET amount = 11 WHERE id = 1")
    batch = Batch(lab.shipper())
    lab.sql("primary", "UPDATE account SET amount = 12 WHERE id = 1")
    lab.ship()
    with pytest.raises(Moved, match="the follower changed since the batch began"):
        batch.go_on()
    assert lab.accounts("standby") == {1: 12}


def test_two_shippers_that_take_turns_leave_the_writer_s_rows(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1, 0))
    one, other = lab.shipper(), lab.shipper()
    for amount in range(1, 6):
        lab.sql("primary", f"UPDATE account SET amount = {amount} WHERE id = 1")
        (one if amount % 2 else other).ship()
        assert lab.accounts("standby") == {1: amount}
