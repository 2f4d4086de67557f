"""What differs between databases, as one interface: everything above this package is written against :class:`Database`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
