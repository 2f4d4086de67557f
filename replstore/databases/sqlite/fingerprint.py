"""What must not change unnoticed while a table is replicated (HAZARDS 8): its definition, the triggers, and what can act around them.

That is a unique index, by which REPLACE deletes rows, and a trigger of the user that keeps others from acting.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from hashlib import sha256

from replstore.databases.catalog import TRIGGER_PREFIX
from replstore.databases.sqlite.parse import leaves_others_out


def fingerprints(connection: sqlite3.Connection, tables: Collection[str], prefix: str = "") -> dict[str, str]:
    """Fingerprint by table, of those that exist.

    Args:
        prefix: name of an attached database, with its dot.
    """
    rows = connection.execute(
        f"SELECT tbl_name, type, name, sql FROM {prefix}sqlite_master WHERE type IN ('table', 'trigger') OR sql LIKE 'CREATE UNIQUE INDEX%' "
        "ORDER BY tbl_name, type, name"
    ).fetchall()
    found: dict[str, list[str]] = {}
    for table, kind, name, sql in rows:
        if kind != "trigger" or name.startswith(TRIGGER_PREFIX) or leaves_others_out(sql):
            found.setdefault(table, []).append(f"{kind}: {sql}")
    return {table: sha256("\n".join(parts).encode()).hexdigest() for table, parts in found.items() if table in tables}
