"""A node that went back in time is named, with the last batch that both have, and the rows that differ by it are told from those changed since."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
from pathlib import Path

from sqlalchemy import make_url, update

from replstore.local import PostgresPair
from replstore.pair.takeover import FORCED_JUMP
from replstore.reconcile.origin import Restored
from replstore.reconcile.report import Report
from replstore.store import Store
from tests.fix_backups import saved_before_pruning
from tests.fix_check import behind_the_guard
from tests.fix_stores import Lab, insert, put
from tests.pair.test_causes import origins

NODES = ("primary", "standby")


def causes(report: Report) -> dict[int, str | None]:
    return {id: origin.cause for id, origin in origins(report).items()}


def again(lab: Lab, store: Store) -> Store:
    """Another program, which sees the files of now."""
    store.close()
    return lab.store(background=False)


def ticks(lab: Lab, node: str) -> list[tuple[int, str]]:
    """A writer's batches, the last one first."""
    return lab.sql(node, f"SELECT batch, at FROM {lab.name('tick')} ORDER BY at DESC, batch DESC")  # type: ignore[return-value]


def said(batch: tuple[int, str]) -> str:
    """How a sentence names a batch."""
    return f"batch {batch[0]} of {batch[1][:10]} {batch[1][11:19]} UTC"


def restored_writer(lab: Lab) -> tuple[Store, tuple[int, str]]:
    """A primary that went back behind rows that the standby has, and wrote on; with its last batch."""
    store = lab.migrated(background=False)
    for id in (1, 2, 3):
        store.run(put(id, 10))
    lab.save("primary")
    store.run(put(1, 11))
    store.run(put(4))
    lab.restore("primary")
    lab.sql("primary", insert(5))
    return again(lab, store), ticks(lab, "primary")[0]


def test_a_restored_writer_is_named_with_the_last_batch_that_both_have(restorable_lab: Lab) -> None:
    lab = restorable_lab
    store, last = restored_writer(lab)
    report = store.check()
    assert report.restored is not None
    assert report.restored.node == "primary"
    assert report.restored.common is not None
    assert report.restored.other is not None
    assert (report.restored.common.number, report.restored.common.at) == last
    assert (report.restored.other.number, report.restored.other.at) == (lab.state("standby").batch, lab.state("standby").shipped_at)
    assert report.restored.other.number > last[0]
    assert any("primary went back in time" in note and said(last) in note for note in report.notes)
    assert report.as_dict()["restored"]["common"] == {"batch": last[0], "at": last[1]}


def test_rows_that_a_restored_writer_has_as_in_the_backup_are_told_from_those_it_changed_since(restorable_lab: Lab) -> None:
    lab = restorable_lab
    store, last = restored_writer(lab)
    found = origins(store.check())
    assert {id: each.cause for id, each in found.items()} == {1: "restored", 4: "restored", 5: None}
    assert found[1].change is not None
    assert found[1].change.node == "primary"
    assert found[1].as_dict()["common"] == {"batch": last[0], "at": last[1]}
    assert str(found[1]) == f"primary went back in time, as of {said(last)}, and no journal has named the row since"
    assert found[5].as_dict()["common"] is None


def test_a_change_by_a_store_since_the_restore_is_not_laid_to_it(restorable_lab: Lab) -> None:
    """Its transaction is one that the follower doesn't have."""
    lab = restorable_lab
    store = lab.migrated(background=False, durability="async")
    store.run(put(1, 10))
    store.run(put(2, 20))
    store.sync()
    lab.save("primary")
    store.run(put(1, 11))
    store.run(put(2, 21))
    store.sync()
    lab.restore("primary")
    store.close()
    store = lab.store(background=False, durability="async")
    store.run(put(1, 12))
    assert causes(store.check()) == {1: None, 2: "restored"}


def test_a_former_writer_from_last_night_s_copy_is_named(restorable_lab: Lab) -> None:
    lab = restorable_lab
    store = lab.migrated(background=False)
    store.run(put(1, 10))
    lab.save("primary")
    store.run(put(1, 11))
    store.run(put(2))
    held = lab.state("standby")
    lab.kill("primary")
    store.run(put(3))
    lab.start("primary")
    lab.restore("primary")
    store = again(lab, store)
    report = store.check()
    assert report.restored is not None
    assert report.restored.node == "primary"
    assert report.restored.common is not None
    assert report.restored.other is not None
    assert report.restored.other.number == held.batch
    assert causes(report) == {1: "restored", 2: "restored", 3: None}, "the standby's journal names 3: it was written after the takeover"


