"""Who holds a SQLite file's write lock: its process, where the system tells.

A frozen process that holds it can't be fenced, and nobody else writes to the file until it goes on or ends (HAZARDS 9): so it is named.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

#: Where in the file's shared memory SQLite locks for writing (WAL_WRITE_LOCK).
WRITE_LOCK = 120


def holders(path: str) -> list[str]:
    """The processes that hold the write lock of a file in WAL mode, a few words each; empty: nobody, or the system doesn't tell.

    Linux tells in /proc/locks.  Asking by fcntl would drop this process's own locks when the file is closed again.
    """
    found: list[str] = []
    with suppress(OSError, ValueError):
        inode = os.stat(path + "-shm").st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1:4] != ["POSIX", "ADVISORY", "WRITE"] or int(fields[5].rpartition(":")[2]) != inode:
                continue
            first, last = int(fields[6]), float("inf") if fields[7] == "EOF" else int(fields[7])
            if first <= WRITE_LOCK <= last and int(fields[4]) != os.getpid():
                found.append(_process(int(fields[4])))
    return found


def _process(pid: int) -> str:
    name, stopped = "", ""
    with suppress(OSError, IndexError):
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
        stopped = ", which is stopped" if rest.split()[0] in "Tt" else ""
    return f"process {pid} ({name}){stopped}" if name else f"process {pid}"
