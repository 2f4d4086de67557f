"""Writing a group's rows as the former writer had them, and making sure that nothing else has changed by it.

It is a write of states: what the former writer's triggers and cascades did to other rows is among the group's rows already.  So the user's triggers don't
fire again.  Foreign keys stay on; a row outside the group that one of them would delete or change keeps the group from being written, and whatever
else the transaction changed besides (by a REPLACE, a rule) is found in its own journal entries (HAZARDS 7, 11).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter

from replstore.databases.base import Fault
from replstore.databases.catalog import Table, execute, quote, quoted
from replstore.databases.replaying import PIECE, equal, pieces
from replstore.node import one_line
from replstore.replication.journal.ground import Ground, Row
from replstore.replication.journal.groups import Group

Write = Callable[[], None]
#: Rows of a group up to which each is tried by itself to find an order in which constraints let them be written.
ONE_BY_ONE = 10_000


class Withheld(Exception):
    """The group is withheld; the message is the reason."""


def put(ground: Ground, group: Group, *, anew: bool = False) -> None:
    """Writes the group's rows.

    Args:
        ground: the writer.
        group: the rows.
        anew: rows that can't be written in any order, because values change places, may be removed and written anew.

    Raises:
        Withheld: a constraint fails, or something else would change; roll back to where the group began.
    """
    Putting(ground, group, anew=anew).put()


class Putting:
    """One group's rows on their way.

    Args:
        ground: the writer.
        group: the group, whose rows nobody has touched.
        anew: see :func:`put`.
    """

    def __init__(self, ground: Ground, group: Group, *, anew: bool = False) -> None:
        self.ground, self.group, self.anew = ground, group, anew
        self.tables = [ground.tables[name] for name in group.rows()]
        self.wanted: dict[str, dict[str, Row | None]] = {table.id: {} for table in self.tables}
        for record in group.records:
            if not record.whole:
                self.wanted[record.table][record.key] = record.former_row
        for record in group.records:
            if record.whole:
                rest = ground.replaying.keys(ground.connection, ground.tables[record.table]) - set(self.wanted[record.table])
                self.wanted[record.table].update(dict.fromkeys(rest))
        self.here = {table.id: ground.rows(table, self.wanted[table.id]) for table in self.tables}
        self.cascades = any(table.foreign_keys for table in self.tables)

    def put(self) -> None:
        """See :func:`put`."""
        ground, replaying = self.ground, self.ground.replaying
        database, connection = ground.node.database, ground.connection
        self._refuse_referrers()
        before = database.position(connection)
        allowed = self._allowed(before)
        try:
            replaying.quiet(connection, self.tables)
            self._write()
            replaying.loud(connection, self.tables)
        except Exception as error:
            if isinstance(error, Withheld) or database.classify(error) is not Fault.CALLER:
                raise
            raise Withheld(one_line(error)) from error
        self._verify(before, allowed)

    # -- before

    def _refuse_referrers(self) -> None:
        """No row outside the group may refer to one that goes, or whose referred columns change: a cascade would take it along."""
        for child, key, parent in self.ground.references(self.wanted):
            leaving = [name for name, row in self.wanted.get(parent.id, {}).items() if self._leaves(parent, name, row, key.ref_columns)]
            outside = self.ground.referring(child, key, parent, self.group, leaving) - set(self.wanted.get(child.id, {}))
            if outside:
                raise Withheld(f"row {min(outside)} of {child.id} on the writer refers to a row of {parent.id} that would go")

    def _leaves(self, table: Table, name: str, row: Row | None, columns: Sequence[str]) -> bool:
        here = self.here[table.id].get(name)
        return here is not None and (row is None or any(row.get(column) != here.get(column) for column in columns))

    def _allowed(self, before: str) -> dict[str, set[str]]:
        """By table, the keys that may be in the journal as this transaction's own, in every form that they have."""
        database, connection = self.ground.node.database, self.ground.connection
        earlier = database.unshipped_keys(connection, before)  # by groups that were tried before in the same transaction
        allowed = {name: set(keys or ()) for name, keys in earlier.items()}
        for table in self.tables:
            forms = database.same_keys(connection, table, self.wanted[table.id]) if self.wanted[table.id] else {}
            allowed.setdefault(table.id, set()).update(self.wanted[table.id], forms)
        return allowed

    # -- the writing

    def _write(self) -> None:
        """Everything at once; where a constraint wants another order, one by one (of very many: piece by piece), until nothing gets any further."""
        try:
            with self.ground.connection.begin_nested():
                for write in self._writes(PIECE):
                    write()
            return
        except Exception as error:
            self._raise_unless_refused(error)
        many = sum(len(wanted) for wanted in self.wanted.values()) > ONE_BY_ONE
        writes = list(self._writes(PIECE if many else 1))
        while writes:
            left, refused = [], None
            for write in writes:
                try:
                    with self.ground.connection.begin_nested():
                        write()
                except Exception as error:
                    self._raise_unless_refused(error)
                    left.append(write)
                    refused = error
            if refused is not None and len(left) == len(writes):
                if self.anew and self._written_anew():
                    return
                raise Withheld(one_line(refused)) from refused
            writes = left

    def _written_anew(self) -> bool:
        """Removes every row and writes those that are to be there; what a cascade takes along is found afterwards, as always."""
        ordered = self._parents_first()
        try:
            with self.ground.connection.begin_nested():
                for table in reversed(ordered):
                    for piece in pieces(self.wanted[table.id]):
                        self._deleting(table, piece)()
                for table in ordered:
                    coming = {name: row for name, row in self.wanted[table.id].items() if row is not None}
                    for piece in pieces(coming):
                        self._inserting(table, [coming[name] for name in piece])()
        except Exception as error:
            self._raise_unless_refused(error)
            return False
        return True

    def _raise_unless_refused(self, error: Exception) -> None:
        if self.ground.node.database.classify(error) is not Fault.CALLER:
            raise error

    def _writes(self, size: int) -> Iterator[Write]:
        """Deletes, children first; then the others, parents first.

        Args:
            size: rows in one statement; an update has one.
        """
        ordered = self._parents_first()
        for table in reversed(ordered):
            going = [name for name in self.here[table.id] if self.wanted[table.id][name] is None]
            for piece in pieces(going, size):
                yield self._deleting(table, piece)
        for table in ordered:
            here, coming = self.here[table.id], {name: row for name, row in self.wanted[table.id].items() if row is not None}
            for piece in pieces([name for name in coming if name not in here], size):
                yield self._inserting(table, [coming[name] for name in piece])
            for name, row in coming.items():
                if name in here and row != here[name]:
                    yield self._updating(table, name, row, here[name])

    def _parents_first(self) -> list[Table]:
        by_id = {table.id: table for table in self.tables}
        order = {table.id: {key.ref_table for key in table.foreign_keys if key.ref_table in by_id} - {table.id} for table in self.tables}
        try:
            return [by_id[name] for name in TopologicalSorter(order).static_order()]
        except CycleError:
            return self.tables

    def _deleting(self, table: Table, names: Sequence[str]) -> Write:
        return lambda: execute(
            self.ground.connection, [f"DELETE FROM {self.ground.replaying.name(table)} AS t WHERE {self.ground.replaying.among(table, names, 't')}"]
        )

    def _inserting(self, table: Table, rows: Sequence[Row]) -> Write:
        return lambda: execute(self.ground.connection, [self._insert(table, rows)])

    def _insert(self, table: Table, rows: Sequence[Row]) -> str:
        values = ", ".join(f"({', '.join(self._values(table, row).values())})" for row in rows)
        override = self.ground.replaying.identity_override(table)
        return f"INSERT INTO {self.ground.replaying.name(table)} ({quoted(table.data_columns)}) {override}VALUES {values}"

    def _values(self, table: Table, row: Row) -> dict[str, str]:
        return {column: self.ground.replaying.value(table.column(column), row[column]) for column in table.data_columns}

    def _updating(self, table: Table, name: str, row: Row, here: Row) -> Write:
        def write() -> None:
            connection, replaying = self.ground.connection, self.ground.replaying
            if self.cascades and not self.ground.rows(table, [name]):  # a cascade within the group may have taken it
                execute(connection, [self._insert(table, [row])])
                return
            changed = ", ".join(f"{quote(column)} = {value}" for column, value in self._values(table, row).items() if row[column] != here[column])
            execute(connection, [f"UPDATE {self.ground.replaying.name(table)} AS t SET {changed} WHERE {replaying.among(table, [name], 't')}"])

        return write

    # -- after

    def _verify(self, before: str, allowed: dict[str, set[str]]) -> None:
        connection, database = self.ground.connection, self.ground.node.database
        for table in self.tables:
            now = self.ground.rows(table, self.wanted[table.id])
            for name, row in self.wanted[table.id].items():
                if now.get(name) != row:
                    raise Withheld(f"row {name} of {table.id} can't be written as the other node had it")
        self._refuse_dangling()
        for name, keys in database.unshipped_keys(connection, before).items():
            besides = {"the whole table"} if keys is None else keys - allowed.get(name, set())
            if besides:
                raise Withheld(f"it would also change row {min(besides)} of {name}, which isn't one of its rows")

    def _refuse_dangling(self) -> None:
        """Every row that was put refers to something that is there, whether the database itself checks that or not."""
        for child, key, parent in self.ground.references(self.wanted):
            there = [name for name, row in self.wanted.get(child.id, {}).items() if row is not None]
            for piece in pieces(there):
                given = " AND ".join(f"t.{quote(column)} IS NOT NULL" for column in key.columns)
                found = f"SELECT 1 FROM {self.ground.replaying.name(parent)} p WHERE {equal(key.ref_columns, 'p', key.columns, 't')}"
                rest = f"WHERE {self.ground.replaying.among(child, piece, 't')} AND {given} AND NOT EXISTS ({found})"
                if dangling := self.ground.replaying.keys(self.ground.connection, child, rest):
                    raise Withheld(f"row {min(dangling)} of {child.id} refers to a row of {parent.id} that isn't there")
