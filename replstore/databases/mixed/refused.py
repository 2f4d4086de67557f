"""The state in which a pair stops when a row can't be shipped although the guards let it pass (HAZARDS 20)."""

from __future__ import annotations

from replstore.databases.carrier import Landing
from replstore.databases.catalog import Table
from replstore.errors import ReplicationStopped


def refused(table: Table, key: str, column: str, why: str, landing: Landing) -> ReplicationStopped:
    """What to raise: the sentence names table, key and remedy.

    Args:
        key: the row's key as JSON; "": it isn't known.
        column: "": it isn't known, or the row as a whole.
    """
    writer, follower = landing.writer.name, landing.base.name
    place = f"table {table.name}" + (f", key {key}" if key else "") + (f", column {column}" if column else "")
    return ReplicationStopped(
        f"cannot_cross: {follower} can't hold what {writer} has: {place}: {why}; change or delete that row on {writer}, and shipping goes on by itself"
    )
