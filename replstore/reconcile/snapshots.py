"""Both nodes read at once, the follower first: then what is only on its way can be told exactly from what differs.

The follower's snapshot has its rows and its position.  The writer's is opened after it and has rows and journal, so it holds everything that the follower
holds, and its journal names whatever it holds besides: those rows, and only those, are on their way (HAZARDS 14).  That needs a journal which reaches
back to the follower's position, and a writer whose time never went back; where that isn't so, nothing counts as on its way, and a note says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Connection, select

from replstore.databases.base import Fault, NodeState
from replstore.errors import CannotCheck, ReplstoreError
from replstore.node import Node, Observation, one_line
from replstore.reconcile.origin import Restored
from replstore.replication.journal.verified import Mark
from replstore.replication.mirror import to_copy

if TYPE_CHECKING:
    from replstore.pair.pair import Pair

Of = TypeVar("Of")
Found = TypeVar("Found")
#: How often both snapshots are opened: roles may change, or the journal be pruned, between the first and the second.
ATTEMPTS = 5
ONE_OF_THEM = ": one of them went back in time"


@dataclass(frozen=True)
class Side:
    """One node in one snapshot.

    Attributes:
        node: the node.
        connection: on which the snapshot is open.
        known: its control tables in the snapshot; None: it isn't a pair's.
    """

    node: Node
    connection: Connection
    known: NodeState | None

    @property
    def name(self) -> str:
        """``primary`` or ``standby``."""
        return self.node.name

    @property
    def state(self) -> NodeState:
        """The control tables of a pair's node."""
        assert self.known is not None
        return self.known


@dataclass(frozen=True)
class Both:
    """Both nodes.

    Attributes:
        writer, follower: as far as there is a writer; else the primary comes first.
        inexact: why nothing can be told to be on its way; empty: it can.
        pending: by table, the keys that the writer's journal names after the follower's position; None: the whole table.
        copying: every table is on its way as a whole.
        marks: by table, how far an earlier check found it equal, of those that are to be compared and where the journal reaches back to it.
        restored: the node that went back in time; None: neither, as far as that can be told.
    """

    writer: Side
    follower: Side
    inexact: str
    pending: Mapping[str, set[str] | None]
    copying: bool
    marks: Mapping[str, Mark] = field(default_factory=dict)
    restored: Restored | None = None

    @property
    def sides(self) -> tuple[Side, Side]:
        """Primary and standby."""
        return (self.writer, self.follower) if self.writer.name == "primary" else (self.follower, self.writer)

    @property
    def strangers(self) -> bool:
        """Whether they are two databases that aren't a pair's."""
        return self.writer.known is None

    @property
    def waits(self) -> bool:
        """Whether anything is on its way."""
        return self.copying or bool(self.pending)


@contextmanager
def reading(node: Node) -> Iterator[None]:
    """Turns whatever a driver raises into a sentence that names the node."""
    try:
        yield
    except ReplstoreError:
        raise
    except Exception as error:
        raise CannotCheck(f"{node.name} can't be read: {one_line(error)}") from error


def together(act: Callable[[Of], Found], of: Iterable[Of]) -> list[Found]:
    """Does the same for both nodes at once; what fails is told when both have come to their end."""
    with ThreadPoolExecutor(2, "replstore check") as pool:
        return list(pool.map(act, of))


@contextmanager
def both_nodes(pair: Pair) -> Iterator[Both]:
    """Both nodes in snapshots, the follower's opened first.

    Raises:
        CannotCheck: a node doesn't answer, or has no control tables.
        NotAPair: the nodes belong to different pairs.
    """
    states = observed(pair)
    for attempt in range(1, ATTEMPTS + 1):
        with ExitStack() as stack:
            follower, writer = (_side(stack, pair.nodes[name]) for name in in_order(states))
            inexact = why_inexact(writer, follower)
            if not inexact or attempt == ATTEMPTS:
                yield _both(writer, follower, inexact)
                return
            states = {side.name: side.state for side in (follower, writer)}
        time.sleep(0.05)


def in_order(states: Mapping[str, NodeState]) -> list[str]:
    """The follower's name before the writer's."""
    return sorted(states, key=lambda name: (_writes(states[name]), states[name].term_no, name == "primary"))


