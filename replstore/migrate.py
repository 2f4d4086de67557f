"""Migrations: control tables, the user's tables and the triggers, brought to the same revision on both nodes.

The user's migration runs on the writer, then on the follower, where the guard lets it pass.  What it did there to rows is then overwritten with the
writer's rows (HAZARDS 21), and a table that came out different is made anew from the writer's.  Shipping rests in between, because the nodes differ.  A
node that is down is brought to the revision when it is back: by the next ``migrate``, or by any running Store.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Connection, MetaData, delete, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase

from replstore.control_migrations import current, head, upgrade
from replstore.databases.base import NodeState
from replstore.databases.catalog import Table
from replstore.errors import CannotReplicate, ConfigError, MigrationFailed, NotAPair
from replstore.node import Node
from replstore.pair.admission import compare_nodes
from replstore.pair.appoint import APPOINTED, appoint, appointed, dismiss
from replstore.pair.decide import Term
from replstore.pair.pair import Pair
from replstore.replication.mirror import install, mirror, replicated
from replstore.timestamps import now
from replstore.user_migrations import UserMigration

log = logging.getLogger("replstore.migrate")
#: The setting that says that both nodes were made: a crash in between is told from a node that was lost.
COMPLETE = "complete"


@dataclass(frozen=True)
class Migrated:
    """What a migration left.

    Attributes:
        revision: of the control tables.
        user_revision: of the user's Alembic environment; None: there is none.
        tables: ids of the replicated tables.
        copied: ids of those that were copied whole to the follower.
        behind: name of a node that wasn't reached, or None.
    """

    revision: str
    user_revision: str | None
    tables: tuple[str, ...]
    copied: tuple[str, ...]
    behind: str | None


def migrate(
    pair: Pair,
    metadata: MetaData | type[DeclarativeBase] | None = None,
    *,
    alembic_config: str | Path | None = None,
    replace: str | None = None,
    drop_witness: bool = False,
) -> Migrated:
    """Migrates a pair, or makes one of two databases.

    Args:
        pair: the nodes.
        metadata: tables to create where they are missing, or a declarative base.
        alembic_config: the user's ``alembic.ini``; its environment is brought to its head on both nodes.
        replace: name of a node that was lost for good and is made anew, as the follower; or ``witness``, to make another one of the database that
            the settings name.
        drop_witness: the pair has no witness from now on; then leave it out of every program's settings.

    With neither metadata nor Alembic environment the tables that the primary has are adopted: made on the standby, and copied.

    Raises:
        CannotReplicate: a table can't be replicated; the message names it, and says so if the Alembic environment has made it already. Nothing of
            replstore's was put on any table.
        MigrationFailed: the user's migration failed on a node; the message says which, and how to go on.
        NotAPair, ConfigError: the databases aren't what they should be.
    """
    user = UserMigration(metadata, alembic_config)
    if pair.settings.replication == "native":
        return _migrate_native(pair, user, replace, drop_witness)
    user.refuse_tables_without_key()
    _refuse_one_database(pair)
    with pair.maintenance:
        _make_pair(pair, replace)
        _arrange_witness(pair, replace, drop_witness)
        return _migrate(pair, user)


def _migrate_native(pair: Pair, user: UserMigration, replace: str | None, drop_witness: bool) -> Migrated:
    if replace is not None or drop_witness:
        raise ConfigError("with native replication a node is replaced by a new standby of the server's own (pg_basebackup), and there is no witness")
    from replstore.migrate_native import migrate_writer

    with pair.maintenance:
        tables, behind = migrate_writer(pair, user)
    return Migrated(head(), user.revision, tuple(sorted(tables)), (), behind)


def _refuse_one_database(pair: Pair) -> None:
    """Two URLs may name one database by two names of its host: only the database itself knows."""
    try:
        with pair.primary.snapshot() as one, pair.standby.snapshot() as other:
            same = pair.primary.database.is_same(one, other)
    except DBAPIError:
        return  # one isn't there, or not yet
    if same:
        raise NotAPair("primary and standby are one and the same database under two names: each needs its own")


def _migrate(pair: Pair, user: UserMigration) -> Migrated:
    lead = pair.settle(time.monotonic() + pair.settings.takeover_timeout)
    writer, follower = lead.node, lead.follower
    with writer.database.one_migration(writer.service):
        changed = _migrate_writer(writer, user)
        copied: Collection[str] = ()
        behind: str | None = None
        answer = follower.observe(pair.settings.probe_timeout)
        if answer.state is None:
            behind = follower.name
            log.warning("%s is not reached (%s): it is brought to this revision when it is back", follower.name, answer.error)
        elif answer.state.role == "follower":
            copied = _migrate_follower(writer, follower, user, changed)
            pair.ship_from(writer, math.inf)  # a copy takes its time; a node that doesn't answer ends it
    pair.look()
    with writer.snapshot() as connection:
        tables = replicated(writer, connection)
        names = tuple(sorted(set(tables) - {writer.database.orphan_table(connection).id}))
    return Migrated(head(), user.revision, names, tuple(copied), behind)


# -- control tables and the pair itself


def _make_pair(pair: Pair, replace: str | None) -> None:
    """Creates or upgrades the control tables on each node that is reached."""
    nodes = [pair.primary, pair.standby]
    answers = {node.name: node.observe(pair.settings.probe_timeout + 2.0) for node in nodes}
    states = {name: answer.state for name, answer in answers.items() if answer.state is not None}
    compare_nodes(states)
    if not states:
        _new_pair(pair)
        return
    for node in nodes:
        if node.name in states:
            _upgrade(node)
    missing = [node for node in nodes if node.name not in states]
    if missing:
        node, other = missing[0], pair.other(missing[0])
        known = states[other.name]
        answered = answers[node.name].fault is None or node.database.may_create(node.url)
        if answered and (replace == node.name or not _is_complete(other)):
            _add_follower(pair, node, other, known)
        elif answers[node.name].fault is None:
            raise NotAPair(
                f"{node.name} is a database without replstore's control tables, but the pair has had a {node.name} before: bring that one back, "
                f"or run `replstore migrate --replace {node.name}` to make a new one of this database"
            )
    elif replace in pair.nodes:
        raise ConfigError(f"{replace} is there and belongs to the pair: only a node that was lost is replaced")
    else:
        _complete(*nodes)


def _new_pair(pair: Pair) -> None:
    """Makes a pair of two databases that have no control tables; what can't become one is refused before anything is written."""
    wanted: list[str] = []
    if not pair.primary.database.may_create(pair.primary.url):
        with pair.primary.snapshot() as connection:
            found = pair.primary.database.tables(connection)
            refuse(pair.primary, connection, found)
            wanted = [table.id for table in found]
    _refuse_strangers(pair.standby, pair.primary, wanted)
    for node in (pair.standby, pair.primary):
        if node.database.may_create(node.url):
            node.database.create(node.url)
    uuid, term = str(uuid4()), Term(1, str(uuid4()))
    _create_control(pair, pair.primary, uuid, term, "writer")
    state = pair.primary.observe(5.0).state
    assert state is not None
    _add_follower(pair, pair.standby, pair.primary, state)


