"""Which link a pair has."""

from __future__ import annotations

from replstore.pair.by_journal import JournalLink
from replstore.pair.link import Link
from replstore.pair.pair import Pair


def link_of(pair: Pair) -> Link:
    """What the setting ``replication`` asks for."""
    if pair.settings.replication == "native":
        from replstore.pair.by_native import NativeLink  # only a program that needs it loads it

        return NativeLink(pair)
    return JournalLink(pair)
