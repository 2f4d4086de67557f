"""Hazard 8: whatever way a row changes, the journal names it; where it can't, the table is refused or its shipping stops by name."""

from __future__ import annotations

from tests.fix_stores import Lab, insert


def test_a_write_of_another_program_is_shipped(lab: Lab) -> None:
    lab.migrated(background=False)
    lab.sql("primary", insert(1, 5))
    lab.ship()
    assert lab.accounts("standby") == {1: 5}