def _add_follower(pair: Pair, node: Node, writer: Node, known: NodeState) -> None:
    """Makes a node the follower, and the pair complete."""
    if known.role != "writer":
        raise NotAPair(f"{writer.name} is not the writer: run `replstore takeover --force {writer.name}` first")
    with writer.snapshot() as connection:
        wanted = [table.id for table in writer.database.tables(connection)]
        witness = appointed(writer, connection)
    node.forget_pair()
    _refuse_strangers(node, writer, wanted)
    _create_control(pair, node, known.pair, Term(known.term_no, known.term_uuid), "follower", witness)
    _complete(writer, node)


def _arrange_witness(pair: Pair, replace: str | None, drop: bool) -> None:
    """Makes the witness that the settings name the pair's, where it isn't yet."""
    if pair.witness is None and replace == "witness":
        raise ConfigError("no witness is named in the settings: set `witness` to the URL of the new one")
    if pair.witness is None and not drop:
        return
    answers = {name: node.observe(pair.settings.probe_timeout + 2.0) for name, node in pair.nodes.items()}
    states = {name: answer.state for name, answer in answers.items() if answer.state is not None}
    if drop:
        dismiss(pair.nodes, states)
    elif pair.witness is not None and len(states) == len(pair.nodes):
        appoint(pair.nodes, states, pair.witness, anew=replace == "witness")
    elif replace == "witness":
        raise ConfigError("another witness is made while both nodes are there: bring the other one back, and repeat")


def _refuse_strangers(node: Node, writer: Node, wanted: Collection[str]) -> None:
    """A database that becomes the follower may have the writer's tables, empty: whatever it holds would be replaced."""
    if node.database.may_create(node.url):
        return
    with node.snapshot() as connection:
        taken = node.database.tables(connection)
        if strangers := sorted({table.id for table in taken} - set(wanted)):
            raise NotAPair(f"{node.name} has tables that {writer.name} doesn't have ({', '.join(strangers)}): give an empty database")
        if filled := [table.id for table in taken if node.database.holds_rows(connection, table)]:
            raise NotAPair(
                f"{node.name} isn't empty: its table {filled[0]} holds rows, which would be replaced by {writer.name}'s. Are the two URLs exchanged? "
                f"If they aren't, give an empty database"
            )


def _create_control(pair: Pair, node: Node, uuid: str, term: Term, role: str, witness: str = "") -> None:
    database, control = node.database, node.database.control
    if database.may_create(node.url):
        database.create(node.url)
    with node.service.connect() as connection:
        database.prepare(connection)
    with node.begin() as connection:
        database.lock_migration(connection)
        upgrade(connection, control, database.control_statements)
        if connection.execute(select(control.node.c.id)).scalar() is not None:
            return
        connection.execute(insert(control.node).values(id=1, pair=uuid, node=str(uuid4()), name=node.name, created_at=now()))
        connection.execute(insert(control.role).values(id=1, role=role, term_no=term.number, term_uuid=term.uuid, reason="made", since=now()))
        connection.execute(insert(control.acknowledge).values(id=1, solo=False, boot="", req=0, reason="made", since=now()))
        connection.execute(insert(control.heartbeat).values(id=1, no=0))
        connection.execute(insert(control.schema_no).values(id=1, no=0))
        connection.execute(insert(control.retention).values(id=1))
        for name, value in {**pair.settings.pair_values(), APPOINTED: witness}.items():
            control.hold(connection, name, value)
        database.set_guard(connection, term_no=term.number, writing=role == "writer")
        state = database.state(connection)
        if role == "writer" and state is not None and pair.policy.on_follower_down == "solo":
            # the follower has nothing and can't take over: programs go on while it is copied, as after a takeover (HAZARDS 2)
            connection.execute(update(control.acknowledge).values(solo=True, boot=state.boot, reason="the follower has nothing yet"))


