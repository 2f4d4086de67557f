"""What a PostgreSQL node has that can go, and what a follower doesn't have yet.

An entry goes once every transaction up to its own is in the follower's position: its xid is below the position's xmin.  The same holds for a marker, and
says besides that no transaction older than it still runs, a prepared one included (HAZARDS 29).
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from replstore.databases.base import Unshipped
from replstore.databases.postgresql.capture import text
from replstore.databases.postgresql.carrier import UNSHIPPED

#: How many pages of the marker table are one piece of a walk: some thousand markers.
PAGES = 32
#: s that a transaction may be open before it is named as what keeps the journal.
LONG = 600


def prune(connection: Connection, shipped: str, *, limit: int | None = None) -> int:
    """See ``Database.prune``."""
    connection.exec_driver_sql("SET LOCAL statement_timeout = '10s'")  # an entry may hold a million keys; nobody waits for it
    if connection.exec_driver_sql("SELECT 1 FROM replstore.retention FOR UPDATE SKIP LOCKED").scalar() is None:
        return 0  # another program is at it
    position = f"{text(shipped)}::pg_snapshot"
    connection.exec_driver_sql(  # never back: another program may have pruned further
        f"UPDATE replstore.retention SET pruned_through = {text(shipped)} "
        f"WHERE pruned_through IS NULL OR pg_snapshot_xmin(pruned_through::pg_snapshot) < pg_snapshot_xmin({position})"
    )
    oldest = "" if limit is None else f"ORDER BY xid LIMIT {limit}"
    gone = connection.exec_driver_sql(
        f"DELETE FROM replstore.journal WHERE id IN (SELECT id FROM replstore.journal WHERE xid < pg_snapshot_xmin({position}) {oldest})"
    )
    return gone.rowcount


def old_markers(connection: Connection, shipped: str, *, seconds: float, after: str | None) -> tuple[list[str], str | None]:
    """See ``Database.old_markers``; the pieces are those of the table's file, so that a walk reads it once, whatever stays in it."""
    begin = int(after or 0)
    pages = connection.exec_driver_sql("SELECT pg_relation_size('replstore.marker') / current_setting('block_size')::int").scalar_one()
    ids = connection.exec_driver_sql(
        f"SELECT id FROM replstore.marker WHERE ctid >= '({begin},0)'::tid AND ctid < '({begin + PAGES},0)'::tid AND key IS NULL "
        f"AND at < clock_timestamp() - make_interval(secs => {seconds!r}) AND xid < pg_snapshot_xmin({text(shipped)}::pg_snapshot)"
    ).scalars()
    return list(ids), str(begin + PAGES) if begin + PAGES < pages else None


def forget_markers(connection: Connection, ids: Sequence[str]) -> None:
    """See ``Database.forget_markers``; what another program is removing at this moment is left to it."""
    connection.exec_driver_sql(
        "DELETE FROM replstore.marker WHERE id IN (SELECT id FROM replstore.marker WHERE id = ANY(%s) AND key IS NULL FOR UPDATE SKIP LOCKED)",
        (list(ids),),
    )


def unshipped(connection: Connection, since: str | None) -> Unshipped:
    """See ``Database.unshipped``."""
    markers = "count(DISTINCT j.xid)" if since is None else f"(SELECT count(*) FROM replstore.marker m WHERE {_missing('m', since)})"
    changes, transactions, seconds = connection.exec_driver_sql(
        f"SELECT coalesce(sum(coalesce(jsonb_array_length(j.keys), 1)), 0), {markers}, "
        f"extract(epoch FROM clock_timestamp() - min(j.at)) FROM replstore.journal j WHERE {_missing('j', since)}"
    ).one()
    return Unshipped(int(changes), int(transactions), None if seconds is None else max(0.0, float(seconds)))


def backlog(connection: Connection, since: str | None, *, limit: int) -> int:
    """See ``Database.backlog``: by the numbers of the first entry and the last one, and counted only where that is too much."""
    first = "" if since is None else f"WHERE xid >= pg_snapshot_xmin({text(since)}::pg_snapshot)"
    span = connection.exec_driver_sql(
        f"SELECT (SELECT max(id) FROM replstore.journal) - (SELECT id FROM replstore.journal {first} ORDER BY xid LIMIT 1) + 1"
    ).scalar()
    if span is None or span < limit:
        return max(0, span or 0)
    counted = f"SELECT FROM replstore.journal j WHERE {_missing('j', since)} LIMIT {limit}"
    return int(connection.exec_driver_sql(f"SELECT count(*) FROM ({counted}) c").scalar_one())


def changes(connection: Connection, since: str, *, limit: int) -> int:
    """See ``Database.changes``: an entry names as many keys as its statement has changed."""
    entries = backlog(connection, since, limit=limit + 1)
    if entries > limit:
        return entries
    counted = f"SELECT coalesce(sum(coalesce(jsonb_array_length(j.keys), 1)), 0) FROM replstore.journal j WHERE {_missing('j', since)}"
    return int(connection.exec_driver_sql(counted).scalar_one())


def pinned(connection: Connection) -> list[str]:
    """See ``Database.pinned``: transactions that hold back the position's xmin."""
    rows = connection.exec_driver_sql(f"""
        SELECT format('prepared transaction %%L of %%s, prepared %%s s ago, keeps its locks and', gid, owner, {_age("prepared")}) FROM pg_prepared_xacts
            WHERE database = current_database()
        UNION ALL SELECT format('backend %%s%%s, in a transaction for %%s s,', pid, ' of ' || nullif(application_name, ''), {_age("xact_start")})
            FROM pg_stat_activity
            WHERE datname = current_database() AND backend_xid IS NOT NULL AND clock_timestamp() - xact_start > interval '{LONG} seconds'""").scalars()
    found = list(rows)
    if not found:
        return []
    kept = connection.exec_driver_sql("SELECT count(*) FROM replstore.journal WHERE xid >= pg_snapshot_xmin(pg_current_snapshot())").scalar_one()
    return [f"{what} keeps what was journalled since from being pruned ({kept} entries by now)" for what in found]


def _age(column: str) -> str:
    return f"floor(extract(epoch FROM clock_timestamp() - {column}))"


def _missing(name: str, since: str | None) -> str:
    return "true" if since is None else UNSHIPPED.format(name=name, position=f"{text(since)}::pg_snapshot")
