"""What an error of SQLite means, by its extended result code.

Only two things have no code of their own: the guard's refusal, told by the text that the guard itself raises, and why a file can't be opened.
"""

from __future__ import annotations

import errno
import sqlite3

from replstore.databases.base import Fault
from replstore.databases.foreign import classify_foreign, driver_error

#: What every refusal of the guard's triggers begins with.
GUARD_PREFIX = "replstore:"
#: All that SQLite says when it can't open a file.
_CANNOT_OPEN = "unable to open database file"
#: Extended codes that Python names only if its SQLite was new enough.
_IOERR_DATA = sqlite3.SQLITE_IOERR | 32 << 8
_IOERR_CORRUPTFS = sqlite3.SQLITE_IOERR | 33 << 8

#: Extended codes whose meaning differs from that of their primary code.
_EXTENDED = {
    sqlite3.SQLITE_READONLY_DBMOVED: Fault.REFUSED,  # the file was moved or deleted under us
    # The file's content or the file itself is gone; elsewhere in IOERR it is the disk or the memory that fails, and the file may well be whole.
    sqlite3.SQLITE_IOERR_SHORT_READ: Fault.REFUSED,
    _IOERR_CORRUPTFS: Fault.REFUSED,
    _IOERR_DATA: Fault.REFUSED,  # checksum
    sqlite3.SQLITE_IOERR_VNODE: Fault.REFUSED,
    sqlite3.SQLITE_CORRUPT_VTAB: Fault.CALLER,  # one virtual table of the application
}

_PRIMARY = {
    sqlite3.SQLITE_BUSY: Fault.TRANSIENT,
    sqlite3.SQLITE_LOCKED: Fault.TRANSIENT,
    sqlite3.SQLITE_PROTOCOL: Fault.TRANSIENT,  # lost the race for the WAL's locks
    sqlite3.SQLITE_SCHEMA: Fault.TRANSIENT,
    sqlite3.SQLITE_NOTADB: Fault.REFUSED,
    sqlite3.SQLITE_CORRUPT: Fault.REFUSED,
    sqlite3.SQLITE_INTERRUPT: Fault.TIMEOUT,
    # A read-only file or file system is not a role: another program may write to it all the same.
    sqlite3.SQLITE_READONLY: Fault.LOCKED_OUT,
    sqlite3.SQLITE_FULL: Fault.LOCKED_OUT,
    # A failing disk is not a proof of death either (another process may get through): it takes a person to move away from it.
    sqlite3.SQLITE_IOERR: Fault.LOCKED_OUT,
    sqlite3.SQLITE_PERM: Fault.LOCKED_OUT,
    sqlite3.SQLITE_NOMEM: Fault.LOCKED_OUT,
    sqlite3.SQLITE_NOLFS: Fault.LOCKED_OUT,
}


def classify(error: BaseException) -> Fault:
    """What an error means for the pair.

    Args:
        error: the driver's, SQLAlchemy's around it, or the operating system's, raised while using the node's file.

    Returns:
        The fault; ``CALLER`` for everything that says nothing of the file.
    """
    error = driver_error(error)
    code = _code(error)
    if code is None:
        return Fault.CALLER if isinstance(error, sqlite3.Error) else classify_foreign(error)
    if code == sqlite3.SQLITE_CONSTRAINT_TRIGGER and str(error).startswith(GUARD_PREFIX):
        return Fault.NOT_THE_WRITER
    if code & 0xFF == sqlite3.SQLITE_CANTOPEN:
        return _of_opening(error)
    return _EXTENDED.get(code) or _PRIMARY.get(code & 0xFF, Fault.CALLER)


def commit_in_doubt(error: BaseException) -> bool:
    """Whether a COMMIT that raised this error may have happened.

    Only when input or output failed: the commit record may have reached the file although SQLite could not make sure. Everything else rolls
    back, or leaves the transaction open.
    """
    code = _code(driver_error(error))
    return code is not None and code & 0xFF == sqlite3.SQLITE_IOERR


def _code(error: BaseException) -> int | None:
    """SQLite's extended result code; None: the error is not SQLite's own."""
    return getattr(error, "sqlite_errorcode", None) if isinstance(error, sqlite3.Error) else None


def _of_opening(error: BaseException) -> Fault:
    """Why a file could not be opened.

    The dialect looks at the file before SQLite does: what it finds gone or replaced carries its own message, and the operating system's error
    as its cause. SQLite's bare message then means that the file is there and this process can't open it (rights, too many open files): others
    may, so it proves nothing.
    """
    cause = error.__cause__
    if isinstance(cause, OSError):
        return Fault.REFUSED if cause.errno in (errno.ENOENT, errno.ENOTDIR) else Fault.LOCKED_OUT
    return Fault.LOCKED_OUT if str(error) == _CANNOT_OPEN else Fault.REFUSED
