"""Recording: each orphan becomes a row of a control table on the new writer, with both versions, before the former writer's rows are overwritten.

A record holds the transaction's id and time, how the new writer knows it, and whether it may have been acknowledged.  Records are replicated like the
user's tables.  A former writer can have as many orphans as its largest transaction has changed rows, so they are recorded in pieces, a transaction each.
Why that is as good as one transaction (HAZARDS 11, 26 to 29):

- The former writer is fenced and read in one snapshot, and the overwrite compares its journal with that snapshot's: whoever records, records the same.
  A record's id follows from the node, the term, the last tick, the table and the key; a record that is there already is left as it is.  So two programs
  may record at once, and one that begins where another has died makes what is missing.
- Each transaction is durable, and looks again whether the node is still the writer of that term; the guard on the table of orphans keeps a flip out of it.
  One term means one reign of one node: what was committed under it in an earlier piece is still there in a later one.
- The overwrite begins when all pieces are committed, and reads the keys that it overwrites from the records themselves, in its own snapshot of the writer.
  It counts them: if a record is missing there, nothing is overwritten.
- Nobody replays a part of a transaction.  If there is more than one piece, the first one also records that the recording is under way, and the last one
  that it is done; until then nothing of that node and term is replayed, and groups are only made of what one snapshot shows together with that mark.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from sqlalchemy import Connection, delete, select, update

from replstore.databases.base import Entry, Fault, NodeState
from replstore.databases.catalog import Table
from replstore.databases.replaying import pieces
from replstore.errors import NotTheWriter
from replstore.node import Node
from replstore.replication.journal.groups import NO_TABLE, WHOLE_TABLE, Change, Recording, State
from replstore.replication.journal.orphans import Orphans
from replstore.replication.journal.spool import Found
from replstore.timestamps import now

#: Records in one transaction, and journal entries that they rest on.
PIECE, ENTRIES = 2000, 20_000
#: s for one of these transactions until a writer that doesn't answer is given up, and s for which one that others keep waiting is repeated.
LIMIT, PATIENCE = 60.0, 10.0


def record(writer: Node, former: Node, there: Connection, ahead: NodeState, behind: NodeState, orphans: Orphans) -> int:
    """Records each orphan on the writer, durably and idempotently, and returns how many there are.

    Args:
        there: the former writer's snapshot in which the orphans were read.

    Raises:
        NotTheWriter: the writer is no longer that of the term; what was recorded stays, and isn't replayed before the rest is there.
    """
    return _Recorder(writer, former, there, ahead, behind, orphans).record()


class _Recorder:
    def __init__(self, writer: Node, former: Node, there: Connection, ahead: NodeState, behind: NodeState, orphans: Orphans) -> None:
        self._writer, self._former, self._there = writer, former, there
        self._ahead, self._behind, self._orphans = ahead, behind, orphans
        self._marker_table = writer.database.control.name("marker")
        self._defined: dict[str, Table | None] = {}
        self._schema_no = -1

    def record(self) -> int:
        found = self._pieces()
        piece, number = next(found, []), 0
        for following in found:
            self._put(piece, begins=number == 0)
            piece, number = following, number + 1
        self._put(piece, ends=True)
        return self._orphans.recorded.total()

    # -- what is to be recorded, from the former writer alone

    def _pieces(self) -> Iterator[list[Found]]:
        piece: list[Found] = []
        entries = 0
        for found in self._found():
            piece.append(found)
            entries += len(found.entries)
            if len(piece) >= PIECE or entries >= ENTRIES:
                yield piece
                piece, entries = [], 0
        if piece:
            yield piece

    def _found(self) -> Iterator[Found]:
        spool = self._orphans.spool
        for name in spool.tables:
            yield from spool.found(name)
        for tombstone in spool.tombstones():
            yield Found(self._marker_table, json.dumps([tombstone.tx]), (tombstone,))

    def _former_rows(self, name: str, found: Sequence[Found]) -> dict[str | None, str]:
        rows: dict[str | None, str] = {each.key: each.row for each in found if each.row is not None}
        wanted = [each.key for each in found if each.key is not None and each.row is None]
        if wanted and name in self._orphans.tables:
            rows.update(self._former.database.rows(self._there, self._orphans.tables[name], wanted))
        return rows

    def _results(self, found: Sequence[Found]) -> dict[str, tuple[str | None, str | None]]:
        """Of each keyed transaction, the function and the result: what a later call with the key would get."""
        marker = self._former.database.control.marker.c
        keyed = {entry.tx for each in found for entry in each.entries if entry.tx is not None and entry.marker_key is not None}
        return {
            row.id: (row.fn, row.result)
            for piece in pieces(keyed)
            for row in self._there.execute(select(marker.id, marker.fn, marker.result).where(marker.id.in_(piece)))
        }

    # -- one transaction on the writer

    def _put(self, found: list[Found], *, begins: bool = False, ends: bool = False) -> None:
        by_table = {name: list(each) for name, each in groupby(found, key=lambda one: one.table)}
        rows = {name: self._former_rows(name, each) for name, each in by_table.items()}
        results = self._results(found)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with self._writer.begin(LIMIT) as connection:
                    recorded = self._in_transaction(connection, by_table, rows, results, begins=begins, ends=ends)
                break
            except Exception as error:
                if self._writer.database.classify(error) not in (Fault.TIMEOUT, Fault.TRANSIENT) or time.monotonic() >= deadline:
                    raise
        self._orphans.recorded.update(recorded)

    def _in_transaction(
        self,
        connection: Connection,
        by_table: dict[str, list[Found]],
        rows: dict[str, dict[str | None, str]],
        results: dict[str, tuple[str | None, str | None]],
        *,
        begins: bool,
        ends: bool,
    ) -> dict[str, int]:
        database, orphan = self._writer.database, self._writer.database.control.orphan
        database.take_time(connection)
        # a change first: once a transaction has read, SQLite doesn't wait for the write lock, and on a busy writer this would never get through
        connection.execute(delete(orphan).where(orphan.c.id == ""))
        self._refuse_unless_writer(connection)
        self._define(connection, by_table)
        known = self._known(connection, by_table)
        recorded: dict[str, int] = {}
        for name, found in by_table.items():
            values = [*self._records(connection, name, found, rows[name], results, known)]
            database.insert_new(connection, orphan, values)
            recorded[name] = len(values)
        if begins:
            database.insert_new(connection, orphan, [self._mark()])
        if ends:
            connection.execute(update(orphan).where(orphan.c.id == self._id(NO_TABLE, "")).values(state=Recording.DONE.value))
        return recorded

    def _refuse_unless_writer(self, connection: Connection) -> None:
        state, ahead = self._writer.database.state(connection), self._ahead
        if state is None or state.role != "writer" or (state.term_no, state.term_uuid) != (ahead.term_no, ahead.term_uuid):
            raise NotTheWriter(f"{self._writer.name} is no longer the writer of term {ahead.term_no}")
        if state.schema_no != self._schema_no:
            self._schema_no, self._defined = state.schema_no, {}

    def _define(self, connection: Connection, names: Collection[str]) -> None:
        """The writer's tables; they are read once, and again after a migration."""
        if unknown := [name for name in names if name not in self._defined]:
            found = {table.id: table for table in self._writer.database.tables(connection, only=unknown)}
            self._defined.update((name, found.get(name)) for name in unknown)

    def _known(self, connection: Connection, by_table: dict[str, list[Found]]) -> dict[str, str]:
        """How the writer knows the orphans' transactions: by id (its outcome) or by key."""
        marker = self._writer.database.control.marker.c
        keys = {entry.tx: entry.marker_key for found in by_table.values() for each in found for entry in each.entries if entry.tx is not None}
        known: dict[str, str] = {}
        for piece in pieces(keys):
            known.update((row.id, row.outcome) for row in connection.execute(select(marker.id, marker.outcome).where(marker.id.in_(piece))))
        by_key = {key: tx for tx, key in keys.items() if key is not None and tx not in known}
        for piece in pieces(by_key):
            used = connection.execute(select(marker.key).where(marker.key.in_(piece))).scalars()
            known.update(dict.fromkeys((by_key[key] for key in used), "key"))
        return known

    def _records(
        self,
        connection: Connection,
        name: str,
        found: Sequence[Found],
        rows: dict[str | None, str],
        results: dict[str, tuple[str | None, str | None]],
        known: dict[str, str],
    ) -> Iterator[dict[str, Any]]:
        """A record for each row, with every transaction that changed it."""
        if name == self._marker_table:
            for each in found:
                # a tombstone for a transaction that the writer holds committed contradicts it (HAZARDS 32)
                if known.get(each.entries[0].tx or "") == "committed":
                    yield self._values(each, each.entries[0], None, None, known)
            return
        defined = self._defined[name]
        keys = [each.key for each in found if each.key is not None]
        here = dict(self._writer.database.rows(connection, defined, keys)) if defined is not None and keys else {}
        touched = self._touched(connection, defined, keys)
        written: dict[tuple[Entry, ...], str] = {}  # as JSON: a transaction's rows have the same
        for each in found:
            if self._orphans.spool.is_whole(name) and each.key is not None and each.key not in rows:
                continue  # of a table that was emptied as a whole, only the rows that the former writer has
            entries = tuple(replace(entry, table=None, key=None) for entry in each.entries)
            if entries not in written:
                written[entries] = self._changes(entries, results, known)
            yield {
                **self._values(each, each.last, rows.get(each.key), here.get(each.key or ""), known),
                "place": each.last.place,
                "changed_by": written[entries] or None,
                "common": self._orphans.common,
                "common_term": self._ahead.term_uuid,
                "touched": None if touched is None else each.key in touched,
                "shape": self._orphans.shapes.get(name),
            }

    def _touched(self, connection: Connection, table: Table | None, keys: list[str]) -> set[str] | None:
        common, replaying = self._orphans.common, self._writer.database.replaying()
        if table is None or common is None or not keys:
            return None
        return replaying.named(connection, table, keys, common)

    def _changes(self, entries: Sequence[Entry], results: dict[str, tuple[str | None, str | None]], known: dict[str, str]) -> str:
        changes = {(entry.place, entry.tx): self._change(entry, results, known) for entry in entries if entry.place is not None}
        return json.dumps([change.as_json() for change in changes.values()]) if changes else ""

    def _change(self, entry: Entry, results: dict[str, tuple[str | None, str | None]], known: dict[str, str]) -> Change:
        assert entry.place is not None
        fn, result = results.get(entry.tx or "", (None, None))
        return Change(
            place=entry.place,
            tx=entry.tx,
            at=entry.at,
            maybe_acknowledged=self._maybe_acknowledged(entry),
            known=known.get(entry.tx or ""),
            key=entry.marker_key,
            fn=fn,
            result=result,
            durability=entry.durability or "async",
        )

    def _maybe_acknowledged(self, entry: Entry) -> bool:
        return self._orphans.maybe_acknowledged or entry.durability != "replicated"

    def _values(self, found: Found, entry: Entry, former_row: str | None, writer_row: str | None, known: dict[str, str]) -> dict[str, Any]:
        key = found.key or WHOLE_TABLE
        return {
            "id": self._id(found.table, key),
            "node": self._former.name,
            "term_no": self._behind.term_no,
            "tx": entry.tx,
            "tx_at": entry.at,
            "tx_known": known.get(entry.tx or ""),
            "maybe_acknowledged": self._maybe_acknowledged(entry),
            "tbl": found.table,
            "key": key,
            "former_row": former_row,
            "writer_row": writer_row,
            "recorded_at": now(),
            "place": None,
            "changed_by": None,
            "common": None,
            "common_term": None,
            "touched": None,
            "shape": None,
            "state": State.OPEN.value,
        }

    def _mark(self) -> dict[str, Any]:
        """The row that says that the recording is under way."""
        mark = self._values(Found(NO_TABLE, "", ()), Entry(None, None, None, None), None, None, {})
        return {**mark, "id": self._id(NO_TABLE, ""), "key": "", "maybe_acknowledged": False, "state": Recording.UNDER_WAY.value}

    def _id(self, table: str, key: str) -> str:
        """The same orphan has the same id, whoever records it."""
        behind = self._behind
        return str(uuid5(NAMESPACE_URL, f"replstore:{behind.node} {behind.term_no} {behind.term_uuid} {behind.tick} {table} {key}"))
