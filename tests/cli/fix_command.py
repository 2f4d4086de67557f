"""The real command, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs ``replstore ARGUMENTS`` in the test's directory, with nothing of replstore's or PostgreSQL's in the environment but what is given.

    ``before``: Python that runs first, in the same process.
    """

    def run(*arguments: str, before: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("REPLSTORE_", "PG", "COLUMNS", "PYTHON"))}
        code = f"import sys\n{before}\nfrom replstore.cli import main\nsys.exit(main())"
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path,
            env={**clean, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=150,  # the demo with two servers takes a while on a machine that is busy
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
