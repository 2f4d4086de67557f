"""Hazard 23: the tick is committed after the snapshot and before the batch is applied, on a writer that has not crashed in between."""

from __future__ import annotations

import pytest

from replstore.errors import ReplicationStopped
from tests.fix_stores import Batch, Lab, Steps, insert, put, until


def test_a_change_committed_after_the_tick_is_not_in_the_batch_even_if_the_writer_then_loses_it(forgetful_lab: Lab) -> None:
    lab = forgetful_lab
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.sql("primary", insert(2))
    program = lab.connect("primary")
    program.execute("SET synchronous_commit = off")
    ticks = f"SELECT count(*) FROM {lab.name('tick')}"
    ((before,),) = lab.sql("primary", ticks)

    def commit_without_waiting() -> None:
        until(lambda: lab.sql("primary", ticks) > [(before,)], "the tick is on the disk: writing it would take along what is in the log")
        lab.hold_log("primary")
        program.execute(insert(3))
        program.commit()

    shipper = lab.shipper()
    shipper.carrier = Steps(shipper.carrier, after={"tick": commit_without_waiting, "land": lambda: lab.crash("primary")})
    shipper.ship()
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 2: 0}
    lab.sql("primary", insert(4))
    lab.ship()
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 2: 0, 4: 0}


def test_a_writer_that_crashes_between_snapshot_and_tick_ships_nothing_of_that_snapshot(forgetful_lab: Lab) -> None:
    lab = forgetful_lab
    store = lab.migrated(background=False)
    store.run(put(1))
    program = lab.connect("primary")
    lab.hold_log("primary")
    program.execute("SET synchronous_commit = off")
    program.execute(insert(2))
    program.commit()
    batch = Batch(lab.shipper())
    assert sum(count or 0 for count in batch.snapshot.changed.values()) == 1  # the snapshot saw it
    lab.crash("primary")
    assert lab.accounts("primary") == {1: 0}
    with pytest.raises(Exception, match=r"gone|connection|terminat"):
        batch.go_on()  # the restarted writer takes the tick
    assert lab.accounts("standby") == {1: 0}
    lab.ship()
    assert lab.accounts("standby") == lab.accounts("primary")


def test_a_file_replaced_between_snapshot_and_tick_ships_nothing_of_that_snapshot(sqlite_lab: Lab) -> None:
    lab = sqlite_lab
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.save("primary")
    lab.sql("primary", insert(2))
    batch = Batch(lab.shipper())
    lab.restore("primary")
    with pytest.raises(Exception, match="replaced"):
        batch.go_on()
    assert lab.accounts("standby") == {1: 0}


def test_a_file_replaced_between_tick_and_apply_ships_nothing_of_that_snapshot(sqlite_lab: Lab) -> None:
    """The tick is in the copy, which the shipper's connection doesn't read; only the sign of life tells."""
    lab = sqlite_lab
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.save("primary")
    lab.sql("primary", insert(2))
    shipper = lab.shipper()
    shipper.carrier = Steps(shipper.carrier, after={"tick": lambda: lab.restore("primary")})
    shipper.ship()  # begins again, on the file that is there now
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0}


def test_a_file_restored_to_a_moment_after_the_tick_has_everything_that_was_shipped_with_it(sqlite_lab: Lab) -> None:
    """What was committed after the tick is not in its batch: else the restored writer would have the tick, and lack the row."""
    lab = sqlite_lab
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.sql("primary", insert(2))
    shipper = lab.shipper()

    def save_and_commit() -> None:
        lab.save("primary")
        lab.sql("primary", insert(3))

    shipper.carrier = Steps(shipper.carrier, after={"tick": save_and_commit})
    shipper.ship()
    lab.restore("primary")
    lab.ship()
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 2: 0}


def test_the_tick_of_a_file_waits_for_the_disk(sqlite_lab: Lab) -> None:
    sqlite_lab.migrated(background=False)
    shipper = sqlite_lab.shipper()
    shipper.carrier.follower(wait=1.0)
    shipper.carrier.tick(batch=1, held=None)
    assert shipper.carrier._ticker.execute("PRAGMA synchronous").fetchone() == (2,)  # type: ignore[attr-defined]  # FULL


def test_a_writer_restored_to_a_moment_before_the_tick_is_noticed(restorable_lab: Lab) -> None:
    lab = restorable_lab
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.sql("primary", insert(2))
    lab.save("primary")  # has row 2, and not the tick that ships it
    lab.ship()
    lab.restore("primary")
    with pytest.raises(ReplicationStopped, match="writer_rewound"):
        lab.ship()


def test_the_tick_that_the_follower_holds_is_never_removed(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    held = lab.state("standby").tick
    assert held is not None
    shipper = lab.shipper()
    shipper.carrier.follower(wait=1.0)
    shipper.carrier.snapshot(since=None, held=held)
    shipper.carrier.tick(batch=10_000, held=held)  # far past the ones that are kept anyway
    shipper.carrier.still_there()
    shipper.carrier.abandon()
    ticks = {tick for (tick,) in lab.sql("primary", f"SELECT tick FROM {lab.name('tick')}")}
    assert held in ticks
    assert len(ticks) == 2
    store.run(put(2))
    assert lab.accounts("standby") == {1: 0, 2: 0}


def test_a_marker_that_the_writer_loses_between_snapshot_and_tick_is_not_shipped(forgetful_lab: Lab) -> None:
    """No row is read after the snapshot: only the sign of life tells that its session is gone."""
    lab = forgetful_lab
    store = lab.migrated(background=False)
    store.run(put(1))
    before = lab.markers("standby")
    program = lab.connect("primary")
    lab.hold_log("primary")
    program.execute("SET synchronous_commit = off")
    program.execute(f"INSERT INTO {lab.name('marker')} (id, outcome, durability, term_no) VALUES ('lost', 'committed', 'async', 1)")
    program.commit()
    batch = Batch(lab.shipper())
    assert batch.snapshot.markers == 1
    lab.crash("primary")
    with pytest.raises(Exception, match=r"gone|connection|terminat"):
        batch.go_on()
    assert "lost" not in lab.markers("primary")
    assert lab.markers("standby") == before
