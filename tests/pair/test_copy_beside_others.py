"""What else happens while a filled follower is copied: another program's migration, a forced takeover, commits that wait, keys that are no text."""

from __future__ import annotations

import time

import pytest

from replstore.databases.carrier import CompareFailed
from replstore.errors import CommittedNotReplicated, NeedsCopy
from replstore.replication.journal import copying, ship
from replstore.replication.mirror import mirror
from tests.fix_copies import filled, half_copied, parts, watched
from tests.fix_stores import Base, Lab, Steps, put

pytestmark = pytest.mark.usefixtures("small_parts")


def alter_follower(lab: Lab) -> None:
    lab.sql("standby", "ALTER TABLE account ADD COLUMN strange integer")


def test_a_batch_that_began_before_a_table_was_made_anew_does_not_end_its_copy(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1, 1))
    lab.sql("primary", "INSERT INTO account VALUES (2, 'b', 2)")
    alter_follower(lab)
    shipper = lab.shipper()
    shipper.carrier = Steps(shipper.carrier, before={"tick": lambda: mirror(lab.nodes["primary"], lab.nodes["standby"])})
    shipper.ship()
    assert not lab.state("standby").copying
    assert lab.accounts("standby") == lab.accounts("primary") == {1: 1, 2: 2}


def test_a_part_that_began_before_its_table_was_made_anew_does_not_count(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    half_copied(lab, monkeypatch).close()
    alter_follower(lab)
    shipper = lab.shipper()
    shipper.carrier = Steps(shipper.carrier, before={"tick": lambda: mirror(lab.nodes["primary"], lab.nodes["standby"])})
    shipper.ship()
    assert lab.accounts("standby") == lab.accounts("primary") == {id: id for id in range(45)}


def test_a_part_lands_only_where_the_copy_is_as_far_as_it_was_when_the_part_began(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever let the other one in: how far the copy is, is compared in the transaction that takes it further."""
    half_copied(lab, monkeypatch).close()
    name = "public.account" if lab.postgresql else "account"
    anew = f"UPDATE {lab.name('setting')} SET value = '{{\"{name}\": null}}' WHERE name = 'copying'"
    shipper = lab.shipper()
    shipper.carrier = Steps(shipper.carrier, before={"tick": lambda: lab.sql("standby", anew)})
    with monkeypatch.context() as patch, pytest.raises(CompareFailed, match="moved since the batch began"):
        patch.setattr(ship, "ATTEMPTS", 1)
        shipper.ship()
    lab.ship()
    assert lab.accounts("standby") == lab.accounts("primary")


def test_half_a_copy_that_is_forced_to_write_gets_back_what_it_lacks_only_by_a_comparison(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    half_copied(lab, monkeypatch).close()
    store = lab.store(background=False)
    store.takeover("standby", force=True)
    with pytest.raises(NeedsCopy, match="half copied"):
        store.rejoin()
    assert store.rejoin(copy=True) == 15  # each row that the forced one never got is on record
    assert lab.accounts("standby") == lab.accounts("primary") == {id: id for id in range(30)}
    assert store.check().equal


def test_a_table_that_a_migration_copies_whole_is_not_copied_in_parts_as_well(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(lab)
    store = lab.store(background=False)
    store.migrate(Base)
    lab.sql("primary", "ALTER TABLE account ADD COLUMN age integer")
    batches = watched(store, monkeypatch, lambda batch: None)
    store.migrate()
    assert [keys.whole for batch in batches for name, keys in batch.items() if "account" in name] == [True]
    assert parts(batches) == []
    assert store.check().equal


def test_a_commit_that_waits_for_a_copy_keeps_its_deadline_and_the_copy_goes_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    store = lab.migrated(background=False, on_follower_down="block", ack_timeout=0.2)
    lab.sql("primary", "INSERT INTO account VALUES " + ", ".join(f"({id}, 'owner {id}', {id})" for id in range(45)))
    store.sync()
    name = "public.account" if lab.postgresql else "account"
    mirror(lab.nodes["primary"], lab.nodes["standby"], copy=[name])
    monkeypatch.setattr(store.pair, "watched", True)  # a monitor frees who waits for a node that is silent, and none is
    with pytest.raises(TimeoutError, match="standby is being copied"):
        store.pair.ship(time.monotonic())
    with monkeypatch.context() as patch, pytest.raises(CommittedNotReplicated, match="standby is being copied"):
        watched(store, patch, lambda batch: time.sleep(0.3))
        store.run(put(100))
    store.sync()
    assert lab.accounts("standby") == lab.accounts("primary")


def test_a_follower_that_others_keep_changing_is_no_reason_to_stop(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    store = lab.migrated(background=False)
    lab.sql("primary", "INSERT INTO account VALUES (1, 'a', 1)")
    monkeypatch.setattr(ship, "ATTEMPTS", 2)
    with monkeypatch.context() as patch, pytest.raises(ship.CompareFailed):
        watched(store, patch, lambda batch: lab.sql("standby", f"UPDATE {lab.name('position')} SET batch = batch + 1") and None)
        store.pair.ship()
    assert store.status().stopped == ""


def test_heartbeats_on_the_follower_keep_no_batch_from_landing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the writer may take longer than the time between two of them: a copy beside a large journal would never come on."""
    lab.migrated(background=False)
    lab.sql("primary", "INSERT INTO account VALUES (1, 'a', 1)")
    monkeypatch.setattr(ship, "ATTEMPTS", 1)
    shipper = lab.shipper()
    beat = f"UPDATE {lab.name('heartbeat')} SET no = no + 1"
    lab.sql("standby", beat)
    shipper.carrier = Steps(shipper.carrier, after={"snapshot": lambda: lab.sql("standby", beat), "tick": lambda: lab.sql("standby", beat)})
    shipper.ship()
    assert lab.accounts("standby") == {1: 1}


def test_parts_may_end_at_a_key_that_is_no_utf_8(sqlite_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = sqlite_lab
    monkeypatch.setattr(copying, "ROWS", 1)
    keys = ["CAST(x'ff' AS TEXT)", "CAST(x'6100ff' AS TEXT)", "x'ff'", "'a'", "'ä'", "char(55296)", "1", "1.5", "9e999", "9007199254740993", "5e-324"]
    lab.sql("primary", "CREATE TABLE t (a NOT NULL PRIMARY KEY)", "INSERT INTO t VALUES " + ", ".join(f"({key})" for key in keys))
    store = lab.store(background=False)
    store.migrate()
    rows = "SELECT typeof(a), hex(a) FROM t ORDER BY 1, 2"
    assert lab.sql("standby", rows) == lab.sql("primary", rows)
    assert store.check().equal
