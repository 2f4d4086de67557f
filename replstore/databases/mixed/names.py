"""A table's id is PostgreSQL's on both nodes; SQLite has no schemas."""

from __future__ import annotations

from replstore.databases.catalog import split_id, table_id

ORPHAN, ORPHAN_HERE = "replstore.orphan", "replstore_orphan"


def shared_id(name: str) -> str:
    """The id under which both nodes know a table of a SQLite file."""
    return ORPHAN if name == ORPHAN_HERE else table_id("public", name)


def name_here(id: str) -> str:
    """The name that a table has in a SQLite file."""
    return ORPHAN_HERE if id == ORPHAN else split_id(id)[1]