def test_a_former_writer_that_went_on_is_not_taken_for_a_restored_one(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1, 10))
    lab.kill("primary")
    store.run(put(1, 11))
    lab.start("primary")
    report = store.check()
    assert not report.equal
    assert (report.restored, causes(report)) == (None, {1: None})


def test_a_follower_that_went_back_behind_its_writer_s_journal_is_named(restorable_lab: Lab) -> None:
    lab = restorable_lab
    store = saved_before_pruning(lab)
    held = lab.state("standby")
    store.run(put(3))
    writer, shipped = lab.nodes["primary"], lab.state("standby").position
    assert shipped is not None
    with writer.begin() as connection:
        writer.database.prune(connection, shipped)
    lab.restore("standby")
    store = again(lab, store)
    report = store.check()
    assert report.restored is not None
    assert held.batch is not None
    assert report.restored.common is not None
    assert report.restored.other is not None
    assert report.restored.node == "standby"
    assert report.restored.common.number == lab.state("standby").batch
    assert report.restored.other.number == ticks(lab, "primary")[0][0]
    assert causes(report) == {2: "restored", 3: "restored"}


def test_a_follower_that_was_away_for_too_long_is_not_taken_for_a_restored_one(lab: Lab) -> None:
    """One batch that was begun and didn't arrive proves nothing."""
    store = lab.migrated(background=False, durability="async")
    store.run(put(1))
    store.sync()
    shipper = lab.shipper()
    with contextlib.ExitStack() as batch:
        batch.callback(shipper.carrier.abandon)
        base = shipper.carrier.follower(wait=2.0)
        shipper.carrier.snapshot(since=base.position, held=base.tick)
        shipper.carrier.tick(batch=(base.batch or 0) + 1, held=base.tick)
        shipper.carrier.still_there()
    store.run(put(2))
    writer = lab.nodes["primary"]
    with writer.begin() as connection:
        writer.database.prune(connection, writer.database.position(connection))
    lab.sql("primary", insert(3))
    if lab.postgresql:
        lab.sql("primary", f"UPDATE {lab.name('retention')} SET pruned_through = (SELECT pg_current_snapshot()::text)")
    else:
        lab.sql("primary", f"UPDATE {lab.name('retention')} SET pruned_through = '1000'")
    report = store.check()
    assert not report.exact
    assert report.restored is None
    assert set(causes(report).values()) == {None}


def test_a_follower_that_goes_on_while_it_is_checked_has_not_gone_back(lab: Lab) -> None:
    """Its snapshot is older than the writer's, whose journal doesn't reach back to it any more."""
    from replstore.reconcile.restored import went_back
    from replstore.reconcile.snapshots import _side

    store = lab.migrated(background=False)
    store.run(put(1))
    with contextlib.ExitStack() as stack:
        follower = _side(stack, lab.nodes["standby"])
        for id in range(2, 6):
            store.run(put(id))
        writer = _side(stack, lab.nodes["primary"])
        assert ticks(lab, "primary")[0][0] >= (follower.state.batch or 0) + 2
        assert went_back(writer, follower) is None


def test_numbers_and_times_that_contradict_each_other_name_no_node(restorable_lab: Lab) -> None:
    lab = restorable_lab
    store, _ = restored_writer(lab)
    lab.sql("primary", f"UPDATE {lab.name('tick')} SET at = '2999-01-01T00:00:00.000+00:00'")
    report = store.check()
    assert report.restored is None
    assert any("one of them went back in time" in note for note in report.notes)
    assert set(causes(report).values()) == {None}


def test_a_writer_that_a_person_forced_back_is_not_compared_by_ticks_it_may_have_forgotten(restorable_lab: Lab) -> None:
    lab = restorable_lab
    store = lab.migrated(background=False)
    store.run(put(1, 10))
    lab.save("primary")
    store.run(put(1, 11))
    lab.kill("primary")
    store.run(put(2))
    lab.start("primary")
    lab.restore("primary")
    store = again(lab, store)
    assert store.check().restored is not None
    node = lab.nodes["standby"]
    with node.begin() as connection:
        connection.execute(update(node.database.control.role).values(term_no=lab.state("standby").term_no + FORCED_JUMP))
    assert again(lab, store).check().restored is None


