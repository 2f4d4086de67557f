"""Every error a user can meet, one sentence each; the driver's exception is always the ``__cause__``.

Errors of the caller's own SQL (integrity, programming, data errors) are not here: they stay the SQLAlchemy classes that
applications already catch.
"""

from __future__ import annotations


class ReplstoreError(Exception):
    """Base of everything replstore raises itself."""


class ConfigError(ReplstoreError):
    """The settings, or the databases that they name, can't be used; the command line exits with 2 and nothing was changed."""


class NotAPair(ConfigError):
    """A database isn't the node it is taken for: no control tables, another pair, the same node twice, or a replaced file."""


class OrphansNotExported(ConfigError):
    """A former writer has transactions that the writer lacks, and that nobody has exported; it was not let follow, which would throw them away."""


class SettingsDiffer(ConfigError):
    """This Store was opened with settings other than those that the pair holds; both values are named."""


class CannotReplicate(ConfigError):
    """A table can't be replicated by journal; the message names it and says what to add."""


class MigrationFailed(ReplstoreError):
    """A migration stopped on one node; the message names the node, the revision it has, and how to go on."""


class NoWriter(ReplstoreError):
    """No node may write now; the message says what each node's state is and what to do next."""


class NodeLost(ReplstoreError):
    """A node that the command needs doesn't answer, or was lost meanwhile; the message says how the pair is now and what to do."""


class StoreClosed(ReplstoreError):
    """The Store was closed; nothing was done."""


class NotTheWriter(ReplstoreError):
    """The node that was written to isn't the writer (any more); ``Store.run`` goes on at the new one."""


class TransactionLost(ReplstoreError):
    """The transaction did not take effect and never will: its tombstone stands on the surviving writer; repeat it if you like."""


class CommitUnknown(ReplstoreError):
    """Whether the transaction committed can't be decided now; it must not be repeated blindly. ``id`` names its commit marker."""

    def __init__(self, message: str, id: str | None = None) -> None:
        super().__init__(message)
        self.id = id


class CommittedNotReplicated(ReplstoreError):
    """The transaction is committed on the writer and not known to be on the follower; it is never retried. ``id`` names its marker."""

    def __init__(self, message: str, id: str | None = None) -> None:
        super().__init__(message)
        self.id = id


class BacklogFull(ReplstoreError):
    """Too much waits for the follower, so an async transaction wasn't begun: nothing was changed; ``max_backlog`` and ``on_backlog`` say when."""


class KeyReused(ReplstoreError):
    """The key has already been used by another function."""


class ResultNotSerializable(ReplstoreError):
    """A keyed function returned something that JSON can't hold; its transaction was rolled back."""


class StaleRead(ReplstoreError):
    """No node can serve the read within the terms that the caller set (``max_lag``, ``after``, ``node``)."""


class DurabilityUnavailable(ReplstoreError):
    """The server isn't set up for the durability that a transaction asks for; nothing was begun."""


class TokenLost(ReplstoreError):
    """The commit that a token names went down with a former writer; it is among the orphans, or will be at rejoin."""


class TakeoverRefused(ReplstoreError):
    """The follower may not become the writer; the message says which rule forbids it and what a person can do."""


class SwitchoverFailed(ReplstoreError):
    """The roles did not change places; the message names who blocks it, and who is the writer now."""


class ReplicationStopped(ReplstoreError):
    """Shipping stopped in a state that needs a migration, a copy or a person; the message names the object and the remedy."""


class NeedsCopy(ReplicationStopped):
    """The node's history doesn't continue the writer's; it needs a full copy before it can follow."""


class CannotRepair(ReplstoreError):
    """The nodes can't be repaired as they are, and nothing was changed; the message names the object and says what to do first."""


class RepairBrokeOff(CannotRepair):
    """A repair, or its undo, ended half-way: what it has changed stays, and is kept as it was; the message names its id and how to go on.

    Attributes:
        id: of the repair.
        rows: how many rows it is known to have changed.
    """

    def __init__(self, message: str, *, id: str, rows: int) -> None:
        super().__init__(message)
        self.id, self.rows = id, rows


class CannotCheck(ReplstoreError):
    """The nodes can't be compared; the message names the node and says why."""
