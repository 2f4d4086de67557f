"""Brings a follower's tables to the definitions that the writer has: what a migration did while the follower was down, or an adopted schema.

A table that is already the same is left alone.  One that differs is made anew from the writer's catalog and copied whole with the next batch; until
then the follower is ``copying``: it may not take over, and isn't read.  A partitioned table that differs only in which partitions it has isn't made
anew: partitions go, and come empty, because the writer's journal names the rows of those that came.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from replstore.databases.catalog import Table
from replstore.databases.landing import TO_COPY
from replstore.databases.suspended import Restore
from replstore.errors import MigrationFailed, ReplicationStopped
from replstore.node import Node
from replstore.replication.journal import verified

log = logging.getLogger("replstore.mirror")


@dataclass(frozen=True)
class Mirrored:
    """What was done on the follower.

    Attributes:
        made: ids of tables that were made anew.
        dropped: ids of tables that the writer no longer has.
        copied: ids of tables that the next batch carries whole.
    """

    made: tuple[str, ...]
    dropped: tuple[str, ...]
    copied: tuple[str, ...]


def replicated(node: Node, connection: Connection) -> dict[str, Table]:
    """The tables that a node's control tables name as replicated, by id."""
    control = node.database.control
    return {table.id: table for table in map(Table.from_json, connection.execute(select(control.replicated.c.definition)).scalars())}


def install(node: Node, connection: Connection, tables: Collection[Table], *, schema_no: int | None = None) -> None:
    """Puts guard and capture on tables, and records what they are now.

    Args:
        schema_no: the number of migrations to record; None leaves it.
    """
    control, database = node.database.control, node.database
    for table in tables:
        database.execute_script(connection, database.capture_statements(table))
    _refuse_other_partitions(node, connection, [table for table in tables if table.partition_by])
    prints = database.fingerprints(connection, list(tables))
    for table in tables:
        connection.execute(delete(control.replicated).where(control.replicated.c.tbl == table.id))
        connection.execute(insert(control.replicated).values(tbl=table.id, definition=table.to_json(), fingerprint=prints[table.id]))
    if schema_no is not None:
        connection.execute(update(control.schema_no).values(no=schema_no))


def _refuse_other_partitions(node: Node, connection: Connection, tables: Collection[Table]) -> None:
    """Now that triggers were made none can come or go any more; one that came before would count as captured."""
    now = {table.id: table for table in node.database.tables(connection, only=[table.id for table in tables])} if tables else {}
    for table in tables:
        if table.id not in now or {member.id for member in now[table.id].members} != {member.id for member in table.members}:
            raise MigrationFailed(f"table {table.id} on {node.name} got or lost a partition in the meantime: run `replstore migrate` again")


def mirror(writer: Node, follower: Node, *, copy: Collection[str] = ()) -> Mirrored:
    """Makes the follower's tables those of the writer.

    Args:
        copy: ids of tables to be copied in any case.

    Raises:
        ReplicationStopped: the follower's tables can't be made as the writer's are.
    """
    _learn(writer, follower)
    with writer.snapshot() as source:
        state = writer.database.state(source)
        wanted = replicated(writer, source)
        if state is None or state.role == "follower":
            raise ReplicationStopped(f"{writer.name} is not the writer")
        # as they are now: a node that was the follower recorded its tables without what was taken off them
        restores = writer.database.restores(source, writer.database.tables(source, only=list(wanted))) if writer.database.same_triggers else None
        with follower.begin() as target:
            labels = follower.database.prepare_target(source, list(wanted.values()), target)
            follower.database.execute_script(target, labels)
        with follower.begin() as target:
            follower.database.lock_migration(target)
            follower.database.mark(target, "apply")
            done = _mirror(follower, source, target, wanted, copy, state.schema_no)
            _suspend(follower, target, wanted, restores)
            follower.database.mark(target, None)
    if done.made or done.dropped:
        log.warning(
            "%s: made %d table(s) anew, dropped %d, to be copied: %s", follower.name, len(done.made), len(done.dropped), ", ".join(done.copied)
        )
    return done


def _learn(writer: Node, follower: Node) -> None:
    """Lets the writer's definitions take over what only the follower's tables say, where the two are of different kinds."""
    if not writer.database.learns:
        return
    with follower.snapshot() as there:
        tables, seen = follower.database.tables(there), replicated(follower, there)
    fresh = {table.id for table in tables if seen.get(table.id) != table}
    with writer.begin() as connection:
        writer.database.lock_migration(connection)
        state = writer.database.state(connection)
        if state is None or state.role == "follower":
            raise ReplicationStopped(f"{writer.name} is not the writer")
        known = replicated(writer, connection)
        changed = [table for table in writer.database.learn(connection, tables, fresh) if table.id in known]
        if changed:
            install(writer, connection, changed, schema_no=state.schema_no + 1)


