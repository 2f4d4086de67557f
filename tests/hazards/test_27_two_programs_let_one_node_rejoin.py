"""Hazard 27 (a), (e), (f): recording and overwriting at a rejoin, when two programs do it and one of them is frozen or dies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from replstore.databases.carrier import Carrier, CompareFailed, Keys, Landing
from replstore.databases.database import Database
from replstore.databases.landing import journal_seen
from replstore.errors import NotTheWriter
from replstore.pair import rejoin as rejoining
from replstore.pair.decide import Term
from replstore.pair.rejoin import fence_former, rejoin
from replstore.pair.takeover import FORCED_JUMP
from replstore.store import Store
from tests.fix_stores import Lab, Steps, insert, put


class Died(Exception):
    """A program ended at this place."""


def test_a_a_program_frozen_before_the_overwrite_changes_nothing_once_the_node_writes_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _former_writer_with_an_orphan(lab)

    def meanwhile() -> None:
        monkeypatch.undo()
        rejoin(lab.nodes["standby"], lab.nodes["primary"])  # the other program
        lab.ship("standby")
        store.switchover()
        store.run(put(5))
        assert lab.state("primary").role == "writer"

    _in_the_carrier(monkeypatch, lab, before={"follower": meanwhile})
    with pytest.raises(Exception, match=r"fenced|changed|writer"):
        rejoin(lab.nodes["standby"], lab.nodes["primary"])
    assert lab.state("primary").role == "writer"
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 3: 0, 5: 0}


def test_a_command_that_comes_second_finds_it_done(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _former_writer_with_an_orphan(lab)

    def meanwhile() -> None:
        monkeypatch.undo()
        rejoin(lab.nodes["standby"], lab.nodes["primary"])  # the other program

    _in_the_carrier(monkeypatch, lab, before={"follower": meanwhile})
    assert store.rejoin() == 0
    assert store.status().healthy
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 3: 0}
    assert lab.sql("primary", f"SELECT key FROM {lab.name('orphan')}") == [("[2]",)]


def test_a_a_program_frozen_within_the_overwrite_changes_nothing_once_another_has_done_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _former_writer_with_an_orphan(lab)

    def meanwhile() -> None:
        monkeypatch.undo()
        rejoin(lab.nodes["standby"], lab.nodes["primary"])
        lab.ship("standby")

    # on PostgreSQL the frozen one has the shippers' turn: its session is ended after two seconds, then the other one goes on
    _in_the_carrier(monkeypatch, lab, before={"apply": meanwhile})
    with pytest.raises(Exception, match=r"fenced|changed|moved|gone|connection|terminat"):
        rejoin(lab.nodes["standby"], lab.nodes["primary"])
    store.sync()
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 3: 0}
    assert lab.sql("standby", f"SELECT key FROM {lab.name('orphan')}") == [("[2]",)]


def test_a_an_orphan_recorded_by_both_is_one_record(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    _former_writer_with_an_orphan(lab)
    _in_the_carrier(monkeypatch, lab, before={"follower": _die})
    for _ in range(2):
        with pytest.raises(Died):
            rejoin(lab.nodes["standby"], lab.nodes["primary"])
    monkeypatch.undo()
    rejoin(lab.nodes["standby"], lab.nodes["primary"])
    assert lab.sql("standby", f"SELECT key FROM {lab.name('orphan')}") == [("[2]",)]


def test_what_is_recorded_is_final_whoever_comes_again(sqlite_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both versions are those of the moment at which the orphan was found; a second program changes nothing about them."""
    lab = sqlite_lab
    store = _former_writer_with_an_orphan(lab)
    _in_the_carrier(monkeypatch, lab, before={"follower": _die})
    with pytest.raises(Died):
        rejoin(lab.nodes["standby"], lab.nodes["primary"])
    monkeypatch.undo()
    records = f"SELECT * FROM {lab.name('orphan')}"
    recorded = lab.sql("standby", records)
    store.run(put(2, 99))  # the orphan's key
    rejoin(lab.nodes["standby"], lab.nodes["primary"])
    assert lab.sql("standby", records) == recorded != []
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 2: 99, 3: 0}


