"""Pairs of which a node goes back to a backup."""

from __future__ import annotations

from replstore.store import Store
from tests.fix_stores import Lab, put


def saved_before_pruning(lab: Lab) -> Store:
    """A pair with two accounts; the standby's backup has the first one, and the primary's journal doesn't name the second one any more."""
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.save("standby")
    store.run(put(2))
    writer, shipped = lab.nodes["primary"], lab.state("standby").position
    assert shipped is not None
    with writer.begin() as connection:
        writer.database.prune(connection, shipped)
    return store
