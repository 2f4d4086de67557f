"""A transaction in doubt: its connection died during COMMIT, or its writer was lost before the follower had it.

Never a mere look (HAZARDS 4): a tombstone with the transaction's id is inserted and committed, on a writer whose term isn't below the attempt's
(HAZARDS 29).  If that works, the transaction can never commit any more; if it collides, the transaction had committed.  A transaction that began so long
ago that its marker may have been pruned can't be decided so (HAZARDS 4).
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from enum import StrEnum

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from replstore.databases.base import Fault
from replstore.errors import CommitUnknown, NotTheWriter, ReplstoreError, TransactionLost
from replstore.node import one_line
from replstore.pair.decide import Term
from replstore.pair.lead import Lead
from replstore.pair.pair import Pair
from replstore.timestamps import uptime

log = logging.getLogger("replstore.transaction")


class Outcome(StrEnum):
    """How a doubt ended."""

    COMMITTED = "committed"
    LOST = "lost"


def resolve(
    pair: Pair,
    term: Term,
    id: str | None,
    durability: str,
    *,
    began: float | None = None,
    backend: tuple[int, str] | None = None,
    cause: BaseException | None,
) -> Lead:
    """Finds out what happened to a transaction, and makes it final.

    Args:
        pair: the pair.
        term: the term of the attempt.
        id: the marker's; None: it wrote none.
        durability: the attempt's.
        began: when the transaction began, by ``uptime``; None: its marker has a key, and is kept for ever.
        backend: the attempt's server process, ended if it keeps the tombstone waiting.
        cause: the driver's error.

    Returns:
        The writer that holds it committed; it is still to be acknowledged there.

    Raises:
        TransactionLost: it did not happen and never will.
        CommitUnknown: that can't be decided now.
    """
    deadline = time.monotonic() + pair.settings.takeover_timeout
    trouble = one_line(cause) if cause else "the writer changed"
    if id is None:
        raise CommitUnknown(
            f"whether the transaction committed can't be found out ({trouble}): commit_marker is false, so it left no marker; "
            "look at what it would have changed before you repeat it"
        ) from cause
    lead: Lead | None = None
    while True:
        _refuse_old(pair, id, began, cause)
        try:
            lead = pair.settle(deadline, above=term.number)
            if lead.term != term and not lead.term.outranks(term):  # two nodes that were forced apart: neither speaks for the other (HAZARDS 32)
                raise NotTheWriter(f"{lead.node.name} writes under another decision's {lead.term}")
            outcome = _bury(pair, lead, id, durability, limit=2 * pair.settings.probe_timeout)
        except ReplstoreError as error:
            trouble = str(error)
        except Exception as error:
            trouble = one_line(error)
            if lead is None:
                raise
            fault = lead.node.database.classify(error)
            if fault is Fault.TIMEOUT and backend is not None and lead.term == term:
                with suppress(Exception):  # the next round finds out whether it is gone
                    end(lead, backend, limit=2 * pair.settings.probe_timeout)
            elif fault.connection_is_gone:
                pair.doubt(lead)
        else:
            if outcome is Outcome.LOST:
                raise TransactionLost(
                    f"the transaction did not take effect: {trouble}; its tombstone is on {lead.node.name}, term {lead.term.number}"
                ) from cause
            return lead
        if time.monotonic() >= deadline or pair.closed.is_set():
            raise CommitUnknown(
                f"whether transaction {id} committed can't be decided now ({trouble}); look for its marker before you repeat it", id
            ) from cause
        time.sleep(0.05)


def _refuse_old(pair: Pair, id: str, began: float | None, cause: BaseException | None) -> None:
    """Half the retention: the other half is for clocks, and for what happens between this look and the tombstone."""
    limit = pair.settings.marker_retention / 2
    if began is not None and uptime() - began > limit:
        raise CommitUnknown(
            f"transaction {id} began more than {limit:g} s ago, half of marker_retention, so that a missing marker proves nothing: "
            "whether it committed can't be decided; look at what it would have changed before you repeat it",
            id,
        ) from cause


def _bury(pair: Pair, lead: Lead, id: str, durability: str, *, limit: float | None = None) -> Outcome:
    """Inserts the tombstone, or finds the marker; a server that hangs is left after ``limit`` s."""
    marker = lead.node.database.control.marker
    try:
        with lead.node.begin(limit=limit) as connection:
            pair.refuse_astray(lead, connection.connection)
            lead.node.database.commit_here(connection)
            tombstone = {"id": id, "outcome": "lost", "durability": durability, "term_no": lead.term.number}
            connection.execute(insert(marker).values(**tombstone))
    except IntegrityError as error:
        if lead.node.database.classify(error) is not Fault.CALLER:
            raise
        with lead.node.begin(limit=limit) as connection:
            found = connection.execute(select(marker.c.outcome).where(marker.c.id == id)).scalar_one()
        return Outcome(found)
    return Outcome.LOST


def end(lead: Lead, backend: tuple[int, str], *, limit: float) -> None:
    """Ends the server process of a transaction, if it is still the same one."""
    with lead.node.begin(limit=limit) as connection:
        if lead.node.database.end_backend(connection, backend):
            log.warning("ended server process %d on %s: it kept a transaction in doubt", backend[0], lead.node.name)
