"""The real command, in a process of its own: one that is forked with other packages imported (`forking`), which takes half of the time, or an
interpreter from its start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]

#: A command of the tests' own, found as all others are: its first argument says what happens.
PROBE = '''
from typing import Annotated
import typer
from replstore import errors
from replstore.cli.common import Options, print_json

def command(options: Options, what: str, twice: Annotated[bool, typer.Option("--twice", help="Twice.")] = False) -> int | None:
    """Does what it is told."""
    if what == "settings":
        settings = options.settings()
        print_json({"primary": settings.primary_url.database, "durability": settings.durability, "twice": twice, "json": options.json})
        return None
    if what == "code":
        return 7
    if what == "wait":
        import time
        print("waiting", flush=True)
        time.sleep(30)
    if what == "refused":
        import psycopg
        psycopg.connect("host=127.0.0.1 port=1 password=s3cret dbname=d")
    if what == "sqlalchemy":
        from sqlalchemy import create_engine, text
        with create_engine("postgresql+psycopg://u:s3cret@127.0.0.1:1/d").connect() as connection:
            connection.execute(text("SELECT 1"))
    if what in ("no database", "no table"):
        from sqlalchemy import create_engine, text
        with create_engine("sqlite:///" + ("text.db" if what == "no database" else "new.db")).connect() as connection:
            connection.execute(text("SELECT * FROM t" if what == "no database" else "SELECT * FROM :s"), {"s": "s3cret"})
    if what == "file":
        open("/dev/null/x")
    if what == "bug":
        raise RuntimeError("lost postgresql://u:s3cret@h/d")
    raise getattr(errors, what)("a sentence\\nin two lines, postgresql://u:s3cret@h/d")
'''


#: For one command, in seconds; the demo with two servers takes a while on a machine that is busy.
TIMEOUT = 150.0


class Forks:
    """A process that forks others. They run one at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forking.py"))],
            env=_clean(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def run(self, code: str, arguments: tuple[str, ...], cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Runs a program."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with TemporaryDirectory() as directory:
            stdout, stderr = Path(directory, "stdout"), Path(directory, "stderr")
            request = {
                "code": code,
                "arguments": arguments,
                "cwd": str(cwd),
                "environment": environment,
                "stdout": str(stdout),
                "stderr": str(stderr),
            }
            self._process.stdin.write(json.dumps(request) + "\n")
            pid = int(self._process.stdout.readline())
            alarm = threading.Timer(TIMEOUT, os.kill, (pid, 9))
            alarm.start()
            code = int(self._process.stdout.readline())
            alarm.cancel()
            return subprocess.CompletedProcess(arguments, code, stdout.read_text(), stderr.read_text())

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()


def _clean() -> dict[str, str]:
    """The environment with nothing of replstore's or PostgreSQL's."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("REPLSTORE_", "PG", "COLUMNS", "PYTHON"))}
    return {**clean, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """The one of this run (of each worker, under xdist)."""
    forks = Forks()
    yield forks
    forks.close()


@pytest.fixture
def run(tmp_path: Path, forks: Forks) -> Run:
    """Runs ``replstore ARGUMENTS`` in the test's directory, with nothing of replstore's or PostgreSQL's in the environment but what is given.

    ``before``: Python that runs first, in the same process.  ``forked=False``: an interpreter from its start.
    """

    def run(*arguments: str, before: str = "", forked: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        code = f"import sys\n{before}\nfrom replstore.cli import main\nsys.exit(main())"
        environment = {**_clean(), **environment}
        if forked:
            return forks.run(code, arguments, tmp_path, environment)
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )

    return run


@pytest.fixture
def probe(run: Run, tmp_path: Path) -> Run:
    """Runs the probe; ``failure`` is its entry's."""
    commands = tmp_path / "commands"
    commands.mkdir()
    (commands / "probe.py").write_text(PROBE)

    def run_probe(*arguments: str, failure: int = 1, before: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        before += f"\nimport replstore.cli\nreplstore.cli.__path__.append({str(commands)!r})\nfrom replstore.cli import app\n"
        before += f"app.COMMANDS['probe'] = app.Entry('Act', 'Probes.', failure={failure})"
        return run("probe", *arguments, before=before, **environment)

    return run_probe
