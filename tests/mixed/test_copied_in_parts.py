"""Between the two kinds a filled database is copied in parts as well, in either direction."""

from __future__ import annotations

import pytest

from tests.fix_copies import Broken, die_at, half_copied, parts, watched
from tests.fix_mixed import MixedLab

pytestmark = pytest.mark.usefixtures("small_parts")


def test_a_copy_that_broke_off_goes_on_with_all_that_was_written(mixed_lab: MixedLab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = mixed_lab
    lab.sql("primary", "SELECT 1")  # from now on the lab speaks as that node does
    store = half_copied(lab, monkeypatch, at=0)
    lab.sql("primary", "UPDATE account SET amount = -1 WHERE id = 7", "INSERT INTO account VALUES (1000, 'early', 0)")
    with monkeypatch.context() as patch, pytest.raises(Broken):
        watched(store, patch, die_at(3))
        store.sync()
    assert set(lab.accounts("standby")) == set(range(30))
    lab.sql(
        "primary",
        "UPDATE account SET id = 100 WHERE id = 2",  # its owner goes to a part that is still to come
        "DELETE FROM account WHERE id IN (12, 41)",
        "UPDATE account SET amount = 0 WHERE id IN (1, 44)",
        "INSERT INTO account VALUES (-1, 'new', 0)",
    )
    batches = watched(store, monkeypatch, lambda batch: None)
    store.sync()
    assert parts(batches) == [("[29]", "[39]"), ("[39]", None)]
    assert lab.accounts("standby") == lab.accounts("primary")
    assert store.check().equal
