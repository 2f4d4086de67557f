"""Forks processes that have the packages which replstore uses, and nothing of replstore itself, imported already.

Run as a program.  Each line of standard input is a request, JSON: ``code`` to run as a program, its ``arguments``, directory ``cwd`` and
``environment``, and the files ``stdout`` and ``stderr``.  Each is answered by two lines: the process's number, and its exit code.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any

PACKAGES = (
    "alembic.command",
    "concurrent.futures.thread",
    "pydantic_settings",
    "rich.console",
    "rich.progress",
    "rich.table",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite",
    "sqlalchemy.orm",
    "tenacity",
    "typer",
)


def serve() -> dict[str, Any] | None:
    """Forks for each request; returns in the new process, with the request, and in this one when there are no more."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            return json.loads(line)  # type: ignore[no-any-return]
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return None


def become(request: dict[str, Any]) -> None:
    """Makes of this process what an interpreter with ``-c CODE ARGUMENTS`` would be."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for descriptor, opened in enumerate((os.open(os.devnull, os.O_RDONLY), os.open(request["stdout"], flags), os.open(request["stderr"], flags))):
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, errors="backslashreplace", buffering=1)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    sys.argv = ["-c", *request["arguments"]]
    sys.path[0] = ""


if __name__ == "__main__":
    for package in PACKAGES:
        import_module(package)
    if request := serve():
        become(request)
        exec(compile(request["code"], "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
