"""Who writes, as one process last saw it."""

from __future__ import annotations

from dataclasses import dataclass

from replstore.node import Node
from replstore.pair.view import Acknowledge, Term


@dataclass(frozen=True)
class Lead:
    """Who writes, as this process last saw it.

    Attributes:
        node: the writer.
        follower: the other node.
        term: the term.
        acknowledge: how its commits are acknowledged.
        confirmed: when that was seen, on the monotonic clock.
        reason: a sentence.
        uncontested: when it was last known that no other node had become the writer, on the same clock.
        boot: the boot identity under which the writer was seen; its URL may lead to another server by now.
    """

    node: Node
    follower: Node
    term: Term
    acknowledge: Acknowledge
    confirmed: float
    reason: str
    uncontested: float = float("-inf")
    boot: str = ""
