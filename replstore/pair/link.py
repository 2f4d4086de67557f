"""How changes get from the writer to the follower, as far as the pair has to know it: one :class:`Link` for each kind of replication.

Store, transactions and reads are written against the pair, and never ask which link it has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from replstore.errors import NotTheWriter

if TYPE_CHECKING:
    from replstore.databases.base import NodeState
    from replstore.node import Node
    from replstore.pair.lead import Lead
    from replstore.pair.token import Token
    from replstore.pair.view import Decision, View
    from replstore.pair.watch import Watch


class Held(Protocol):
    """What is known once the follower holds what was asked for."""

    @property
    def term_no(self) -> int:
        """Number of the term under which the follower holds it."""

    @property
    def term_uuid(self) -> str:
        """That term's uuid."""


class Shipping(Protocol):
    """Sees to it that the follower has what the writer has committed: ships it, or waits for the database's own replication and proves it.

    Attributes:
        stopped: why it stopped, or empty.
        synced_at: a moment, on the monotonic clock, of which the follower is known to have everything.
    """

    stopped: str
    synced_at: float

    def ship(self, node: Node, deadline: float | None, transaction: str | None = None) -> Held:
        """Returns when the follower holds what was committed on a node before the call.

        Args:
            node: the writer.
            deadline: on the monotonic clock, or infinite; None: in 30 s.
            transaction: id of the one that the caller waits for; None: everything.

        Raises:
            TimeoutError, NotTheWriter, ReplicationStopped, driver errors.
        """

    def age(self, state: NodeState) -> float:
        """For how many s, at most, the follower has been without something that was committed: as of its state, read just now."""

    def behind(self, state: NodeState, fresh: float) -> float:
        """How many bytes the follower lacks of what the writer had when it was seen last, as of its state, read just now; infinite: not known.

        Args:
            fresh: s ago that the writer must have been seen at most.
        """

    def stop(self, reason: str) -> None:
        """Remembers why it stopped, and says it once."""

    def interrupt(self) -> None:
        """Frees who waits for a node."""

    def close(self) -> None:
        """Closes every connection; doesn't wait for a node that doesn't answer."""


class Link(ABC):
    """One kind of replication.

    Attributes:
        shipping: what sees to it that the follower has what was committed.
        durabilities: what ``durability`` may be.
        counts_bytes: the follower's distance is known in bytes.
        found_is_proof: a commit of a former writer that is found on its former follower was sent there when it was durable: both had it.
        without_follower: what a person can do so that a writer, ``{writer}``, acknowledges without its follower.
    """

    shipping: Shipping
    durabilities: tuple[str, ...]
    counts_bytes: bool = False
    found_is_proof: bool = False
    without_follower: str

    @abstractmethod
    def decide(self, view: View) -> Decision:
        """What to do about the pair, by what this process knows of it; pure."""

    @abstractmethod
    def act(self, view: View, decision: Decision) -> None:
        """Carries out a decision.

        Raises:
            ReplstoreError, driver errors: the act failed; the next look decides anew.
        """

    @abstractmethod
    def beat(self, view: View, writer: str) -> None:
        """Lets the follower see that somebody reaches the writer, which is named and was just seen."""

    @abstractmethod
    def look_after(self, decision: Decision) -> bool:
        """Does what no caller waits for; returns whether there is more to do at once."""

    @abstractmethod
    def switchover(self, seconds: float, told: Callable[[str], Any] | None) -> None:
        """See ``Store.switchover``."""

    @abstractmethod
    def takeover(self, name: str | None, *, force: bool) -> None:
        """See ``Store.takeover``."""

    @abstractmethod
    def solo(self) -> None:
        """See ``Store.solo``."""

    @abstractmethod
    def rejoin(self, *, copy: bool, discard: bool) -> int:
        """See ``Store.rejoin``."""

    @abstractmethod
    def preamble(self, lead: Lead, durability: str) -> str | None:
        """What a transaction sends behind BEGIN so that its COMMIT is as durable as asked; None: nothing.

        Raises:
            DurabilityUnavailable: the server isn't set up for it.
        """

    def committing(self) -> None:
        """A transaction is about to send its COMMIT."""

    def waits(self, lead: Lead, durability: str) -> bool:
        """Whether the server itself lets a COMMIT with this durability wait for the follower: one that didn't wait to the end is to be proved."""
        return False

    @abstractmethod
    def refuse_lost(self, node: Node, state: NodeState, token: Token) -> None:
        """Raises unless the writer has what a token stands for.

        Args:
            node: the writer.
            state: what the read sees of it.
            token: a position.

        Raises:
            TokenLost: it went down with a former writer, or may have.
            StaleRead: the token is of a later term.
        """

    @abstractmethod
    def has(self, node: Node, state: NodeState, token: Token) -> bool:
        """Whether a follower has what a token stands for.

        Args:
            node: the follower.
            state: what the read sees of it.
            token: a position.
        """


def still_lost(rules: Callable[[View], Decision], watch: Watch, view: View, decision: Decision, lost: Node) -> View:
    """Asks a lost node once more: its verdict must be younger than the reading of the other node that it is combined with.

    Args:
        rules: what decided.
        watch: asks.
        view: what was decided on.
        decision: what is to be done.
        lost: the node whose loss it rests on.

    Raises:
        NotTheWriter: seen so, the decision is another one.
    """
    view = watch.again(view, lost)
    again = rules(view)
    if (again.action, again.node) != (decision.action, decision.node):
        raise NotTheWriter(f"{lost.name} was asked once more: {again.reason}")
    return view
