"""Hazard 27, as far as replay goes: whoever comes second, from whatever process and however late, finds the orphan decided."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy.orm import Session

from replstore import ConfigError, NotTheWriter
from replstore.pair import rejoin as rejoining
from replstore.replication.journal import replay as replaying
from tests.fix_orphans import ASYNC, Change, Parting, order, outcomes
from tests.fix_programs import Program, at_once
from tests.fix_shop import Order, open_store


def more(id: int) -> Change:
    """x += 1."""

    def change(session: Session) -> None:
        session.get_one(Order, id).quantity += 1

    return change


def quantity(parting: Parting) -> Any:
    with parting.store.read() as session:
        return session.get_one(Order, 1).quantity


def test_one_that_planned_before_the_other_replayed_replays_nothing(parting: Parting) -> None:
    parting.shared(order(1))
    parting.lost(more(1))
    parting.back()
    with open_store(parting.pair, **ASYNC) as other:
        late = other.orphans
        work = late._work((), replaying.Wish())
        assert outcomes(parting.store.orphans.replay()) == ["replayed"]
        parting.store.run(more(1))
        assert [late._replay(work, group).outcome for group in work.work] == ["replayed before"]
    assert quantity(parting) == 3


def test_two_at_once_replay_it_once(parting: Parting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have passed every test on a server that lets them; neither holds up the other for ever."""
    parting.shared(order(1))
    parting.lost(more(1))
    parting.back()
    parallel = parting.store.pair.primary.database.name == "postgresql"
    meet = threading.Barrier(2)

    def all_tests_passed(*_: Any) -> None:
        with suppress(threading.BrokenBarrierError):  # the second time round there is nobody to wait for
            if parallel:
                meet.wait(5)
        meet.abort()

    monkeypatch.setattr(replaying, "RULES", (*replaying.RULES, all_tests_passed))
    with open_store(parting.pair, **ASYNC) as other, ThreadPoolExecutor(2) as threads:
        works = [(store.orphans, store.orphans._work((), replaying.Wish())) for store in (parting.store, other)]
        tries = [threads.submit(orphans._replay, work, work.work[0]) for orphans, work in works]
        found = sorted(str(each.result().outcome) for each in tries)
    assert found == ["replayed", "replayed before"]
    assert quantity(parting) == 2
    assert parting.store.check().equal


def test_one_that_replays_and_one_that_discards(parting: Parting) -> None:
    parting.lost(order(1))
    parting.back()
    with open_store(parting.pair, **ASYNC) as other:
        work = other.orphans._work((), replaying.Wish())
        parting.store.orphans.discard(everything=True, reason="not wanted")
        assert "discarded" in other.orphans._replay(work, work.work[0]).reason
    assert parting.orders() == {}


def test_a_frozen_rejoin_that_wakes_up_opens_no_decision_again(parting: Parting, monkeypatch: pytest.MonkeyPatch) -> None:
    parting.lost(order(1))
    parting.pair.start("primary")
    pair, record = parting.store.pair, rejoining.record
    known: dict[str, str] = {}

    def frozen(*given: Any) -> int:
        monkeypatch.undo()
        rejoining.rejoin(pair.standby, pair.primary)  # another program
        parting.store.sync()
        parting.store.orphans.replay()
        known.update(parting.states())
        return record(*given)  # and this one wakes up

    monkeypatch.setattr(rejoining, "record", frozen)
    with pytest.raises(NotTheWriter, match="primary is no longer fenced under term 1"):
        parting.store.rejoin()
    parting.store.sync()
    assert parting.states() == known == {"orders [1]": "replayed"}
    with pytest.raises(ConfigError):
        parting.store.orphans.replay()
    assert parting.orders() == {1: "tea"}


PROGRAM = """
import sys
from replstore.store import Store
with Store(primary=sys.argv[1], standby=sys.argv[2], background=False) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        print([str(verdict.outcome) for verdict in store.orphans.replay().verdicts], flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
"""


def test_two_processes_at_once_replay_many_orphans_once(parting: Parting, program: Callable[..., Program]) -> None:
    parting.shared(order(1))
    parting.lost(*(more(1) if number % 2 else order(10 + number) for number in range(6)))
    parting.back()
    said = at_once([program(PROGRAM, parting.pair.primary_url, parting.pair.standby_url) for _ in range(2)])
    assert any("replayed" in each for each in said), said
    assert quantity(parting) == 4, said
    assert set(parting.orders()) == {1, 10, 12, 14}
    assert set(parting.states().values()) == {"replayed"}
    assert parting.store.check().equal
