"""A program that dies at any point of a protocol leaves a state from which the same command goes on, and nothing is lost or done twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("at_every_statement.py")
#: REPLSTORE_CRASHES=all kills at every statement, also where that can make no difference to what is in the files.
EVERY = ["--all"] if os.environ.get("REPLSTORE_CRASHES") == "all" else []


@pytest.mark.parametrize(
    ("operation", "least"),
    [
        ("commit", 8),
        ("backlog", 6),
        ("backlog, then the writer is lost", 6),
        ("takeover", 6),
        ("takeover, then the writer is back", 6),
        ("switchover", 20),
        ("rejoin", 20),
        ("rejoin by copy", 20),
        ("rejoin in pieces", 24),
        ("replay of orphans", 10),
        ("discard of orphans", 6),
        ("resync", 10),
        ("first migration", 20),
        ("migration", 20),
        ("copy in parts", 20),
        ("copy in parts, then the writer is lost", 20),
        ("copy of a follower that lost its place", 20),
        ("switchover with a backlog", 30),
        ("forced takeover", 8),
        ("solo", 8),
        ("takeover with a witness", 15),
        ("solo with a witness", 10),
        ("pruning", 20),
    ],
)
@pytest.mark.timeout(900 if EVERY else 240)
def test_whoever_comes_after_a_crash_goes_on(operation: str, least: int, tmp_path: Path) -> None:
    place = tmp_path / "pair"
    place.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REPLSTORE_")}
    done = subprocess.run([sys.executable, str(PROGRAM), operation, str(place), *EVERY], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    crashes = [json.loads(line) for line in done.stdout.splitlines()]
    assert [crash for crash in crashes if crash["wrong"]] == []
    assert crashes[-1]["statement"] == "the end"
    assert len(crashes) >= least
