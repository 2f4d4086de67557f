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

        def take_off(kind: str, member: Table, name: str, statement: str, restore: str) -> None:
            nonlocal seq
            seq += 1
            connection.execute(insert(suspended).values(seq=seq, kind=kind, tbl=member.id, name=name, restore=restore))
            cursor.execute(statement)

        for table in tables:
            for member in table.members:
                alter = f"ALTER TABLE {qualified(member)}"
                for key in member.foreign_keys:
                    definition = key.definition + ("" if key.definition.endswith("NOT VALID") or not _may_wait(connection, table) else " NOT VALID")
                    name = quote(key.name)
                    take_off("foreign key", member, key.name, f"{alter} DROP CONSTRAINT {name}", f"{alter} ADD CONSTRAINT {name} {definition}")
                for trigger, _ in member.triggers:
                    if (member.id, trigger) not in already:
                        name = quote(trigger)
                        take_off("trigger", member, trigger, f"{alter} DISABLE TRIGGER {name}", f"{alter} ENABLE TRIGGER {name}")


def _may_wait(connection: Connection, table: Table) -> bool:
    """Whether a foreign key of this table can come back without a scan: of a partitioned one it can from PostgreSQL 18 on."""
    return not table.partition_by or (connection.dialect.server_version_info or ()) >= (18,)


def absent(connection: Connection) -> dict[str, set[str]]:
    """By table and partition, the names of the foreign keys that were dropped; triggers are only disabled."""
    suspended = CONTROL.suspended
    found: dict[str, set[str]] = {}
    for table, name in connection.execute(select(suspended.c.tbl, suspended.c.name).where(suspended.c.kind == "foreign key")):
        found.setdefault(table, set()).add(name)
    return found


def resume(connection: Connection) -> None:
    """Brings everything back that was taken off."""
    suspended = CONTROL.suspended
    restores = connection.execute(select(suspended.c.restore).order_by(suspended.c.seq)).scalars().all()
    with raw(connection.connection).cursor() as cursor:
        for restore in restores:
            cursor.execute(restore)
    connection.execute(delete(suspended))
