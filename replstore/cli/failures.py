"""Every error of a command as one sentence on stderr and an exit code: 2 for what the user gave and for databases that can't be reached, else the command's own.

A traceback is shown for a mistake of ours only, or with ``REPLSTORE_DEBUG=1``; what looks like a password in a URL is taken out of everything.
"""

from __future__ import annotations

import os
import sys
import traceback

import typer

from replstore.errors import ConfigError, ReplstoreError

BAD_INPUT = 2
INTERRUPTED = 130
#: PEP 249's classes, under which every driver and SQLAlchemy report a database that can't be reached or isn't one.
_UNREACHABLE = frozenset({"OperationalError", "InterfaceError"})
#: The attribute by which a driver's error says which node it comes from.
NODE = "replstore_node"
_DATABASE_MODULES = frozenset({"sqlalchemy", "psycopg", "psycopg_pool", "sqlite3"})


def report(error: Exception, failure: int) -> int:
    """Prints an error and says with which code the program ends.

    Args:
        error: what the command raised.
        failure: the command's own code for "it failed".
    """
    if isinstance(error, typer.Abort) or _is_interrupt(error):
        return INTERRUPTED
    sentence, code = _explain(error, failure)
    if sentence is None or os.environ.get("REPLSTORE_DEBUG", "") not in ("", "0"):
        _print("".join(traceback.format_exception(error)).rstrip())
    if sentence is None:
        sentence = f"this is a mistake in replstore, not yours ({type(error).__name__}); please report it with the lines above"
    _print(f"replstore: {' '.join(sentence.split())}")
    return code


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is at the bottom of it: whatever was interrupted may have made an error of its own of that."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _explain(error: Exception, failure: int) -> tuple[str | None, int]:
    """The sentence, None where the error is nobody's but ours, and the exit code."""
    if isinstance(error, ConfigError):
        return str(error), BAD_INPUT
    if isinstance(error, ReplstoreError):
        return str(error), failure
    if hasattr(error, "format_message"):  # typer's own: an unknown option, a missing argument
        context = getattr(error, "ctx", None)
        where = f" (`{context.command_path} --help` shows what there is)" if context is not None else ""
        return error.format_message().replace("Value error, ", "").rstrip(".") + where, BAD_INPUT
    if isinstance(error, OSError):
        return ": ".join(str(part) for part in (error.filename, error.strerror) if part) or str(error), BAD_INPUT
    classes = {cls.__name__ for cls in type(error).__mro__}
    if type(error).__module__.partition(".")[0] in _DATABASE_MODULES:
        from replstore.node import one_line

        message = one_line(error).partition(" [SQL:")[0].partition(" (Background")[0]
        plain = type(error).__name__ == "DatabaseError"  # SQLite: a file that is no database
        who = getattr(error, NODE, "the database")
        return f"{who} answers: {message}", BAD_INPUT if plain or classes & _UNREACHABLE else failure
    return None, failure


def _print(text: str) -> None:
    if any(sign in text.lower() for sign in ("@", "passw", "connection", "uri ", "percent-encoded", "unexpected spaces")):
        from replstore.urls import redact

        text = redact(text)
    print(text, file=sys.stderr)
