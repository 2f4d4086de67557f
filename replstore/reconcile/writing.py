"""The two transactions of a repair: one on the writer, one on the follower.  Each changes some rows, all of them or none.

On the **writer** it is an ordinary transaction of the Store: under the guard, captured, shipped.  Serializable: a row that changes in the meantime makes it
begin again.  Foreign keys stay on, the user's triggers don't fire, and no row changes besides (``journal/putting.py``).

On the **follower** it takes the shippers' turn, so the position stands still and nothing else writes there.  Then the writer is read, in a snapshot: a row that
its journal names after that position is on its way and left alone (HAZARDS 14); any other is what the follower must have at this very position.  So the
follower equals the writer at the position that it has, before and after, but for fewer rows that differ.  Rows go and come as in a batch, with nothing of
the user's acting on them (HAZARDS 7).

In both, a row that isn't what was seen when the repair was planned is left as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from replstore.databases.base import Fault
from replstore.databases.catalog import Table, execute, quoted
from replstore.databases.replaying import pieces
from replstore.errors import CannotRepair
from replstore.node import Node, one_line
from replstore.reconcile.plan import Change, Row, rows_of
from replstore.reconcile.saved import Numbered
from replstore.reconcile.snapshots import Side, why_inexact
from replstore.replication.journal.ground import Ground
from replstore.replication.journal.groups import Group, Record, State
from replstore.replication.journal.putting import Withheld, put

if TYPE_CHECKING:
    from replstore.pair.pair import Pair

#: s until a follower that doesn't answer is given up, and for which one that others keep waiting is asked again.
LIMIT, PATIENCE = 60.0, 10.0
ELSEWHERE = "its row on {} has changed in the meantime"
Keep = Callable[[Node, Connection, Sequence[Numbered]], None]


class Refused(Exception):
    """The database refuses these rows together; the message is its reason, and nothing was changed."""


@dataclass
class Written:
    """What came of some changes.

    Attributes:
        done: numbers of those that took effect.
        left: by number, why a row was left alone.
    """

    done: list[int] = field(default_factory=list)
    left: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Hand:
    """What writes.

    Args:
        pair: the nodes.
        run: ``Store.run``.
        writer: name of the node that writes; if it doesn't any more, nothing is changed.
        keep: called in each transaction with the changes that it makes.
        beside: whether a change is only made while the other node has the row that it is to become.
    """

    pair: Pair
    run: Callable[..., Any]
    writer: str
    keep: Keep
    beside: bool = True

    def write(self, node: str, changes: Sequence[Numbered]) -> Written:
        """Makes changes on one node, in one transaction.

        Raises:
            Refused: the database refuses them together.
            CannotRepair: the roles have changed, or the follower can't be written now.
        """
        return self._on_writer(changes) if node == self.writer else self._on_follower(changes)

    @property
    def _nodes(self) -> tuple[Node, Node]:
        """Writer and follower."""
        follower = "standby" if self.writer == "primary" else "primary"
        return self.pair.nodes[self.writer], self.pair.nodes[follower]

    # -- on the writer

    def _on_writer(self, changes: Sequence[Numbered]) -> Written:
        written = Written()

        def once(session: Session) -> None:
            nonlocal written
            written = self._put(session.connection(), changes)

        try:
            self.run(once, isolation="SERIALIZABLE", durability=None)
        except Withheld as withheld:
            raise Refused(str(withheld)) from withheld
        except DBAPIError as error:  # a constraint that is checked at the end
            if self._nodes[0].database.classify(error) is Fault.CALLER:
                raise Refused(one_line(error)) from error
            raise
        return written

    def _put(self, connection: Connection, changes: Sequence[Numbered]) -> Written:
        writer, follower = self._nodes
        if connection.engine is not writer.engine:
            raise CannotRepair(f"{writer.name} isn't the writer any more: plan the repair again")
        with writer.database.replaying().reading(connection):
            ground = Ground(writer, connection)
            written = Written()
            todo = list(self._as_seen(changes, lambda name, keys: rows_of(writer, connection, ground.tables[name], keys), written, ground.tables))
            if self.beside and todo:
                with follower.snapshot() as there:
                    todo = list(self._beside(todo, follower, there, written))
            if todo:
                self.keep(writer, connection, todo)
                for some in _apart(ground, [change for _, change in todo]):
                    put(ground, Group(tuple(_record(change, follower.name) for change in some)), anew=True)
        written.done = [no for no, _ in todo]
        return written

    # -- on the follower

    def _on_follower(self, changes: Sequence[Numbered]) -> Written:
        database = self._nodes[1].database
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self._overwrite(changes)
            except Exception as error:
                fault = database.classify(error)
                if fault is Fault.CALLER and isinstance(error, DBAPIError):
                    raise Refused(one_line(error)) from error
                if fault not in (Fault.TIMEOUT, Fault.TRANSIENT) or time.monotonic() >= deadline:
                    raise

    def _overwrite(self, changes: Sequence[Numbered]) -> Written:
        writer, follower = self._nodes
        database, written = follower.database, Written()
        with follower.begin(LIMIT, while_silent=True) as connection:
            database.take_time(connection)
            database.hold_follower(connection)
            with database.replaying().reading(connection), self._at_its_position(connection) as (source, position):
                tables, theirs = _tables(follower, connection), _tables(writer, source)
                here = self._as_seen(changes, lambda name, keys: rows_of(follower, connection, tables[name], keys), written, tables)
                todo = list(_arrived(list(here), writer, source, theirs, position, written))
                if self.beside:
                    todo = list(self._beside(todo, writer, source, written))
                self.keep(follower, connection, todo)
                _replace(follower, connection, tables, [change for _, change in todo])
            database.mark(connection, None)
        written.done = [no for no, _ in todo]
        return written

    @contextmanager
    def _at_its_position(self, connection: Connection) -> Iterator[tuple[Connection, str]]:
        """The writer in a snapshot, and how far the follower has got, which doesn't change while its transaction lasts."""
        writer, follower = self._nodes
        behind = follower.database.state(connection)
        with writer.snapshot() as source:
            ahead = writer.database.state(source)
            if ahead is None or behind is None or ahead.role != "writer":
                raise CannotRepair(f"{writer.name} isn't the writer any more: plan the repair again")
            reason = why_inexact(Side(writer, source, ahead), Side(follower, connection, behind))
            if behind.position is None or behind.copying:
                reason = f"{follower.name} is being copied"
            elif ahead.schema_no != behind.schema_no:
                reason = f"{writer.name} and {follower.name} have had other migrations"
            if reason or behind.position is None:
                raise CannotRepair(
                    f"{follower.name}'s rows can't be told from those on their way: {reason}; `replstore status` says what to do first"
                )
            yield source, behind.position

    # -- in both

    @staticmethod
    def _as_seen(
        changes: Sequence[Numbered], read: Callable[[str, set[str]], dict[str, Row]], written: Written, tables: dict[str, Table]
    ) -> Iterator[Numbered]:
        """Those changes whose row is still what it was."""
        for name, some in _by_table(changes):
            rows = read(name, {change.key for _, change in some}) if name in tables else None
            for no, change in some:
                if rows is None:
                    written.left[no] = f"table {name} isn't there any more"
                elif rows.get(change.key) != change.before:
                    written.left[no] = ELSEWHERE.format(change.node)
                else:
                    yield no, change

    def _beside(self, changes: Sequence[Numbered], other: Node, connection: Connection, written: Written) -> Iterator[Numbered]:
        """Those whose row on the other node is still what it was: what this one's is to become."""
        tables = _tables(other, connection)
        for name, some in _by_table(changes):
            rows = rows_of(other, connection, tables[name], {change.key for _, change in some}) if name in tables else {}
            for no, change in some:
                if rows.get(change.key) == change.after:
                    yield no, change
                else:
                    written.left[no] = ELSEWHERE.format(other.name)


