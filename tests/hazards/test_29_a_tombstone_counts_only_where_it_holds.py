"""Hazard 29: where a tombstone counts, how long it stays, and what is found committed is acknowledged only once it is safe."""

from __future__ import annotations

import time
from uuid import uuid4

import pytest

from replstore import CommitUnknown
from replstore.pair.decide import Term
from replstore.transaction.doubt import resolve
from tests.fix_stores import Lab, put


def test_a_node_of_a_lower_term_gets_no_tombstone(lab: Lab) -> None:
    """The attempt ran under term 2; the node that is left goes on under term 1, and knows of no other."""
    store = lab.migrated(background=False, durability="async", takeover_timeout=0.3)
    store.run(put(1))
    store.sync()
    lab.kill("standby")
    id = str(uuid4())
    with pytest.raises(CommitUnknown, match=id):
        resolve(store.pair, Term(2, str(uuid4())), id, "async", cause=None)
    assert id not in lab.markers("primary")
    assert store.pair.settle(time.monotonic()).term.number == 1
