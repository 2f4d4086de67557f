"""Hazard 18: SQLite's traps under a Store: a file that goes away in the middle of a transaction, a killed shipper, keys and conflict clauses."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import OperationalError

from tests.fix_stores import Lab, insert, put


def test_a_transaction_gives_up_with_busy_after_its_timeout_and_not_before(sqlite_lab: Lab) -> None:
    lab = sqlite_lab
    store = lab.migrated(background=False)
    other = lab.connect("primary")
    other.execute("BEGIN IMMEDIATE")
    other.execute(insert(1))
    impatient = lab.store(background=False, primary=f"{lab.pair.primary_url}?timeout=0.05")
    with pytest.raises(OperationalError, match="locked"):
        impatient.run(put(2), attempts=2)
    other.commit()
    store.run(put(3))
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 3: 0}
