"""What only a former primary has: the transactions whose commits its write-ahead log holds behind the place where another server went on without it.

Read from the files of a stopped server, so that nothing has to be started, and nothing of any database of the cluster goes by.
"""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from replstore.errors import ReplstoreError
from replstore.local import system
from replstore.local.data_directory import DataDirectory
from replstore.local.following import timelines_in

#: Relations that ANALYZE fills, by the numbers of their files: pg_statistic, pg_statistic_ext_data, with indexes and TOAST.
_STATISTICS = {"2619", "2696", "2840", "2841", "3429", "3433", "3430", "3431"}
_RECORD = re.compile(r"rmgr: (\w+) .*?, tx: +(\d+), lsn: ([0-9A-F]+)/([0-9A-F]+), .*?desc: (.*)")
_COMMIT = re.compile(r"COMMIT(?:_PREPARED (\d+):)? (\S+ \S+ \w+)")
_SUBTRANSACTIONS = re.compile(r"subxacts: ([\d ]+)")
_RELATION = re.compile(r"rel \d+/\d+/(\d+)")


@dataclass(frozen=True)
class Lost:
    """A transaction that only the former primary has.

    Attributes:
        xids: its number, then those of its subtransactions; as rows have them in ``xmin``.
        at: when it was committed, by that server's clock.
        place: where in the log, as a number of bytes.
    """

    xids: tuple[int, ...]
    at: str
    place: int


def fork(node: DataDirectory, timelines: Mapping[int, int | None]) -> tuple[int, int] | None:
    """Where a stopped node's history left that of a writer.

    Args:
        node: its directory.
        timelines: of the writer; see :func:`~replstore.local.following.timelines_of`.

    Returns:
        The last timeline that both have, and how far both have it; None: the node's history goes on in the writer's.

    Raises:
        ReplstoreError: that can't be told.
    """
    mine = _timelines(node)
    common = sorted(set(mine) & set(timelines))
    if not common:
        raise ReplstoreError(f"{node.path} and the writer have no timeline in common")
    for number in common:
        here, there = (math.inf if end is None else end for end in (mine[number], timelines[number]))
        if here != there:
            return number, int(min(here, there))
    return None


def _timelines(node: DataDirectory) -> dict[int, int | None]:
    logs = node.path / "pg_wal"
    latest = max((int(each.name[:8], 16) for each in logs.iterdir() if re.fullmatch(r"[0-9A-F]{24}", each.name)), default=None)
    if latest is None:
        raise ReplstoreError(f"{logs} holds no write-ahead log")
    history = logs / f"{latest:08X}.history"
    return {**timelines_in(history.read_text() if history.exists() else ""), latest: None}


def lost_transactions(node: DataDirectory, timeline: int, place: int) -> list[Lost]:
    """The transactions that a stopped node has committed behind a place of its log, without those that changed nothing but statistics.

    Args:
        node: its directory.
        timeline: the one on which it wrote.
        place: where the writer's history leaves it, as a number of bytes.

    Raises:
        ReplstoreError: the log doesn't reach back so far any more.
    """
    # a transaction of which nothing but the commit lies behind the place may have changed anything before it
    harmless: dict[int, bool] = {}
    found: list[Lost] = []
    for kind, xid, at, what in _records(node, timeline, place):
        commit = _COMMIT.match(what) if kind == "Transaction" else None
        if commit is None:
            if xid and kind not in ("Transaction", "Standby"):
                harmless[xid] = harmless.get(xid, True) and _is_harmless(kind, what)
            continue
        subtransactions = _SUBTRANSACTIONS.search(what)
        xids = (int(commit[1] or xid), *map(int, subtransactions[1].split() if subtransactions else ()))
        if not all(harmless.get(each, False) for each in xids):
            found.append(Lost(xids, commit[2], at))
    return found


def _is_harmless(kind: str, what: str) -> bool:
    if kind == "LogicalMessage" or (kind in ("Heap", "Heap2") and what.startswith(("LOCK", "INPLACE"))):
        return True
    relations = _RELATION.findall(what)
    return bool(relations) and all(each in _STATISTICS for each in relations)


def _records(node: DataDirectory, timeline: int, place: int) -> Iterator[tuple[str, int, int, str]]:
    """Kind, transaction, place and description of each record."""
    start = f"{place >> 32:X}/{place & 0xFFFFFFFF:X}"
    first, last = _segments(node, timeline, place)
    command = [str(node.bindir / "pg_waldump"), "-s", start, str(first), last]
    process = system.spawn(command, subprocess.PIPE, directory=node.path.parent, user=node.owner)
    assert process.stdout is not None
    said = ""
    try:
        for line in process.stdout:
            said = line.decode(errors="replace").strip()
            if match := _RECORD.match(said):
                yield match[1], int(match[2]), int(match[3], 16) << 32 | int(match[4], 16), match[5]
    finally:
        process.stdout.close()
        process.wait()
    # a log ends where no record begins any more, which the program calls an error
    if process.returncode and "error in WAL record" not in said and "could not find a valid record after" not in said:
        raise ReplstoreError(f"the log of {node.path} can't be read from {start} on: {said}")


def _segments(node: DataDirectory, timeline: int, place: int) -> tuple[Path, str]:
    """The file that holds a place, and the name of the timeline's last one.  They are named: left to choose, the program takes any for the first, an empty
    one too."""
    logs = node.path / "pg_wal"
    files = sorted(each for each in logs.iterdir() if re.fullmatch(f"{timeline:08X}[0-9A-F]{{16}}", each.name))
    size = files[0].stat().st_size if files else 1
    number, each = place // size, 2**32 // size
    first = logs / f"{timeline:08X}{number // each:08X}{number % each:08X}"
    if first not in files:
        raise ReplstoreError(f"{logs} no longer has {first.name}, in which the histories part")
    return first, files[-1].name


def latest(lost: Iterable[Lost]) -> int:
    """Where the last one was committed; 0: there is none."""
    return max((each.place for each in lost), default=0)
