"""What a person orders: switchover, takeover, solo, rejoin."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from replstore.databases.carrier import CompareFailed
from replstore.errors import ConfigError, NotTheWriter, NoWriter, SwitchoverFailed, TakeoverRefused
from replstore.node import Node, one_line
from replstore.pair.rejoin import fence_former, rejoin
from replstore.pair.solo import go_solo
from replstore.pair.switchover import hand_over, take_back
from replstore.pair.takeover import take_over
from replstore.pair.turn import Busy
from replstore.pair.view import Reach, Role, View, named

if TYPE_CHECKING:
    from replstore.pair.lead import Lead
    from replstore.pair.pair import Pair

log = logging.getLogger("replstore.pair")
#: s for a node's answer.
PATIENCE = 2.0
#: How often a rejoin begins again because the node changed meanwhile.
ATTEMPTS = 5


def switchover(pair: Pair, *, seconds: float = 10.0) -> Lead:
    """Lets writer and follower change places; see ``Store.switchover``."""
    deadline = time.monotonic() + seconds
    with alone(pair, "a switchover", deadline, maintenance=True):
        lead = pair.settle(deadline)
        pair.ship()  # most of the work before anybody has to wait
        hand_over(lead.node, lead.term, seconds=seconds)
        try:
            pair.ship_from(lead.node)
            view = _answered(pair, lead.follower, deadline)
            seen = named(view, lead.follower.name)
            take_over(
                lead.follower,
                seen,
                reason="switchover",
                compare_heartbeat=False,
                witness=pair.witness,
                granted=view.witness,
                writer=lead.node.name,
                margin=0,
                given=_sequences(lead.node),
            )
        except Exception as error:
            if _follows(lead, pair.settings.probe_timeout):
                with suppress(Exception):
                    take_back(lead.node, lead.term)
                raise
            log.info("another program finishes the switchover: %s", one_line(error))
        new = pair.settle(time.monotonic() + seconds, above=lead.term.number + 1)
        _let_rejoin(pair, new)
        return pair.settle(time.monotonic() + seconds, above=new.term.number)


def _answered(pair: Pair, node: Node, deadline: float) -> View:
    """A look at both nodes; one that was slow to answer is asked again, since nobody writes until the switchover is done."""
    view = pair.watch.view()
    while named(view, node.name).reach is Reach.SILENT and time.monotonic() < deadline:
        view = pair.watch.view()
    return view


def _let_rejoin(pair: Pair, new: Lead) -> None:
    """Lets the former writer follow.  The switchover is done: what fails here is tried again, and then left to the keeper."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            fence_former(new.follower, new.term)
            _rejoin(new, copy=False)
            pair.ship_from(new.node)
            return
        except Exception as error:  # another Store may be letting it rejoin at this moment
            log.info("rejoin of %s after the switchover, attempt %d of %d: %s", new.follower.name, attempt, ATTEMPTS, one_line(error))
            if _follows(new):
                return
            time.sleep(0.1)


@contextmanager
def alone(pair: Pair, what: str, deadline: float, *, maintenance: bool = False) -> Iterator[None]:
    """Keeps other threads of this program from acting meanwhile.

    Args:
        maintenance: also the keeper and migrations.

    Raises:
        SwitchoverFailed: they are at it until after the deadline.
    """
    with ExitStack() as stack:
        if maintenance:
            if not pair.maintenance.acquire(timeout=max(0.0, deadline - time.monotonic())):
                raise SwitchoverFailed(
                    f"{what} has to wait: a migration, a rejoin or a batch by another thread of this program is under way; repeat it"
                )
            stack.callback(pair.maintenance.release)
        try:
            stack.enter_context(pair.settling.taken(what, deadline - time.monotonic()))
        except Busy as error:
            raise SwitchoverFailed(f"{what} has to wait: {error}; repeat it") from None
        yield


def _sequences(node: Node) -> dict[str, int | None]:
    with node.snapshot() as connection:
        return node.database.sequences(connection)


def order_takeover(pair: Pair, name: str | None, *, force: bool) -> None:
    """See ``Store.takeover``."""
    if name is not None and name not in pair.nodes:
        raise ConfigError(f"{name!r} is no node: there are primary and standby")
    with alone(pair, "a takeover", time.monotonic() + pair.settings.takeover_timeout):
        view, decision = pair.look()
        node = (
            pair.nodes[name] if name else next((pair.nodes[seen.name] for seen in (view.primary, view.standby) if seen.role is Role.FOLLOWER), None)
        )
        if node is None:
            raise TakeoverRefused(f"no node follows, so none can take over: {decision.reason}")
        seen, other = named(view, node.name), named(view, pair.other(node).name)
        if seen.reach is not Reach.UP:
            raise TakeoverRefused(f"{node.name} can't take over: {seen.error or seen.reach}")
        if seen.role is Role.WRITER and not force:
            raise TakeoverRefused(f"{node.name} is the writer already, term {seen.term.number if seen.term else '?'}")
        if other.role is Role.WRITER and not force:
            raise TakeoverRefused(f"{other.name} is alive and writes: use `replstore switchover`, or `--force` if you are sure that it must not")
        take_over(
            node,
            seen,
            reason="a person decided",
            compare_heartbeat=not force,
            witness=pair.witness,
            granted=view.witness,
            writer=other.name,
            forced=force,
        )
        pair.look()


def order_solo(pair: Pair) -> None:
    """See ``Store.solo``."""
    with alone(pair, "going solo", time.monotonic() + pair.settings.takeover_timeout):
        view, decision = pair.look()
        seen = next((seen for seen in (view.primary, view.standby) if seen.role is Role.WRITER), None)
        if seen is None:
            raise NoWriter(f"nobody is the writer: {decision.reason}")
        if view.witness is not None and view.witness.reach is Reach.UP and seen.term is not None and view.witness.term.outranks(seen.term):
            raise NoWriter(
                f"the witness has given the pair to {view.witness.writer} under {view.witness.term}: {seen.name} must not acknowledge alone"
            )
        if not go_solo(pair.nodes[seen.name], seen, reason="a person decided", witness=pair.witness, both=frozenset(pair.nodes), forced=True):
            raise NotTheWriter(f"{seen.name} has changed in the meantime: look at `replstore status` and repeat")
        pair.look()


def order_rejoin(pair: Pair, *, copy: bool) -> int:
    """See ``Store.rejoin``."""
    with pair.maintenance:  # not the settling: a copy may take long, and heartbeats and transactions go on meanwhile
        lead = pair.settle(time.monotonic() + pair.settings.takeover_timeout)
        fence_former(lead.follower, lead.term)
        recorded = _rejoin(lead, copy=copy)
        pair.ship_from(lead.node)
        return recorded


def _rejoin(lead: Lead, *, copy: bool) -> int:
    """Another program may be at it as well: whoever comes second finds it done, or begins again."""
    waits, attempts = not _follows(lead), 0
    while True:
        attempts += 1
        try:
            return rejoin(lead.node, lead.follower, copy=copy)
        except CompareFailed as error:
            log.info("%s rejoins, and something else happened to it meanwhile: %s", lead.follower.name, error)
            if waits and _follows(lead):
                return 0  # what it had alone was recorded by whoever did it
            if attempts == ATTEMPTS:
                raise


def _follows(lead: Lead, seconds: float = PATIENCE) -> bool:
    state = lead.follower.observe(seconds).state
    return state is not None and state.role == "follower" and state.term_uuid == lead.term.uuid
