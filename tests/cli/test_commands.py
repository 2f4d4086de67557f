"""The commands that look at a pair and act on it, as processes of their own, on two files and on two servers."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from replstore import local
from replstore.cli.status import render
from replstore.pair.status import NodeStatus, Status
from tests.cli.fix_command import ROOT, Run

ITEMS = "CREATE TABLE item (id integer PRIMARY KEY, name text NOT NULL); INSERT INTO item VALUES (1, 'cup'), (2, 'tray')"


class Shop:
    """A pair and the command on it.

    Args:
        run: the fixture.
        pair: the pair.
    """

    def __init__(self, run: Run, pair: local.Pair) -> None:
        self._run, self.pair = run, pair
        self.urls = ("--primary", pair.primary_url, "--standby", pair.standby_url)

    def call(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """What a command prints; its exit code must be ``code``."""
        done = self._run(*arguments, *self.urls, **environment)
        assert done.returncode == code, done.stdout + done.stderr
        assert done.stderr == ""
        return done.stdout

    def facts(self, *arguments: str, code: int = 0) -> Any:
        """The same as JSON."""
        return json.loads(self.call(*arguments, "--format", "json", code=code))

    def refused(self, *arguments: str, code: int) -> str:
        """The one sentence of a command that fails."""
        done = self._run(*arguments, *self.urls)
        assert done.returncode == code, done.stdout + done.stderr
        assert done.stdout == ""
        (sentence,) = done.stderr.splitlines()
        return sentence


def rows(pair: local.SqlitePair, node: local.Name, query: str = "SELECT id, name FROM item ORDER BY id") -> list[tuple[Any, ...]]:
    """A query by another program."""
    with contextlib.closing(sqlite3.connect(pair.path(node), timeout=10)) as connection:
        return connection.execute(query).fetchall()


def change(pair: local.SqlitePair, node: local.Name, script: str) -> None:
    """A change by another program."""
    with contextlib.closing(sqlite3.connect(pair.path(node), timeout=10)) as connection:
        connection.executescript(script)


@pytest.fixture
def shop(run: Run, sqlite_pair: local.SqlitePair) -> Shop:
    """Two files, of which the primary has a table with rows."""
    change(sqlite_pair, "primary", ITEMS)
    return Shop(run, sqlite_pair)


@pytest.fixture
def files(sqlite_pair: local.SqlitePair) -> local.SqlitePair:
    return sqlite_pair


def wait_for(what: Any, seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


# -- migrate


def test_an_existing_database_becomes_a_pair_by_two_urls(shop: Shop, files: local.SqlitePair) -> None:
    assert not files.path("standby").exists()
    said = shop.call("migrate")
    assert "The primary writes, the standby follows; 1 table is replicated: item." in said
    assert "Copied to the standby: item." in said
    assert rows(files, "standby") == [(1, "cup"), (2, "tray")]
    again = shop.facts("migrate")
    assert again == {"revision": "0004", "user_revision": None, "tables": ["item"], "copied": [], "behind": None, "left_out": []}


def test_two_files_that_do_not_exist_become_a_pair(run: Run, files: local.SqlitePair) -> None:
    shop = Shop(run, files)
    assert "there is no table of yours yet" in shop.call("migrate")
    assert "Primary writes, standby follows" in shop.call("status")


def test_metadata_of_a_module_is_created_on_both(shop: Shop, files: local.SqlitePair, tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(
        "from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column\n"
        "class Base(DeclarativeBase): pass\n"
        "class Box(Base):\n    __tablename__ = 'box'\n    id: Mapped[int] = mapped_column(primary_key=True)\n"
    )
    shop.call("migrate", "--metadata", "models:Base")
    facts = shop.facts("migrate", "--metadata", "models:Base.metadata")
    assert facts["tables"] == ["box", "item"]
    assert rows(files, "standby", "SELECT count(*) FROM box") == [(0,)]


def test_an_alembic_environment_is_brought_to_its_head_on_both(shop: Shop, files: local.SqlitePair, tmp_path: Path) -> None:
    versions = tmp_path / "alembic" / "versions"
    versions.mkdir(parents=True)
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/alembic\n")
    (tmp_path / "alembic" / "env.py").write_text(
        "from alembic import context\nconnection = context.config.attributes['connection']\ncontext.configure(connection=connection)\n"
        "with context.begin_transaction():\n    context.run_migrations()\n"
    )
    (versions / "one.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\nrevision, down_revision = 'a1', None\n"
        "def upgrade():\n    op.create_table('box', sa.Column('id', sa.Integer, primary_key=True))\n    op.execute('INSERT INTO box VALUES (7)')\n"
    )
    said = shop.call("migrate", "--alembic-config", "alembic.ini")
    assert "Your Alembic environment is at revision a1." in said
    assert "item" in said
    for node in ("primary", "standby"):
        assert rows(files, node, "SELECT id FROM box") == [(7,)]
        assert rows(files, node, "SELECT version_num FROM alembic_version") == [("a1",)]


def test_a_node_that_was_lost_for_good_is_replaced(shop: Shop, files: local.SqlitePair) -> None:
    shop.call("migrate")
    for file in files.directory.glob("standby.db*"):
        file.unlink()
    change(files, "standby", "")
    assert "`replstore migrate --replace standby`" in shop.refused("migrate", code=2)
    shop.call("migrate", "--replace", "standby")
    assert rows(files, "standby") == [(1, "cup"), (2, "tray")]
    assert shop.facts("status")["acknowledge"] == "replicated"


# -- status


def test_status_prints_the_fields_of_status(shop: Shop) -> None:
    shop.call("migrate")
    facts = shop.facts("status")
    assert list(facts) == [field.name for field in dataclasses.fields(Status)]
    assert list(facts["nodes"]) == ["primary", "standby"]
    assert list(facts["nodes"]["primary"]) == [field.name for field in dataclasses.fields(NodeStatus)]
    assert (facts["writer"], facts["term"], facts["nodes"]["standby"]["waiting"]) == ("primary", 1, 0)


def test_status_names_changes_that_are_not_shipped(shop: Shop, files: local.SqlitePair) -> None:
    shop.call("migrate")
    change(files, "primary", "INSERT INTO item VALUES (3, 'spoon'), (4, 'jug')")
    assert shop.facts("status")["nodes"]["standby"]["waiting"] == 2
    assert "The follower has everything that was committed before" in shop.call("sync")
    assert shop.facts("status")["nodes"]["standby"]["waiting"] == 0
    assert len(rows(files, "standby")) == 4


def test_status_says_what_to_do_when_the_writer_is_gone(shop: Shop, files: local.SqlitePair) -> None:
    shop.call("migrate")
    files.kill("primary")
    said = " ".join(shop.call("status", code=1, COLUMNS="300").split())
    assert "No node writes now." in said
    assert "nothing is there: its server is down or its file is gone" in said
    assert "Next: Any running Store takes over by itself; `replstore takeover` does it now." in said


def test_status_warns_of_a_table_that_nobody_migrated_and_fails_where_changes_go_by(shop: Shop, files: local.SqlitePair) -> None:
    shop.call("migrate")
    change(files, "primary", "CREATE TABLE box (id integer PRIMARY KEY)")
    assert shop.facts("status")["warnings"] == ["primary: table box is not replicated: run `replstore migrate`"]
    assert "Warning: primary: table box is not replicated" in shop.call("status", COLUMNS="300")
    change(files, "primary", "ALTER TABLE item ADD note text")
    lost = "capture_missing: table item on primary: its columns or capture triggers are not those that migrate left; run `replstore migrate`"
    assert shop.facts("status", code=1)["stopped"].startswith(lost)
    assert f"Shipping: {lost}" in shop.call("status", code=1, COLUMNS="300")
    shop.call("migrate")
    assert shop.facts("status")["warnings"] == []


def test_a_pair_that_is_async_on_purpose_is_healthy(shop: Shop, files: local.SqlitePair) -> None:
    shop.call("migrate", "--durability", "async")
    assert shop.facts("status")["acknowledge"] == "alone"
    files.kill("standby")
    assert shop.facts("status", code=1)["writer"] == "primary"


def test_status_watches_until_it_is_interrupted(shop: Shop, tmp_path: Path) -> None:
    shop.call("migrate")
    with started(tmp_path, "status", "--watch", "--format", "json", *shop.urls) as process:
        assert process.stdout is not None
        looks = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert [look["writer"] for look in looks] == ["primary", "primary"]
    assert process.returncode == 0
    assert errors == ""


@pytest.mark.parametrize("width", [80, 120])
def test_status_fits_the_screen(width: int) -> None:
    """No line is longer than the screen, and no word of a sentence is broken."""
    error = 'connection to server at "db-two.example.org", port 5432 failed: Connection refused'
    sentence = "nothing is there: its server is down or its file is gone"
    long = "postgresql+psycopg://application:***@db-two.some-region.rds.example.org:5432/application_production"
    nodes = {
        "primary": NodeStatus("primary", "postgresql+psycopg://a@h/d", "writer", "up", 12, 34, None, None, None, "it writes, and acknowledges alone"),
        "standby": NodeStatus("standby", long, None, f"refused: {error}", None, None, 123456, None, None, sentence),
    }
    reason = f"standby is refused ({error}); primary acknowledges alone"
    status = Status("primary", 12, "solo", "write", reason, "bring standby back", "replicated", 3, "", [], nodes)
    console = Console(width=width, record=True, file=io.StringIO(), highlight=False)
    console.print(render(status))
    text = console.export_text()
    assert max(len(each) for each in text.splitlines()) <= width
    words = text.split()
    for word in (*sentence.split(), *error.split(), "123,456"):
        assert word in words, text
    assert "Next: Bring standby back." in text
    assert "3 rows that only a lost writer had are kept aside" in " ".join(words)


# -- acting


def test_switchover_changes_the_roles(shop: Shop, files: local.SqlitePair) -> None:
    shop.call("migrate")
    assert shop.call("switchover") == "The standby writes now, term 2; the primary follows.\n"
    facts = shop.facts("switchover")
    assert (facts["writer"], facts["term"], facts["acknowledge"]) == ("primary", 3, "replicated")
    assert facts["seconds"] > 0


def test_a_takeover_is_refused_while_the_writer_lives(shop: Shop) -> None:
    shop.call("migrate")
    assert "use `replstore switchover`" in shop.refused("takeover", code=1)
    assert shop.facts("status")["writer"] == "primary"


def test_a_lost_writer_is_replaced_and_rejoins(shop: Shop, files: local.SqlitePair) -> None:
    shop.call("migrate")
    files.kill("primary")
    said = shop.call("takeover")
    assert said.startswith("The standby writes now, term 2.\n")
    assert "Next: bring primary back." in said
    change(files, "standby", "INSERT INTO item VALUES (3, 'spoon')")
    files.start("primary")
    assert shop.call("rejoin") == "The primary follows again.\n"
    assert rows(files, "primary") == rows(files, "standby") == [(1, "cup"), (2, "tray"), (3, "spoon")]
    assert "No orphans" in shop.call("orphans", "list")


def test_solo_is_a_persons_word(shop: Shop, files: local.SqlitePair) -> None:
    shop.call("migrate")
    files.kill("standby")
    before = shop.facts("status", code=1)
    assert before["acknowledge"] == "none"  # this process has never met the follower
    said = shop.call("solo")
    assert said.startswith("The writer acknowledges alone until the follower is back.\n")
    after = shop.facts("status", code=1)
    assert (after["writer"], after["acknowledge"]) == ("primary", "solo")
    files.start("standby")
    shop.call("sync")
    assert shop.facts("status")["acknowledge"] == "replicated"


def test_what_only_a_lost_writer_had_is_listed_and_shown(shop: Shop, files: local.SqlitePair) -> None:
    shop.call("migrate")
    files.kill("standby")
    change(files, "primary", "UPDATE item SET name = 'pot' WHERE id = 1; INSERT INTO item VALUES (3, 'spoon')")
    files.kill("primary")
    files.start("standby")
    shop.call("takeover", "standby", "--force")
    files.start("primary")
    assert "2 rows that only it had" in shop.call("rejoin")
    assert "2 rows that only a lost writer had are kept aside" in " ".join(shop.call("status").split())
    listed = shop.facts("orphans", "list")
    assert {record["key"]: record["tbl"] for record in listed} == {"[1]": "item", "[3]": "item"}
    table = shop.call("orphans", "list")
    (changed,) = (record["id"] for record in listed if record["key"] == "[1]")
    assert changed[:8] in table
    shown = shop.call("orphans", "show", changed[:8])
    assert "Row [1] of table item, committed on the primary in term 1." in shown
    assert next(each.split() for each in shown.splitlines() if each.startswith("name")) == ["name", "'pot'", "'cup'"]
    assert "no record begins with that" in shop.refused("orphans", "show", "nix", code=2)
    assert "no record begins with that" in shop.refused("orphans", "show", "", code=2)
    assert rows(files, "primary") == rows(files, "standby") == [(1, "cup"), (2, "tray")]


def test_ship_carries_what_other_programs_write(shop: Shop, files: local.SqlitePair, tmp_path: Path) -> None:
    shop.call("migrate")
    with started(tmp_path, "ship", *shop.urls) as process:
        assert process.stderr is not None
        assert any("looking after the pair: primary writes, standby follows" in line for line in process.stderr)
        change(files, "primary", "INSERT INTO item VALUES (3, 'spoon')")
        wait_for(lambda: len(rows(files, "standby")) == 3)
        files.kill("primary")
        wait_for(lambda: rows(files, "standby", "SELECT role FROM replstore_role") == [("writer",)])
        files.start("primary")
        wait_for(lambda: rows(files, "primary", "SELECT role FROM replstore_role") == [("follower",)])
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert output == ""
    assert "standby took over as writer, term 2" in errors
    assert "primary follows standby again, term 2" in errors
    assert errors.splitlines()[-1].endswith(" stopped")


@contextlib.contextmanager
def started(directory: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs until it is told to end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "replstore", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


# -- two servers


def test_two_servers_from_adoption_to_rejoin(run: Run, postgresql_pair: local.PostgresPair) -> None:
    pair = postgresql_pair
    primary, standby = pair.primary, pair.standby
    for statement in (*ITEMS.split("; "), "CREATE VIEW cups AS SELECT * FROM item WHERE name = 'cup'"):
        primary.execute(statement, pair.database)
    shop = Shop(run, pair)
    said = " ".join(shop.call("migrate").split())
    assert "1 table is replicated: public.item." in said
    assert "Not on the standby: view public.cups is not made." in said
    assert standby.execute("SELECT id, name FROM item ORDER BY id", pair.database) == [(1, "cup"), (2, "tray")]
    primary.execute("INSERT INTO item VALUES (3, 'spoon')", pair.database)
    shop.call("sync")
    assert standby.execute("SELECT count(*) FROM item", pair.database) == [(3,)]
    assert shop.call("switchover") == "The standby writes now, term 2; the primary follows.\n"
    pair.kill("standby")
    assert shop.call("takeover").startswith("The primary writes now, term 3.\n")
    primary.execute("DELETE FROM item WHERE id = 1", pair.database)
    pair.start("standby")
    assert shop.call("rejoin").startswith("The standby follows again.\n")
    assert standby.execute("SELECT id FROM item ORDER BY id", pair.database) == [(2,), (3,)]
    assert "Primary writes, standby follows (term 3)." in shop.call("status")
    assert shop.facts("check")["equal"] is True
