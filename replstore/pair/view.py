"""What one process knows of a pair, and what follows from it: the words of the decision, without any database.

A :class:`View` is built from readings that are never quite simultaneous.  Two rules make it safe to decide on:

* **A verdict of loss is younger than the readings that it is combined with.**  Read the node that answers first, then find out that the
  other one is refused or silent; never join a verdict found earlier with a newer reading.
* **Everything that an act compares (term, boot identity, ``req``, heartbeat, batch) is the value in the view**, not one read later.

Times are seconds.  ``Contact.age`` must count time during which the machine slept (``CLOCK_BOOTTIME`` where there is one); ``silent_for`` and
``still_for`` must not, and begin anew when this process stood still since it last looked (HAZARDS 22).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from replstore.databases.base import Stream


class Reach(StrEnum):
    """How a node answered when it was asked last."""

    UP = "up"  #: it answers
    REFUSED = "refused"  #: its server answered that nothing is there
    SILENT = "silent"  #: nothing answered in time, or the server is starting up or shutting down
    LOCKED_OUT = "locked out"  #: it answers with an error that is no loss: disk full, wrong password, too many connections


class Role(StrEnum):
    """What a node's own role row says."""

    WRITER = "writer"
    FOLLOWER = "follower"
    FENCED = "fenced"  #: a former writer that may change nothing until it has rejoined, or one half of an unfinished switchover


@dataclass(frozen=True)
class Term:
    """The period of one writer.  The higher number wins every argument; equal numbers with other uuids stop both nodes."""

    number: int
    uuid: str

    def outranks(self, other: Term) -> bool:
        """Whether this term wins against the other one."""
        return self.number > other.number

    def __str__(self) -> str:
        return f"term {self.number}"


@dataclass(frozen=True)
class NodeView:
    """What one process knows of one node.

    Of a node that doesn't answer, ``role`` and ``term`` are what was known last, or None; nothing else of it is used.
    """

    name: str
    node: str = ""
    reach: Reach = Reach.UP
    silent_for: float = 0.0
    """Seconds on this process's monotonic clock since the node last answered (only when it is silent)."""
    role: Role | None = None
    term: Term | None = None
    boot: str = ""

    # A writer's row 'acknowledge'.
    solo: bool = False
    solo_boot: str = ""
    req: int = 0

    fenced_by: Term | None = None
    """The term that fenced it; None on a fenced node is one half of an unfinished switchover."""

    # A follower's row 'position', and its heartbeat.
    source: str = ""
    stream_term: Term | None = None
    eligible_boot: str | None = None
    copying: bool = False
    heartbeat: int = 0
    batch: int = 0

    stream: Stream | None = None
    """How it stands in the write-ahead log, in native replication."""

    still_for: float = 0.0
    """Seconds that this process has watched the heartbeat stand still."""
    met: bool = True
    """Whether this process has ever had its answer: if not, it may be the URL that is wrong, and others reach the node."""
    error: str = ""
    """What the node answered, for messages."""

    @property
    def is_solo(self) -> bool:
        """Whether this writer acknowledges alone.  What an earlier boot was allowed doesn't count: the node is unconfirmed."""
        return self.role is Role.WRITER and self.solo and self.solo_boot == self.boot


@dataclass(frozen=True)
class Contact:
    """This process's own last heartbeat that was answered.

    ``age`` is seconds since it was SENT; ``term``, ``writer`` (a node's name) and ``writer_boot`` were read on the writer before it was sent.
    """

    age: float
    term: Term
    writer: str
    writer_boot: str
    follower_boot: str = ""


@dataclass(frozen=True)
class WitnessView:
    """The witness's one row; of a witness that doesn't answer only ``reach`` is used."""

    reach: Reach
    term: Term
    writer: str
    in_sync: frozenset[str]
    req: int


@dataclass(frozen=True)
class Policy:
    """The pair's own settings; ``detection_time`` in seconds, longer than two heartbeats."""

    durability: Literal["replicated", "async", "server"] = "replicated"
    takeover: Literal["auto", "manual"] = "auto"
    on_follower_down: Literal["solo", "block"] = "solo"
    rejoin: Literal["auto", "manual"] = "auto"
    refused_means_dead: bool = True
    detection_time: float = 1.5
    promote: bool = False
    """Native: replstore promotes the standby itself, instead of waiting for whoever does."""
    max_data_loss: int = 0
    """Native: bytes of the write-ahead log that a promotion may leave behind, by what this process has seen of the writer."""


@dataclass(frozen=True)
class View:
    """Everything that one decision depends on."""

    primary: NodeView
    standby: NodeView
    policy: Policy
    contact: Contact | None = None
    witness: WitnessView | None = None
    """None: the pair has no witness.  A witness that can't be reached is one whose ``reach`` isn't up."""
    seen_batch: int = 0
    """The highest batch number that this process has ever seen on the follower under the current term."""
    highest: Term | None = None
    """The highest term that this process has ever seen."""
    written: int | None = None
    """Native: how far this process has seen the writer's durable log come under the highest term; None: it has not seen it, or not for as long as its follower
    has gone on receiving."""


class Action(StrEnum):
    """What to do now."""

    WRITE = "write"  #: nothing to change: write, and ship
    TAKE_OVER = "take over"  #: make the follower the writer
    GO_SOLO = "go solo"  #: let the writer acknowledge alone
    RESYNC = "resync"  #: follower required, ship everything, then eligible
    FENCE = "fence"  #: write the higher term into a former writer
    REJOIN = "rejoin"  #: make a fenced former writer the follower
    FINISH = "finish"  #: finish a takeover that the witness has granted, or a switchover that was begun
    WAIT = "wait"  #: nothing safe to do yet; it can pass by itself when a node comes back
    STOP = "stop"  #: nothing is safe until a person has decided


class Acknowledge(StrEnum):
    """How a commit may be acknowledged meanwhile.  Whether this commit is, ``may_acknowledge`` says."""

    REPLICATED = "replicated"  #: once the follower has it
    SOLO = "solo"  #: by the writer alone, which is recorded
    ALONE = "alone"  #: async: at once
    NONE = "none"


@dataclass(frozen=True)
class Decision:
    """What to do, and why in words that an operator can read."""

    action: Action
    node: str | None
    """The node acted upon."""
    writer: str | None
    """The node that may take writes meanwhile."""
    acknowledge: Acknowledge
    reason: str
    next_step: str = ""
    """What a person can do about it, if anything."""


def named(view: View, name: str) -> NodeView:
    """What is known of a node, by its name."""
    return view.primary if view.primary.name == name else view.standby
