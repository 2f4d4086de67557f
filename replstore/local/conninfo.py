"""libpq's connection strings, which may hold a password: one that can't be read is shown in no message, nor is a piece of it."""

from __future__ import annotations

import re
from typing import Any

from replstore.errors import ConfigError


def parsed(conninfo: str, of: str) -> dict[str, Any]:
    """The values of a connection string, by name.

    Args:
        conninfo: ``host=… port=…``, or a URI.
        of: whose it is, for the message.

    Raises:
        ConfigError: it can't be read. The driver's own error quotes what it stumbled over, which may be half of a password, so it is no cause of this one.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        known = conninfo_to_dict(conninfo)
    except psycopg.Error:
        known = None
    if known is not None and re.fullmatch(r"[\d,]*", str(known.get("port") or "")):  # a slash in a URI's password makes a port of what is before it
        return dict(known)
    raise ConfigError(
        f"{of} can't be read as a connection string; it isn't shown, because it may hold a password: are all values with a space in quotes?"
    )
