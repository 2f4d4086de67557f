"""Rejoin of a former primary of native replication whose data directory is here: it is rewound, or copied anew, and follows.

Both throw away what only it has, so that must have been exported (``replstore orphans export``), or somebody must have said that nobody wants it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from replstore.errors import NodeLost, OrphansNotExported, ReplstoreError
from replstore.local.following import follow
from replstore.local.lost_log import latest
from replstore.pair.directories import name_of
from replstore.pair.former import Former, follows_already, former_of
from replstore.pair.native_switchover import FOLLOW, await_follower

if TYPE_CHECKING:
    from replstore.pair.pair import Pair

log = logging.getLogger("replstore.pair")


def rejoin(pair: Pair, *, copy: bool, discard: bool) -> int:
    """See ``Store.rejoin``.

    Returns:
        How many transactions were thrown away that only it had.

    Raises:
        OrphansNotExported: it has such, and they weren't exported; its server is stopped then.
        NodeLost: nobody writes, the node's data directory isn't here, or it couldn't be made to follow.
        ConfigError: both nodes write, and neither is newer.
    """
    with pair.maintenance:  # not the settling: a copy may take long, and transactions go on meanwhile
        pair.look()
        if pair.lead is not None and follows_already(pair, pair.lead.follower) and not copy:
            return 0
        former = former_of(pair, what="a rejoin", copy=copy)
        former.directory.stop()  # from here on nobody writes there
        lost = _given_up(former, discard=discard)
        try:
            how = follow(former.directory, former.at, name=name_of(former.directory, former.node.name), seconds=FOLLOW, anew=copy)
        except ReplstoreError as error:
            raise NodeLost(f"{former.node.name} doesn't follow yet: {error}") from error
        log.warning("%s was %s and follows %s; %d transaction(s) that only it had are gone from it", former.node.name, how, former.writer.name, lost)
        await_follower(pair, former.node)
        return lost


def _given_up(former: Former, *, discard: bool) -> int:
    """How many transactions only it has, which may be thrown away."""
    name = former.node.name
    exporting = (
        "`replstore orphans export` writes them to a file, then `replstore rejoin`; or `replstore rejoin --discard` throws them away; "
        f"{name}'s server is stopped"
    )
    try:
        lost = former.lost
    except ReplstoreError as error:
        if discard or former.exported() is not None:
            return 0
        raise OrphansNotExported(f"what only {name} has can't be told ({error}): {exporting}") from error
    if lost and not discard and (former.exported() or 0) < latest(lost):
        what = "1 transaction" if len(lost) == 1 else f"{len(lost):,} transactions"
        raise OrphansNotExported(f"{name} has {what} that {former.writer.name} lacks, committed until {lost[-1].at}: {exporting}")
    return len(lost)
