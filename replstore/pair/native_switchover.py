"""Switchover of a pair of native replication whose data directories are on this machine: writer and follower change places without a loss.

No transaction of a Store is open when the writer is shut down: each inserts its marker first, and the table of markers is locked.  Whoever waits for that lock has
changed nothing yet, loses its session with the server, and begins at the new writer.  The server itself sends its follower all that it has written before it ends.
A program that dies in between leaves two nodes of which none writes: `replstore takeover` ends it, or any Store with ``promote``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from replstore.databases.base import NodeState
from replstore.errors import NotTheWriter, NoWriter, ReplstoreError, SwitchoverFailed
from replstore.local.data_directory import DataDirectory
from replstore.local.following import checkpoint, connected, follow, promote_in_order
from replstore.node import Node, one_line
from replstore.pair.by_hand import alone
from replstore.pair.directories import directory_of, leader_of, name_of
from replstore.pair.flip import under_role_lock
from replstore.pair.native_steps import switching_over
from replstore.pair.promotion import await_promotion, native, record
from replstore.pair.ready import in_use, keep_ready
from replstore.pair.view import Action, Decision, Reach, Role, Term, named

if TYPE_CHECKING:
    import psycopg

    from replstore.pair.lead import Lead
    from replstore.pair.pair import Pair

log = logging.getLogger("replstore.pair")
#: s between two looks for what others do, and for what the new writer says.
PAUSE, LOOK = 0.25, 0.002
#: s that a server may take to stop, to get the last of the log, to be promoted; and to follow.
STEP, FOLLOW = 30.0, 60.0


class _Promoted(Exception):
    """The writer under whose lock this ran is gone, as it should be: nothing can be committed there."""


@dataclass(frozen=True)
class _Places:
    """Both nodes, before they change places: their directories, and where the writer and the one to be are."""

    lead: Lead
    former: DataDirectory
    new: DataDirectory
    at: str = field(repr=False)
    to: str = field(repr=False)


def switchover(pair: Pair, seconds: float, told: Callable[[str], Any] | None) -> None:
    """See ``Store.switchover``.

    Raises:
        SwitchoverFailed: somebody keeps a transaction open; the follower doesn't follow; or others run the servers, with what they have to run.
    """
    deadline = time.monotonic() + seconds
    lead = pair.settle(deadline)
    places = _places(pair, lead)
    if places is None:
        _by_others(pair, lead, deadline, told)
        return
    _refuse_unfit(pair, lead, deadline)
    _prepare(pair, places, deadline)
    with connected(places.to) as follower, alone(pair, "a switchover", deadline):
        _refuse_unfit(pair, lead, deadline)
        _change(pair, places, follower, deadline)
    _let_follow(pair, places)


def _places(pair: Pair, lead: Lead) -> _Places | None:
    """None: not both directories are on this machine."""
    former, new = directory_of(pair, lead.node.name), directory_of(pair, lead.follower.name)
    if former is None or new is None:
        return None
    for node, directory, follows in ((lead.node, former, False), (lead.follower, new, True)):
        if directory.pid is None or directory.follows is not follows:
            what = "follower's" if follows else "writer's"
            raise SwitchoverFailed(
                f"{node.name}_data ({directory.path}) isn't the {what} directory: no server runs in it as {'a standby' if follows else 'a primary'}"
            )
    at, to = (leader_of(pair, node, new, former) for node in (lead.node, lead.follower))
    return _Places(lead, former, new, at, to)


def _refuse_unfit(pair: Pair, lead: Lead, deadline: float) -> None:
    """The follower must have this writer's timeline, and be there; one that is slow to answer is asked again."""
    view, decision = pair.look()
    while (seen := named(view, lead.follower.name)).reach is Reach.SILENT and time.monotonic() < deadline:
        view, decision = pair.look()
    if seen.reach is not Reach.UP or seen.role is not Role.FOLLOWER or seen.stream is None or not seen.stream.receiving or seen.term != lead.term:
        why = seen.error or ("it receives nothing" if seen.reach is Reach.UP else str(seen.reach))
        raise SwitchoverFailed(f"{lead.node.name} still writes: {lead.follower.name} doesn't follow it ({why}); {decision.reason}")


