"""A check since the last one looks at what has changed, and at nothing else; and where that isn't known it says so."""

from __future__ import annotations

from tests.fix_check import fill, table
from tests.fix_stores import Lab, put


def test_only_rows_that_have_changed_are_compared(lab: Lab) -> None:
    store = lab.migrated(background=False)
    fill(store, range(50))
    assert store.check().equal
    for id in (3, 4, 60):
        store.run(put(id, 7))
    report = store.check(since="last")
    assert report.equal, report.as_dict()
    assert (table(report, "account").primary, table(report, "account").standby, table(report, "account").changed) == (3, 3, 3)
    assert store.check(since="last").as_dict()["tables"][0]["changed"] == 0
