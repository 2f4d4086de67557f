"""Commit markers of a server that copies itself: which of them nobody needs any more."""

from __future__ import annotations

from sqlalchemy import Connection

#: How many pages of the marker table are one piece of a walk: some thousand markers.
PAGES = 32

#: Never one that is younger than a transaction which still runs, a prepared one included (HAZARDS 29).  A walk by the table's pages reads it once, whatever stays in
#: it, and needs no index that every commit would pay for.
PRUNE = """
DELETE FROM replstore.marker m WHERE ctid >= %s::tid AND ctid < %s::tid AND key IS NULL
    AND at < least(clock_timestamp() - make_interval(secs => %s), (SELECT min(xact_start) FROM pg_stat_activity WHERE datname = current_database()))
    AND NOT EXISTS (SELECT FROM pg_prepared_xacts p WHERE p.database = current_database() AND age(p.transaction) > age(m.xmin))"""


def prune(connection: Connection, seconds: float, after: int) -> int | None:
    """See ``Native.prune_markers``."""
    connection.exec_driver_sql("SET LOCAL synchronous_commit = off")  # nobody waits for it, and what comes back after a crash goes again
    pages = connection.exec_driver_sql("SELECT pg_relation_size('replstore.marker') / current_setting('block_size')::int").scalar_one()
    connection.exec_driver_sql(PRUNE, (f"({after},0)", f"({after + PAGES},0)", seconds))
    return after + PAGES if after + PAGES < pages else None
