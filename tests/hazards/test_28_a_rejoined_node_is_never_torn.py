"""Hazard 28: the transaction that makes a former writer a follower brings everything that the new writer has, orphans' records included."""

from __future__ import annotations

import pytest

from replstore.errors import NoWriter
from replstore.pair.rejoin import fence_former, rejoin
from tests.fix_stores import Lab, insert, put


def test_the_overwrite_brings_the_writer_s_other_changes_and_the_records(lab: Lab) -> None:
    store = lab.migrated(background=False, rejoin="manual")
    store.run(put(1, 10))
    store.run(put(2, 20))
    lab.sql("primary", insert(9, 90))
    lab.kill("primary")
    store.run(put(2, 21))  # not an orphan's key
    store.run(put(3, 30))
    lab.start("primary")
    fence_former(lab.nodes["primary"], lab.lead("standby").term)
    rejoin(lab.nodes["standby"], lab.nodes["primary"])
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 10, 2: 21, 3: 30}
    records = f"SELECT id, key, former_row FROM {lab.name('orphan')}"
    assert lab.sql("primary", records) == lab.sql("standby", records) != []
    assert lab.markers("primary") == lab.markers("standby")


def test_a_rejoined_node_does_not_take_over_before_it_is_in_sync(lab: Lab) -> None:
    store = lab.migrated(background=False, rejoin="manual")
    store.run(put(1))
    lab.kill("primary")
    store.run(put(2))
    lab.start("primary")
    fence_former(lab.nodes["primary"], lab.lead("standby").term)
    rejoin(lab.nodes["standby"], lab.nodes["primary"])
    assert lab.state("standby").solo
    store.run(put(3))  # still alone, so the rejoined node may not have it
    lab.kill("standby")
    store.close()
    late = lab.store(background=False, takeover_timeout=1.0)
    with pytest.raises(NoWriter, match="not been in sync"):
        late.run(put(4))
    lab.start("standby")
    late.run(put(4))
    late.sync()
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 2: 0, 3: 0, 4: 0}


def test_after_rejoin_and_sync_the_loss_of_the_writer_loses_nothing(lab: Lab) -> None:
    store = lab.migrated(background=False, rejoin="manual")
    store.run(put(1))
    lab.sql("primary", insert(9))
    lab.kill("primary")
    store.run(put(2))
    lab.start("primary")
    store.rejoin()
    lab.kill("standby")
    store.run(put(3))
    assert lab.accounts("primary") == {1: 0, 2: 0, 3: 0}
    assert lab.sql("primary", f"SELECT key FROM {lab.name('orphan')}") == [("[9]",)]
