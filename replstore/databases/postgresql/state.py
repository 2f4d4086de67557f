"""A PostgreSQL node's control state and boot identity, in one statement."""

from __future__ import annotations

from replstore.control import Control
from replstore.databases.state import select_state

CONTROL = Control("replstore", "")

#: The server's start changes with every restart, and not when the server re-initialises itself after a backend's crash (HAZARDS 2).
#: As a number: its text would depend on the session's time zone.
BOOT = "extract(epoch FROM pg_postmaster_start_time())::text"
GUARD_OPEN = "(SELECT last_value FROM replstore.guard) = r.term_no * 2 + 1"
SELECT_STATE = select_state(CONTROL, BOOT, GUARD_OPEN)
