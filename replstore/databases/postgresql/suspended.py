"""What would act on a follower when rows are applied, taken off and brought back (HAZARDS 7).

A role that may set ``session_replication_role`` (a superuser grants it once: ``GRANT SET ON PARAMETER session_replication_role TO role``, PostgreSQL 15
and newer) switches triggers and foreign keys off for its own session, all but triggers that are ENABLE ALWAYS or ENABLE REPLICA.  Under any other
role foreign keys are dropped and triggers disabled.  Foreign keys come back NOT VALID.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Engine

from replstore.databases.base import Fault
from replstore.databases.catalog import TRIGGER_PREFIX, ForeignKey, Table, quote, split_id, table_id
from replstore.databases.dialect import raw
from replstore.databases.postgresql import catalog
from replstore.databases.postgresql.capture import GUARD, LOCK_CLASS
from replstore.databases.postgresql.faults import classify
from replstore.databases.postgresql.reading import qualified
from replstore.databases.postgresql.state import CONTROL
from replstore.databases.suspended import FOREIGN_KEY, TRIGGER, UNCHECKED, Restore, merged, store, stored
from replstore.errors import ReplicationStopped

log = logging.getLogger("replstore.suspended")
_ENABLE = {"O": "ENABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}
_TRIGGERS = f"""
SELECT n.nspname, c.relname, g.tgname, g.tgenabled::text
FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT g.tgisinternal AND g.tgparentid = 0 AND g.tgenabled <> 'D' AND NOT starts_with(g.tgname, '{TRIGGER_PREFIX}')
ORDER BY 1, 2, 3"""
#: What acts on rows that this session writes; a foreign key's own triggers are on both of its tables.
ACTING = f"""
SELECT n.nspname, c.relname, coalesce('foreign key ' || k.conname, 'trigger ' || g.tgname)
FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_constraint k ON k.oid = g.tgconstraint AND k.contype = 'f'
WHERE (g.tgenabled = 'A' OR g.tgenabled = CASE current_setting('session_replication_role') WHEN 'replica' THEN 'R' ELSE 'O' END)
  AND CASE WHEN g.tgisinternal THEN g.tgconstraint <> 0 ELSE NOT starts_with(g.tgname, '{TRIGGER_PREFIX}') END
  AND (k.oid IS NOT NULL OR NOT g.tgisinternal) ORDER BY 1, 2, 3"""
#: s beyond ``deadlock_timeout`` to wait for a table: only who waits for as long makes an autovacuum of it give way.
PATIENCE = 1.0
_WAIT_LONGER = f"""
SELECT set_config('lock_timeout', (setting::int + {int(PATIENCE * 1000)})::text, true), set_config('statement_timeout', '0', true)
FROM pg_settings WHERE name = 'deadlock_timeout' AND current_setting('lock_timeout') <> '0'"""


#: Who keeps a takeover from bringing back what was taken off.
_BLOCKERS = """
SELECT DISTINCT 'backend ' || coalesce(l.pid::text, 'of a prepared transaction') || coalesce(' of ' || nullif(a.application_name, ''), '')
  || coalesce(', ' || a.backend_type, '') || ', which works on table ' || n.nspname || '.' || c.relname
