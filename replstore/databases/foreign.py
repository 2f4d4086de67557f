"""Errors that no database driver raised: SQLAlchemy's wrappers are taken off, SQLAlchemy's own and the operating system's are classified here."""

from __future__ import annotations

import errno
import socket

from sqlalchemy import exc

from replstore.databases.base import Fault
from replstore.errors import NotAPair

#: Classes first: Python gives most errno values a class of their own, and some (``socket.gaierror``) have another errno.
_CLASSES: tuple[tuple[type[BaseException], Fault], ...] = (
    # A name that can't be resolved says nothing of the server behind it, only of the resolver; it must never count as its death.
    (socket.gaierror, Fault.SILENT),
    (ConnectionRefusedError, Fault.REFUSED),
    (FileNotFoundError, Fault.REFUSED),
    (TimeoutError, Fault.SILENT),
    (ConnectionError, Fault.LOST_CONNECTION),
    (PermissionError, Fault.LOCKED_OUT),
    (exc.TimeoutError, Fault.TIMEOUT),  # the engine's pool is used up: our own limit, the node wasn't asked
    (exc.DisconnectionError, Fault.LOST_CONNECTION),
    (NotAPair, Fault.LOCKED_OUT),  # it answers, and is another one
)

_ERRNO = {
    **dict.fromkeys((errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN), Fault.SILENT),
    **dict.fromkeys((errno.ENOTCONN, errno.EBADF), Fault.LOST_CONNECTION),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOTDIR, errno.ELOOP), Fault.LOCKED_OUT),
}

#: SQLAlchemy's code for "Can't reconnect until invalid transaction is rolled back": the connection was lost before, and that error swallowed.
_INVALID_TRANSACTION = "8s2b"


def driver_error(error: BaseException) -> BaseException:
    """The error under SQLAlchemy's wrappers; the error itself if it is not wrapped."""
    while isinstance(error, exc.StatementError) and error.orig is not None:
        error = error.orig
    return error


def classify_foreign(error: BaseException) -> Fault:
    """What an error that is not the driver's means for the node that was being talked to.

    Args:
        error: as :func:`driver_error` returns it.

    Returns:
        ``CALLER`` for everything that says nothing of a database.
    """
    for kind, fault in _CLASSES:
        if isinstance(error, kind):
            return fault
    if isinstance(error, exc.PendingRollbackError) and error.code == _INVALID_TRANSACTION:
        return Fault.LOST_CONNECTION
    if isinstance(error, OSError):
        return _ERRNO.get(error.errno or 0, Fault.CALLER)
    return Fault.CALLER
