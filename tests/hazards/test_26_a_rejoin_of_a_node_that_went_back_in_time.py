"""Hazard 26: a former writer follows without a copy only if it has what the new writer held of it at the takeover."""

from __future__ import annotations

import pytest

from replstore.errors import NeedsCopy
from tests.fix_backups import saved_before_pruning
from tests.fix_stores import Lab, insert, put


def from_last_night(lab: Lab) -> None:
    """The standby has taken over, and the primary comes back as it was before its last two transactions."""
    store = lab.migrated(background=False)
    store.run(put(1, 10))
    lab.save("primary")
    store.run(put(1, 11))
    store.run(put(2))
    lab.kill("primary")
    store.run(put(3))
    lab.start("primary")
    lab.restore("primary")
    store.close()


def test_a_former_writer_from_last_night_s_copy_needs_a_copy(restorable_lab: Lab) -> None:
    lab = restorable_lab
    from_last_night(lab)
    store = lab.store(background=False)
    with pytest.raises(NeedsCopy, match=r"went back in time.*rejoin --copy"):
        store.rejoin()
    assert lab.state("primary").role == "fenced"
    assert lab.accounts("primary") == {1: 10}


def test_the_copy_records_what_only_the_former_writer_has(restorable_lab: Lab) -> None:
    lab = restorable_lab
    from_last_night(lab)
    lab.sql("primary", insert(9, 90))  # by a program that knows nothing
    store = lab.store(background=False)
    store.rejoin(copy=True)
    store.sync()
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 11, 2: 0, 3: 0}
    orphans = dict(lab.sql("standby", f"SELECT key, former_row FROM {lab.name('orphan')} WHERE tbl LIKE '%account'"))
    assert orphans.keys() == {"[1]", "[9]"}
    assert "90" in orphans["[9]"]
    assert lab.markers("primary") == lab.markers("standby")
    store.switchover()
    store.run(put(4))
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 11, 2: 0, 3: 0, 4: 0}


def test_a_former_writer_that_pruned_past_the_takeover_needs_a_copy(restorable_lab: Lab) -> None:
    lab = restorable_lab
    store = saved_before_pruning(lab)
    lab.kill("primary")
    lab.restore("standby")
    store.close()
    store = lab.store(background=False)
    store.takeover("standby", force=True)
    store.run(put(3))
    lab.start("primary")
    with pytest.raises(NeedsCopy):
        store.rejoin()
    store.rejoin(copy=True)
    store.sync()
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 3: 0}
    assert ("[2]",) in lab.sql("standby", f"SELECT key FROM {lab.name('orphan')}")


def test_a_former_writer_whose_history_goes_on_follows_without_a_copy(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.kill("primary")
    store.run(put(2))
    lab.start("primary")
    assert store.rejoin() == 0
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 2: 0}
