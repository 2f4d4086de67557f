"""Checks one after the other while programs write and shipping lags: none invents a difference, and each finds all that were put there by then.

``REPLSTORE_CHECKS=200`` makes as many of them, of each kind of pair; by default there are as many as take some seconds, and a dozen at least.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator

from replstore.databases.base import Fault
from replstore.reconcile.report import Report
from replstore.store import Store
from tests.fix_check import behind_the_guard, fill, table
from tests.fix_mixed import MixedLab
from tests.fix_stores import Lab, insert, until
from tests.pair.test_check import load

CHECKS = int(os.environ.get("REPLSTORE_CHECKS", "0"))
FEWEST, SECONDS = 12, 6.0
#: s that the shipper rests at most between two batches.
LAG = 0.15
#: A busy machine is no lost writer.
PATIENT = {"takeover": "manual", "detection_time": 60.0, "probe_interval": 2.0, "probe_timeout": 20.0, "takeover_timeout": 60.0}
#: Rows that nobody writes to but the test, behind the guard; those below are the load's.
COLD = range(1000, 3000)
Seed = tuple[int, str]


@contextlib.contextmanager
def late_shipping(lab: Lab, chance: random.Random) -> Iterator[None]:
    """A shipper that now and then rests for a while, and begins again where others kept it waiting, as a keeper does."""
    stop, failed, database = threading.Event(), list[BaseException](), lab.nodes["primary"].database

    def ship() -> None:
        shipper = lab.shipper()
        try:
            while not stop.wait(chance.uniform(0, LAG)):
                try:
                    shipper.ship()
                except Exception as error:
                    if database.classify(error) not in (Fault.TRANSIENT, Fault.TIMEOUT):
                        raise
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=ship, name="late shipping")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not failed, failed


def seed(lab: Lab, number: int) -> Seed:
    """Puts a difference of one kind or another on one node; returns its key and its kind."""
    node, other = ("primary", "standby")[:: 1 if number % 2 else -1]
    id = COLD.start + 7 * number
    what = number // 2 % 3
    if what == 0:
        behind_the_guard(lab, node, f"UPDATE account SET amount = -1 WHERE id = {id}")
        return id, "changed"
    if what == 1:
        behind_the_guard(lab, node, f"DELETE FROM account WHERE id = {id}")
        return id, f"missing_on_{node}"
    behind_the_guard(lab, node, insert(COLD.stop + number))
    return COLD.stop + number, f"missing_on_{other}"


def differences(report: Report) -> set[Seed]:
    found = table(report, "account")
    assert found.total == len(found.differences)
    assert report.exact
    assert report.total == found.total
    assert not report.schema
    assert not report.sequences
    return {(each.key["id"], each.kind) for each in found.differences}


def check_again_and_again(lab: Lab, store: Store, put: Callable[[int], Seed]) -> None:
    """Every third check seeds a difference before it, every fourth looks at what has changed only: that knows of what the last whole one has found."""
    seeded, known, waiting = set[Seed](), set[Seed](), 0
    chance = random.Random(5)
    with load(store, range(100)) as done, late_shipping(lab, chance):
        until(lambda: min(done) > 5, "both threads write")
        began = time.monotonic()
        for number in itertools.count():
            if number >= (CHECKS or FEWEST) and (CHECKS or time.monotonic() - began > SECONDS):
                break
            if number % 3 == 2:
                seeded.add(put(number))
            time.sleep(chance.uniform(0, 0.02))
            since = "last" if number % 4 == 3 else None
            report = store.check(since=since, settle=5.0)  # type: ignore[arg-type]
            found = differences(report)
            assert found == (known if since else seeded), (number, found ^ seeded)
            known, waiting = found, waiting + report.waiting
    assert waiting, "shipping lagged"
    assert len(seeded) >= FEWEST // 3


def prepared(lab: Lab) -> Store:
    store = lab.migrated(background=False, durability="async", **PATIENT)
    fill(store, COLD)
    store.sync()
    assert store.check().equal
    return store


def test_no_check_under_load_invents_or_misses_a_difference(lab: Lab) -> None:
    store = prepared(lab)
    check_again_and_again(lab, store, lambda number: seed(lab, number))


def test_neither_does_one_of_a_mixed_pair(file_first: MixedLab) -> None:
    lab, store = file_first, prepared(file_first)

    def put(number: int) -> Seed:
        lab.postgresql = ("primary", "standby")[:: 1 if number % 2 else -1][0] == lab.server
        return seed(lab, number)

    check_again_and_again(lab, store, put)
