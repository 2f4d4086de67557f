"""What an error of PostgreSQL means: by SQLSTATE and severity; by libpq's text only while connecting, where it carries no code.

A server that turns a client away does send an SQLSTATE, but libpq keeps it to itself and psycopg gets a text: ``FATAL:  the database system is
starting up``.  The same goes for errno.  So the texts of connecting are read here, and what isn't recognised (another language, a proxy's own
words) is ``LOCKED_OUT``: something is wrong, and it is no proof that the server is dead.
"""

from __future__ import annotations

import errno
import os
import re

from psycopg import Error, OperationalError, errors
from sqlalchemy.exc import SQLAlchemyError

from replstore.databases.base import Fault
from replstore.databases.foreign import classify_foreign, driver_error

#: The guard's own SQLSTATE: this node is not the writer.
GUARD_REFUSED = "RS001"

_FATAL = ("FATAL", "PANIC")

#: SQLSTATEs whole, then classes (their first two characters); everything else is the caller's error.
_CODES = {
    GUARD_REFUSED: Fault.NOT_THE_WRITER,
    "25006": Fault.NOT_THE_WRITER,  # read-only transaction: a standby, or default_transaction_read_only
    "40001": Fault.TRANSIENT,  # serialization failure
    "40P01": Fault.TRANSIENT,  # deadlock
    "55P03": Fault.TIMEOUT,  # lock_timeout, NOWAIT
    "57014": Fault.TIMEOUT,  # statement_timeout, or cancelled by somebody
    "3D000": Fault.LOCKED_OUT,  # unknown database
    "58030": Fault.LOCKED_OUT,  # the server's disk fails
    "XX001": Fault.LOCKED_OUT,  # data corrupted: other tables still work, so the server isn't gone
    "XX002": Fault.LOCKED_OUT,  # index corrupted
}
_CLASSES = {
    "28": Fault.LOCKED_OUT,  # password, pg_hba.conf
    "53": Fault.LOCKED_OUT,  # disk full, out of memory, too many connections, a configured limit
}

#: What ends a session.  Sent as a plain ERROR it concerns another connection (dblink, postgres_fdw) or is an application's own RAISE.
_ENDS_THE_SESSION = {
    "57P03": Fault.SILENT,  # starting up, shutting down, in recovery
    "57P01": Fault.LOST_CONNECTION,
    "57P02": Fault.LOST_CONNECTION,
    "57P04": Fault.LOST_CONNECTION,
    "57P05": Fault.LOST_CONNECTION,
    "25P03": Fault.LOST_CONNECTION,
    "25P04": Fault.LOST_CONNECTION,
}

#: Header of psycopg's list of attempts, when there were several hosts or addresses.
_SEVERAL_ATTEMPTS = "Multiple connection attempts failed."
#: Windows appends the number of its own error.
_REFUSED = re.compile(rf"({re.escape(os.strerror(errno.ECONNREFUSED))}|Connection refused)( \(0x0000274D/10061\))?$")
#: The path tells a missing socket from a missing certificate.
_NO_SOCKET = re.compile(rf"/\.s\.PGSQL\.\d+\".*{re.escape(os.strerror(errno.ENOENT))}$")
#: A machine without IPv6 doesn't have this address at all, so nothing can be there; names like localhost resolve to it all the same.
_NO_LOOPBACK = re.compile(rf"[(\"]::1[)\"].*{re.escape(os.strerror(errno.EADDRNOTAVAIL))}$")

_NOT_READY = re.compile(r"FATAL: +the database system is (starting up|shutting down|in recovery mode|not (yet )?accepting connections)")
_ENDED = re.compile(r"FATAL: +terminating connection (due to administrator command|because of crash of another server process)")
_READ_ONLY = re.compile(r"failed: session is read-only$")  # the URL asks for target_session_attrs
_STANDBY = re.compile(r"failed: server is in hot standby mode$")  # the same, and the server says that it is no primary
_UNREACHABLE = ("ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH", "EHOSTDOWN", "ENETDOWN")
_SILENT = ("timeout expired", *(os.strerror(getattr(errno, name)) for name in _UNREACHABLE if hasattr(errno, name)))
#: A name that can't be resolved says nothing of the server behind it, only of the resolver.
_NO_ADDRESS = ("failed to resolve host", "could not translate host name")
_CUT = ("server closed the connection unexpectedly", os.strerror(errno.ECONNRESET), os.strerror(errno.EPIPE))


