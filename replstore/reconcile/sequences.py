"""Sequences: the follower's must not give out again what the writer has given.

Being ahead is fine: sequences jump at a takeover.  So is lagging behind values that no row holds: a transaction that was rolled back takes values, and they
are shipped with the next change only.  A sequence that no column takes its values from can't be told from its rows; it counts as behind if nothing is
on its way and it doesn't catch up.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from replstore.reconcile.report import SchemaDifference, SequenceDifference
from replstore.reconcile.schema import Definitions
from replstore.reconcile.snapshots import Both, Side, reading

Standing = Mapping[str, int | None]
PAUSE = 0.1


def read_sequences(side: Side) -> dict[str, int | None]:
    """Where a node's sequences stand; they are not part of any snapshot on PostgreSQL, so this reads them as of now."""
    with reading(side.node):
        return side.node.database.sequences(side.connection)


def compare_sequences(both: Both, tables: Definitions, ahead: Standing, *, chosen: bool, settle: float) -> list[SequenceDifference]:
    """The sequences that are behind.

    Args:
        both: the nodes.
        tables: the definitions on both.
        ahead: where the writer's stood before the rows were compared.
        chosen: only the sequences of these tables.
        settle: s to wait for a sequence that can't be told from rows.
    """
    if chosen:
        mine = {id for table in (*tables.primary.values(), *tables.standby.values()) for id in table.sequences}
        ahead = {id: value for id, value in ahead.items() if id in mine}
    behind = _behind(both, ahead)
    deadline = time.monotonic() + settle
    while _unclear(behind) and time.monotonic() < deadline and not both.waits and not both.inexact:
        time.sleep(PAUSE)
        behind = _behind(both, ahead)
    unclear = _unclear(behind)
    if both.waits or both.inexact:
        behind = {id: used for id, used in behind.items() if id not in unclear}
    here = read_sequences(both.follower)
    values = {both.writer.name: ahead, both.follower.name: here}
    return [SequenceDifference(id, values["primary"].get(id), values["standby"].get(id), both.follower.name) for id in sorted(behind)]


def _behind(both: Both, ahead: Standing) -> dict[str, bool | None]:
    """Those that may be behind: rows hold values that they would give again, or nobody can tell."""
    with reading(both.follower.node):
        lagging = both.follower.node.database.lagging_sequences(both.follower.connection, ahead)
    return {id: used for id, used in lagging.items() if used is not False}


def _unclear(behind: Mapping[str, bool | None]) -> Collection[str]:
    return [id for id, used in behind.items() if used is None]


def missing_sequences(primary: Standing, standby: Standing) -> list[SchemaDifference]:
    """Sequences that one node lacks."""
    return [SchemaDifference(id, f"sequence on {'primary' if id in primary else 'standby'} only") for id in sorted({*primary} ^ {*standby})]
