"""What a check leaves behind for the next one: up to which position each table was found equal, and where it wasn't.

It goes into the settings of both nodes (``replication/journal/verified.py``), when the comparison is over; while that lasts, the journal is kept.  Whatever
hinders that is a note in the report and no failure of the check.

Nothing is left of a table that isn't shipped, that was compared in parts only, or of which more rows differ than a mark can name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from uuid import uuid4

from sqlalchemy import Connection, delete, select

from replstore.databases.base import Fault
from replstore.errors import CannotCheck
from replstore.node import one_line
from replstore.reconcile.origin import Origin
from replstore.reconcile.report import Report
from replstore.reconcile.schema import Definitions
from replstore.reconcile.snapshots import Both, Side, reading, together
from replstore.replication.journal import verified
from replstore.replication.journal.verified import Mark

#: s that a note of a check's on a node may wait.
LIMIT = 5.0
#: How often that is tried: another check may write at the same moment.
ATTEMPTS = 3
NONE = f"no check of all its rows, with no more than {verified.KEYS:,} differences, is on record since the last takeover, rejoin or copy"


@dataclass(frozen=True)
class Since:
    """What has changed since an earlier check.

    Attributes:
        at: when the oldest of the checks began that it goes back to.
        keys: by table, the keys to be compared; None: all rows.
    """

    at: str
    keys: Mapping[str, Collection[str] | None]

    def notes(self) -> Iterator[str]:
        """What a reader of the report must know of it, a sentence each."""
        yield (
            f"only rows that the journal names since the check of {self.at}, or that differed then, were compared: what was written past the triggers "
            "(switched off, as a replica, on the files) is only found by a check without --since"
        )
        for name in sorted(name for name, keys in self.keys.items() if keys is None):
            yield f"table {name} was emptied, or most of it changed, since the last check: all its rows were compared"


class Memory:
    """What earlier checks have left on a pair, and what this one leaves.

    Args:
        both: the nodes.
        at: when this check began.
        whole: it compares every row of each table that it compares, or all that have changed since it was compared.
    """

    def __init__(self, both: Both, at: str, *, whole: bool) -> None:
        self._both, self._at, self._id = both, at, str(uuid4())
        self._able = (
            not both.inexact and both.writer.state.role == "writer" and both.follower.state.position is not None and not both.follower.state.copying
        )
        self._whole = whole
        self._common = verified.common(*together(self._read, both.sides)) if self._able else {}

    def _read(self, side: Side) -> dict[str, Mark]:
        with reading(side.node):
            return verified.read(side.node, side.connection, self._both.writer.state)

    def valid(self, found: Definitions) -> dict[str, Mark]:
        """By chosen table, how far an earlier check found it equal, where what has changed since is still known."""
        return {
            name: mark for name, mark in self._common.items() if name in found.names and found.comparable(name) and not self._fault(found, name, mark)
        }

    def since(self, found: Definitions, most: int) -> Since:
        """What has changed in the chosen tables since they were last verified.

        Args:
            most: beyond so many keys of a table all its rows are compared.

        Raises:
            CannotCheck: that can't be told, and why.
        """
        follower = self._both.follower
        if reason := self._both.inexact or (f"{follower.name} is being copied" if follower.state.copying else ""):
            raise CannotCheck(f"what has changed since the last check can't be told: {reason}; run `replstore check`, without --since")
        marks, names = self._common, [name for name in found.names if name in found.replicated and found.comparable(name)]
        faults = {name: fault for name in names if (fault := self._fault(found, name, marks.get(name)))}
        if faults:
            reasons = "; ".join(
                f"{fault}: {', '.join(sorted(name for name in faults if faults[name] == fault))}" for fault in sorted({*faults.values()})
            )
            only = "" if len(faults) == len(names) else f" --tables {','.join(sorted(faults))}"
            raise CannotCheck(f"--since last needs an earlier check of each table ({reasons}): run `replstore check{only}`, which compares every row")
        positions = {marks[name].position for name in names}
        with reading(self._both.writer.node):
            database, connection = self._both.writer.node.database, self._both.writer.connection
            changed = {position: database.unshipped_keys(connection, position, most=most) for position in positions}
        keys: dict[str, Collection[str] | None] = {}
        for name in names:
            named = changed[marks[name].position].get(name, set())
            keys[name] = None if named is None else {*named, *marks[name].keys}
        return Since(min((marks[name].at for name in names), default=self._at), keys)

    def _fault(self, found: Definitions, name: str, mark: Mark | None) -> str:
        """Why a table's mark doesn't serve; empty: it does."""
        if not self._able or mark is None:
            return NONE
        if name in found.faults:
            return "its changes weren't all captured, which `replstore migrate` mends"
        return "" if self._reaches(mark) else f"the journal no longer reaches back to the check of {mark.at}"

    def _reaches(self, mark: Mark) -> bool:
        return self._pruned is None or self._both.writer.node.database.covers(mark.position, self._pruned)

    @cached_property
    def _pruned(self) -> str | None:
        """Through which position the writer's journal was pruned, in its snapshot."""
        writer = self._both.writer
        with reading(writer.node):
            return writer.connection.execute(select(writer.node.database.control.retention.c.pruned_through)).scalar()

    def begin(self) -> None:
        """From now on the journal is kept, as far as that goes: the next check notices if it wasn't."""
        position = self._both.follower.state.position
        if self._able and self._whole and position is not None:
            writer = self._both.writer
            self._note(writer, lambda connection: verified.begin(writer.node, connection, writer.state, self._id, position))

    def keep(self, report: Report, found: Definitions) -> Report:
        """Leaves on both nodes what a report says.

        Returns:
            The report; with a note, if that wasn't possible.
        """
        if not self._able:
            return report
        marks = self._left_by(report, found)
        fault = ""
        for side in (self._both.follower, self._both.writer):
            if marks and not fault:
                fault = self._note(side, lambda connection, side=side: self._write(side, connection, marks))  # type: ignore[misc]
        if not fault:
            return report
        return replace(report, notes=(*report.notes, f"the next check can't go on from this one by --since last: {fault}"))

    def _write(self, side: Side, connection: Connection, marks: Mapping[str, Mark | None]) -> None:
        verified.write(side.node, connection, self._both.writer.state, marks)
        if side is self._both.writer:
            verified.end(side.node, connection, self._id)

    def _left_by(self, report: Report, found: Definitions) -> dict[str, Mark | None]:
        """By table, the mark of it, or None where there is to be none any more."""
        follower = self._both.follower
        with reading(follower.node):
            here = follower.node.database.position(follower.connection)
        marks: dict[str, Mark | None] = {}
        for table in report.tables:
            name = table.name
            if name not in found.replicated or table.primary is None or not (self._whole or table.total):
                continue
            told = self._whole and table.total == len(table.differences) <= verified.KEYS and name not in found.faults
            keys = {each.form: _proof(each.origin) for each in table.differences}
            marks[name] = Mark(self._id, self._at, follower.state.position or "", here, keys) if told else None
        return marks

    @staticmethod
    def _note(side: Side, act: Callable[[Connection], None]) -> str:
        """Writes to a node's settings.

        Returns:
            Why it couldn't be done; empty: it was.
        """
        database, setting, fault = side.node.database, side.node.database.control.setting, ""
        for _ in range(ATTEMPTS):
            try:
                with side.node.begin(LIMIT) as connection:
                    # a change first: once a transaction has read, SQLite doesn't wait for the write lock
                    connection.execute(delete(setting).where(setting.c.name == ""))
                    act(connection)
                return ""
            except Exception as error:
                fault = f"{side.name}: {one_line(error)}"
                if database.classify(error) not in (Fault.TRANSIENT, Fault.TIMEOUT, Fault.CALLER):
                    break
        return fault


def _proof(origin: Origin) -> tuple[str, str | None] | None:
    """What the next check would otherwise not know any more."""
    return (origin.after, origin.change.node if origin.change else None) if origin.after else None
