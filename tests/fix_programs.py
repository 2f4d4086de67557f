"""Other Python processes, which say a line at a time and wait for one: what another program does at the same time, or while it stands still."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest

#: Reads a batch, and applies it when it is told to: what another program's shipper does that stood still in between.
BATCH = """
import sys
from sqlalchemy import make_url
from replstore.node import Node
from replstore.replication.journal.ship import Shipper
from tests.fix_stores import Batch
nodes = [Node(name, make_url(url), seconds=2.0) for name, url in zip(("primary", "standby"), sys.argv[1:])]
batch = Batch(Shipper(*nodes))
print("read", flush=True)
sys.stdin.readline()
try:
    batch.go_on(eligible=True)
except Exception as error:
    print("failed:", " ".join(str(error).split()), flush=True)
else:
    print("applied", flush=True)
"""


class Program:
    """A Python process on pipes.

    Args:
        source: what it executes.
        arguments: its ``sys.argv[1:]``.
    """

    def __init__(self, source: str, *arguments: str) -> None:
        command = [sys.executable, "-c", source, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.pid = self._process.pid

    def says(self) -> str:
        """Its next line; empty: it has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def tell(self, line: str = "go on") -> None:
        """The line that it waits for."""
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)

    def ask(self, line: str) -> str:
        """Its answer to a line."""
        self.tell(line)
        return self.says()

    def freeze(self) -> None:
        """It stands still until ``wake``."""
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, also while it stands still; nothing of it is left after that."""
        self._process.kill()
        self._process.communicate()


def at_once(programs: Sequence[Program]) -> list[str]:
    """Lets programs that are ready go on together; what each of them says then."""
    for program in programs:
        assert program.says() == "ready"
    for program in programs:
        program.tell()
    return [program.says() for program in programs]


@pytest.fixture
def program() -> Iterator[Callable[..., Program]]:
    """Begins programs, which end with the test."""
    begun: list[Program] = []

    def begin(source: str, *arguments: str) -> Program:
        begun.append(Program(source, *arguments))
        return begun[-1]

    yield begin
    for each in begun:
        each.kill()