def _complete(*nodes: Node) -> None:
    """Records on each node that the pair has had both: from now on an empty database doesn't become a node by itself."""
    for node in nodes:
        if _is_complete(node):
            continue
        with node.begin() as connection:
            node.database.lock_migration(connection)
            node.database.control.hold(connection, COMPLETE, "yes")


def _is_complete(node: Node) -> bool:
    with node.snapshot() as connection:
        return node.database.control.held(connection, COMPLETE) is not None


def _upgrade(node: Node) -> None:
    with node.snapshot() as connection:
        if current(connection, node.database.control) == head():
            return
    with node.begin() as connection:
        node.database.lock_migration(connection)
        upgrade(connection, node.database.control, node.database.control_statements)


# -- the user's tables


def _migrate_writer(writer: Node, user: UserMigration) -> set[str]:
    """Runs the user's migration on the writer and puts capture on what came out.

    Returns:
        Ids of the tables that the follower must copy whole.
    """
    database, control = writer.database, writer.database.control
    with writer.snapshot() as connection:
        old_files = database.storage(connection, list(replicated(writer, connection).values()))
    user.run(writer, follower=False)
    with writer.begin() as connection:
        database.lock_migration(connection)
        state = database.state(connection)
        if state is None or state.role != "writer":
            raise MigrationFailed(f"{writer.name} is no longer the writer: run `replstore migrate` again")
        database.resume(connection)  # what a takeover couldn't bring back
        tables = database.tables(connection)
        try:
            refuse(writer, connection, tables)
        except CannotReplicate as error:
            raise CannotReplicate(f"{error}{user.how_to_go_on(writer)}") from None
        orphans = database.orphan_table(connection)
        before = replicated(writer, connection)
        recorded = dict(connection.execute(select(control.replicated.c.tbl, control.replicated.c.fingerprint)).all())
        prints = database.fingerprints(connection, [*tables, orphans])
        files = database.storage(connection, [*tables, orphans])
        # capture may have missed changes of these: it is new, or was lost, or ALTER TABLE wrote the rows anew
        missed = [table for table in [*tables, orphans] if recorded.get(table.id) != prints[table.id] or _is_rewritten(table, old_files, files)]
        joined = {
            table.id: partitions
            for table in missed
            if not _is_rewritten(table, old_files, files)
            and (partitions := database.joined(table, recorded.get(table.id, ""), prints[table.id])) is not None
        }
        whole = [table for table in missed if table.id not in joined]
        stale = [table for table in [*tables, orphans] if table in missed or before[table.id] != table]
        gone = set(before) - {table.id for table in tables} - {orphans.id}
        for name in gone:
            connection.execute(delete(control.replicated).where(control.replicated.c.tbl == name))
        if stale or gone:
            born = [_with_births(table, before.get(table.id), joined.get(table.id, ()), state.schema_no + 1) for table in stale]
            install(writer, connection, born, schema_no=state.schema_no + 1)
        database.journal_whole(connection, whole)  # durable, because another program, or a later one, may bring the follower up to date
        for table in missed:
            database.journal_partitions(connection, table, joined.get(table.id, ()))
    return {table.id for table in whole}


def _is_rewritten(table: Table, before: dict[str, str], now: dict[str, str]) -> bool:
    return any(member.id in before and before[member.id] != now.get(member.id) for member in table.members)


def _with_births(table: Table, before: Table | None, joined: Collection[str], number: int) -> Table:
    """A table whose partitions know which migration found them new."""
    known = {member.id: member.born for member in before.partitions if member.id not in joined} if before else {}
    return replace(table, partitions=tuple(replace(member, born=known.get(member.id, number)) for member in table.partitions))


def refuse(node: Node, connection: Connection, tables: Collection[Table]) -> None:
    """Raises CannotReplicate, naming every table that can't be replicated by journal."""
    sentences = [sentence for table in tables if (sentence := node.database.refusal(connection, table))]
    if sentences:
        raise CannotReplicate("; ".join(sentences))


def _migrate_follower(writer: Node, follower: Node, user: UserMigration, changed: set[str]) -> Collection[str]:
    try:
        user.run(follower, follower=True)
    except MigrationFailed as error:  # the writer's definitions count: what is missing here is made from them
        log.warning("%s; its tables are made from %s's instead", error, writer.name)
    return mirror(writer, follower, copy=changed).copied
