"""The user's triggers, which SQLite can't switch off: dropped on a follower, created again when it takes over (HAZARDS 7).

Foreign keys need nothing of the kind: they are off on replstore's own connections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection

from replstore.databases.catalog import Table, execute, quote
from replstore.databases.sqlite.state import CONTROL
from replstore.databases.suspended import TRIGGER, Restore, store, stored


def in_force(tables: Sequence[Table]) -> list[Restore]:
    """What makes the triggers of these tables again."""
    return [Restore(TRIGGER, table.id, name, definition) for table in tables for name, definition in table.triggers]


def suspend(connection: Connection, tables: Sequence[Table], restores: Sequence[Restore]) -> None:
    """Drops every trigger of the user's, and makes ``suspended`` what brings back the writer's."""
    here = {table.id for table in tables}
    execute(connection, [f"DROP TRIGGER {quote(name)}" for table in tables for name, _ in table.triggers])
    store(CONTROL, connection, ((restore, restore.statement) for restore in restores if restore.table in here))


def whole(connection: Connection, tables: Sequence[Table]) -> list[Table]:
    """Tables with the triggers that were dropped."""
    held = stored(CONTROL, connection)

    def with_triggers(table: Table) -> Table:
        known = {name for name, _ in table.triggers}
        return replace(
            table, triggers=table.triggers + tuple((each.name, each.statement) for each in held if each.table == table.id and each.name not in known)
        )

    return [with_triggers(table) for table in tables]
