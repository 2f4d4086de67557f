"""Sequences: neither node's may give out again what a row has, and the follower's nothing that the writer has given.

Being ahead is fine: sequences jump at a takeover.  So is lagging behind values that no row holds: a transaction that was rolled back takes values, and they
are shipped with the next change only.  A sequence that no column takes its values from can't be told from its rows; it counts as behind if nothing is
on its way and it doesn't catch up.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from replstore.databases.counting import Taken
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
    ahead = of_tables(tables, ahead) if chosen else ahead
    if not ahead:
        return []
    behind = _behind(both, ahead)
    deadline = time.monotonic() + settle
    while _unclear(behind) and time.monotonic() < deadline and not both.waits and not both.inexact:
        time.sleep(PAUSE)
        behind = _behind(both, ahead)
    unclear = _unclear(behind)
    if both.waits or both.inexact:
        behind = {id: used for id, used in behind.items() if id not in unclear}
    return differences(both.follower, both.writer, sorted(behind), ahead)


def writer_behind(both: Both, tables: Definitions, ahead: Standing, *, chosen: bool) -> list[SequenceDifference]:
    """The writer's sequences that would give again what rows of either node hold: they were set back, or the writer went back in time.

    Args:
        both: the nodes.
        tables: the definitions on both.
        ahead: where the follower's stood before.
        chosen: only the sequences of these tables.
    """
    writer, follower = both.writer, both.follower
    if writer.node.database.name != follower.node.database.name:
        return []  # of a file only the highest key is known, which somebody may have chosen
    ahead = of_tables(tables, ahead) if chosen else ahead
    here = read_sequences(writer)
    with reading(writer.node):
        lagging = writer.node.database.lagging_sequences(writer.connection, ahead)
    # a row that is on its way to the follower may be removed there by what comes with it
    sides = (writer,) if both.waits else (writer, follower)
    behind = [id for id, used in lagging.items() if used is not None and _gives_again(writer, sides, id, here.get(id), ahead[id] or 0)]
    return differences(writer, follower, sorted(behind), ahead)


def _gives_again(writer: Side, sides: Sequence[Side], id: str, here: int | None, through: int) -> bool:
    """Whether a sequence comes to a value, on the way that lies before it, that a row on one of these nodes holds."""
    with reading(writer.node):
        following = writer.node.database.next_value(writer.connection, id)
    if following is None:
        return False
    after = following + 1 if here is not None and following < here else following - 1  # past what is skipped, in its own direction
    for side in sides:
        with reading(side.node):
            if side.node.database.taken(side.connection, id, after, through):
                return True
    return False


def of_tables(tables: Definitions, standing: Standing) -> dict[str, int | None]:
    """The sequences that these tables take values from."""
    mine = {id for table in (*tables.primary.values(), *tables.standby.values()) for id in table.sequences}
    return {id: value for id, value in standing.items() if id in mine}


def differences(behind: Side, other: Side, ids: Collection[str], ahead: Standing) -> list[SequenceDifference]:
    """What is to be said of sequences that are behind.

    Args:
        behind, other: the node on which they are, and the other one.
        ids: of the sequences.
        ahead: where they stand on the other one.
    """
    here = read_sequences(behind) if ids else {}
    values = {other.name: ahead, behind.name: here}
    return [_explained(SequenceDifference(id, values["primary"].get(id), values["standby"].get(id), behind.name), behind, other) for id in ids]


def _explained(found: SequenceDifference, behind: Side, other: Side) -> SequenceDifference:
    """The same with what it would give next, and what that leads to."""
    last = {"primary": found.primary, "standby": found.standby}
    through, taken, where = last[other.name], None, behind
    with reading(behind.node):
        following = behind.node.database.next_value(behind.connection, found.name)
    for side in (behind, other):
        if taken is None and through is not None:
            with reading(side.node):
                taken, where = side.node.database.taken(side.connection, found.name, last[behind.name], through), side
    return replace(found, next=following, taken=taken.value if taken else None, effect=_effect(found, following, taken, where.name))


def _effect(found: SequenceDifference, following: int | None, taken: Taken | None, where: str) -> str:
    """What the next row on a node whose sequence is behind gets."""
    other = "standby" if found.behind == "primary" else "primary"
    if following is None:
        return ""
    gets = f"the next row there gets {following:,}"
    if taken is None:
        return f"{gets}, which {other} has given before"
    row = f"a row of {taken.table}"
    if where == other:
        return f"{gets}, and {taken.value:,} is {row} on {other} already: two rows would have one number"
    if taken.clash == "skipped":
        given = getattr(found, other) or 0
        why = f", which {other} has given before" if following <= given else " by the highest key"
        return f"{gets}{why}; numbers of rows that are removed before that are given again"
    clash = "it is refused as a duplicate" if taken.clash == "refused" else "two rows have one number"
    if taken.value == following:
        return f"{gets}, which {row} has already: {clash}"
    return f"{gets}, and once it comes to {taken.value:,}, which {row} has already, {clash}"


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
