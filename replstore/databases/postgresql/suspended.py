"""What would act on a follower when rows are applied, taken off and brought back (HAZARDS 7).

Needed only where the role may not set ``session_replication_role``; with that right (a superuser grants it once:
``GRANT SET ON PARAMETER session_replication_role TO role``, PostgreSQL 15 and newer) nothing has to be taken off.
Foreign keys are dropped and come back NOT VALID: they bind every later change at once, and no scan delays a takeover.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, insert, select

from replstore.databases.catalog import Table
from replstore.databases.dialect import raw
from replstore.databases.postgresql.capture import qualified, quote
from replstore.databases.postgresql.state import CONTROL


def may_switch_triggers_off(connection: Connection) -> bool:
    """Whether this role may set ``session_replication_role``."""
    return bool(
        connection.exec_driver_sql(
            "SELECT rolsuper OR has_parameter_privilege('session_replication_role', 'SET') FROM pg_roles WHERE rolname = current_user"
        ).scalar()
    )


def suspend(connection: Connection, tables: Sequence[Table]) -> None:
    """Takes foreign keys and user triggers off, unless this role may switch them off for its own session."""
    if may_switch_triggers_off(connection):
        return
    suspended = CONTROL.suspended
    seq = connection.execute(select(func.coalesce(func.max(suspended.c.seq), 0))).scalar_one()
    already = {tuple(row) for row in connection.execute(select(suspended.c.tbl, suspended.c.name))}
    with raw(connection.connection).cursor() as cursor:
        for table in tables:
            name = qualified(table)
            for key in table.foreign_keys:
                seq += 1
                definition = key.definition + ("" if key.definition.endswith("NOT VALID") else " NOT VALID")
                restore = f"ALTER TABLE {name} ADD CONSTRAINT {quote(key.name)} {definition}"
                connection.execute(insert(suspended).values(seq=seq, kind="foreign key", tbl=table.id, name=key.name, restore=restore))
                cursor.execute(f"ALTER TABLE {name} DROP CONSTRAINT {quote(key.name)}")
            for trigger, _ in table.triggers:
                if (table.id, trigger) in already:
                    continue
                seq += 1
                restore = f"ALTER TABLE {name} ENABLE TRIGGER {quote(trigger)}"
                connection.execute(insert(suspended).values(seq=seq, kind="trigger", tbl=table.id, name=trigger, restore=restore))
                cursor.execute(f"ALTER TABLE {name} DISABLE TRIGGER {quote(trigger)}")


def resume(connection: Connection) -> None:
    """Brings everything back that was taken off."""
    suspended = CONTROL.suspended
    restores = connection.execute(select(suspended.c.restore).order_by(suspended.c.seq)).scalars().all()
    with raw(connection.connection).cursor() as cursor:
        for restore in restores:
            cursor.execute(restore)
    connection.execute(delete(suspended))
