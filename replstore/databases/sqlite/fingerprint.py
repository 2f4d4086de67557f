"""What must not change unnoticed while a table is replicated: its definition and its triggers (HAZARDS 8)."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from hashlib import sha256


def fingerprints(connection: sqlite3.Connection, tables: Collection[str], prefix: str = "") -> dict[str, str]:
    """Fingerprint by table, of those that exist.

    Args:
        prefix: name of an attached database, with its dot.
    """
    rows = connection.execute(
        f"SELECT tbl_name, type, sql FROM {prefix}sqlite_master WHERE type = 'table' OR (type = 'trigger' AND name LIKE 'replstore\\_%' ESCAPE '\\') "
        "ORDER BY tbl_name, type, name"
    ).fetchall()
    found: dict[str, list[str]] = {}
    for table, kind, sql in rows:
        found.setdefault(table, []).append(f"{kind}: {sql}")
    return {table: sha256("\n".join(parts).encode()).hexdigest() for table, parts in found.items() if table in tables}
