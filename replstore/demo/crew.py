"""The processes that write."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from replstore.demo.worker import Job

#: s that a process gets to end by itself: a call may still wait for the follower.
PATIENCE = 15.0


class Crew:
    """Processes, each with a Store of its own.

    Args:
        jobs: one for each.
        directory: where what they print on stderr goes.
    """

    def __init__(self, jobs: Sequence[Job], directory: Path) -> None:
        self._errors = [directory / f"worker-{job.worker}.err" for job in jobs]
        self._processes: list[subprocess.Popen[str]] = []
        try:
            for job, path in zip(jobs, self._errors, strict=True):
                with path.open("w") as errors:
                    # a session of its own: Ctrl-C is for the parent, which ends the others
                    process = subprocess.Popen(
                        [sys.executable, "-m", "replstore.demo.worker"],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.DEVNULL,
                        stderr=errors,
                        text=True,
                        start_new_session=True,
                    )
                self._processes.append(process)
                assert process.stdin is not None
                process.stdin.write(job.to_json() + "\n")
                process.stdin.flush()
        except BaseException:
            self.kill()
            raise

    def dead(self) -> list[str]:
        """Sentences about processes that ended although nobody told them to, or badly."""
        found = []
        for number, (process, path) in enumerate(zip(self._processes, self._errors, strict=True), start=1):
            code = process.poll()
            if code is not None and (code != 0 or (process.stdin is not None and not process.stdin.closed)):
                said = path.read_text(errors="replace").strip().splitlines()
                found.append(f"process {number} ended with code {code}" + (f": {said[-1]}" if said else ""))
        return found

    def stop(self) -> None:
        """Tells all to stop, and waits until each has finished its order."""
        for process in self._processes:
            if process.stdin is not None and not process.stdin.closed:
                process.stdin.close()
        for process in self._processes:
            process.wait(PATIENCE)

    def kill(self) -> None:
        """Ends what still runs."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
        for process in self._processes:
            process.wait()
            if process.stdin is not None and not process.stdin.closed:
                process.stdin.close()