def test_a_a_change_that_came_after_the_orphans_were_read_is_not_overwritten(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody passes the guard on a fenced node: the journal is no longer the one that was read."""
    _former_writer_with_an_orphan(lab)
    late = insert(8)

    def behind_the_guard() -> None:
        if lab.postgresql:
            lab.sql("primary", "SET replstore.mark = 'migrate'", late)
        else:
            lab.sql("primary", "UPDATE replstore_mark SET mark = 'migrate'", late, "UPDATE replstore_mark SET mark = NULL")

    _in_the_carrier(monkeypatch, lab, before={"follower": behind_the_guard})
    with pytest.raises(Exception, match=r"journal grew|changed"):
        rejoin(lab.nodes["standby"], lab.nodes["primary"])
    monkeypatch.undo()
    assert lab.state("primary").role == "fenced"
    rejoin(lab.nodes["standby"], lab.nodes["primary"])
    assert {key for (key,) in lab.sql("standby", f"SELECT key FROM {lab.name('orphan')}")} == {"[2]", "[8]"}


def _forced_again(lab: Lab) -> None:
    """A person forces the new writer once more: the same node, another term."""
    lab.store(background=False).takeover("standby", force=True)


def _fenced(lab: Lab) -> None:
    """The new writer has been replaced, and told so."""
    fence_former(lab.nodes["standby"], Term(2 + FORCED_JUMP, "a later one"))


@pytest.mark.parametrize("meanwhile", [_forced_again, _fenced])
def test_nothing_is_recorded_on_a_node_that_is_no_longer_the_writer_of_that_term(
    sqlite_lab: Lab, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[Lab], None]
) -> None:
    lab = sqlite_lab
    _former_writer_with_an_orphan(lab)
    record = rejoining.record

    def late(*arguments: Any) -> int:
        meanwhile(lab)
        return record(*arguments)

    monkeypatch.setattr(rejoining, "record", late)
    with pytest.raises(NotTheWriter, match="standby is no longer the writer of term 2"):
        rejoin(lab.nodes["standby"], lab.nodes["primary"])
    assert lab.sql("standby", f"SELECT key FROM {lab.name('orphan')}") == []
    assert lab.state("primary").role == "fenced"


@pytest.mark.parametrize("meanwhile", [_forced_again, _fenced])
def test_nothing_is_overwritten_with_the_rows_of_a_node_that_is_no_longer_the_writer_of_that_term(
    sqlite_lab: Lab, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[Lab], None]
) -> None:
    lab = sqlite_lab
    _former_writer_with_an_orphan(lab)
    _in_the_carrier(monkeypatch, lab, before={"snapshot": lambda: meanwhile(lab)})
    with pytest.raises(NotTheWriter, match="standby is no longer the writer of term 2"):
        rejoin(lab.nodes["standby"], lab.nodes["primary"])
    assert lab.state("primary").role == "fenced"
    assert lab.accounts("primary") == {1: 0, 2: 20}


def test_a_node_rejoins_a_writer_only(sqlite_lab: Lab) -> None:
    lab = sqlite_lab
    _former_writer_with_an_orphan(lab)
    _fenced(lab)
    with pytest.raises(NotTheWriter, match=r"standby is no longer the writer$"):
        rejoin(lab.nodes["standby"], lab.nodes["primary"])
    assert lab.sql("standby", f"SELECT key FROM {lab.name('orphan')}") == []


@pytest.mark.parametrize(
    "change",
    [
        {"role": "follower"},
        {"term_no": 7},
        {"term_uuid": "another"},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize(("step", "says"), [("_make_ready", "primary is no longer fenced under term 1"), ("_overwrite", "primary has changed since")])
def test_a_former_writer_that_is_no_longer_what_was_read_is_left_alone(
    sqlite_lab: Lab, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], step: str, says: str
) -> None:
    """Somebody else changed its role while the orphans were being recorded: everything is compared again, in each transaction."""
    lab = sqlite_lab
    _former_writer_with_an_orphan(lab)
    run = getattr(rejoining, step)

    def late(*arguments: Any, **options: Any) -> None:
        with lab.nodes["primary"].begin() as connection:
            connection.execute(update(lab.control.role).values(**change))
        run(*arguments, **options)

    monkeypatch.setattr(rejoining, step, late)
    with pytest.raises((NotTheWriter, CompareFailed), match=says):
        rejoin(lab.nodes["standby"], lab.nodes["primary"])
    assert lab.accounts("primary") == {1: 0, 2: 20}


@pytest.mark.parametrize("changed", ["role", "term_no", "term_uuid", "journal_seen"])
def test_the_last_transaction_compares_fence_term_and_journal_itself(lab: Lab, changed: str) -> None:
    """What was compared before it began is compared in its own UPDATE again: it would hold without the order of the steps before."""
    _former_writer_with_an_orphan(lab)
    carrier = lab.nodes["standby"].database.carrier(lab.nodes["standby"].service, lab.nodes["primary"].service)
    base = carrier.follower(wait=1.0)
    snapshot = carrier.snapshot(since=None, held=None)
    seen = lab.sql("primary", f"SELECT {journal_seen(lab.control)}")[0][0]
    other: dict[str, Any] = {"role": "writer", "term_no": 7, "term_uuid": "another"}
    base = dataclasses.replace(base, **{changed: other[changed]}) if changed in other else base
    seen = "7:7" if changed == "journal_seen" else seen
    landing = Landing(base, snapshot.state, snapshot.position, carrier.tick(batch=1, held=None), eligible=False, rejoin=True, journal_seen=seen)
    with pytest.raises(CompareFailed, match=r"no longer what it was|the follower changed since the batch began"):
        carrier.apply({name: Keys(whole=True) for name in carrier.tables()}, landing)
    carrier.close()
    assert lab.state("primary").role == "fenced"
    assert lab.accounts("primary") == {1: 0, 2: 20}


def test_e_the_record_is_durable_before_the_overwrite(forgetful_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = forgetful_lab
    _former_writer_with_an_orphan(lab)
    rejoin(lab.nodes["standby"], lab.nodes["primary"])
    assert lab.accounts("primary") == {1: 0, 3: 0}
    lab.crash("standby")  # the new writer commits without waiting for its disk
    assert lab.sql("standby", f"SELECT key FROM {lab.name('orphan')}") == [("[2]",)]


@pytest.mark.parametrize("step", ["follower", "snapshot", "tick", "apply", "still_there", "land"])
def test_f_a_program_that_dies_at_any_step_leaves_a_fenced_node_and_the_next_one_does_the_whole(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store = _former_writer_with_an_orphan(lab)
    before = lab.accounts("primary")
    _in_the_carrier(monkeypatch, lab, before={step: _die})
    with pytest.raises(Died):
        rejoin(lab.nodes["standby"], lab.nodes["primary"])
    monkeypatch.undo()
    assert lab.state("primary").role == "fenced"
    assert lab.accounts("primary") == before
    store.run(put(4))  # the writer goes on meanwhile
    rejoin(lab.nodes["standby"], lab.nodes["primary"])
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 3: 0, 4: 0}
    assert lab.sql("standby", f"SELECT key FROM {lab.name('orphan')}") == [("[2]",)]


def _die() -> None:
    raise Died


def _former_writer_with_an_orphan(lab: Lab) -> Store:
    """The primary was lost with transaction 2, which had not been shipped; it is back, fenced."""
    store = lab.migrated(background=False, rejoin="manual")
    store.run(put(1))
    lab.sql("primary", insert(2, 20))
    if lab.postgresql:
        lab.sql("primary", "SET synchronous_commit = on; SELECT pg_switch_wal()")
    lab.kill("primary")
    store.run(put(3))
    lab.start("primary")
    fence_former(lab.nodes["primary"], lab.lead("standby").term)
    return store


def _in_the_carrier(monkeypatch: pytest.MonkeyPatch, lab: Lab, *, before: dict[str, Callable[[], Any]]) -> None:
    """The next carriers that the new writer's database makes do something before a step."""
    database = type(lab.nodes["standby"].database)
    make: Callable[..., Carrier] = database.carrier

    def carrier(self: Database, *engines: Any) -> Carrier:
        return Steps(make(self, *engines), before=before)

    monkeypatch.setattr(database, "carrier", carrier)
