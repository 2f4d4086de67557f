"""A former primary follows again: rewound, or copied anew, by a command that runs where its data directory is."""

from __future__ import annotations

import pytest

from replstore import NodeLost
from replstore.reconcile.export import export
from tests.fix_native import NativeLab
from tests.fix_stores import insert, put
from tests.fix_streaming import on_an_installed_server_too
from tests.native.test_orphans import parted


@on_an_installed_server_too
def test_a_primary_that_had_nothing_of_its_own_follows_after_kill_9(native_lab: NativeLab) -> None:
    store = parted(native_lab)
    store.run(put(5))
    assert store.rejoin() == 0
    store.sync()
    assert native_lab.accounts("primary").keys() == {1, 2, 3, 4, 5}
    assert store.status().nodes["primary"].role == "follower"
    assert store.rejoin() == 0
    pid = native_lab.pair.data("primary").pid
    _, found, _ = export(store.pair)
    assert found.nothing
    assert native_lab.pair.data("primary").pid == pid, "a follower is left alone"


def test_a_zombie_is_stopped_and_what_it_took_is_thrown_away_by_order_only(native_lab: NativeLab) -> None:
    store = parted(native_lab)
    native_lab.start("primary")
    native_lab.sql("primary", insert(10))
    assert store.rejoin(discard=True) == 1
    store.sync()
    assert native_lab.accounts("primary") == native_lab.accounts("standby")


def test_a_copy_is_made_where_it_is_ordered(native_lab: NativeLab) -> None:
    store = parted(native_lab)
    assert store.rejoin(copy=True) == 0
    data = native_lab.pair.data("primary")
    (kept,) = data.path.parent.glob("data.before-*")
    assert (kept / "PG_VERSION").exists()
    store.sync()
    assert native_lab.accounts("primary").keys() == {1, 2, 3, 4}


def test_without_the_directory_the_commands_are_told(native_lab: NativeLab) -> None:
    store = parted(native_lab, primary_data=None, replication_user="replicator")
    with pytest.raises(NodeLost) as told:
        store.rejoin()
    said = str(told.value)
    port = native_lab.pair.standby.port
    assert f"pg_rewind -R --source-server='host=127.0.0.1 port={port} user=replicator" in said
    assert f"pg_basebackup -h 127.0.0.1 -p {port} -U replicator -R" in said
    assert "password" not in said
