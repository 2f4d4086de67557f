"""What a SQLite node has that can go, and what a follower doesn't have yet.

Transactions don't overlap here, so nothing that still runs is older than anything in the file; a marker was shipped when no journal entry after the
follower's position names it.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from replstore.databases.base import Unshipped
from replstore.databases.dialect import raw
from replstore.databases.sqlite.capture import MARKER

#: How many markers are one piece of a walk.
PIECE = 2000
#: The form of the marker's ``at``.
CLOCK = "%Y-%m-%d %H:%M:%f"


def prune(connection: Connection, shipped: str, *, limit: int | None = None) -> int:
    """See ``Database.prune``."""
    position = int(shipped)
    connection.exec_driver_sql(  # never back: another program may have pruned further
        "UPDATE replstore_retention SET pruned_through = ? WHERE pruned_through IS NULL OR CAST(pruned_through AS INTEGER) < ?", (shipped, position)
    )
    gone = connection.exec_driver_sql(
        "DELETE FROM replstore_journal WHERE seq IN (SELECT seq FROM replstore_journal WHERE seq <= ? ORDER BY seq LIMIT ?)",
        (position, -1 if limit is None else limit),
    )
    return gone.rowcount


def old_markers(connection: Connection, shipped: str, *, seconds: float, after: str | None) -> tuple[list[str], str | None]:
    """See ``Database.old_markers``; the pieces are those of the table's key, in whose order the file has it."""
    begin = after or ""
    last = connection.exec_driver_sql("SELECT id FROM replstore_marker WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?", (begin, PIECE - 1)).scalar()
    upto = "" if last is None else "AND id <= ?"
    ids = connection.exec_driver_sql(
        f"SELECT id FROM replstore_marker WHERE id > ? AND key IS NULL AND at < strftime('{CLOCK}', 'now', ?) "
        f"AND id NOT IN (SELECT k1 FROM replstore_journal WHERE tbl = '{MARKER}' AND seq > ?) {upto}",
        (begin, f"-{seconds:.3f} seconds", int(shipped), *(() if last is None else (last,))),
    ).scalars()
    return list(ids), last


def forget_markers(connection: Connection, ids: Sequence[str]) -> None:
    """See ``Database.forget_markers``."""
    raw(connection.connection).executemany("DELETE FROM replstore_marker WHERE id = ? AND key IS NULL", [(id,) for id in ids])


def unshipped(connection: Connection, since: str | None) -> Unshipped:
    """See ``Database.unshipped``."""
    row = connection.exec_driver_sql(
        f"SELECT count(*) FILTER (WHERE tbl <> '{MARKER}'), count(DISTINCT k1) FILTER (WHERE tbl = '{MARKER}'), "
        "(julianday('now') - julianday((SELECT min(at) FROM replstore_marker m WHERE m.id IN "
        f"(SELECT k1 FROM replstore_journal WHERE tbl = '{MARKER}' AND seq > ?1)))) * 86400 FROM replstore_journal WHERE seq > ?1",
        (int(since or 0),),
    ).one()
    return Unshipped(int(row[0]), int(row[1]), None if row[2] is None else max(0.0, float(row[2])))


def backlog(connection: Connection, since: str | None, *, limit: int) -> int:
    """See ``Database.backlog``: by the last entry's number, and counted only where that is too much."""
    position = int(since) if since is not None else None
    first = connection.exec_driver_sql("SELECT min(seq) - 1 FROM replstore_journal").scalar() if position is None else position
    if first is None:
        return 0
    span = (connection.exec_driver_sql("SELECT max(seq) FROM replstore_journal").scalar() or first) - first
    if span < limit:
        return max(0, span)
    counted = f"SELECT 1 FROM replstore_journal WHERE seq > ? AND tbl <> '{MARKER}' LIMIT ?"
    return int(connection.exec_driver_sql(f"SELECT count(*) FROM ({counted})", (first, limit)).scalar_one())


def changes(connection: Connection, since: str, *, limit: int) -> int:
    """See ``Database.changes``; numbers are given in order, and none is left out but by what was rolled back."""
    last = connection.exec_driver_sql("SELECT max(seq) FROM replstore_journal").scalar()
    return max(0, int(last or 0) - int(since))