def _mirror(follower: Node, source: Connection, target: Connection, wanted: dict[str, Table], copy: Collection[str], schema_no: int) -> Mirrored:
    control, database = follower.database.control, follower.database
    database.learn(target, list(wanted.values()), ())
    before = replicated(follower, target)
    orphans = database.orphan_table(target)
    present = {table.id: table for table in [*database.tables(target), orphans]}
    captured = {name for name in database.journaled(target) if name in wanted}
    differ, altered = _differing(follower, source, target, wanted, before, present)
    gone = [present[name] for name in before if name not in wanted and name in present]
    try:
        _drop(follower, target, [*(present[table.id] for table in differ if table.id in present), *gone])
        again = [name for name, statements in altered.items() if not _alter(follower, target, wanted[name], statements)]
        again += _referrers([present[name] for name in again], [present[name] for name in wanted if name in present and wanted[name] not in differ])
        _drop(follower, target, [present[name] for name in again])
        differ += [wanted[name] for name in again]
        database.execute_script(target, database.create_statements(source, differ, target))
    except Exception as error:
        names = ", ".join([*(table.id for table in [*differ, *gone]), *altered])
        raise ReplicationStopped(f"schema_skew: {follower.name}'s tables ({names}) can't be made as the writer's are: {error}") from error
    for name in before:
        if name not in wanted:
            target.execute(delete(control.replicated).where(control.replicated.c.tbl == name))
    now = {table.id: table for table in [*database.tables(target, only=list(wanted)), orphans]}
    install(follower, target, [now[name] for name in wanted if name in now], schema_no=schema_no)
    whole = {table.id for table in differ} | captured | (set(copy) & set(wanted))
    unfinished = {name: key for name, key in _unfinished(follower, target).items() if name in wanted and name not in whole}
    copied = sorted({*whole, *unfinished})
    target.exec_driver_sql(f"DELETE FROM {control.name('journal')}")
    if copied or altered:
        # counted up, so that a batch under way, which began before this, doesn't land and say that nothing is to be copied
        target.execute(update(control.position).values(copying=True, batch=control.position.c.batch + 1))
        control.hold(target, TO_COPY, json.dumps({name: unfinished.get(name) for name in copied}))
        verified.forget(follower, target, copied)
    return Mirrored(tuple(table.id for table in differ), tuple(table.id for table in gone), tuple(copied))


def _suspend(follower: Node, target: Connection, wanted: Collection[str], restores: Sequence[Restore] | None) -> None:
    """Takes off what would act on the tables, so that what a takeover brings back is what the writer has now, and no more (HAZARDS 7)."""
    tables = [table for table in follower.database.tables(target, only=list(wanted)) if table.id in wanted]
    follower.database.suspend(target, tables, follower.database.restores(target, tables) if restores is None else restores)


def _differing(
    follower: Node, source: Connection, target: Connection, wanted: dict[str, Table], before: dict[str, Table], present: dict[str, Table]
) -> tuple[list[Table], dict[str, list[str]]]:
    """The tables to make anew, and by id what alters those that differ in their partitions only."""
    control, database = follower.database.control, follower.database
    number = target.execute(select(control.schema_no.c.no)).scalar_one()
    orphans = database.orphan_table(target).id
    differ: list[Table] = []
    altered: dict[str, list[str]] = {}
    for name, table in wanted.items():
        fresh = [member.id for member in table.partitions if member.born > number] if name in before else []
        seen = database.disregard(present[name], table) if name in present else table
        same_key = before.get(name, table).key == table.key
        if name == orphans or (name in present and same_key and not fresh and not database.differences(table, seen)):
            continue
        known = name in present and name in before and same_key
        statements = database.partition_statements(source, table, seen, fresh, target) if known else None
        if statements is None:
            differ.append(table)
        else:
            altered[name] = statements
    referrers = _referrers([present[table.id] for table in differ if table.id in present], [present[name] for name in wanted if name in present])
    differ += [wanted[name] for name in referrers]
    return differ, {name: statements for name, statements in altered.items() if name not in referrers}


def _alter(follower: Node, target: Connection, wanted: Table, statements: list[str]) -> bool:
    """Gives a table its partitions; where rows that are here stand in the way, nothing is done."""
    try:
        with target.begin_nested():
            follower.database.execute_script(target, statements)
    except Exception as error:
        log.info("%s: the partitions of %s can't be altered, so it is made anew: %s", follower.name, wanted.id, error)
        return False
    return True


def _drop(follower: Node, target: Connection, tables: Collection[Table]) -> None:
    suspended = follower.database.control.suspended
    for table in tables:
        for member in table.members:
            target.execute(delete(suspended).where(suspended.c.tbl == member.id))
    follower.database.execute_script(target, follower.database.drop_statements(list(tables)))


def _referrers(tables: Collection[Table], present: Collection[Table]) -> list[str]:
    """Ids of other tables whose foreign keys hold these where they are: they are made anew with them."""
    held = {member.id for table in tables for member in table.members}
    found: list[str] = []
    while more := [
        table for table in present if table.id not in held and any(key.ref_table in held for member in table.members for key in member.foreign_keys)
    ]:
        found += [table.id for table in more]
        held |= {member.id for table in more for member in table.members}
    return found


def _unfinished(follower: Node, connection: Connection) -> dict[str, str | None]:
    """What an earlier copy has left, with how far it has come."""
    control = follower.database.control
    if not connection.execute(select(control.position.c.copying)).scalar():
        return {}
    return to_copy(follower, connection)


def to_copy(follower: Node, connection: Connection) -> dict[str, str | None]:
    """By id of each table that must still be copied whole while the follower is ``copying``: the last key that it has; None: it has none."""
    value = follower.database.control.held(connection, TO_COPY)
    return json.loads(value) if value else {}
