"""Hazard 24: what was on its way when the follower crashed doesn't make the restarted follower eligible."""

from __future__ import annotations

import sqlite3

import pytest
from sqlalchemy import update

from replstore.errors import NoWriter
from replstore.pair.decide import Action
from tests.fix_programs import BATCH
from tests.fix_stores import Batch, Lab, insert, put


def test_a_batch_that_a_frozen_program_read_before_the_follower_s_crash_does_not_make_it_eligible(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.sql("primary", insert(2))
    frozen = lab.program(BATCH)
    assert frozen.says() == "read"  # the follower's boot, and that the writer doesn't acknowledge alone
    lab.replace("standby")
    _acknowledge_alone(lab)
    store.run(put(3))  # acknowledged solo
    assert frozen.ask("go on").startswith("failed:")
    standby = lab.state("standby")
    assert standby.eligible_boot != standby.boot
    lab.kill("primary")
    store.close()
    with pytest.raises(NoWriter, match="restarted or replaced"):
        lab.store(background=False, takeover_timeout=1.0).run(put(4))


def test_a_batch_never_carries_another_boot_than_the_one_it_read(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    before = lab.state("standby")
    batch = Batch(lab.shipper())
    lab.replace("standby")
    with pytest.raises(Exception, match=r"gone|connection|replaced|terminat|changed"):
        batch.go_on(eligible=True)
    after = lab.state("standby")
    assert after.boot != before.boot
    assert after.eligible_boot == before.boot


def test_a_file_replaced_while_its_batch_waits_for_the_write_lock_is_left_alone(sqlite_lab: Lab) -> None:
    """The lock is the old file's; the path is looked at once more when it is held."""
    lab = sqlite_lab
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.sql("primary", insert(2))
    batch = Batch(lab.shipper())
    replaced = []

    def replace(statement: str) -> None:
        if "SET mark = 'apply'" in statement and not replaced:
            replaced.append(lab.replace("standby"))

    batch.carrier._both.set_trace_callback(replace)  # type: ignore[attr-defined]
    with pytest.raises(sqlite3.OperationalError, match="replaced"):
        batch.go_on(eligible=True)
    assert replaced
    assert lab.accounts("standby") == {1: 0}


def test_a_heartbeat_does_not_make_a_restarted_follower_eligible(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.replace("standby")
    store.pair.look()  # meets the connections of before
    view, decision = store.pair.look()
    assert decision.action is Action.RESYNC
    store.pair.watch.heartbeat(view, "primary")
    after = lab.state("standby")
    assert after.heartbeat == 1
    assert after.eligible_boot != after.boot
    lab.ship()
    after = lab.state("standby")
    assert after.eligible_boot == after.boot


def test_a_resync_that_began_before_the_writer_went_solo_does_not_make_the_follower_eligible(lab: Lab) -> None:
    """The other order: the batch reads 'not solo', the writer goes solo, the batch is applied: solo needs the follower refused, so its boot changed."""
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.replace("standby")
    shipper = lab.shipper()
    batch = Batch(shipper)
    lab.replace("standby")
    _acknowledge_alone(lab)
    with pytest.raises(Exception, match=r"gone|connection|replaced|terminat|changed"):
        batch.go_on(eligible=True)
    standby = lab.state("standby")
    assert standby.eligible_boot != standby.boot


def _acknowledge_alone(lab: Lab) -> None:
    """What a program that finds the follower refused right after a contact writes."""
    boot = lab.state("primary").boot
    with lab.nodes["primary"].begin() as connection:
        connection.execute(update(lab.control.acknowledge).values(solo=True, boot=boot))
