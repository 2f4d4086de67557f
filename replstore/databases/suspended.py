"""What would act on a follower when rows are applied, taken off and brought back (HAZARDS 7): foreign keys and the user's triggers.

The control table ``suspended`` holds the statements that bring back what the *writer* has, so that a takeover makes the tables what they were there.
Which of them a follower has to go without is each database's own business.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Table, delete, insert, select

from replstore.control import Control
from replstore.databases.base import Fault

if TYPE_CHECKING:
    from replstore.databases.database import Database

log = logging.getLogger("replstore.suspended")
FOREIGN_KEY, TRIGGER = "foreign key", "trigger"
#: How a foreign key comes back: it binds every later change at once, and no scan delays a takeover.
UNCHECKED = " NOT VALID"


@dataclass(frozen=True)
class Restore:
    """A foreign key or a trigger, and the statement that brings it back.

    Attributes:
        kind: ``foreign key`` or ``trigger``.
        table: id of the table or partition that it is on.
        name: its name.
        statement: equal for equal definitions.
    """

    kind: str
    table: str
    name: str
    statement: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is called."""
        return self.kind, self.table, self.name

    def __str__(self) -> str:
        return f"{self.kind} {self.name} of table {self.table}"


def stored(control: Control, connection: Connection) -> list[Restore]:
    """What a node's control table holds, in order."""
    held = control.suspended.c
    rows = connection.execute(select(held.kind, held.tbl, held.name, held.restore).order_by(held.seq))
    return [Restore(row.kind, row.tbl, row.name, row.restore.removesuffix(UNCHECKED)) for row in rows]


def store(control: Control, connection: Connection, restores: Iterable[tuple[Restore, str]]) -> None:
    """Makes these the only ones that the control table holds, each with its statement as it will be executed."""
    connection.execute(delete(control.suspended))
    rows = [
        {"seq": seq, "kind": restore.kind, "tbl": restore.table, "name": restore.name, "restore": statement}
        for seq, (restore, statement) in enumerate(restores, start=1)
    ]
    if rows:
        connection.execute(insert(control.suspended), rows)


def merged(in_force: Sequence[Restore], held: Iterable[Restore], tables: Iterable[str]) -> list[Restore]:
    """What is in force together with what is held back on these tables; what is in force counts where both have a name."""
    keys, ids = {restore.key for restore in in_force}, set(tables)
    return [*in_force, *(restore for restore in held if restore.table in ids and restore.key not in keys)]


def bring_back(database: Database, connection: Connection, *, insist: bool) -> list[Restore]:
    """Executes what the control table holds; see ``Database.resume``."""
    held = database.control.suspended
    away: list[tuple[Restore, Exception]] = []
    for row in connection.execute(select(held).order_by(held.c.seq)).all():
        restore = Restore(row.kind, row.tbl, row.name, row.restore)
        database.execute_script(connection, ["SAVEPOINT replstore_restore"])
        try:
            database.execute_script(connection, [row.restore])
            connection.execute(delete(held).where(held.c.seq == row.seq))
        except Exception as error:
            if insist and database.classify(error) in (Fault.TIMEOUT, Fault.TRANSIENT):
                raise
            database.execute_script(connection, ["ROLLBACK TO SAVEPOINT replstore_restore"])
            away.append((restore, error))
        database.execute_script(connection, ["RELEASE SAVEPOINT replstore_restore"])
    made = {restore.key for restore in database.in_force(connection, database.tables(connection))} if away else set()
    for restore, reason in away:
        if restore.key in made:  # by a person, meanwhile
            _forget(held, connection, restore)
        else:
            log.error("%s can't be brought back and is not in force: %s (%s)", restore, " ".join(str(reason).split()), restore.statement)
    return [restore for restore, _ in away if restore.key not in made]


def _forget(held: Table, connection: Connection, restore: Restore) -> None:
    connection.execute(delete(held).where(held.c.kind == restore.kind, held.c.tbl == restore.table, held.c.name == restore.name))
