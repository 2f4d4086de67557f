"""A check of a pair whose database copies itself: no false alarm while writes go on, and what a disk has changed on the standby is found."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from replstore import CannotRepair
from replstore.databases.digests import Version
from replstore.reconcile.anchored import Round, is_settled
from tests.fix_check import found, table
from tests.fix_native import NativeLab
from tests.fix_pages import pages_of
from tests.fix_stores import put
from tests.fix_streaming import on_an_installed_server_too


@on_an_installed_server_too
def test_what_a_disk_has_changed_on_the_standby_is_found_while_writes_go_on(native_lab: NativeLab) -> None:
    store = native_lab.migrated(promote=False)
    native_lab.sql(
        "primary",
        "CREATE TABLE kept (id int PRIMARY KEY, owner text)",
        "INSERT INTO kept SELECT n, 'owner ' || n FROM generate_series(1, 40) n",
        "DELETE FROM kept WHERE id = 30",
    )
    with pages_of(native_lab, "kept") as pages:
        pages.replace(b"owner 10", b"owner X0")
        pages.hide(b"owner 20")
        pages.bring_back(b"owner 30")
    ended = threading.Event()

    def write() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            store.run(put(1 + number % 9, amount=number))
            store.run(put(1000 + number))

    writing = threading.Thread(target=write)
    writing.start()
    try:
        reports = [store.check() for _ in range(2)]
    finally:
        ended.set()
        writing.join()
    for report in reports:
        assert sorted(found(report, "kept")) == [
            ((10,), "changed", ("owner",)),
            ((20,), "missing_on_standby", ()),
            ((30,), "missing_on_primary", ()),
        ], report
        assert found(report, "account") == []
        assert report.exact
        assert any("standby was compared at 0/" in note and "of timeline" in note for note in report.notes), report.notes
    (changed,) = (each for each in table(reports[0], "kept").differences if each.kind == "changed")
    assert (changed.primary, changed.standby) == ({"owner": "owner 10"}, {"owner": "owner X0"})
    with pytest.raises(CannotRepair, match="physical copy"):
        store.repair(dry_run=True)


def test_a_standby_that_replays_late_is_no_difference(native_lab: NativeLab) -> None:
    """The follower's replay stands still while the first reading goes on: everything that was written meanwhile differs then."""
    store = native_lab.migrated(background=False)
    store.run(put(1))
    store.sync()
    pause = native_lab.pair.standby
    pause.execute("SELECT pg_wal_replay_pause()")
    real = store.pair.ship_from
    calls: list[float] = []

    def ship_from(*arguments: Any, **more: Any) -> Any:
        calls.append(time.monotonic())
        if len(calls) <= 4:  # of the definitions, the sequences (twice), the first reading: it stands still
            return None
        pause.execute("SELECT pg_wal_replay_resume()")
        return real(*arguments, **more)

    with store.begin() as session:
        for id in range(2, 30):
            put(id)(session)
    store.pair.ship_from = ship_from  # type: ignore[method-assign]
    try:
        report = store.check(tables=["account"])
    finally:
        pause.execute("SELECT pg_wal_replay_resume()")
    assert report.equal, report
    assert len(calls) > 4


def version(by: int, *, ended: int = 0, row: str = "{}", place: str = "1") -> Version:
    return Version("[1]", row, by, ended, place)


def a_round(writer: list[Version], follower: list[Version], running: frozenset[int] = frozenset(), following: int = 100) -> Round:
    return Round({"[1]": writer}, {"[1]": follower}, running, following)


OLD, NEW = version(50, row="old"), version(90, row="new", place="2")


@pytest.mark.parametrize(
    ("before", "now", "settled"),
    [
        (a_round([OLD], [version(50, row="other")]), a_round([OLD], [version(50, row="other")]), True),
        (a_round([OLD], []), a_round([OLD], []), True),
        (a_round([], [OLD]), a_round([], [OLD]), True),
        # the writer's row was changed, or changed to and fro, between the two rounds
        (a_round([OLD], [NEW]), a_round([NEW], [OLD]), False),
        (a_round([OLD], []), a_round([version(91, row="old", place="3")], []), False),
        # the follower had a row that came and went on the writer
        (a_round([], []), a_round([], [NEW]), False),
        # a commit that waits for a standby: the follower has it, and the writer doesn't show it
        (a_round([], [NEW]), a_round([], [NEW], frozenset({90})), False),
        (a_round([version(50, ended=90)], []), a_round([version(50, ended=90)], [], frozenset({90})), False),
        (a_round([version(50, ended=100)], []), a_round([version(50, ended=100)], []), False),
        # somebody's lock of long ago, or a transaction that was rolled back
        (a_round([version(50, ended=60)], []), a_round([version(50, ended=60)], []), True),
        # a number that the writer hasn't given yet: no write of its own
        (a_round([], [version(5000)]), a_round([], [version(5000)]), True),
    ],
)
def test_a_row_differs_for_good_when_nothing_happens_to_it_any_more(before: Round, now: Round, settled: bool) -> None:
    assert is_settled(before, now, "[1]") is settled


def test_a_commit_that_waits_for_another_standby_is_no_difference(native_lab: NativeLab) -> None:
    """The follower replays it at once; the writer shows it to nobody before the standby that it waits for has it."""
    store = native_lab.migrated(background=False)
    store.run(put(1))
    store.run(put(2))
    primary = native_lab.pair.primary
    primary.configure({"synchronous_standby_names": "nowhere"})
    while primary.execute("SHOW synchronous_standby_names") != [("nowhere",)]:
        time.sleep(0.01)
    waiting = native_lab.connect("primary")
    commit = threading.Thread(target=_commit, args=(waiting, "DELETE FROM account WHERE id = 1", "UPDATE account SET amount = 9 WHERE id = 2"))
    commit.start()
    try:
        while native_lab.accounts("standby") != {2: 9}:
            time.sleep(0.01)
        assert native_lab.accounts("primary") == {1: 0, 2: 0}
        report = store.check()
    finally:
        primary.configure({"synchronous_standby_names": ""})
        commit.join()
    assert report.equal, report
    assert table(report, "account").waiting == 2


def _commit(connection: Any, *statements: str) -> None:
    for statement in statements:
        connection.execute(statement)
    connection.commit()
