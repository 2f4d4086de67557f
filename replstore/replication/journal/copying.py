"""Copying a filled writer's tables to a follower, in parts, while writes go on, so that a copy that breaks off goes on where it was.

The follower keeps the position of the first part.  Rows that have changed since then are left out of every part, which are therefore, together, rows of
that one moment, each in exactly one part; they come by the journal with the batch that follows the last part.  Until that has landed the follower is
``copying``, neither eligible nor readable, and a writer that acknowledges alone goes on alone.  Each part is one transaction, which also says how far the
copy has come.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from replstore.databases.base import NodeState
from replstore.databases.carrier import Carrier, Keys, Part, Snapshot
from replstore.node import Node
from replstore.replication.mirror import to_copy

log = logging.getLogger("replstore.ship")
#: Rows in one part.
ROWS = 200_000


@dataclass(frozen=True)
class NextPart:
    """What to copy next.

    Attributes:
        rows: the part, by the table's id.
        to_copy: what is left after it, as ``Landing`` has it.
        left: what was left before it; None: nothing was ever shipped.
    """

    rows: dict[str, Keys]
    to_copy: dict[str, str | None]
    left: dict[str, str | None] | None


class Copying:
    """How far one direction's copy has come.

    Args:
        carrier: whose snapshot is asked for the parts' last keys.
        follower: the node that is copied to.
    """

    def __init__(self, carrier: Carrier, follower: Node) -> None:
        self._carrier, self._follower = carrier, follower
        self._small: set[str] = set()

    def next_part(self, base: NodeState, snapshot: Snapshot) -> NextPart | None:
        """The next part of a table that is copied in parts; None: what is left comes with one batch.

        Args:
            base: the follower, as the batch began.
            snapshot: of the writer; a table that its journal names as a whole comes with the last batch, so no part of it would last.
        """
        if base.position is not None and not base.copying:
            self._small.clear()  # the next copy finds other sizes
            return None
        known = self._carrier.tables()
        left = self.left(base)
        for name, after in left.items():
            whole = name in snapshot.changed and snapshot.changed[name] is None
            if name not in known or whole or (after is None and name in self._small):
                continue
            upto = self._carrier.boundary(name, after, ROWS)
            if upto is None and after is None:
                self._small.add(name)  # it comes with the last batch; so it does if it grows meanwhile
                continue
            rest = {**left, name: upto} if upto is not None else {other: key for other, key in left.items() if other != name}
            log.info("%s: table %s is copied up to key %s; %d table(s) to go", base.name, name, upto or "(its end)", len(rest))
            return NextPart({name: Keys(journal=False, whole=after is None, part=Part(after, upto))}, rest, left if base.copying else None)
        return None

    def left(self, base: NodeState) -> dict[str, str | None]:
        """The tables that must still be copied whole, each with the last key that the follower has of it."""
        if base.position is None:  # nothing was ever shipped
            return dict.fromkeys(self._carrier.tables())
        if not base.copying:
            return {}
        with self._follower.snapshot() as connection:
            return to_copy(self._follower, connection)
