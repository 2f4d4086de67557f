"""Hazard 22, native: a program that stood still has watched nothing, and promotes nobody."""

from __future__ import annotations

import time

from tests.fix_native import NativeLab
from tests.fix_stores import insert, put

PROGRAM = """
import logging, sys
from replstore.store import Store
from sqlalchemy import text
logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
settings = dict(detection_time=0.4, probe_interval=0.1, probe_timeout=0.5, ack_timeout=5, ship_interval=0.05)
store = Store(primary=sys.argv[1], standby=sys.argv[2], replication="native", promote=True, **settings)
print("ready", flush=True)
for line in sys.stdin:
    store.run(lambda session: session.execute(text(line)))
    print("done", flush=True)
"""


def test_a_program_that_was_stopped_for_longer_than_the_detection_time_promotes_nobody(native_lab: NativeLab) -> None:
    lab = native_lab
    store = lab.migrated(promote=False)
    program = lab.program(PROGRAM)
    assert program.says() == "ready"
    assert program.ask(insert(100)) == "done"
    for id in range(1, 3):
        program.freeze()
        store.run(put(id))
        time.sleep(0.9)  # twice the detection time
        lab.pair.freeze("primary")  # when it wakes, nothing answers, and it has not watched for how long
        program.wake()
        time.sleep(0.2)
        lab.pair.thaw("primary")
        assert program.ask(insert(id + 100)) == "done"
    store.sync()
    assert len(lab.timelines("primary")) == len(lab.timelines("standby")) == 1
    assert len(lab.accounts("standby")) == 5
