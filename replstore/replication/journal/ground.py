"""The writer as one transaction of a replay sees it: its tables, its markers, what became of each record, and what has changed since.

"Since" is the last position that the former writer and this one had in common, not the takeover (HAZARDS 32).  Where the writer's journal still begins there,
it tells exactly which rows were touched.  Where it doesn't (it was pruned, or the writer has changed in the meantime) a row counts as touched if it isn't
what it was when the orphan was recorded; rows that refer to one another can't be told then, and such groups are withheld.
"""

from __future__ import annotations

import json
from collections import ChainMap, Counter
from collections.abc import Callable, Collection, Iterator, Sequence

from sqlalchemy import Connection, func, select

from replstore.databases.catalog import ForeignKey, Table, quote
from replstore.databases.replaying import equal, pieces
from replstore.errors import NotTheWriter
from replstore.node import Node
from replstore.replication.journal.groups import NO_TABLE, Group, History, Record, State

Row = dict[str, str | None]


class Ground:
    """What a replay stands on; one transaction's.

    Args:
        node: the writer.
        connection: in the transaction, with ``Replaying.reading`` on.
        known: what had become of each record, as far as this program knows; asked again if another one has decided on any.
    """

    def __init__(self, node: Node, connection: Connection, known: dict[str, State] | None = None) -> None:
        self.node, self.connection = node, connection
        self.replaying = node.database.replaying()
        state = node.database.state(connection)
        if state is None or state.role != "writer":
            raise NotTheWriter(f"{node.name} is not the writer")
        self.state = state
        tables = [*node.database.tables(connection), node.database.orphan_table(connection)]
        self.tables: dict[str, Table] = {table.id: table for table in tables}
        if known is None or Counter(known.values()) != counts(node, connection):
            known = states(node, connection)
        self.states: ChainMap[str, State] = ChainMap({}, known)
        self.passed: dict[History, int] = {}
        """By history, how many of its first groups are known to be replayed."""

    def outcomes(self, ids: Sequence[str]) -> dict[str, str]:
        """How the writer knows transactions: by id, 'committed' or 'lost'."""
        marker = self.node.database.control.marker.c
        return {
            row.id: row.outcome
            for piece in pieces(ids)
            for row in self.connection.execute(select(marker.id, marker.outcome).where(marker.id.in_(piece)))
        }

    def users(self, keys: Collection[str]) -> dict[str, str]:
        """By key, the id of the transaction that has used it."""
        marker = self.node.database.control.marker.c
        return {
            row.key: row.id for piece in pieces(keys) for row in self.connection.execute(select(marker.key, marker.id).where(marker.key.in_(piece)))
        }

    def rows(self, table: Table, keys: Collection[str]) -> dict[str, Row]:
        """The rows that have these keys, by the key as it was given."""
        database = self.node.database
        found: dict[str, Row] = {}
        for piece in pieces(keys):
            same = database.same_keys(self.connection, table, piece)
            found.update({same[form]: json.loads(row) for form, row in database.rows(self.connection, table, piece)})
        return found

    def references(self, tables: Collection[str]) -> Iterator[tuple[Table, ForeignKey, Table]]:
        """Every foreign key from or to these tables, with both of its ends."""
        for child in self.tables.values():
            for key in child.foreign_keys:
                if key.ref_table in self.tables and (child.id in tables or key.ref_table in tables):
                    yield child, key, self.tables[key.ref_table]

    # -- touched

    def touched(self, group: Group, replayed: Callable[[], Collection[Record]]) -> str | None:
        """What the writer has changed since, in a sentence; None: nothing that concerns the group.

        Args:
            replayed: gives the records whose own changes don't count.
        """
        common = next((record.common for record in group.records if record.common is None), group.records[0].common)
        if common is None:
            return "what the writer has changed since the takeover isn't known"
        exact = group.records[0].common_term == self.state.term_uuid and not self._pruned_past(common)
        for record in group.records:
            if record.touched:
                return f"the writer had changed row {record.key} of {record.table} before the orphan was recorded"
        for name, keys in group.rows().items():
            sentence = self._own(name, keys, group, common if exact else None)
            if sentence is not None:
                return sentence
        if not exact:
            return self._unknown_neighbours(group)
        return next(filter(None, (self._neighbour(*reference, group, common, replayed) for reference in self.references(group.rows()))), None)

    def _pruned_past(self, common: str) -> bool:
        pruned = self.connection.execute(select(self.node.database.control.retention.c.pruned_through)).scalar()
        return pruned is not None and not self.node.database.covers(common, pruned)

    def _own(self, name: str, keys: set[str], group: Group, since: str | None) -> str | None:
        table = self.tables[name]
        if any(record.whole and record.table == name for record in group.records):
            if since is None:
                return f"{name} was emptied as a whole, and whether the writer has changed it since isn't known any more: its journal begins later"
            if name in self.node.database.unshipped_keys(self.connection, since):
                return f"{name} was emptied as a whole, and the writer has changed rows of it since"
        named = self.replaying.named(self.connection, table, keys, since) if since is not None and keys else set()
        here = self.rows(table, keys)
        for record in group.records:
            if record.table == name and not record.whole and (record.key in named or here.get(record.key) != record.writer_row):
                return f"the writer has changed row {record.key} of {name} since"
        return None

    def _unknown_neighbours(self, group: Group) -> str | None:
        for child, _, parent in self.references(group.rows()):
            return f"whether the writer has changed rows of {child.id} and {parent.id} that refer to one another isn't known any more: its journal begins later"
        return None

    def _neighbour(
        self, child: Table, key: ForeignKey, parent: Table, group: Group, since: str, replayed: Callable[[], Collection[Record]]
    ) -> str | None:
        """A row that refers to one of the group's, or that one of them refers to, and was changed."""
        for table, keys in ((parent, self.referring(child, key, parent, group)), (child, self.referred(child, key, parent, group))):
            other = child if table is parent else parent
            keys -= group.rows().get(other.id, set())
            for piece in pieces(keys):
                named = self.replaying.named(self.connection, other, piece, since)
                named -= self._by_replay(other, named, replayed()) if named else set()
                if named:
                    how = "refers" if other is child else "is referred"
                    return f"the writer has changed row {min(named)} of {other.id} since, which {how} to{'' if other is child else ' by'} one of the group's"
        return None

    def _by_replay(self, table: Table, named: Collection[str], replayed: Collection[Record]) -> set[str]:
        """Those that a replay has written, and nobody since."""
        written = {record.key: record.former_row for record in replayed if record.table == table.id and record.key in named}
        here = self.rows(table, written)
        return {key for key, row in written.items() if here.get(key) == row}

    # -- neighbours

    def referring(self, child: Table, key: ForeignKey, parent: Table, group: Group, only: Collection[str] | None = None) -> set[str]:
        """Keys of the rows that refer to the group's, as they are on the writer.

        Args:
            only: only to these of them.
        """
        wanted = group.rows().get(parent.id, set()) if only is None else only
        found: set[str] = set()
        for piece in pieces(wanted):
            on = equal(key.ref_columns, "p", key.columns, "t")
            rest = f"JOIN {self.replaying.name(parent)} p ON {on} WHERE {self.replaying.among(parent, piece, 'p')}"
            found |= self.replaying.keys(self.connection, child, rest)
        return found

    def referred(self, child: Table, key: ForeignKey, parent: Table, group: Group) -> set[str]:
        """Keys of the rows that the group's refer to, by what they are on the writer and by what they are to become."""
        found: set[str] = set()
        for piece in pieces(group.rows().get(child.id, set())):
            on = equal(key.ref_columns, "t", key.columns, "c")
            rest = f"JOIN {self.replaying.name(child)} c ON {on} WHERE {self.replaying.among(child, piece, 'c')}"
            found |= self.replaying.keys(self.connection, parent, rest)
        become = (record.former_row for record in group.records if record.table == child.id and record.former_row is not None)
        for shown in {tuple(row.get(name) for name in key.columns) for row in become}:
            if None not in shown:
                values = [self.replaying.value(child.column(name), value) for name, value in zip(key.columns, shown, strict=True)]
                on = equal_to(key.ref_columns, values)
                found |= self.replaying.keys(self.connection, parent, f"WHERE {on}")
        return found


def equal_to(columns: Sequence[str], values: Sequence[str]) -> str:
    """The condition that columns of ``t`` have these values, given as SQL expressions."""
    return " AND ".join(f"t.{quote(column)} = {value}" for column, value in zip(columns, values, strict=True))


def counts(node: Node, connection: Connection) -> Counter[State]:
    """How many records are in each state.  Only open ones are decided on, and only discarded ones taken up again: equal counts are equal states."""
    orphan = node.database.control.orphan.c
    found = connection.execute(select(orphan.state, func.count()).where(orphan.tbl != NO_TABLE).group_by(orphan.state))
    return Counter({State(state): count for state, count in found})


def states(node: Node, connection: Connection) -> dict[str, State]:
    """What became of each record, by id."""
    orphan = node.database.control.orphan.c
    return {row.id: State(row.state) for row in connection.execute(select(orphan.id, orphan.state).where(orphan.tbl != NO_TABLE))}
