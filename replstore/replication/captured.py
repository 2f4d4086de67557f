"""Whether a node's changes are all captured (HAZARDS 8): what a status, and a shipper that stops for it, say.

Only catalogs are read, and no lock is waited for.  What was seen is nowhere recorded: the shipper does that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, select

from replstore.databases.carrier import capture_faults
from replstore.databases.catalog import Table
from replstore.node import Node

#: Names in one sentence; of the others it says how many there are.
NAMED = 3


def lost(node: Node, connection: Connection) -> dict[str, str]:
    """By id of each replicated table whose capture isn't what ``migrate`` left: what is wrong with it."""
    replicated = node.database.control.replicated.c
    rows = connection.execute(select(replicated.tbl, replicated.definition, replicated.fingerprint).order_by(replicated.tbl)).all()
    tables = [Table.from_json(row.definition) for row in rows]
    if any((table.schema is not None) != node.database.schemas for table in tables):
        return {}  # recorded beside a partner of another kind: `migrate` makes the pair, and the records anew
    return capture_faults({row.tbl: row.fingerprint for row in rows}, node.database.fingerprints(connection, tables))


def capture_missing(node: str, faults: Mapping[str, str]) -> str:
    """Why shipping stops, and what to do.

    Args:
        node: the writer's name.
        faults: as ``lost`` gives them, at least one.
    """
    name, fault = next(iter(faults.items()))
    if len(faults) == 1:
        return f"capture_missing: table {name} on {node}: {fault}; run `replstore migrate`, which mends it and copies the table"
    others = named([other for other in faults if other != name])
    return (
        f"capture_missing: table {name} on {node}: {fault}, and so it is with {len(faults) - 1} more ({others}); "
        "run `replstore migrate`, which mends them and copies the tables"
    )


def would_be_missing(faults: Mapping[str, str]) -> str:
    """What a takeover by this follower would come to.

    Args:
        faults: as ``lost`` gives them, at least one.
    """
    name, fault = next(iter(faults.items()))
    others = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"table {name}{others}: {fault}, so nothing would record its changes after a takeover: run `replstore migrate`"


def not_replicated(node: Node, connection: Connection) -> str | None:
    """That a writer has tables which no migration has seen, so that nothing of them is replicated; None: it has none such."""
    known = set(connection.execute(select(node.database.control.replicated.c.tbl)).scalars())
    if not (unknown := [id for id in node.database.table_ids(connection) if id not in known]):
        return None
    if len(unknown) == 1:
        return f"table {unknown[0]} is not replicated: run `replstore migrate`"
    return f"{len(unknown)} tables are not replicated ({named(unknown)}): run `replstore migrate`"


def named(names: Collection[str]) -> str:
    """A few of the names, and how many more there are.

    >>> named(["a", "b", "c", "d", "e"]), named(["a", "b", "c", "d"]), named(["a"])
    ('a, b, c and 2 more', 'a, b, c and 1 more', 'a')
    """
    shown = ", ".join(list(names)[:NAMED])
    return f"{shown} and {len(names) - NAMED} more" if len(names) > NAMED else shown