def _arrived(
    changes: Sequence[Numbered], writer: Node, source: Connection, tables: dict[str, Table], position: str, written: Written
) -> Iterator[Numbered]:
    """Those whose row is not on its way to the follower."""
    for name, some in _by_table(changes):
        keys = {change.key for _, change in some}
        waiting = writer.database.replaying().named(source, tables[name], keys, position) if name in tables else keys
        for no, change in some:
            if change.key in waiting:
                written.left[no] = f"the writer has changed it, and that is on its way to {change.node}"
            else:
                yield no, change


def _replace(node: Node, connection: Connection, tables: dict[str, Table], changes: Sequence[Change]) -> None:
    """Removes all these rows, and then writes those that are to be there: so a value may go from one row to another."""
    replaying = node.database.replaying()
    wanted = {tables[name].id: {change.key: change.after for _, change in some} for name, some in _by_table(list(enumerate(changes)))}
    for name, rows in wanted.items():
        for piece in pieces(rows):
            execute(connection, [f"DELETE FROM {replaying.name(tables[name])} AS t WHERE {replaying.among(tables[name], piece, 't')}"])
    for name, rows in wanted.items():
        table = tables[name]
        into = f"INSERT INTO {replaying.name(table)} ({quoted(table.data_columns)}) {replaying.identity_override(table)}VALUES "
        for piece in pieces([key for key, row in rows.items() if row is not None]):
            lines = [[replaying.value(table.column(column), (rows[key] or {})[column]) for column in table.data_columns] for key in piece]
            execute(connection, [into + ", ".join(f"({', '.join(line)})" for line in lines)])
        there = rows_of(node, connection, table, rows)
        for key, row in rows.items():
            if there.get(key) != row:
                raise Refused(f"row {key} of {name} can't be written on {node.name} as it has to be")


def _apart(ground: Ground, changes: Sequence[Change]) -> Iterator[list[Change]]:
    """First the rows that go where one comes whose key is equal and written otherwise; then all others."""
    database, first = ground.node.database, set[tuple[str, str]]()
    for name, some in _by_table(list(enumerate(changes))):
        coming = [change.key for _, change in some if change.after is not None]
        forms = database.same_keys(ground.connection, ground.tables[name], coming) if coming else {}
        first |= {(name, change.key) for _, change in some if change.after is None and change.key in forms}
    for early in (True, False):
        if chosen := [change for change in changes if ((change.table, change.key) in first) is early]:
            yield chosen


def _by_table(changes: Sequence[Numbered]) -> Iterator[tuple[str, list[Numbered]]]:
    for name, some in groupby(sorted(changes, key=lambda each: (each[1].table, each[0])), key=lambda each: each[1].table):
        yield name, list(some)


def _tables(node: Node, connection: Connection) -> dict[str, Table]:
    return {table.id: table for table in [*node.database.tables(connection), node.database.orphan_table(connection)]}


def _record(change: Change, other: str) -> Record:
    """The change as a row that the other node had."""
    return Record(
        id="",
        node=other,
        term_no=0,
        table=change.table,
        key=change.key,
        former_row=change.after,
        writer_row=change.before,
        changes=(),
        common=None,
        common_term=None,
        touched=None,
        shape=None,
        state=State.OPEN,
        decided_at=None,
        reason=None,
    )