def test_a_table_whose_capture_is_lost_is_not_explained_by_a_backup(restorable_lab: Lab) -> None:
    lab = restorable_lab
    store, _ = restored_writer(lab)
    if lab.postgresql:
        lab.sql("primary", "ALTER TABLE account DISABLE TRIGGER USER")
    else:
        names = lab.sql("primary", "SELECT name FROM sqlite_master WHERE tbl_name = 'account' AND name LIKE 'replstore_capture%'")
        lab.sql("primary", *(f"DROP TRIGGER {name}" for (name,) in names))
    assert set(causes(store.check()).values()) == {"capture_missing"}


def test_an_older_dump_that_was_loaded_is_a_node_that_went_back(restorable_lab: Lab, tmp_path: Path) -> None:
    lab = restorable_lab
    store = lab.migrated(background=False)
    store.run(put(1, 10))
    load = dumped(lab, tmp_path)
    store.run(put(1, 11))
    store.run(put(2))
    store.close()
    load()
    store = lab.store(background=False)
    report = store.check()
    assert report.restored is not None
    assert report.restored.node == "primary"
    # on PostgreSQL its tables are others now, so whether all changes since were captured isn't known
    assert set(causes(report).values()) == {"capture_missing" if lab.postgresql else "restored"}


def test_a_writer_whose_numbers_begin_anew_is_not_called_exact(lab: Lab) -> None:
    """A dump in another cluster knows the follower's tick, and its transactions have numbers that the follower's position takes for old ones."""
    store = lab.migrated(background=False, durability="async")
    store.run(put(1))
    store.sync()
    lab.sql("standby", f"UPDATE {lab.name('position')} SET position = '{'900000000:900000000:' if lab.postgresql else '900000000'}'")
    store.run(put(2))
    report = store.check()
    assert not report.exact
    assert any("a dump of it was loaded into another server" in note for note in report.notes)
    assert causes(report) == {2: None}


def test_what_was_found_survives_a_break_of_the_check(restorable_lab: Lab, tmp_path: Path) -> None:
    store, _ = restored_writer(restorable_lab)
    origin = origins(store.check())[1]
    from dataclasses import asdict

    kept = json.loads(json.dumps(asdict(origin)))
    assert type(origin).of(kept) == origin
    assert isinstance(origin.restored, Restored)


def test_a_row_written_past_the_triggers_on_the_other_node_is_told_as_what_it_is_once_both_were_found_equal(lab: Lab) -> None:
    """No node went back: nothing is laid to a backup."""
    store = lab.migrated(background=False)
    store.run(put(1))
    assert store.check().equal
    behind_the_guard(lab, "standby", "UPDATE account SET amount = 9 WHERE id = 1")
    report = store.check()
    assert (report.restored, causes(report)) == (None, {1: "behind_guard"})


def dumped(lab: Lab, directory: Path):  # type: ignore[no-untyped-def]
    """Takes a dump of the primary; returns what loads it in place of the database."""
    if not lab.postgresql:
        path = Path(str(make_url(lab.pair.primary_url).database))
        with contextlib.closing(sqlite3.connect(path)) as file:
            script = "\n".join(file.iterdump())

        def load_file() -> None:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
            with contextlib.closing(sqlite3.connect(path)) as file:
                file.execute("PRAGMA journal_mode = WAL")
                file.executescript(script)
            lab._forget_connections("primary")

        return load_file
    assert isinstance(lab.pair, PostgresPair)
    server, url = lab._server("primary"), make_url(lab.pair.primary_url).set(drivername="postgresql")
    binaries = server.bindir
    dump = directory / "dump.sql"
    uri = url.render_as_string(hide_password=False)
    subprocess.run([binaries / "pg_dump", "--clean", "--if-exists", "-f", dump, uri], check=True)

    def load() -> None:
        lab._forget_connections("primary")
        subprocess.run([binaries / "psql", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f", dump, uri], check=True)
        lab._forget_connections("primary")

    return load