FROM pg_locks l JOIN pg_class c ON c.oid = l.relation AND c.relkind IN ('r', 'p') JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
  AND l.mode NOT IN ('AccessShareLock', 'RowShareLock') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'replstore')
  AND EXISTS (SELECT FROM replstore.suspended) AND (SELECT role FROM replstore.role) <> 'writer'"""


def may_switch_triggers_off(connection: Connection) -> bool:
    """Whether this role may set ``session_replication_role``."""
    return bool(
        connection.exec_driver_sql(
            "SELECT rolsuper OR has_parameter_privilege('session_replication_role', 'SET') FROM pg_roles WHERE rolname = current_user"
        ).scalar()
    )


def wait_longer(connection: Connection) -> None:
    """Lets the rest of a transaction wait for tables until an autovacuum gives way, unless it waits without limit anyway."""
    connection.exec_driver_sql(_WAIT_LONGER)


def blockers(connection: Connection) -> list[str]:
    """Who works on a follower's tables so that what was taken off can't come back, one phrase each."""
    return list(connection.exec_driver_sql(_BLOCKERS).scalars())


def in_force(connection: Connection, tables: Sequence[Table]) -> list[Restore]:
    """What brings back the foreign keys and the enabled triggers of these tables."""
    members = {member.id: member for table in tables for member in table.members}
    found = [_foreign_key(member, key) for member in members.values() for key in member.foreign_keys]
    for schema, table, name, state in connection.exec_driver_sql(_TRIGGERS):
        if (id := table_id(schema, table)) in members:
            found.append(_trigger(id, name, state))
    return found


def _trigger(table: str, name: str, state: str) -> Restore:
    return Restore(TRIGGER, table, name, f"ALTER TABLE {qualified(*split_id(table))} {_ENABLE[state]} TRIGGER {quote(name)}")


def _foreign_key(member: Table, key: ForeignKey) -> Restore:
    statement = f"{_add(member.id, key.name)}{key.definition.removesuffix(UNCHECKED)}"
    return Restore(FOREIGN_KEY, member.id, key.name, statement)


def _add(table: str, name: str) -> str:
    return f"ALTER TABLE {qualified(*split_id(table))} ADD CONSTRAINT {quote(name)} "


def suspend(connection: Connection, tables: Sequence[Table], restores: Sequence[Restore], *, everything: bool = False) -> None:
    """Takes off what isn't switched off for the shipper's session, and makes ``suspended`` what brings back the writer's.

    Args:
        tables: all replicated tables, as they are here.
        restores: what the writer has.
        everything: whatever this role may do now.
    """
    wait_longer(connection)
    here = {member.id: table for table in tables for member in table.members}
    live, wanted = set(in_force(connection, tables)), [restore for restore in restores if restore.table in here]
    stay: set[Restore] = set()
    if not everything and may_switch_triggers_off(connection):
        stay = {restore for restore in live & set(wanted) if restore.kind == FOREIGN_KEY or restore == _trigger(restore.table, restore.name, "O")}
    with raw(connection.connection).cursor() as cursor:
        for restore in sorted(live - stay, key=lambda each: each.key):
            cursor.execute(_take_off(restore))
    rows = [restore for restore in wanted if restore not in stay]
    store(CONTROL, connection, ((restore, restore.statement + _unchecked(connection, restore, here[restore.table])) for restore in rows))


def _take_off(restore: Restore) -> str:
    what = "DROP CONSTRAINT" if restore.kind == FOREIGN_KEY else "DISABLE TRIGGER"
    return f"ALTER TABLE {qualified(*split_id(restore.table))} {what} {quote(restore.name)}"


def _unchecked(connection: Connection, restore: Restore, table: Table) -> str:
    """What lets a foreign key come back without a scan: that of a partitioned table can from PostgreSQL 18 on."""
    may_wait = not table.partition_by or (connection.dialect.server_version_info or ()) >= (18,)
    return UNCHECKED if restore.kind == FOREIGN_KEY and may_wait and not restore.statement.endswith(" NOT ENFORCED") else ""


def whole(connection: Connection, tables: Sequence[Table]) -> list[Table]:
    """Tables with the foreign keys that were dropped; triggers are only disabled."""
    held = [restore for restore in stored(CONTROL, connection) if restore.kind == FOREIGN_KEY]

    def with_keys(member: Table) -> Table:
        known = {key.name for key in member.foreign_keys}
        taken = [restore for restore in held if restore.table == member.id and restore.name not in known]
        keys = tuple(ForeignKey(each.name, (), "", (), each.statement.removeprefix(_add(each.table, each.name))) for each in taken)
        return replace(member, foreign_keys=member.foreign_keys + keys, partitions=tuple(with_keys(each) for each in member.partitions))

    return [with_keys(table) for table in tables]


def disregard(table: Table, other: Table) -> Table:
    """A table, and its partitions, with the other one's foreign keys."""
    keys = {member.id: member.foreign_keys for member in other.members}
    partitions = tuple(disregard(each, other) for each in table.partitions)
    return replace(table, foreign_keys=keys.get(table.id, table.foreign_keys), partitions=partitions)


def named(rows: Iterable[Any], tables: Collection[str]) -> list[str]:
    """What ``ACTING`` found, as parts of a sentence, once each."""
    return list(dict.fromkeys(f"{what} on table {id}" for schema, table, what in rows if (id := table_id(schema, table)) in tables))


def keep_quiet(engine: Engine) -> None:
    """Takes off what acts on a follower whose shipper can't switch it off: its role may have lost the right, or somebody has added something.

    Args:
        engine: the follower's service engine.

    Raises:
        ReplicationStopped: it can't be taken off.
    """
    with engine.connect() as connection, connection.begin():
        known = set(connection.exec_driver_sql("SELECT tbl FROM replstore.replicated").scalars())
        if not _acting(connection, catalog.tables(connection, CONTROL, only=known)):
            return
        wait_longer(connection)
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK_CLASS}, {GUARD})")
        if connection.exec_driver_sql("SELECT role FROM replstore.role").scalar() == "writer":
            return
        tables = catalog.tables(connection, CONTROL, only=known)
        here, who = connection.exec_driver_sql("SELECT (SELECT name FROM replstore.node), current_user").one()
        found, reason = _acting(connection, tables), ""
        try:
            restores = merged(in_force(connection, tables), stored(CONTROL, connection), [member.id for table in tables for member in table.members])
            with connection.begin_nested():
                suspend(connection, tables, restores, everything=True)
            left = _acting(connection, tables)
        except Exception as error:
            if classify(error) is not Fault.CALLER:
                raise
            left, reason = found, f" ({' '.join(str(error).split())})"
        if left:
            raise ReplicationStopped(
                f"follower_acts: on {here} {', '.join(left)} would act on shipped rows and can't be taken off{reason}; let the tables' owner do it, or a "
                f"superuser run there: GRANT SET ON PARAMETER session_replication_role TO {quote(who)}"
            )
        log.warning("%s: taken off until it takes over, because %s can't set session_replication_role: %s", here, who, ", ".join(found))


def switch_off(connection: Connection) -> None:
    """Lets nothing act on replicated rows of a follower until this transaction ends.

    Raises:
        ReplicationStopped: something does all the same.
    """
    if may_switch_triggers_off(connection):
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
    known = set(connection.exec_driver_sql("SELECT tbl FROM replstore.replicated").scalars())
    if acting := _acting(connection, catalog.tables(connection, CONTROL, only=known)):
        here = connection.exec_driver_sql("SELECT name FROM replstore.node").scalar()
        raise ReplicationStopped(
            f"on {here} {', '.join(acting)} would act on rows that are written there; `replstore sync` takes it off, or says why it can't"
        )


def _acting(connection: Connection, tables: Sequence[Table]) -> list[str]:
    return named(connection.exec_driver_sql(ACTING), {member.id for table in tables for member in table.members})
