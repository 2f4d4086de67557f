"""Rows of the decision table that need a second program, or a program in the midst of something; the others are in `test_decision_rows`."""

from __future__ import annotations

from typing import Any

import pytest

from replstore.errors import TakeoverRefused
from replstore.store import Store
from tests.fix_stores import Lab, count, insert, put
from tests.pair.test_decision_rows import PATIENT

PROGRAM = """
import sys
from replstore.store import Store
from sqlalchemy import text
store = Store(primary=sys.argv[1], standby=sys.argv[2], detection_time=30, probe_interval=0.1, probe_timeout=10, ack_timeout=15)
print("ready", flush=True)
for line in sys.stdin:
    store.run(lambda session: session.execute(text(line)))
    print(store.status().writer, flush=True)
"""


def test_a_store_in_another_process_learns_of_a_takeover_and_of_a_switchover_and_follows(lab: Lab) -> None:
    store = lab.migrated(rejoin="manual", **PATIENT)
    program = lab.program(PROGRAM)
    assert program.says() == "ready"
    assert program.ask(insert(1)) == "primary"
    lab.kill("primary")
    store.run(put(2))
    lab.start("primary")  # the former writer is back, and says that it writes
    assert program.ask(insert(3)) == "standby"
    store.rejoin()
    store.switchover()
    assert program.ask(insert(4)) == "primary"
    store.sync()
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 2: 0, 3: 0, 4: 0}


def test_two_stores_that_notice_the_loss_at_once_make_one_takeover(lab: Lab) -> None:
    one, other = lab.migrated(background=False, **PATIENT), lab.store(background=False, **PATIENT)
    one.run(put(1))
    other.run(put(2))
    seen = one.pair.look(), other.pair.look()
    assert all(decision.writer == "primary" for _, decision in seen)
    lab.kill("primary")
    looks = [_look_until_lost(store) for store in (one, other)]
    one.pair.act(*looks[0])
    with pytest.raises(TakeoverRefused):
        other.pair.act(*looks[1])
    assert lab.state("standby").term_no == 2
    other.run(put(3))
    one.run(put(4))
    assert lab.accounts("standby").keys() == {1, 2, 3, 4}


def _look_until_lost(store: Store) -> Any:
    view, decision = store.pair.look()
    while decision.action != "take over":
        view, decision = store.pair.look()
    return view, decision


def test_a_read_goes_on_at_the_node_that_is_left(lab: Lab) -> None:
    store = lab.migrated(**PATIENT)
    store.run(put(1))
    lab.kill("primary")
    for node in ("writer", "any"):
        with store.read(node=node) as session:
            assert count(session) == 1


def test_an_open_transaction_whose_writer_is_lost_is_lost_or_reported_and_run_repeats_it(lab: Lab) -> None:
    store = lab.migrated(**PATIENT)
    store.run(put(1))
    calls = []

    def change(session: Any) -> None:
        put(2)(session)
        session.flush()
        if not calls:
            lab.kill("primary")
        calls.append(1)

    store.run(change)
    assert len(calls) == 2
    assert lab.accounts("standby") == {1: 0, 2: 0}
