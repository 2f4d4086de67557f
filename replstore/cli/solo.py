"""``replstore solo``: the writer acknowledges alone by a person's word."""

from __future__ import annotations

from replstore.cli.acting import tell
from replstore.cli.common import Options
from replstore.cli.opening import opened


def command(options: Options) -> None:
    """Let the writer acknowledge alone, because the follower is lost.

    Only when you know that the follower hasn't become the writer and won't: what is committed from now on is on one node. It ends by itself when the
    follower is back and in sync. Recorded.
    """
    with opened(options) as store:
        store.solo()
        tell(options, store, "The writer acknowledges alone until the follower is back.")
