"""What the servers need of the operating system: a user other than root, signals to a whole server, a watchdog that tidies up after us."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import pwd
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

#: Waits until the program is gone (its end of the pipe closes), then ends the server whose pid is noted and removes the directory.
_WATCHDOG = """
read -r _
if pid=$(cat "$1/running" 2>/dev/null) && [ -n "$pid" ]; then
    kill -QUIT "$pid"; kill -CONT "$pid"
    n=0; while kill -0 "$pid" && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
fi
rm -rf "$1"
"""


@functools.cache
def server_user() -> tuple[int, int] | None:
    """User and group under which the server runs; None: our own. Root runs it as ``postgres`` if there is such a user, else as ``nobody``."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    return 65534, 65534


def spawn(
    command: Sequence[str],
    output: IO[bytes] | int,
    *,
    directory: Path,
    user: tuple[int, int] | None = None,
    variables: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that Ctrl-C reaches us and not the server.

    Args:
        command: the program and its arguments.
        output: where its output and its errors go.
        directory: where it runs.
        user: user and group under which it runs if we are root; :func:`server_user` if not given.
        variables: added to its environment, from which PostgreSQL's own and those of the language are taken.
    """
    user = (user or server_user()) if os.geteuid() == 0 else None
    other: dict[str, Any] = {} if user is None else {"user": user[0], "group": user[1], "extra_groups": []}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))} | {"LC_ALL": "C"}
    environment |= variables or {}
    return subprocess.Popen(
        command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, **other
    )


def private_directory() -> Path:
    """A new temporary directory that belongs to :func:`server_user`, short enough for a Unix socket in it (107 bytes on Linux, 103 on macOS)."""
    parent = Path(tempfile.gettempdir())
    if len(str(parent)) > 60 or not _open_to_all(parent):
        parent = Path("/tmp")
    directory = Path(tempfile.mkdtemp(prefix="replstore-", dir=parent))
    if user := server_user():
        os.chown(directory, *user)
    return directory


def give(path: Path, owner: tuple[int, int]) -> None:
    """Make a file or directory another's, as only root can; whoever isn't root has made it his own."""
    if os.geteuid() == 0:
        os.chown(path, *owner)


def _open_to_all(directory: Path) -> bool:
    return all(part.stat().st_mode & 0o001 for part in (directory, *directory.resolve().parents))


def watch(directory: Path) -> subprocess.Popen[bytes]:
    """A process that removes the directory, and ends the server noted in it, when this program dies without having done so itself."""
    return subprocess.Popen(
        ["/bin/sh", "-c", _WATCHDOG, "replstore-watchdog", str(directory)],
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def end_watch(watchdog: subprocess.Popen[bytes]) -> None:
    """End a watchdog that has nothing left to do."""
    watchdog.kill()
    watchdog.wait()
    if watchdog.stdin:
        watchdog.stdin.close()


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    if Path("/proc/self/stat").exists():
        pairs = [(int(name), _stat(int(name))) for name in os.listdir("/proc") if name.isdigit()]
        return [child for child, stat in pairs if stat and int(stat[1]) == pid]
    table = subprocess.run(["ps", "-A", "-o", "pid=", "-o", "ppid="], capture_output=True, text=True, check=True).stdout
    return [int(child) for child, parent in (line.split() for line in table.splitlines()) if int(parent) == pid]


def alive(pid: int) -> bool:
    """Whether a process still runs; one that has ended and waits for its parent doesn't."""
    if Path("/proc/self/stat").exists():
        stat = _stat(pid)
        return stat is not None and stat[0] not in ("Z", "X")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def is_child(pid: int, parent: int) -> bool:
    """Whether a process is there, and was started by another one."""
    if Path("/proc/self/stat").exists():
        stat = _stat(pid)
        return stat is not None and int(stat[1]) == parent
    return pid in children(parent)


def _stat(pid: int) -> list[str] | None:
    """State, parent, … of a process: what follows its name, which may hold blanks and parentheses."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def send(pids: Iterable[int], what: signal.Signals) -> None:
    """Send a signal to processes, some of which may have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)


def postmaster_lines(data: Path) -> list[str]:
    """What the postmaster has written into its pid file; empty: there is none."""
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def postmaster_status(data: Path) -> str:
    """What the postmaster says of itself, in its pid file's eighth line; empty: nothing yet."""
    return "".join(postmaster_lines(data)[7:8]).strip()


def remove_shared_memory(data: Path) -> None:
    """Remove the System V segment that a killed postmaster has left; it is named in the seventh line of its pid file."""
    with contextlib.suppress(IndexError, ValueError):
        segment = int(postmaster_lines(data)[6].split()[1])
        ctypes.CDLL(None).shmctl(segment, 0, None)  # 0: IPC_RMID
