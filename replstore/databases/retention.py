"""What a kind of database does to keep journal and markers small, and how it counts what waits: the interface, a part of ``database.Database``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from sqlalchemy import Connection

from replstore.databases.base import Unshipped


class Retention(ABC):
    """Retention and backlog of one kind of database; everything runs in the caller's transaction.  Stateless."""

    @abstractmethod
    def prune(self, connection: Connection, shipped: str, *, limit: int | None = None) -> int:
        """Removes journal entries that a follower's position covers, the oldest first, and records how far (HAZARDS 1d).

        Args:
            limit: how many at most; None: all.

        Returns:
            How many went; none while another program prunes.
        """

    @abstractmethod
    def old_markers(self, connection: Connection, shipped: str, *, seconds: float, after: str | None) -> tuple[list[str], str | None]:
        """Walks on through the markers, a piece at a time, and returns the ids of those that nobody needs any more (HAZARDS 29).

        Those without a key, older than ``seconds`` by the database's clock, that a follower's position covers and that no transaction still running,
        prepared ones included, is older than.

        Args:
            after: where the last piece ended; None: begin anew.

        Returns:
            The ids, and where this piece ended; None: it was the last one.
        """

    @abstractmethod
    def forget_markers(self, connection: Connection, ids: Sequence[str]) -> None:
        """Removes these markers, as far as they have no key."""

    @abstractmethod
    def unshipped(self, connection: Connection, since: str | None) -> Unshipped:
        """What a follower at a position doesn't have yet, counted; None: not known, all that the journal still has counts."""

    @abstractmethod
    def backlog(self, connection: Connection, since: str | None, *, limit: int) -> int:
        """How many journal entries a follower at a position doesn't have yet: quickly, and exact only where it is about ``limit``.

        Args:
            since: the position; None: not known, the whole journal counts.
            limit: beyond it nothing is counted.
        """

    @abstractmethod
    def changes(self, connection: Connection, since: str, *, limit: int) -> int:
        """How many keys the journal names after a position: exact only where they are no more than about ``limit``."""

    def pinned(self, connection: Connection) -> list[str]:
        """What keeps the journal from being pruned for longer than usual, a sentence each."""
        return []
