"""The fixtures are in ``fix_*.py``, by concern."""

import contextlib
import os
import tempfile
from pathlib import Path

#: In the order in which they import one another: pytest rewrites the assertions of those that it imports first.
pytest_plugins = (
    "tests.fix_everyday",
    "tests.fix_shared",
    "tests.fix_pairs",
    "tests.fix_streaming",
    "tests.fix_proxy",
    "tests.fix_containers",
    "tests.fix_compose",
    "tests.fix_programs",
    "tests.fix_stores",
    "tests.fix_copies",
    "tests.fix_shop",
    "tests.fix_orphans",
    "tests.fix_mixed",
    "tests.fix_ordinary",
    "tests.fix_reconcile",
    "tests.fix_native",
)

GB = 2**30


def _keep_files_in_memory(place: str = "/dev/shm") -> None:
    """Temporary files go to memory where there is plenty: a database is some 300 files, which most disks' file systems take ten times as long to make.

    No test loses by it: what survives ``kill`` on a disk survives it there.  Whoever sets TMPDIR decides.
    """
    with contextlib.suppress(OSError, ValueError):
        found = os.statvfs(place)
        (available,) = (int(line.split()[1]) * 1024 for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable:"))
        if "TMPDIR" not in os.environ and not found.f_flag & os.ST_NOEXEC and min(found.f_bavail * found.f_frsize, available) > 6 * GB:
            os.environ["TMPDIR"] = tempfile.tempdir = place


_keep_files_in_memory()
