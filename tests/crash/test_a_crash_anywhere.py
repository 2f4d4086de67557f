"""A program that dies at any point of a protocol leaves a state from which the same command goes on, and nothing is lost or done twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fix_everyday import ALL

PROGRAM = Path(__file__).with_name("at_every_statement.py")
#: A run of all tests kills at every statement, also where that can make no difference to what is in the files.
EVERY = ["--all"] if ALL else []


@pytest.mark.parametrize(
    ("operation", "least"),
    [
        ("commit", 4),
        ("backlog", 3),
        ("backlog, then the writer is lost", 3),
        ("takeover", 5),
        ("takeover, then the writer is back", 5),
        ("switchover", 11),
        ("rejoin", 8),
        ("rejoin by copy", 8),
        ("rejoin in pieces", 10),
        ("replay of orphans", 8),
        ("discard of orphans", 4),
        ("resync", 5),
        ("first migration", 10),
        ("migration", 9),
        ("copy in parts", 9),
        ("copy in parts, then the writer is lost", 9),
        ("copy of a follower that lost its place", 8),
        ("switchover with a backlog", 13),
        ("forced takeover", 3),
        ("solo", 4),
        ("takeover with a witness", 6),
        ("solo with a witness", 5),
        ("pruning", 10),
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