def observed(pair: Pair) -> dict[str, NodeState]:
    """Both nodes' states, by name.

    Raises:
        CannotCheck: a node doesn't answer, or has no control tables.
        NotAPair: the nodes belong to different pairs.
    """
    limit = pair.settings.probe_timeout + 2.0
    answers = dict(zip(pair.nodes, together(lambda node: _answer(node, limit), pair.nodes.values()), strict=True))
    faults = [f"{name}: {answer.error}" for name, answer in answers.items() if answer.state is None]
    if faults:
        raise CannotCheck("a check reads both nodes; " + "; ".join(faults))
    from replstore.pair.admission import COMPARED

    states = {name: answer.state for name, answer in answers.items() if answer.state is not None}
    COMPARED[pair.settings.replication](states)
    return states


def _answer(node: Node, seconds: float) -> Observation:
    """What a node answers within ``seconds``; the pair's own threads don't wait for as long, and cut a question short that is everybody's."""
    deadline = time.monotonic() + seconds
    while True:
        answer = node.observe(seconds)
        if answer.state is not None or answer.fault not in (Fault.LOST_CONNECTION, Fault.SILENT) or time.monotonic() >= deadline:
            return answer


def _writes(state: NodeState) -> bool:
    """Whether it is the writer, or was fenced for a switchover and still ships the rest."""
    return state.role == "writer" or (state.role == "fenced" and state.fenced_by_no is None)


def _side(stack: ExitStack, node: Node) -> Side:
    with reading(node):
        connection = stack.enter_context(node.snapshot())
        stack.push(end_of(connection))
        state = node.database.state(connection)
    if state is None:
        raise CannotCheck(f"{node.name} has no replstore control tables: run `replstore migrate`")
    return Side(node, connection, state)


def end_of(connection: Connection) -> Callable[..., None]:
    """Ends a snapshot without an error of its own: rolling back on a connection that died would hide what happened."""

    def end(kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            with suppress(Exception):
                connection.rollback()
                return
        connection.invalidate()

    return end


def _both(writer: Side, follower: Side, inexact: str) -> Both:
    if inexact:
        return Both(writer, follower, inexact, {}, copying=False)
    if follower.state.position is None:
        return Both(writer, follower, "", {}, copying=True)
    with reading(writer.node):
        pending = dict(writer.node.database.unshipped_keys(writer.connection, follower.state.position))
    if follower.state.copying:
        with reading(follower.node):
            pending.update(dict.fromkeys(to_copy(follower.node, follower.connection)))
    return Both(writer, follower, "", pending, copying=False)


def why_inexact(writer: Side, follower: Side) -> str:
    """Why the writer's journal doesn't tell what is on its way to the follower; empty: it does."""
    ahead, behind = writer.state, follower.state
    if not _writes(ahead):
        return f"neither node is the writer (primary and standby are {ahead.role} and {behind.role})"
    if behind.role == "fenced":
        return f"{follower.name} is a former writer that waits to rejoin"
    if behind.role == "writer":
        return f"both nodes say that they are the writer, {writer.name} under term {ahead.term_no}, {follower.name} under term {behind.term_no}"
    if (ahead.term_no, ahead.term_uuid) != (behind.term_no, behind.term_uuid):
        return f"{writer.name} is of term {ahead.term_no}, {follower.name} of term {behind.term_no}"
    if behind.position is None:
        return ""
    if behind.source != ahead.node:
        return f"{follower.name} followed another node than {writer.name} and needs a copy"
    control = writer.node.database.control
    with reading(writer.node):
        pruned = writer.connection.execute(select(control.retention.c.pruned_through)).scalar()
        tick = writer.connection.execute(select(control.tick.c.tick).where(control.tick.c.tick == behind.tick)).scalar()
        here = writer.node.database.position(writer.connection)
    if pruned is not None and not writer.node.database.covers(behind.position, pruned):
        return f"{writer.name}'s journal no longer reaches back to what {follower.name} has, which needs a copy"
    if tick is None:
        return f"{writer.name} doesn't know the last batch that {follower.name} holds{ONE_OF_THEM}"
    if not writer.node.database.covers(here, behind.position):
        return f"{writer.name}'s numbers stand before what {follower.name} holds, although it knows its last batch: a dump of it was loaded into another server"
    return ""
