"""The example moves an application from SQLite to PostgreSQL and back while it writes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "move_to_postgresql.py"


def test_an_application_moves_there_and_back_without_losing_a_write() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counted = re.search(r"(\d+) writes acknowledged, (\d+) found, 0 lost, 0 twice", done.stdout)
    assert counted is not None, done.stdout
    assert int(counted[2]) >= int(counted[1]) > 50
    assert done.stdout.count("checked:") == 4
