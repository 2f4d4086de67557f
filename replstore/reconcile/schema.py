"""Tables, columns, keys, constraints, indexes, foreign keys and triggers of both nodes, and what was chosen of them.

What was taken off the follower (``suspended``: its foreign keys and triggers, HAZARDS 7) counts as a takeover would bring it back.  Alembic's revision
is a table like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from sqlalchemy import select

from replstore.databases.catalog import Table
from replstore.databases.database import Database
from replstore.errors import ConfigError
from replstore.reconcile.report import SchemaDifference
from replstore.reconcile.snapshots import Both, Side, reading, together
from replstore.replication.mirror import replicated


@dataclass(frozen=True)
class Definitions:
    """The chosen tables of both nodes, by id.

    Attributes:
        primary, standby: their definitions; a table that one node lacks is missing there.
        replicated: ids of the tables that are shipped.
        faults: by table, what is wrong with guard or capture, and on which node.
    """

    primary: Mapping[str, Table]
    standby: Mapping[str, Table]
    replicated: Collection[str]
    faults: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """All of them, sorted."""
        return sorted({*self.primary, *self.standby})

    def without(self, names: Collection[str]) -> Definitions:
        """The others."""
        primary, standby = ({name: table for name, table in tables.items() if name not in names} for tables in (self.primary, self.standby))
        return replace(self, primary=primary, standby=standby)

    def comparable(self, name: str) -> bool:
        """Whether both nodes have the table under the same key, or without one, so that its rows can be compared."""
        a, b = self.primary.get(name), self.standby.get(name)
        if a is None or b is None or a.key != b.key or not a.columns or not b.columns:
            return False
        types = [{column.name: column.type for column in table.columns} for table in (a, b)]
        return all(types[0].get(column, "") == types[1].get(column) for column in a.key)


def definitions(both: Both, wanted: Collection[str] | None, excluded: Collection[str] = ()) -> Definitions:
    """Reads them.

    Args:
        both: the nodes.
        wanted: names or ids of tables; None: all.
        excluded: names or ids of tables to leave out.

    Raises:
        ConfigError: a name that no table has, or several have.
    """
    primary, standby = together(_read, both.sides)
    faults = {**primary.faults, **standby.faults}
    shipped = (primary if both.writer is both.sides[0] else standby).replicated
    found = chosen(primary.tables, standby.tables, wanted, excluded)
    return replace(found, replicated=set(shipped), faults={name: fault for name, fault in faults.items() if name in found.names})


def chosen(primary: Mapping[str, Table], standby: Mapping[str, Table], wanted: Collection[str] | None, excluded: Collection[str]) -> Definitions:
    """Those tables that are to be compared, as if both nodes were strangers.

    Raises:
        ConfigError: a name that no table has, or several have.
    """
    known = {*primary, *standby}
    ids = (known if wanted is None else _resolve(wanted, known)) - _resolve(excluded, known)
    here, there = ({name: table for name, table in tables.items() if name in ids} for tables in (primary, standby))
    return Definitions(here, there, ids, {})


class _Read(NamedTuple):
    """What one node has: its tables by id, the ids of the shipped ones, and by table what isn't as ``migrate`` left it."""

    tables: dict[str, Table]
    replicated: Collection[str]
    faults: dict[str, str]


def _read(side: Side) -> _Read:
    database = side.node.database
    with reading(side.node):
        tables = database.whole(side.connection, database.tables(side.connection))
        shipped = replicated(side.node, side.connection)
        faults = _faults(side, shipped)
        return _Read({table.id: table for table in [*tables, database.orphan_table(side.connection)]}, set(shipped), faults)


def _faults(side: Side, shipped: Mapping[str, Table]) -> dict[str, str]:
    control = side.node.database.control.replicated.c
    expected = {row.tbl: row.fingerprint for row in side.connection.execute(select(control.tbl, control.fingerprint))}
    found = side.node.database.fingerprints(side.connection, list(shipped.values()))
    return {
        name: f"table {name} on {side.name}: "
        + ("the table is gone" if name not in found else "its columns, its guard or its capture triggers are not those that migrate left")
        for name, print in expected.items()
        if found.get(name) != print
    }


def _resolve(names: Collection[str], known: Collection[str]) -> set[str]:
    ids = set()
    for name in names:
        matches = [id for id in known if id == name] or [id for id in known if id.endswith("." + name)]
        if len(matches) != 1:
            what = "no table has this name" if not matches else f"it may be {' or '.join(sorted(matches))}"
            raise ConfigError(f"table {name}: {what}; there are {', '.join(sorted(known)) or 'none'}")
        ids.add(matches[0])
    return ids


def without_key(tables: Definitions) -> list[str]:
    """What a person should know of tables that have no key, a sentence each."""
    return [
        f"table {name} has no primary key: its rows are counted, and one that differs is one on each node"
        for name in tables.names
        if tables.comparable(name) and not tables.primary[name].key
    ]


def compare_schema(tables: Definitions, database: Database) -> list[SchemaDifference]:
    """In what the tables differ.

    Args:
        database: of either node.
    """
    found = []
    for name in tables.names:
        a, b = tables.primary.get(name), tables.standby.get(name)
        found += [SchemaDifference(name, str(each).removeprefix(f"table {name}: ")) for each in database.differences(a, b)]
        if a is not None and b is not None and not a.columns and not b.columns:
            found.append(SchemaDifference(name, f"it is {a.kind}, so its rows can't be compared"))
    return found
