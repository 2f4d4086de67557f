"""What replstore needs of a database that copies its data by itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine

if TYPE_CHECKING:
    from replstore.databases.native.replay import Replay


@dataclass(frozen=True)
class Identity:
    """What tells a node from a stranger before there is any control table.

    Attributes:
        system: the cluster's identifier, the same on all its copies.
        database: name of the database, the same on all copies of the cluster.
        in_recovery: whether it is a standby.
    """

    system: str
    database: str
    in_recovery: bool


class Native(ABC):
    """The part of a database that only native replication uses."""

    @abstractmethod
    def replay(self, writer: Engine, follower: Engine) -> Replay:
        """What asks a writer how far it has written, and its follower how far it has replayed; both are service engines."""

    @abstractmethod
    def identity(self, connection: Connection) -> Identity:
        """Which cluster and which database of it this is; asked without any control table."""

    @abstractmethod
    def in_recovery(self, connection: Connection) -> bool:
        """Whether it is a standby, now and not as of the transaction's beginning."""

    @abstractmethod
    def beat(self, connection: Connection) -> None:
        """Lets the write-ahead log move on, so that a follower sees that somebody reaches its primary, and that it has all of an idle one's."""

    @abstractmethod
    def promote(
        self, connection: Connection, *, boot: str, term: str, received: int, asked: float, within: float, refused: bool, force: bool = False
    ) -> str | None:
        """Tells a standby to become the primary, if it is what was seen.

        Args:
            connection: to the standby, in a transaction.
            boot, term, received: what was seen: its boot identity, the uuid of its latest timeline, and how far it had received.
            asked: what its clock said when that was seen, s since 1970.
            within: s for which what was seen is good to decide by, on that clock.
            refused: the primary's server refuses connections, so that nothing can be sending.
            force: a person decided: whatever it has received since.

        Returns:
            Why nothing was done; None: it is becoming the primary.
        """

    @abstractmethod
    def record(self, connection: Connection, uuid: str, since: str) -> None:
        """Gives the timeline on which this writer writes its uuid, unless it has one; waits for no standby."""

    @abstractmethod
    def ended_at(self, connection: Connection, uuid: str) -> tuple[bool, int | None]:
        """Where a timeline ended, by its uuid.

        Returns:
            Whether it is a timeline of this history, and the place at which the next one began; None: it is the latest one, or that isn't known.
        """

    @abstractmethod
    def prune_markers(self, connection: Connection, seconds: float, after: int) -> int | None:
        """Removes markers that nobody needs any more, as far as the server can tell, in one piece of its table.

        Args:
            seconds: how old they must be, by the server's clock.
            after: where the last piece ended; 0: the first one.

        Returns:
            Where this piece ended; None: it was the last one.
        """

    @abstractmethod
    def waiting(self, connection: Connection, backends: Sequence[tuple[int, str]]) -> set[int]:
        """Which server processes wait for a standby at their COMMIT, by their ids; they are given by id and start."""

    @abstractmethod
    def sessions(self, connection: Connection) -> set[int]:
        """The ids of the server processes of all sessions, whoever's, but for this one and those that replicate; an ordinary role may ask."""

    @abstractmethod
    def patroni(self, connection: Connection) -> str | None:
        """The name of the cluster, where the server looks as if Patroni ran it; None: it doesn't."""
