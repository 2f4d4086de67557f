"""Hazard 1: a position that is given again after a crash or a restored backup would skip changes without an error."""

from __future__ import annotations

import pytest

from replstore.errors import CommittedNotReplicated, NeedsCopy, ReplicationStopped
from tests.fix_backups import saved_before_pruning
from tests.fix_stores import Lab, insert, put


def test_what_a_crash_takes_from_the_writer_was_never_shipped(forgetful_lab: Lab) -> None:
    lab = forgetful_lab
    lab.migrated(background=False)
    program = lab.connect("primary")
    program.execute("SET synchronous_commit = off")
    for id in (1, 2, 3):
        program.execute(insert(id))
        program.commit()
    lab.ship()
    assert lab.accounts("standby").keys() == {1, 2, 3}
    lab.crash("primary")
    assert lab.accounts("primary") == lab.accounts("standby")


def test_a_change_after_a_crash_is_shipped_although_its_transaction_has_an_old_number(forgetful_lab: Lab) -> None:
    lab = forgetful_lab
    lab.migrated(background=False)
    program = lab.connect("primary")
    lab.hold_log("primary")
    program.execute("SET synchronous_commit = off")
    program.execute(insert(1))
    program.commit()
    lab.crash("primary")  # 1 is gone, and so is its transaction's number
    assert lab.accounts("primary") == {}
    lab.sql("primary", insert(2))
    lab.ship()
    assert lab.accounts("primary") == lab.accounts("standby") == {2: 0}


def test_an_acknowledged_transaction_survives_the_crash_of_a_writer_that_commits_without_waiting_for_its_disk(forgetful_lab: Lab) -> None:
    lab = forgetful_lab
    store = lab.migrated(background=False)
    lab.kill("standby")
    store.solo()  # so that no batch makes the commit durable
    store.run(put(1))
    lab.crash("primary")
    assert lab.accounts("primary") == {1: 0}


def test_what_was_shipped_survives_the_crash_of_a_follower_that_commits_without_waiting_for_its_disk(forgetful_lab: Lab) -> None:
    lab = forgetful_lab
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.crash("standby")
    assert lab.accounts("standby") == {1: 0}


def test_a_writer_restored_from_a_backup_ships_nothing_and_says_so(restorable_lab: Lab) -> None:
    lab = restorable_lab
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.save("primary")
    store.run(put(2))
    held = lab.state("standby")
    lab.restore("primary")
    lab.sql("primary", insert(3))  # on SQLite: under the journal number that 2 had
    with pytest.raises(ReplicationStopped, match="writer_rewound"):
        lab.ship()
    assert lab.accounts("standby") == {1: 0, 2: 0}
    assert lab.state("standby").position == held.position
    store.close()
    with pytest.raises(CommittedNotReplicated, match="writer_rewound"):  # from another program, which sees the file of now
        lab.store(background=False).run(put(4))


def test_a_writer_whose_numbers_begin_anew_ships_nothing_and_says_so(lab: Lab) -> None:
    """A dump that was restored into another cluster knows the follower's tick, and gives its transactions numbers below the follower's position."""
    store = lab.migrated(background=False, durability="async")
    store.run(put(1))
    store.sync()
    ahead = "900000000:900000000:" if lab.postgresql else "900000000"
    lab.sql("standby", f"UPDATE {lab.name('position')} SET position = '{ahead}'")
    store.run(put(2), key="once")
    with pytest.raises(ReplicationStopped, match="writer_rewound"):
        store.sync()
    store.rejoin(copy=True)
    store.sync()
    assert lab.accounts("standby") == {1: 0, 2: 0}
    assert lab.markers("standby") == lab.markers("primary")


def test_a_rewound_writer_is_the_new_baseline_once_a_person_says_so_and_what_only_the_follower_has_is_recorded(restorable_lab: Lab) -> None:
    lab = restorable_lab
    store = lab.migrated(background=False)
    store.run(put(1, 10))
    lab.save("primary")
    store.run(put(1, 11))
    store.run(put(2, 20))
    lab.restore("primary")
    lab.sql("primary", insert(3, 30))
    store.close()
    store = lab.store(background=False)
    store.rejoin(copy=True)
    assert lab.accounts("standby") == lab.accounts("primary") == {1: 10, 3: 30}
    assert lab.markers("standby") == lab.markers("primary")
    orphans = dict(lab.sql("primary", f"SELECT key, former_row FROM {lab.name('orphan')} WHERE tbl LIKE '%account'"))
    assert orphans.keys() == {"[1]", "[2]"}
    assert "11" in orphans["[1]"]
    assert "20" in orphans["[2]"]
    store.run(put(4))
    assert lab.accounts("standby") == lab.accounts("primary")


def test_a_follower_restored_from_a_backup_gets_what_it_lost(restorable_lab: Lab) -> None:
    lab = restorable_lab
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.save("standby")
    store.run(put(2))
    lab.restore("standby")
    assert lab.accounts("standby") == {1: 0}
    lab.ship()
    assert lab.accounts("standby") == {1: 0, 2: 0}


def test_a_follower_behind_what_the_writer_has_pruned_needs_a_copy(restorable_lab: Lab) -> None:
    lab = restorable_lab
    store = saved_before_pruning(lab)
    lab.restore("standby")
    lab.sql("primary", insert(3))
    with pytest.raises(NeedsCopy):
        lab.ship()
    assert lab.accounts("standby") == {1: 0}
    store.rejoin(copy=True)
    assert lab.accounts("standby") == {1: 0, 2: 0, 3: 0}


def test_a_change_after_the_whole_journal_was_pruned_is_shipped(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    writer, shipped = lab.nodes["primary"], lab.state("standby").position
    assert shipped is not None
    with writer.begin() as connection:
        writer.database.prune(connection, shipped)
    assert lab.sql("primary", f"SELECT count(*) FROM {lab.name('journal')}") == [(0,)]
    lab.sql("primary", insert(2))
    lab.ship()
    assert lab.accounts("standby") == {1: 0, 2: 0}
