"""Hazard 32: what a person forces is recorded as forced, gets a term of its own, and what it overrules is reported."""

from __future__ import annotations

from replstore.pair.takeover import FORCED_JUMP
from tests.fix_stores import Lab, put


def test_a_forced_takeover_is_recorded_and_its_term_is_nobody_else_s(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    store.takeover("standby", force=True)
    state = lab.state("standby")
    assert (state.role, state.term_no) == ("writer", 1 + FORCED_JUMP)
    assert state.term_uuid != lab.state("primary").term_uuid
    ((reason,),) = lab.sql("standby", f"SELECT reason FROM {lab.name('role')}")
    assert reason == "forced: a person decided"
