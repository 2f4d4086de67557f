"""Hazard 27 (a), (e), (f): recording and overwriting at a rejoin, when two programs do it and one of them is frozen or dies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from replstore.databases.carrier import Carrier
from replstore.databases.database import Database
from replstore.pair.rejoin import fence_former, rejoin
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


def test_e_the_record_is_durable_before_the_overwrite(forgetful_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = forgetful_lab
    _former_writer_with_an_orphan(lab)
    rejoin(lab.nodes["standby"], lab.nodes["primary"])
    assert lab.accounts("primary") == {1: 0, 3: 0}
    lab.crash("standby")  # the new writer commits without waiting for its disk
    assert lab.sql("standby", f"SELECT key FROM {lab.name('orphan')}") == [("[2]",)]


@pytest.mark.parametrize("step", ["follower", "snapshot", "tick", "still_there", "apply"])
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
