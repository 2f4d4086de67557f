"""What differs between databases, as one interface: everything above this package is written against :class:`Database`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol


class Fault(StrEnum):
    """What a driver's error means for the pair.  Decided once per database, by SQLSTATE or driver code."""

    TRANSIENT = "transient"  #: the same transaction may succeed on the same node: deadlock, serialization failure, SQLite busy
    REFUSED = "refused"  #: the server answered that nothing is there: ECONNREFUSED, ENOENT, a file that is gone or corrupt
    SILENT = "silent"  #: nothing answered in time, or the server says that it starts up or shuts down
    LOST_CONNECTION = "lost connection"  #: this connection is gone (one backend killed, socket closed); says nothing of the node
    NOT_THE_WRITER = "not the writer"  #: read-only, guard refused, term moved
    LOCKED_OUT = "locked out"  #: the node lives but won't serve us: wrong password, too many connections, disk full, unknown database
    TIMEOUT = "timeout"  #: statement or lock timeout: the caller's limit, not a lost node
    CALLER = "caller's error"  #: integrity, data, syntax, privileges on a table: never retried, re-raised as it is

    @property
    def connection_is_gone(self) -> bool:
        """Whether a transaction that met this error no longer has a connection, so that its COMMIT may be in doubt."""
        return self in (Fault.REFUSED, Fault.SILENT, Fault.LOST_CONNECTION)


class Hook(Protocol):
    """What rides on one transaction of a Store's engine: the dialect calls it, the transaction layer implements it."""

    marker: tuple[Any, ...] | None
    """The marker row to write together with BEGIN, in the order of ``MARKER_COLUMNS``; None: the caller writes it, or none is wanted."""
    read_only: bool
    """The transaction only reads: READ ONLY where the database has it, no write lock on SQLite."""
    preamble: str | None
    """A statement to send behind BEGIN and marker, in their round trip; None: nothing."""
    began: bool
    """Whether BEGIN has reached the server; a transaction without a statement never does, and its COMMIT is nothing."""

    def committing(self) -> None:
        """COMMIT is about to be sent."""

    def committed(self) -> None:
        """COMMIT has returned.  Acknowledges, or raises what the caller must see instead."""

    def in_doubt(self, error: BaseException) -> None:
        """The connection died during COMMIT.  Returns if the transaction is found committed, else raises."""

    def refused(self) -> None:
        """The database has refused the marker: it is no longer the writer of that term."""

    def ended(self) -> None:
        """The transaction is over, whatever became of it."""


@dataclass(frozen=True)
class Stream:
    """How a node of native replication stands in the write-ahead log; places are numbers of bytes.

    Attributes:
        timeline: on which it writes; None: it is in recovery.
        place: how far it has written, or, in recovery, replayed.
        flushed: how far that is durable, or, in recovery, how far it has received.
        ended: how far its last recovery has come; None: it hasn't been in recovery since its start.
        receiving: it is in recovery and connected to a server that sends.
        system: identifier of the cluster, the same on all its copies.
        synchronous: the setting ``synchronous_standby_names``.
        may_promote: this role may promote it.
        retry_ms: the setting ``wal_retrieve_retry_interval``.
        clock: what the node's own clock said, s since 1970.
    """

    timeline: int | None
    place: int
    flushed: int = 0
    ended: int | None = None
    receiving: bool = False
    system: str = ""
    synchronous: str = ""
    may_promote: bool = False
    retry_ms: int = 0
    clock: float = 0.0


@dataclass(frozen=True)
class NodeState:
    """What a node's control tables say, read in one statement together with its boot identity.

    The fields up to ``former_tick`` concern a node as writer, those from ``source`` on a node as follower; ``stream`` is native replication's.
    """

    node: str
    role: str
    term_no: int
    term_uuid: str
    boot: str
    solo: bool
    solo_boot: str
    req: int
    fenced_by_no: int | None
    fenced_by_uuid: str | None
    schema_no: int
    basis: str | None
    former_node: str | None
    former_position: str | None
    former_tick: str | None
    pair: str
    name: str
    source: str | None
    stream_no: int | None
    stream_uuid: str | None
    position: str | None
    tick: str | None
    batch: int | None
    eligible_boot: str | None
    copying: bool
    heartbeat: int
    shipped_at: str | None
    guard_open: bool
    stream: Stream | None = None


@dataclass(frozen=True)
class Entry:
    """One journal entry, or one marker, of a former writer.

    Attributes:
        table: the table's id; None: this entry is a marker.
        key: the row's key as JSON; None: the whole table (or a marker).
        tx: id of the transaction's marker; None: it was written without a Store.
        at: when, by the node's clock.
        durability, outcome, marker_key: the marker's; None where there is none.
        place: of its transaction in the node's commit order, as far as that can be known; the same for all entries of one transaction.
    """

    table: str | None
    key: str | None
    tx: str | None
    at: str | None
    durability: str | None = None
    outcome: str | None = None
    marker_key: str | None = None
    place: int | None = None


@dataclass(frozen=True)
class Unshipped:
    """What a writer has and its follower doesn't yet.

    Attributes:
        changes: keys that the journal names, as often as it does.
        transactions: markers of transactions.
        seconds: age of the oldest of them, by the writer's own clock; None: there is nothing, or it isn't known.
    """

    changes: int
    transactions: int
    seconds: float | None