def _prepare(pair: Pair, places: _Places, deadline: float) -> None:
    """What takes its time, while nobody waits: so that the shutdown has little left to write, and the follower little to replay."""
    for server in (places.at, places.to):  # the role is one that can do what comes
        checkpoint(server)
    checkpoint(places.at)  # what was written meanwhile
    pair.ship_from(places.lead.node, deadline)
    seen = pair.watch.states[places.lead.follower.name].state
    keep_ready(places.lead.follower, seen.boot if seen is not None else "", in_use(places.lead.node))


def _change(pair: Pair, places: _Places, follower: psycopg.Connection[Any], deadline: float) -> None:
    """Until the follower of before is the writer, as this process sees it."""
    lead = places.lead

    def change(connection: Connection, state: NodeState) -> None:
        if state.role != Role.WRITER or (state.term_no, state.term_uuid) != (lead.term.number, lead.term.uuid):
            raise NotTheWriter(f"{lead.node.name} is no longer the writer of {lead.term}")
        try:
            # first whoever waits for the lock: of a server that is shut down this session may be the first to end, and would let them in
            waiting = partial(native(lead.node).sessions, connection)
            promote_in_order(places.former, places.new, follower, first=waiting, seconds=STEP)
        finally:
            connection.invalidate()  # its server has ended
        raise _Promoted

    try:
        with suppress(_Promoted):
            under_role_lock(lead.node, change, seconds=max(0.0, deadline - time.monotonic()))
    except (ReplstoreError, DBAPIError) as error:
        _, decision = pair.look()
        raise SwitchoverFailed(f"{one_line(error)}; {decision.reason}{f': {decision.next_step}' if decision.next_step else ''}") from error
    term = _take_up(lead.follower)
    reason = f"{lead.follower.name} writes, {lead.node.name} has handed over to it"
    pair.took_over(lead.follower, term, Decision(Action.WRITE, None, lead.follower.name, lead.acknowledge, reason))


def _take_up(node: Node) -> Term:
    """The promoted node takes writes, and says so in its first commit."""
    deadline = time.monotonic() + STEP
    while True:
        try:
            with node.begin(limit=STEP) as connection:
                await_promotion(node, connection, deadline - time.monotonic())
            return record(node)
        except Exception as error:
            if time.monotonic() >= deadline:
                raise SwitchoverFailed(f"{node.name} was promoted, and takes no writes: {one_line(error)}") from error
            time.sleep(LOOK)


def _let_follow(pair: Pair, places: _Places) -> None:
    node = places.lead.node
    try:
        follow(places.former, places.to, name=name_of(places.former, node.name), seconds=FOLLOW)
    except ReplstoreError as error:
        raise SwitchoverFailed(f"{places.lead.follower.name} writes now, and {node.name} doesn't follow yet ({error}): `replstore rejoin`") from error
    await_follower(pair, node)


def await_follower(pair: Pair, node: Node) -> None:
    """Waits until this process sees that a node follows the writer: a few seconds at most, since it streams already."""
    deadline = time.monotonic() + pair.settings.takeover_timeout
    while time.monotonic() < deadline:
        view, decision = pair.look()
        seen, lead = named(view, node.name), pair.lead
        if lead is not None and seen.role is Role.FOLLOWER and seen.term == lead.term and decision.writer == lead.node.name:
            return
        time.sleep(LOOK)


def _by_others(pair: Pair, lead: Lead, deadline: float, told: Callable[[str], Any] | None) -> None:
    steps = switching_over(pair, lead.node, lead.follower)
    hint = f"where both data directories are on this machine, name them by {lead.node.name}_data and {lead.follower.name}_data"
    if told is None:
        raise SwitchoverFailed(f"SQL can't make {lead.node.name} a standby: {hint}; {steps}")
    told(steps)
    while time.monotonic() < deadline:
        time.sleep(PAUSE)
        with suppress(NoWriter):
            now = pair.settle(time.monotonic())
            if now.node is lead.follower and now.term.number > lead.term.number:
                return
    raise SwitchoverFailed(f"{lead.node.name} and {lead.follower.name} haven't changed places within the time: {steps}")
