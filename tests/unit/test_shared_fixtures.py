"""What a failed test leaves behind in what its module shares meets nobody."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULE = """
from pathlib import Path
import pytest

def tell(*words):
    with Path("told").open("a") as file:
        print(*words, file=file)

@pytest.fixture(scope="module", params=["one", "other"])
def shelf(request):
    books = []
    tell("built", request.param)
    yield books
    tell("cleared", request.param)

@pytest.fixture
def reader(shelf):
    yield shelf
    shelf.append("a mark")

attempts = []

def test_first(reader):
    reader.append("a book")

def test_fails_once(reader):
    attempts.append(reader)
    reader.append("half a book")
    assert len(attempts) % 2 == 0, "the first attempt"

def test_last(shelf):
    tell("left:", *shelf)
"""


def test_a_second_attempt_finds_nothing_of_the_first(tmp_path: Path) -> None:
    (tmp_path / "test_shelf.py").write_text(MODULE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.fix_shared", "--reruns", "1", "--rerun-show-tracebacks", "test_shelf.py"]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "told").read_text().splitlines() == [
        line
        for name in ("one", "other")
        for line in (f"built {name}", f"cleared {name}", f"built {name}", "left: half a book a mark", f"cleared {name}")
    ]
    assert "the first attempt" in done.stdout  # and why it failed is told
