"""Several client processes, and the processor time of servers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from replstore.local import PostgresServer, system


class Crew:
    """Processes of ``worker.py``.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        command = [sys.executable, "-m", "benchmarks.worker"]
        here = Path(__file__).parent.parent
        self._processes = [subprocess.Popen(command, cwd=here, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()

    def tell(self, number: int, command: dict[str, Any]) -> None:
        """Gives one of them a command."""
        stdin = self._processes[number].stdin
        assert stdin is not None
        stdin.write(json.dumps(command) + "\n")
        stdin.flush()

    def answer(self, number: int) -> dict[str, Any]:
        """What it answers.

        Raises:
            RuntimeError: it has ended instead.
        """
        stdout = self._processes[number].stdout
        assert stdout is not None
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"client process {number} has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def all(self, commands: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """One command for each of the first ones, at the same time, and their answers."""
        told = list(enumerate(commands))
        for number, command in told:
            self.tell(number, command)
        return [self.answer(number) for number, _ in told]


def server_time(servers: Iterable[PostgresServer]) -> float:
    """Processor time that the servers' running processes have taken, in s; 0 where the system doesn't tell."""
    total = 0
    for server in servers:
        for pid in (server.pid, *system.children(server.pid)):
            with suppress(OSError, ValueError, IndexError):
                total += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    return total / 1e9
