"""The acknowledgement: a transaction is committed on the writer, and the caller may be told so once it is safe.

Replicated: the follower holds it under the same term, or the writer's own row, read AFTER the commit, says that it acknowledges alone.
"""

from __future__ import annotations

import logging
import time

from replstore.errors import CommittedNotReplicated
from replstore.node import one_line
from replstore.pair.decide import Acknowledge, Term, may_acknowledge
from replstore.pair.lead import Lead
from replstore.pair.pair import Pair
from replstore.pair.watch import node_view
from replstore.transaction.doubt import resolve

log = logging.getLogger("replstore.transaction")


def acknowledge(pair: Pair, lead: Lead, id: str | None, durability: str, *, began: float | None = None, seconds: float | None = None) -> None:
    """Returns when the caller may be told that the transaction is safe.

    Args:
        pair: the pair.
        lead: the writer and the term it was committed under.
        id: the marker's; None: there is none, and the follower must have all that was committed.
        durability: ``replicated`` or ``async``.
        began: when the transaction began, by ``uptime``; None: its marker has a key.
        seconds: to wait for the follower; None: ``ack_timeout``.

    Raises:
        CommittedNotReplicated: it is committed on the writer, and not known to be on the follower within ``ack_timeout``.
        TransactionLost: the writer was lost before it reached the follower, or replaced before it had committed; a tombstone stands on the new one.
        CommitUnknown: that could not be found out.
    """
    if durability != "replicated":
        if _is_replaced(pair, lead):
            resolve(pair, lead.term, id, durability, began=began, cause=None)
        pair.backlog.committed()
        return
    deadline = time.monotonic() + (pair.settings.ack_timeout if seconds is None else seconds)
    trouble = ""
    while True:
        known = pair.lead
        alone = known is not None and known.term == lead.term and known.acknowledge is Acknowledge.SOLO
        if alone and _alone(pair, lead, durability):
            return
        held, trouble = _held(pair, lead, id, deadline)
        if held or _alone(pair, lead, durability):
            return
        if _moved(pair, lead):
            former, lead = lead, resolve(pair, lead.term, id, durability, began=began, cause=None)
            if is_on_both(pair, former, lead):
                return
            continue
        if time.monotonic() >= deadline:
            why = pair.shipping.stopped or trouble
            raise CommittedNotReplicated(
                f"the transaction is committed on {lead.node.name} and was not seen on {lead.follower.name} within {pair.settings.ack_timeout:g} s "
                f"({why}); it must not be repeated. `replstore status` says what the pair needs; {pair.link.without_follower.format(writer=lead.node.name)}",
                id,
            )
        time.sleep(0.02)


def _is_replaced(pair: Pair, lead: Lead) -> bool:
    """Whether this program knows of a later writer by now, without asking anybody: the transaction may have committed on a former one."""
    known = pair.lead
    return known is not None and known.term.outranks(lead.term)


def is_on_both(pair: Pair, former: Lead, lead: Lead) -> bool:
    """Whether a commit of a former writer, found on this one, was on both: its follower then can have it from that writer only."""
    return pair.link.found_is_proof and lead.node is not former.node


def _held(pair: Pair, lead: Lead, id: str | None, deadline: float) -> tuple[bool, str]:
    """Whether the follower holds the transaction, under the term of its commit."""
    try:
        shipped = pair.ship_from(lead.node, deadline, id)
    except Exception as error:
        return False, one_line(error)
    if Term(shipped.term_no, shipped.term_uuid) != lead.term:
        return False, f"the term is now {shipped.term_no}"
    return True, ""


def _alone(pair: Pair, lead: Lead, durability: str) -> bool:
    """Whether the writer acknowledges alone, by its own row, read now."""
    try:
        with lead.node.begin(limit=2 * pair.settings.probe_timeout) as connection:
            state = lead.node.database.state(connection)
    except Exception as error:
        log.debug("%s doesn't say whether it acknowledges alone: %s", lead.node.name, one_line(error))
        return False
    return state is not None and may_acknowledge(
        durability=durability,
        pair_durability=pair.policy.durability,
        commit_term=lead.term,
        writer=node_view(state, lead.node.name),
        held_by_follower=False,
    )


def _moved(pair: Pair, lead: Lead) -> bool:
    """Looks at the pair, lets it decide, and says whether another term has begun or the writer can't be reached."""
    pair.doubt(lead)
    try:
        now = pair.settle(time.monotonic())
    except Exception as error:
        log.debug("no writer: %s", one_line(error))
        return False
    return now.term != lead.term
