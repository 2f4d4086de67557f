"""Digests of a table's rows, computed where the rows are: two nodes are compared by them, and only what differs crosses the wire.

Every row has a *position*, a whole number of 64 bits that follows from its key, and a *digest* of 64 bits that follows from all its values.  Rows whose
keys and values are the same have the same of both, on either node; rows that differ in anything have other digests, which say nothing of what they have in
common.  A *bucket* is an aligned range of
positions, of 2 to the power of ``shift``: its digest says whether the rows in it are the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from sqlalchemy import Connection

from replstore.databases.catalog import Table

#: The form of a column of which nothing better is known: the text that the database prints.
TEXT = "printed"
#: Bits of a position and of a digest.
BITS = 64
#: Called with how many more rows were read.
Told = Callable[[int], None]


class Bucket(NamedTuple):
    """What is known of the rows of a bucket: their number, and their digests added up.

    An exclusive or misses what is there twice, so of a table without a key there is a sum as well; else that is 0.
    """

    rows: int
    sum: int
    xor: int

    def __add__(self, other: object) -> Bucket:
        """The bucket with the rows of another part of the table as well."""
        if not isinstance(other, Bucket):
            return NotImplemented
        return Bucket(self.rows + other.rows, self.sum + other.sum, self.xor ^ other.xor)


Buckets = dict[int, Bucket]


def merged(parts: Iterable[Mapping[int, Bucket]]) -> Buckets:
    """The buckets of a table from those of its parts."""
    whole: Buckets = {}
    for part in parts:
        for number, bucket in part.items():
            whole[number] = whole[number] + bucket if number in whole else bucket
    return whole


@dataclass(frozen=True)
class Cut:
    """A division of positions into buckets.

    Attributes:
        shift: bucket ``n`` has the positions whose upper bits, without the lowest ``shift`` ones, are ``n``.
        within: only rows in these buckets of this other shift; None: all.
    """

    shift: int
    within: tuple[int, frozenset[int]] | None = None

    def ranges(self) -> list[tuple[int, int]]:
        """The positions that are looked at, as ranges with both ends, in order; neighbours are one."""
        if self.within is None:
            return [(-(1 << (BITS - 1)), (1 << (BITS - 1)) - 1)]
        shift, numbers = self.within
        found: list[tuple[int, int]] = []
        for number in sorted(numbers):
            low, high = number << shift, ((number + 1) << shift) - 1
            if found and found[-1][1] == low - 1:
                low = found.pop()[0]
            found.append((low, high))
        return found


class Row(NamedTuple):
    """A row as ``Digests.rows`` gives it.

    Attributes:
        position: of its key.
        key: JSON, as the journal's keys are where the table is replicated; of a table without a key, all its values.
        digest: of its values.
        times: how often it is there, which only a table without a key has more than once.
    """

    position: int
    key: str
    digest: int
    times: int


class Version(NamedTuple):
    """One version of a row, as its database keeps it: every change makes another one.

    Attributes:
        key: as ``Row`` has it.
        row: its values, as ``Digests.values`` has them.
        by: number of the transaction that made it.
        ended: number of the one that has replaced, deleted or locked it, or tries to; 0: there is none.
        place: where it is.
    """

    key: str
    row: str
    by: int
    ended: int
    place: str


class Piece(NamedTuple):
    """A part of a table that is read in one statement; what ``low`` and ``high`` count is the database's own business."""

    low: int
    high: int | None


WHOLE = Piece(0, None)


@dataclass(frozen=True)
class Forms:
    """How a node can digest a table.

    Attributes:
        columns: by column that has a value of its own, the form of its values. Two nodes that have the same form have the same bytes for the same value.
        numbered: its key is one whole number, which is its own position.
        hashes: what the node's hash functions make of known values; where it isn't the same on both nodes, slower ones serve that are.
    """

    columns: Mapping[str, str]
    numbered: bool
    hashes: str = ""


