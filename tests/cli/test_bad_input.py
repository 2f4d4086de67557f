"""Bad input: one clear sentence on stderr, exit code 2, no traceback, no password, nothing changed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from replstore.cli.app import COMMANDS
from tests.cli.fix_command import Run

#: The commands that work on a pair: all of them read their settings in the same way.
ON_A_PAIR = [name for name in COMMANDS if name not in ("init", "demo") and find_spec(f"replstore.cli.{name}")]
#: What a command needs besides its settings.
MORE = {"orphans": ("list",)}
NO_PSYCOPG = """
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "psycopg":
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
"""
SERVER = "postgresql://app:s3cret@db1/shop"
TWO = ("--primary", "sqlite:///a.db", "--standby", "sqlite:///b.db")


def refused(run: Run, *arguments: str, before: str = "", **environment: str) -> str:
    """The sentence."""
    done = run(*arguments, before=before, forked=not before, **environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("replstore: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert "s3cret" not in done.stderr
    return done.stderr.removeprefix("replstore: ").rstrip("\n")


@pytest.mark.parametrize(
    ("primary", "standby", "sentence"),
    [
        ("nonsense", SERVER, "primary: not a database URL (not shown, it may hold a password); write sqlite:///file.db or postgresql://"),
        (SERVER, "postgresql://app:s3cret:5432/shop", "standby: not a database URL"),
        (SERVER, "postgresql://app:s3cret@@db2/shop", "standby: the URL has more than one @"),
        (SERVER, "postgresql://app:s3cret@db2:70000/shop", "standby: 70000 isn't a port"),
        (SERVER, "postgresql://app:s3cret@db2/shop?sslmod=1", "standby: the URL parameter 'sslmod' isn't one of PostgreSQL's"),
        ("oracle://app:s3cret@db1/shop", SERVER, "primary: oracle: this kind of database isn't supported"),
        ("mysql://app:s3cret@db1/shop", SERVER, "primary: mysql: this kind of database isn't supported"),
        ("postgresql+psycopg2://app:s3cret@db1/shop", SERVER, "primary: postgresql+psycopg2: this driver isn't supported; write postgresql://"),
        ("sqlite://", "sqlite:///b.db", "primary: SQLite in memory can't be a node"),
        ("sqlite:///a.db", "sqlite:///./a.db", "primary and standby name the same database, sqlite:////"),
        (SERVER, "postgresql://other:s3cret@DB1:5432/shop", "primary and standby name the same database, postgresql+psycopg://app:***@db1/shop"),
    ],
)
@pytest.mark.parametrize("command", ["init", *ON_A_PAIR[:1]])
def test_urls(run: Run, tmp_path: Path, command: str, primary: str, standby: str, sentence: str) -> None:
    assert sentence in refused(run, command, *MORE.get(command, ()), "--primary", primary, "--standby", standby)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["init", *ON_A_PAIR[:1]])
def test_a_missing_driver(run: Run, tmp_path: Path, command: str) -> None:
    urls = ("--primary", SERVER, "--standby", "postgresql://app:s3cret@db2/shop")
    sentence = refused(run, command, *MORE.get(command, ()), *urls, before=NO_PSYCOPG)
    assert 'primary: the driver psycopg isn\'t installed: pip install "replstore[postgresql]"' in sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("ack_timout = 5\n", "replstore.toml: 'ack_timout' isn't a setting; did you mean 'ack_timeout'?"),
        ("ack_timeout = = 5\n", "replstore.toml isn't valid TOML: Invalid value (at line 1, column 15)"),
        ('durability = "postgresql://app:s3cret@db1/shop"\n', "replstore.toml: durability must be 'replicated', 'async' or 'server'"),
    ],
)
def test_settings_files(probe: Run, tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "replstore.toml").write_text(content)
    before = sorted(tmp_path.iterdir())
    assert sentence in refused(probe, "settings", *TWO)
    assert sorted(tmp_path.iterdir()) == before


def test_no_settings_at_all(probe: Run) -> None:
    assert "primary isn't set: give --primary, REPLSTORE_PRIMARY, or primary = " in refused(probe, "settings")


def test_every_command_reads_its_settings_and_says_what_is_wrong(run: Run) -> None:
    for command in ON_A_PAIR:
        sentence = refused(run, command, *MORE.get(command, ()), "--config", "none.toml")
        assert sentence == "none.toml can't be read: No such file or directory", command


@pytest.mark.parametrize("command", ["init", *ON_A_PAIR[:1]])
def test_the_environment(run: Run, command: str) -> None:
    more = MORE.get(command, ())
    assert "REPLSTORE_ACK_TIMEOUT must be at most 3600" in refused(run, command, *more, *TWO, REPLSTORE_ACK_TIMEOUT="2h")
    sentence = refused(run, command, *more, *TWO, REPLSTORE_WITNES="postgresql://app:s3cret@db3/w")
    assert sentence == "the environment variable REPLSTORE_WITNES isn't a setting; did you mean REPLSTORE_WITNESS?"


@pytest.mark.parametrize("path", ["file/replstore.toml", "/proc/replstore.toml", "none/replstore.toml", "."])
def test_init_where_nothing_can_be_written(run: Run, tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("a file, not a directory")
    sentence = refused(run, "init", "--path", path)
    assert sentence.startswith(f"{path} ")
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_files_have_no_native_replication(run: Run) -> None:
    assert refused(run, "init", "--replication", "native").startswith('replication "native" is PostgreSQL\'s own, and primary is sqlite:///')
