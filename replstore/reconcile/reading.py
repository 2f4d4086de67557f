"""Both nodes read at once: a thread for each, and more sessions in the same snapshot where a table is large."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from sqlalchemy import Connection

from replstore.databases.catalog import Table
from replstore.databases.digests import WHOLE, Buckets, Cut, Digests, Piece, Recipe, Row, Told, merged
from replstore.reconcile.snapshots import Side, end_of, reading

T = TypeVar("T")
#: Called now and then with a table's id and how many of its rows were compared.
Progress = Callable[[str, int], None]
#: Bytes of a table that one statement reads: small enough to say how far it is, large enough to be worth a statement.
PIECE = 32 << 20
#: Times as much where each piece has rows of all buckets, and answers with all of them.
SCATTERED = 4
#: Rows between two words of progress, at least.
STEP = 500
#: Pieces of a table at most: each of them answers with a row for each bucket.
PIECES = 128


class Reader:
    """One table on one node.

    Args:
        side: the node.
        table: as it is there.
        recipe: what both nodes digest.
        sessions: what gives further sessions.
    """

    def __init__(self, side: Side, table: Table, recipe: Recipe, sessions: Sessions) -> None:
        self.side, self.table, self.recipe, self._sessions = side, table, recipe, sessions
        self.digests = self._on(side.connection)

    def _on(self, connection: Connection) -> Digests:
        return self.side.node.database.digests(connection, self.table, self.recipe)

    def buckets(self, cut: Cut, told: Told) -> Buckets:
        """The buckets that have any row."""
        return merged(self._in_pieces(cut, lambda digests, piece: digests.buckets(cut, piece, told)))

    def rows(self, cut: Cut) -> list[Row]:
        """The rows within a cut, which are few, in any order."""
        return [row for found in self._in_pieces(cut, lambda digests, piece: digests.listed(cut, piece)) for row in found]

    def _in_pieces(self, cut: Cut, act: Callable[[Digests, Piece], T]) -> list[T]:
        """What several sessions find in the pieces of a large table; one reads what an index finds."""
        size = PIECE if self.recipe.numbered else PIECE * SCATTERED
        pieces = [WHOLE] if cut.within is not None and self.recipe.numbered else self.digests.pieces(size)
        if len(pieces) > PIECES:
            pieces = self.digests.pieces(size * len(pieces) // PIECES)
        left, found = deque(pieces), list[T]()

        def work(digests: Digests) -> None:
            while left:
                try:
                    piece = left.popleft()
                except IndexError:  # another session has taken the last one
                    return
                found.append(act(digests, piece))

        others = self._sessions.of(self.side, len(pieces) - 1)
        if not others:
            work(self.digests)
            return found
        with ThreadPoolExecutor(len(others) + 1, f"replstore check {self.side.name}") as pool:
            done, _ = wait([pool.submit(work, self._on(connection)) for connection in (self.side.connection, *others)], return_when=FIRST_EXCEPTION)
            left.clear()
            for each in done:
                each.result()
        return found


class Sessions:
    """Further sessions that read in a side's snapshot, opened when they are first needed.

    Args:
        stack: closes them.
        workers: sessions of one node that read at once, its own included.
    """

    def __init__(self, stack: ExitStack, workers: int) -> None:
        self._stack, self._workers = stack, workers
        self._open: dict[str, list[Connection]] = {}
        self._lock = threading.Lock()

    def of(self, side: Side, wanted: int) -> list[Connection]:
        """Up to ``wanted`` of them; none where the database can't share a snapshot."""
        if min(wanted, self._workers - 1) <= 0:
            return []
        with self._lock:
            if side.name not in self._open:
                shared = side.node.database.share_snapshot(side.connection)
                self._open[side.name] = [] if shared is None else [self._joined(side, shared) for _ in range(self._workers - 1)]
            return self._open[side.name][:wanted]

    def _joined(self, side: Side, shared: str) -> Connection:
        connection = self._stack.enter_context(side.node.service.connect())
        self._stack.push(end_of(connection))
        side.node.database.join_snapshot(connection, shared)
        return connection

    def interrupt(self, side: Side) -> None:
        """Ends what the sessions of a side are waiting for."""
        for connection in (side.connection, *self._open.get(side.name, ())):
            if not connection.invalidated:
                side.node.database.interrupt(connection.connection.dbapi_connection)


def at_once(readers: tuple[Reader, Reader], sessions: Sessions, act: Callable[[Reader], T]) -> tuple[T, T]:
    """Does the same on both nodes, at once where a server is at work.

    Raises:
        CannotCheck: one was lost; what the other was at is ended.
    """

    def named(reader: Reader) -> T:
        with reading(reader.side.node):
            return act(reader)

    if all(reader.side.node.database.embedded for reader in readers):
        return named(readers[0]), named(readers[1])  # two threads would hand the interpreter to and fro with every row
    with ThreadPoolExecutor(2, "replstore check") as pool:
        both = [pool.submit(named, reader) for reader in readers]
        try:
            done, _ = wait(both, return_when=FIRST_EXCEPTION)
            for each in done:
                each.result()
        except BaseException:
            for reader in readers:
                sessions.interrupt(reader.side)
            raise
    return both[0].result(), both[1].result()


class Meter:
    """How far the reading of a table is, and how much of the time it may take.

    Args:
        table: its id.
        told: called with the table and how many rows were compared, those that one node has read counting half; None: nobody asks.
        expected: called with the table and about how many rows it has.
        load: share of the time in which a session may keep its server busy.
    """

    def __init__(self, table: str, told: Progress | None = None, expected: Progress | None = None, load: float = 1.0) -> None:
        self._table, self._told, self._expected, self._load = table, told, expected, load
        self._rows: dict[str, int] = {}
        self._last: int | None = None
        self._before = 0
        self._lock = threading.Lock()
        self._began, self._since = time.monotonic(), threading.local()

    def expect(self, rows: int) -> None:
        """The table has about this many rows."""
        if self._expected is not None:
            self._expected(self._table, rows)

    def tell(self, rows: int) -> None:
        """This many have been compared."""
        if self._told is not None and rows != self._last:
            self._last = rows
            self._told(self._table, rows)

    def add(self, rows: int) -> None:
        """A part of the table is done, and had this many rows."""
        self._before += rows
        self.tell(self._before)

    def of(self, name: str) -> Told:
        """What a node's reader tells how many more rows it has read."""
        self._rows[name] = 0

        def told(rows: int) -> None:
            with self._lock:
                self._rows[name] += rows
                compared = self._before + sum(self._rows.values()) // 2
                if compared >= (self._last or 0) + STEP:
                    self.tell(compared)
            self._rest()

        return told

    def _rest(self) -> None:
        if self._load < 1:
            time.sleep((time.monotonic() - getattr(self._since, "at", self._began)) * (1 / self._load - 1))
        self._since.at = time.monotonic()


@contextmanager
def sessions(workers: int) -> Iterator[Sessions]:
    """The sessions of a check."""
    with ExitStack() as stack:
        yield Sessions(stack, workers)
