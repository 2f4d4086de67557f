"""A SQLite file and a PostgreSQL database as one pair: either of them writes, and the other has it."""

from __future__ import annotations

from tests.fix_mixed import MixedLab
from tests.fix_stores import put


def test_what_is_acknowledged_is_on_both_whichever_writes(mixed_lab: MixedLab) -> None:
    store = mixed_lab.migrated(background=False)
    store.run(put(1, 10))
    assert mixed_lab.accounts("primary") == mixed_lab.accounts("standby") == {1: 10}
    assert store.check().equal

    store.switchover()
    store.run(put(2, 20))
    store.run(put(1, 11))
    assert mixed_lab.accounts("primary") == mixed_lab.accounts("standby") == {1: 11, 2: 20}
    assert store.check().equal

    store.switchover()
    store.run(put(3, 30))
    assert mixed_lab.accounts("primary") == mixed_lab.accounts("standby") == {1: 11, 2: 20, 3: 30}
    assert store.check().equal
