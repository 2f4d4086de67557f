"""One migration of a file at a time, among all processes of the host.

The migration itself needs the file's lock, so this one is on an empty file beside it, which is removed when the migration is over.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

#: s to wait for another process's migration.
PATIENCE = 600.0


@contextmanager
def one_migration(path: str) -> Iterator[None]:
    """Keeps other processes' migrations of this file out.

    Args:
        path: of the database, without symbolic links.

    Raises:
        sqlite3.OperationalError: another one has been running for ``PATIENCE`` s, or the folder can't be written.
    """
    lock_path = f"{path}-migration"
    while True:
        Path(lock_path).touch()
        before = _inode(lock_path)
        with closing(sqlite3.connect(lock_path, timeout=PATIENCE, isolation_level=None)) as lock:
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:
                if _inode(lock_path) == before:
                    raise
            if before is None or _inode(lock_path) != before:  # who had it before has removed this very file
                continue
            try:
                yield
            finally:
                with suppress(OSError):
                    os.remove(lock_path)
            return


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None
