"""Making tables anew in another SQLite file, by the statements that this one has stored."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from graphlib import CycleError, TopologicalSorter

from sqlalchemy import Connection

from replstore.databases.catalog import TRIGGER_PREFIX, Table, quote
from replstore.databases.sqlite.parse import normal, tokens
from replstore.errors import CannotReplicate

_STATEMENTS = "SELECT type, name, tbl_name, sql FROM main.sqlite_master WHERE sql IS NOT NULL ORDER BY rowid"
_ORDER = ("table", "index", "view", "trigger")


def create_statements(tables: Collection[Table], connection: Connection, *, target: Connection | None = None) -> list[str]:
    """What makes these tables, their indexes and triggers, and the views over them, in another file; to be executed in order.

    Args:
        tables: ordinary tables of this file.
        connection: of the node that has the tables.
        target: of the node that is to get them: a view that it has with the same text is left alone, with another one replaced.

    Raises:
        CannotReplicate: a table isn't an ordinary one.
    """
    for table in tables:
        if table.kind != "ordinary":
            raise CannotReplicate(f"table {table.id} can't be made on another node: it is of kind {table.kind}")
    if not tables:
        return []
    rows = [row for row in connection.exec_driver_sql(_STATEMENTS).all() if not row.name.startswith(TRIGGER_PREFIX)]
    views = {row.name.lower(): row.sql for row in rows if row.type == "view"}
    wanted = {table.name.lower() for table in tables}
    wanted |= _views_over(wanted, views)
    present = _views(target) if target is not None else {}
    same = {name for name, sql in views.items() if name in present and normal(tokens(sql)) == normal(tokens(present[name]))}
    statements = [f"DROP VIEW {quote(name)}" for name in views if name in wanted and name in present and name not in same]
    for kind in _ORDER:
        statements += [row.sql for row in rows if row.type == kind and row.tbl_name.lower() in wanted - same]
    return statements


def drop_statements(tables: Iterable[Table]) -> list[str]:
    """What removes these tables with their indexes and triggers, in one transaction.

    Tables that refer to others go first, and in a circle the check waits for the end.  Dropping a table deletes its rows: where foreign keys are on,
    that acts on tables outside the given ones too, so they should be off, as on replstore's own sessions.
    """
    by_name = {table.name: table for table in tables}
    if not by_name:
        return []
    order = {name: {key.ref_table for key in table.foreign_keys if key.ref_table in by_name} - {name} for name, table in by_name.items()}
    try:
        names = list(TopologicalSorter(order).static_order())
    except CycleError:
        names = list(by_name)
    return ["PRAGMA defer_foreign_keys = ON", *(f"DROP TABLE IF EXISTS {quote(name)}" for name in reversed(names))]


def _views(connection: Connection) -> dict[str, str]:
    return {row.name.lower(): row.sql for row in connection.exec_driver_sql(_STATEMENTS).all() if row.type == "view"}


def _views_over(names: Collection[str], views: dict[str, str]) -> set[str]:
    """Views whose text names one of these tables, or a view over them."""
    mentioned = {view: {piece.identifier.lower() for piece in tokens(sql) if piece.kind in ("name", "word")} for view, sql in views.items()}
    found: set[str] = set()
    while new := {view for view, words in mentioned.items() if view not in found and words & ({*names, *found} - {view})}:
        found |= new
    return found
