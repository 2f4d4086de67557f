"""Migrations of a pair whose database copies the data itself: everything is done on the writer, and the standby gets it with the rest."""

from __future__ import annotations

import logging
import time
from uuid import uuid4

from sqlalchemy import insert, select

from replstore.control_migrations import current, head, upgrade
from replstore.errors import ConfigError, NotAPair
from replstore.node import Node
from replstore.pair.admission import refuse_strangers
from replstore.pair.appoint import APPOINTED
from replstore.pair.pair import Pair
from replstore.pair.promotion import native, record
from replstore.timestamps import now
from replstore.user_migrations import UserMigration

log = logging.getLogger("replstore.migrate")


def migrate_writer(pair: Pair, user: UserMigration) -> tuple[list[str], str | None]:
    """Brings control tables and the user's tables to their revision, and waits until the standby has them.

    Returns:
        Ids of the user's tables, and the name of a standby that wasn't reached, or None.

    Raises:
        NotAPair: the nodes aren't one cluster and its copy, or none of them writes.
        MigrationFailed: the user's migration failed.
    """
    writer = _writer(pair)
    with writer.database.one_migration(writer.service):
        _control(pair, writer)
        user.run(writer, follower=False)
    lead = pair.settle(time.monotonic() + pair.settings.takeover_timeout)
    behind: str | None = None
    if lead.follower.observe(pair.settings.probe_timeout).state is None:
        behind = lead.follower.name
        log.warning("%s is not reached: it has this revision once it has replayed it", behind)
    else:
        pair.ship(time.monotonic() + pair.settings.ack_timeout)
    pair.look()
    with lead.node.snapshot() as connection:
        return lead.node.database.table_ids(connection), behind


def _writer(pair: Pair) -> Node:
    """The node that isn't in recovery; both are asked, with or without control tables."""
    found = {}
    for node in pair.nodes.values():
        seen = node.observe(pair.settings.probe_timeout + 2.0)
        if seen.state is not None or seen.fault is None:
            with node.snapshot() as connection:
                found[node.name] = native(node).identity(connection)
    refuse_strangers(found)
    writers = [name for name, identity in found.items() if not identity.in_recovery]
    if len(writers) == 2 and not _is_one_server(pair):
        raise NotAPair("both nodes write, so neither is the other one's standby: make one the standby of the other, with pg_basebackup or pg_rewind")
    if not writers:
        away = "; ".join(f"{name} is a standby" if name in found else f"{name} isn't reached" for name in pair.nodes)
        raise NotAPair(f"no node writes: {away}")
    return pair.nodes[writers[0]]


def _is_one_server(pair: Pair) -> bool:
    """Whether both URLs lead to one server for now, as several hosts or a virtual address in them may."""
    with pair.primary.snapshot() as one, pair.standby.snapshot() as other:
        return pair.primary.database.is_same(one, other)


def _control(pair: Pair, writer: Node) -> None:
    """The control tables; they are replicated like all others, so there is one of each."""
    database, control = writer.database, writer.database.control
    with writer.begin() as connection:
        database.lock_migration(connection)
        if current(connection, control) != head():
            upgrade(connection, control, database.control_statements)
        held = dict(connection.execute(select(control.setting.c.name, control.setting.c.value)).all())
        if held.get("replication", "native") != "native":
            raise ConfigError(f"{writer.name} belongs to a pair with replication {held['replication']}: leave the setting out to take the pair's")
        if connection.execute(select(control.node.c.id)).scalar() is None:
            # the rows of the journal's own tables keep a program that knows only the journal from taking this for its pair
            connection.execute(insert(control.node).values(id=1, pair=str(uuid4()), node=str(uuid4()), name="native", created_at=now()))
            connection.execute(insert(control.role).values(id=1, role="native", term_no=0, term_uuid="", reason="made", since=now()))
            connection.execute(insert(control.acknowledge).values(id=1, solo=False, boot="", req=0, reason="made", since=now()))
            connection.execute(insert(control.heartbeat).values(id=1, no=0))
            connection.execute(insert(control.schema_no).values(id=1, no=0))
            for name, value in {**pair.settings.pair_values(), APPOINTED: ""}.items():
                control.hold(connection, name, value)
    record(writer)