@dataclass(frozen=True)
class Recipe:
    """How both nodes digest a table.

    Attributes:
        columns: in one order, by name the form that both nodes have.
        key: the key's columns, all of them in ``columns``; empty: a row is known by all its values.
        numbered: the key is its own position.
        portable: the hash functions differ between the nodes.
        where: SQL condition for the rows to compare; empty: all.
    """

    columns: Mapping[str, str]
    key: tuple[str, ...]
    numbered: bool
    portable: bool
    where: str = field(default="")


def agreed(primary: Forms, standby: Forms, key: tuple[str, ...], where: str = "") -> Recipe:
    """The recipe of a table that both nodes have; columns that only one of them has are left out."""
    columns = {name: form if standby.columns[name] == form else TEXT for name, form in primary.columns.items() if name in standby.columns}
    return Recipe(columns, key, bool(key) and primary.numbered and standby.numbered, primary.hashes != standby.hashes, where)


class Digests(ABC):
    """One table on one node in one snapshot, as its rows' digests.  Used by one thread at a time."""

    @abstractmethod
    def bounds(self) -> tuple[int, int] | None:
        """The least and the greatest position, where the key is its own position; None: there is no row."""

    @abstractmethod
    def estimate(self) -> int:
        """About how many rows there are; quickly."""

    def pieces(self, size: int) -> list[Piece]:
        """Parts of about ``size`` bytes that together have every row once."""
        return [WHOLE]

    @abstractmethod
    def buckets(self, cut: Cut, piece: Piece, told: Told) -> Buckets:
        """The buckets that have any row."""

    @abstractmethod
    def rows(self, cut: Cut) -> Iterator[Row]:
        """The rows within a cut in the order of their positions, as they are read."""

    def listed(self, cut: Cut, piece: Piece) -> list[Row]:
        """The rows within a cut and a piece, in any order; there are few of them."""
        return list(self.rows(cut))

    @abstractmethod
    def values(self, keys: Collection[str]) -> list[tuple[str, str]]:
        """Rows by their keys, as ``Database.rows`` has both; an equal key of another form may be among them."""

    def versions(self, keys: Collection[str]) -> list[Version]:
        """The same with what tells this version of each from all others; only of databases that copy themselves."""
        raise NotImplementedError


class Digesting(ABC):
    """What the check needs of a kind of database besides its rows; a part of ``Database``."""

    embedded: ClassVar[bool] = False
    """Whether this very process does the database's work."""

    @abstractmethod
    def forms(self, connection: Connection, table: Table) -> Forms:
        """How a table's rows can be digested here."""

    @abstractmethod
    def digests(self, connection: Connection, table: Table, recipe: Recipe) -> Digests:
        """A table's rows as their digests, in the snapshot that is open on the connection."""

    def share_snapshot(self, connection: Connection) -> str | None:
        """A name under which further sessions can read in the snapshot of this one, as long as it is open; None: there is no such thing."""
        return None

    def join_snapshot(self, connection: Connection, shared: str) -> None:
        """Begins a transaction that reads in a snapshot of another session."""
        raise NotImplementedError

    def running(self, connection: Connection) -> tuple[frozenset[int], int]:
        """Numbers of the transactions that the snapshot sees as running, and the next one's, as ``Digests.versions`` has them; only of databases that copy
        themselves."""
        raise NotImplementedError

    def beside(self, tables: Sequence[Table], there: Sequence[Table]) -> list[Table]:
        """Tables of this node as those of another one, which may be of another kind and knows nothing of this, let them be compared."""
        return list(tables)

    def lookable(self, table: Table, keys: Collection[str]) -> Collection[str]:
        """Those of the keys that can be looked up here: of two kinds of databases one may hold a key that is no value of the other's type."""
        return keys

    def uncrossable(self, connection: Connection, table: Table, keys: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        """By key and column: why the other node, which is of another kind, can't hold what stands there, as what follows the column's name."""
        return {}

    def written_since(self, connection: Connection, table: Table, keys: Collection[str], position: str) -> Mapping[str, bool]:
        """By key, of rows that are here: whether their present version was written after a position of this node; those are missing of which that can't
        be known for certain."""
        return {}

    def crossing(self, table: Table) -> Table:
        """A table with those columns whose values both nodes can hold."""
        return table