def classify(error: BaseException) -> Fault:
    """What an error means for the pair.

    Args:
        error: psycopg's, SQLAlchemy's around it, or the operating system's, raised while talking to the node.

    Returns:
        The fault. A session that the server ended is ``LOST_CONNECTION`` whatever the reason, its time limits included: the node lives, and
        the caller asks it again. ``CALLER`` for everything that says nothing of the node.
    """
    error = driver_error(error)
    if not isinstance(error, Error):
        return classify_foreign(error)
    if error.sqlstate is not None:
        return _of_sqlstate(error.sqlstate, _severity(error))
    if isinstance(error, errors.ConnectionTimeout) or error.pgconn is not None or str(error).startswith(_NO_ADDRESS):
        return _of_connecting(str(error))
    if isinstance(error, OperationalError) and not isinstance(error, errors.PipelineAborted):
        return Fault.LOST_CONNECTION  # libpq's own: the server sent no error, the socket ended
    return Fault.CALLER


def commit_in_doubt(error: BaseException) -> bool:
    """Whether a COMMIT that raised this error may have happened, or may still happen.

    An ERROR of the server is a rollback. A FATAL isn't: the session may have ended after the commit. Nor is a socket that ended.
    """
    error = driver_error(error)
    if not isinstance(error, Error):
        return not isinstance(error, SQLAlchemyError)  # SQLAlchemy's own: it sent no COMMIT
    if error.sqlstate is not None:
        severity = _severity(error)
        return severity in _FATAL or (severity is None and error.sqlstate in _ENDS_THE_SESSION)
    return not isinstance(error, (errors.ProgrammingError, errors.InterfaceError, errors.NotSupportedError))  # psycopg refused to send it


def _severity(error: Error) -> str | None:
    """ERROR, FATAL or PANIC, in English whatever the server's language; None: the error doesn't come from a server's message."""
    return error.diag.severity_nonlocalized


def _of_sqlstate(code: str, severity: str | None) -> Fault:
    if code in _ENDS_THE_SESSION and severity != "ERROR":
        return _ENDS_THE_SESSION[code]
    if severity in _FATAL:
        return Fault.LOST_CONNECTION
    return _CODES.get(code) or _CLASSES.get(code[:2], Fault.CALLER)


def _of_connecting(text: str) -> Fault:
    """The fault of a whole message, which holds a line for each address tried; REFUSED only if every one of them refused, or, where the URL asks for a
    primary, is a standby: then no primary is there."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(("\t", _SEVERAL_ATTEMPTS))]  # hints begin with a tab
    found = {_of_attempt(line) for line in lines if not _STANDBY.search(line)}
    if lines and not found:
        return Fault.NOT_THE_WRITER
    for fault in (Fault.NOT_THE_WRITER, Fault.LOCKED_OUT, Fault.SILENT, Fault.LOST_CONNECTION):
        if fault in found:
            return fault
    return Fault.REFUSED if found == {Fault.REFUSED} else Fault.LOCKED_OUT


def _of_attempt(line: str) -> Fault | None:
    """The fault that one line tells; None: the line says nothing known (a DETAIL, a foreign language)."""
    if _NOT_READY.search(line):
        return Fault.SILENT
    if _ENDED.search(line):
        return Fault.LOST_CONNECTION
    if "FATAL:" in line:
        return Fault.LOCKED_OUT
    if _REFUSED.search(line) or _NO_SOCKET.search(line) or _NO_LOOPBACK.search(line):
        return Fault.REFUSED
    if _READ_ONLY.search(line):
        return Fault.NOT_THE_WRITER
    if line.endswith(_SILENT) or any(text in line for text in _NO_ADDRESS):
        return Fault.SILENT
    if line.endswith(_CUT):
        return Fault.LOST_CONNECTION
    return None
