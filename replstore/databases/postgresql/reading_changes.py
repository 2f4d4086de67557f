"""Who changed a row of a PostgreSQL node last: what the journal says, and what the version of the row says."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from sqlalchemy import Connection

from replstore.databases.base import Entry
from replstore.databases.catalog import Table, quote
from replstore.databases.dialect import raw
from replstore.databases.postgresql.capture import qualified, text

_TX = "(SELECT min(m.id) FROM replstore.marker m WHERE m.xid = j.xid)"


def last_changes(connection: Connection, table: Table, keys: Collection[str]) -> dict[str, Entry]:
    """See ``Database.last_changes``: by the entry's number, which is given when its statement ends, so of two that changed one row the later's is higher."""
    given = list(keys)
    of = f"j.tbl = {text(table.id)}"
    each = f"SELECT j.id, k.v FROM replstore.journal j, jsonb_array_elements(j.keys) k(v) WHERE {of}"
    on = " AND ".join(
        f"({{0}}.v->>{n})::{table.column(column).type} = (k.v->>{n})::{table.column(column).type}" for n, column in enumerate(table.key)
    )
    last = f"SELECT g.n, max(k.id) AS id FROM {_numbered(given)} JOIN ({each}) k ON {on.format('g')} GROUP BY g.n"
    whole = f"(SELECT max(j.id) FROM replstore.journal j WHERE {of} AND j.keys IS NULL)"
    with raw(connection.connection).cursor() as cursor:
        cursor.execute(
            f"SELECT l.n, {_TX}, j.at::text, j.id FROM (SELECT g.n, greatest(l.id, {whole}) AS id FROM {_numbered(given)} LEFT JOIN ({last}) l ON l.n = g.n) l "
            "JOIN replstore.journal j ON j.id = l.id"
        )
        return {given[n - 1]: Entry(table.id, given[n - 1], tx, at, place=id) for n, tx, at, id in cursor.fetchall()}


def last_transactions(connection: Connection) -> Iterator[tuple[str, int]]:
    """See ``Database.last_transactions``."""
    found = connection.exec_driver_sql(
        "SELECT m.id, j.id FROM replstore.journal j JOIN replstore.marker m ON m.xid = j.xid AND m.outcome = 'committed' ORDER BY j.id DESC"
    )
    return ((row[0], row[1]) for row in found)


def written_since(connection: Connection, table: Table, keys: Collection[str], position: str, key: str) -> dict[str, bool]:
    """See ``Database.written_since``.

    A version has 32 bits of the transaction that wrote it; that is one of those before the snapshot's end.  What a subtransaction of one wrote that was
    under way at the position has a number between the position's bounds, where nothing is certain.

    Args:
        key: expression of a row's key, as ``rows`` gives it.
    """
    given = list(keys)
    on = " AND ".join(f"t.{quote(column)} = (g.v->>{n})::{table.column(column).type}" for n, column in enumerate(table.key))
    end, bits = "pg_snapshot_xmax(pg_current_snapshot())::text::bigint", 1 << 32
    known = f"(({end} / {bits}) * {bits} + t.xmin::text::bigint)"
    bounds = ", ".join(f"pg_snapshot_{side}({text(position)}::pg_snapshot)::text::bigint" for side in ("xmin", "xmax"))
    with raw(connection.connection).cursor() as cursor:
        cursor.execute(
            f"SELECT g.n, CASE WHEN {known} >= {end} THEN {known} - {bits} ELSE {known} END, {key} = g.v::text, {bounds} "
            f"FROM {_numbered(given)} JOIN {qualified(table)} t ON {on}"
        )
        return {given[n - 1]: xid >= xmax for n, xid, same, xmin, xmax in cursor.fetchall() if same and not xmin <= xid < xmax}


def _numbered(keys: Collection[str]) -> str:
    return f"jsonb_array_elements({text('[' + ','.join(keys) + ']')}::jsonb) WITH ORDINALITY g(v, n)"
