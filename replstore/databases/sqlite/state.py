"""A SQLite node's control state and boot identity."""

from __future__ import annotations

from functools import cache

from replstore.control import Control
from replstore.databases.sqlite.capture import text
from replstore.databases.state import select_state

CONTROL = Control(None, "replstore_")


@cache
def select_node_state(identity: str, prefix: str = "") -> str:
    """The SELECT of a node's state.

    Args:
        identity: the file's identity as the connection knows it: it stands for the boot identity.
        prefix: name of an attached database, with its dot.
    """
    return select_state(CONTROL, text(identity), "r.role = 'writer'", prefix)
