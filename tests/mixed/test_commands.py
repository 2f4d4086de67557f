"""The command on a mixed pair, in a process of its own: nothing in it asks what kind of pair it is."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.fix_mixed import MixedLab


def replstore(lab: MixedLab, *arguments: str) -> subprocess.CompletedProcess[str]:
    urls = ["--primary", lab.pair.primary_url, "--standby", lab.pair.standby_url]
    return subprocess.run(
        [sys.executable, "-m", "replstore", arguments[0], *urls, *arguments[1:]], capture_output=True, text=True, timeout=60, check=False
    )


def test_an_existing_file_becomes_a_pair_with_a_server_and_hands_over_to_it(file_first: MixedLab) -> None:
    file_first.sql("primary", "CREATE TABLE word (id INTEGER PRIMARY KEY, word TEXT NOT NULL)", "INSERT INTO word VALUES (1, 'one'), (2, 'two')")
    done = replstore(file_first, "migrate")
    assert done.returncode == 0, done.stderr
    assert "1 table is replicated: public.word" in done.stdout
    done = replstore(file_first, "check", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert [(table["name"], table["rows"]) for table in json.loads(done.stdout)["tables"] if "word" in table["name"]] == [
        ("public.word", {"primary": 2, "standby": 2})
    ]
    assert replstore(file_first, "switchover").returncode == 0
    file_first.sql("standby", "UPDATE word SET word = 'uno' WHERE id = 1")
    assert replstore(file_first, "sync").returncode == 0
    assert file_first.sql("primary", "SELECT word FROM word WHERE id = 1") == [("uno",)]
    status = json.loads(replstore(file_first, "status", "--format", "json").stdout)
    assert status["writer"] == "standby"


def test_a_table_that_does_not_cross_is_one_clear_sentence(server_first: MixedLab) -> None:
    server_first.sql("primary", "CREATE TABLE bad (id integer PRIMARY KEY, doc jsonb)")
    done = replstore(server_first, "migrate")
    assert done.returncode == 2
    assert "table bad can't be replicated between SQLite and PostgreSQL: column doc is of type jsonb" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
