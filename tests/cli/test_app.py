"""The command line as a whole: quick help, exit codes, errors in one sentence."""

from __future__ import annotations

import ast
import json
import os
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import replstore.cli
from replstore.cli.app import COMMANDS, load
from tests.cli.fix_command import PROBE, ROOT, Run
from tests.fix_stores import Lab


def test_help_imports_nothing_heavy(run: Run) -> None:
    """What makes a command start quickly; a stopwatch would only measure the machine."""
    heavy = (
        "sqlalchemy",
        "pydantic",
        "pydantic_settings",
        "alembic",
        "psycopg",
        "rich",
        "tenacity",
        "opentelemetry",
        "replstore.config",
        "replstore.store",
    )
    before = f"import atexit\natexit.register(lambda: print('imported', [name for name in {heavy} if name in sys.modules]))"
    done = run("--help", before=before, forked=False)
    assert done.returncode == 0
    assert done.stdout.endswith("imported []\n")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_lists_every_command_under_its_heading(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 0
    there = {name: entry for name, entry in COMMANDS.items() if find_spec(f"replstore.cli.{name}")}
    lines = [line.split(None, 1) for line in done.stdout.splitlines()]
    assert [line[0] for line in lines if line and line[0] in COMMANDS] == [name for name in COMMANDS if name in there]
    assert all(f"{entry.panel}:" in done.stdout for entry in there.values())


@pytest.mark.parametrize("columns", ["80", "120"])
def test_help_fits_the_terminal(run: Run, columns: str) -> None:
    for arguments in (("--help",), ("init", "--help")):
        assert max(len(line) for line in run(*arguments, COLUMNS=columns).stdout.splitlines()) <= int(columns)


def test_every_module_with_a_command_has_its_line_in_the_table() -> None:
    for path in Path(replstore.cli.__path__[0]).glob("*.py"):
        defined = {getattr(node, "name", "") for node in ast.parse(path.read_text()).body}
        assert ("command" in defined or path.stem in COMMANDS) == (path.stem in COMMANDS), path.name


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "demo" and find_spec(f"replstore.cli.{name}")])
def test_every_command_has_help_and_the_common_options(name: str) -> None:
    """But the demo, which makes a pair of its own."""
    command = load(name)
    found = [command, *getattr(command, "commands", {}).values()]
    options = {option for one in found for parameter in one.params for option in parameter.opts}
    assert {"--config", "--primary", "--standby", "--replication", "--durability", "--format"} <= options
    assert command.help


def test_the_version_is_the_installed_one(run: Run) -> None:
    before = "import importlib.metadata\nimportlib.metadata.version = lambda name: {'replstore': '1.2.3'}[name]"
    assert run("--version", before=before).stdout == "replstore 1.2.3\n"


def test_common_options_reach_the_command_and_win_over_the_environment(probe: Run, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('primary = "sqlite:///file.db"\nstandby = "sqlite:///b.db"\ndurability = "async"\n')
    done = probe(
        "settings", "--config", "x.toml", "--primary", "sqlite:////a.db", "--twice", "--format", "json", REPLSTORE_PRIMARY="sqlite:///environment.db"
    )
    assert json.loads(done.stdout) == {"primary": "/a.db", "durability": "async", "twice": True, "json": True}


@pytest.mark.parametrize(
    "arguments", [("orphans", "list"), ("sync",), ("switchover",), ("takeover", "primary"), ("solo",), ("rejoin",)], ids=" ".join
)
def test_a_command_imports_what_it_needs(run: Run, sqlite_lab: Lab, arguments: tuple[str, ...]) -> None:
    """In an interpreter from its start; those that aren't here have such a test elsewhere."""
    sqlite_lab.migrated(background=False).close()
    done = run(*arguments, "--primary", sqlite_lab.pair.primary_url, "--standby", sqlite_lab.pair.standby_url, forked=False)
    assert "mistake in replstore" not in done.stderr
    assert done.returncode == 0 or done.stderr.startswith("replstore: ")


def test_what_a_command_returns_is_the_exit_code(probe: Run) -> None:
    assert probe("code").returncode == 7


@pytest.mark.parametrize(
    ("what", "failure", "code", "sentence"),
    [
        ("ConfigError", 1, 2, "a sentence in two lines, postgresql://u:***@h/d"),
        ("NotAPair", 1, 2, "a sentence in two lines, postgresql://u:***@h/d"),
        ("NoWriter", 1, 1, "a sentence in two lines, postgresql://u:***@h/d"),
        ("NoWriter", 2, 2, "a sentence in two lines, postgresql://u:***@h/d"),
        ("refused", 1, 2, "the database answers: connection failed: connection to server at "),
        ("sqlalchemy", 1, 2, "the database answers: connection failed: connection to server at "),
        ("no database", 1, 2, "the database answers: file is not a database"),
        ("file", 1, 2, "/dev/null/x: Not a directory"),
    ],
)
def test_an_error_is_one_sentence_and_a_code(probe: Run, tmp_path: Path, what: str, failure: int, code: int, sentence: str) -> None:
    (tmp_path / "text.db").write_text("This is no database, however long you look at it." * 40)
    done = probe(what, failure=failure)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"replstore: {sentence}")
    assert done.stderr.count("\n") == 1
    assert "s3cret" not in done.stderr


def test_parameters_of_a_statement_are_not_shown(probe: Run) -> None:
    done = probe("no table")
    assert done.stderr == 'replstore: the database answers: near "?": syntax error\n'


def test_our_own_mistake_is_shown_with_its_traceback_and_never_looks_like_a_divergence(probe: Run) -> None:
    done = probe("bug", failure=2)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("replstore: this is a mistake in replstore, not yours (RuntimeError)")
    assert "s3cret" not in done.stderr.replace('"lost postgresql://u:s3cret@h/d"', "")  # the source line of the probe itself


def test_debug_shows_where_an_error_came_from(probe: Run) -> None:
    done = probe("sqlalchemy", REPLSTORE_DEBUG="1")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "Traceback" not in probe("sqlalchemy", REPLSTORE_DEBUG="0").stderr
    assert "s3cret" not in "".join(line for line in done.stderr.splitlines() if "create_engine" not in line)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("ini",), "No such command 'ini'. Did you mean 'init'? (`replstore --help` shows what there is)"),
        (("--fooo",), "No such option: --fooo (`replstore --help` shows what there is)"),
        (("init", "--forc"), "No such option: --forc (Possible options: --force, --format) (`replstore init --help` shows what there is)"),
        (
            ("init", "--durability", "most"),
            "Invalid value for '--durability': 'most' is not one of 'replicated', 'async', 'server' (`replstore init --help` shows what there is)",
        ),
    ],
)
def test_a_wrong_command_line_says_what_there_is(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"replstore: {sentence}\n")


def test_interrupted_it_ends_with_130_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    code = f"import sys, replstore.cli\nreplstore.cli.__path__.append({str(tmp_path)!r})\nfrom replstore.cli import app, main\n"
    code += "app.COMMANDS['probe'] = app.Entry('Act', 'Probes.')\nsys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "probe", "wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (130, "")


def test_port_1_is_closed() -> None:
    """The tests above rely on it."""
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", 1))
