"""Hazard 25: an older batch that was frozen is never applied over a newer one."""

from __future__ import annotations

import os
import signal

from tests.fix_stores import Lab, insert, put
from tests.hazards.test_24_a_contact_in_flight import PROGRAM


def test_a_batch_frozen_after_its_snapshot_does_not_overtake_a_newer_one(lab: Lab) -> None:
    store = lab.migrated(background=False, ack_timeout=10.0)
    store.run(put(1, 10))
    lab.sql("primary", "UPDATE account SET amount = 11 WHERE id = 1", insert(2))
    frozen = lab.process(PROGRAM, lab.pair.primary_url, lab.pair.standby_url)
    assert frozen.stdin is not None
    assert frozen.stdout is not None
    assert frozen.stdout.readline() == "read\n"
    os.kill(frozen.pid, signal.SIGSTOP)
    store.run(put(1, 12))  # shipped by another process, and acknowledged
    newer = lab.state("standby")
    assert lab.accounts("standby") == {1: 12, 2: 0}
    print("go on", file=frozen.stdin, flush=True)
    os.kill(frozen.pid, signal.SIGCONT)
    assert frozen.stdout.readline().startswith("failed:")
    assert lab.accounts("standby") == {1: 12, 2: 0}
    assert lab.state("standby").position == newer.position
    lab.kill("primary")
    store.run(put(3))
    assert lab.accounts("standby") == {1: 12, 2: 0, 3: 0}


def test_a_frozen_batch_does_not_stop_a_takeover(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.sql("primary", insert(2))
    frozen = lab.process(PROGRAM, lab.pair.primary_url, lab.pair.standby_url)
    assert frozen.stdin is not None
    assert frozen.stdout is not None
    assert frozen.stdout.readline() == "read\n"
    os.kill(frozen.pid, signal.SIGSTOP)
    lab.kill("primary")
    store.run(put(3))
    assert lab.state("standby").role == "writer"
    print("go on", file=frozen.stdin, flush=True)
    os.kill(frozen.pid, signal.SIGCONT)
    assert frozen.stdout.readline().startswith("failed:")
    assert lab.accounts("standby") == {1: 0, 3: 0}


def test_two_shippers_that_take_turns_leave_the_writer_s_rows(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1, 0))
    one, other = lab.shipper(), lab.shipper()
    for amount in range(1, 6):
        lab.sql("primary", f"UPDATE account SET amount = {amount} WHERE id = 1")
        (one if amount % 2 else other).ship()
        assert lab.accounts("standby") == {1: amount}
