"""How a command ends when it is interrupted, when its terminal knows little, and when an error holds more than a person wants."""

from __future__ import annotations

import errno

import pytest

from replstore.cli.common import console
from replstore.cli.failures import report
from replstore.local import SqlitePair
from replstore.store import Store
from tests.cli.fix_command import Run


def test_an_interrupt_that_became_another_error_is_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    """As when Ctrl-C comes while a class is being made: RuntimeError, "Error calling __set_name__"."""
    cause, context = RuntimeError("Error calling __set_name__"), OSError("while it was tidied up")
    cause.__cause__ = KeyboardInterrupt()
    context.__context__ = ValueError()
    context.__context__.__context__ = KeyboardInterrupt()
    assert (report(cause, 1), report(context, 1)) == (130, 130)
    assert capsys.readouterr() == ("", "")


def test_an_interrupt_during_the_first_import_ends_with_130(run: Run) -> None:
    before = """
class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
"""
    done = run("status", before=before, forked=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_terminal_that_knows_ascii_only_shows_the_rest(run: Run, sqlite_pair: SqlitePair) -> None:
    with Store(primary=sqlite_pair.primary_url, standby=sqlite_pair.standby_url, background=False) as store:
        store.migrate()
    sqlite_pair.kill("standby")  # so that its column has dashes
    done = run("status", "--primary", sqlite_pair.primary_url, "--standby", sqlite_pair.standby_url, forked=False, PYTHONIOENCODING="ascii")
    assert done.returncode == 1
    assert done.stderr == ""
    assert "primary" in done.stdout
    assert "–" not in done.stdout


def test_an_error_of_the_system_is_told_without_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(OSError(errno.ENOSPC, "No space left on device"), 1) == 2
    assert capsys.readouterr().err == "replstore: No space left on device\n"


def test_the_demo_asks_for_psycopg_before_anything_starts(run: Run) -> None:
    before = """
import subprocess
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "psycopg":
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
def refuse(*arguments, **options):
    raise AssertionError("something was started")
subprocess.Popen.__init__ = refuse
"""
    done = run("demo", "--database", "postgresql", before=before, forked=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == 'replstore: psycopg isn\'t installed: pip install "replstore[local]"\n'


def test_a_sentence_that_goes_to_another_program_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = "word " * 60
    monkeypatch.delenv("COLUMNS", raising=False)
    console().print(sentence)
    assert capsys.readouterr().out == f"{sentence}\n"
    monkeypatch.setenv("COLUMNS", "80")  # who sets it wants it so
    console().print(sentence)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
