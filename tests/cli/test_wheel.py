"""The wheel, installed by itself away from the source tree, holds all that its commands need."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this tree with the build backend that is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)], check=True, capture_output=True, timeout=120
    )
    (built,) = folder.glob("replstore-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the wheel's content and nothing of the source tree."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(installed)!r}); import replstore; assert replstore.__file__.startswith({str(installed)!r}); "
    code += f"sys.argv = ['replstore', *{arguments!r}]; from replstore.cli import main; sys.exit(main())"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REPLSTORE_")}
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, timeout=100, check=False)


def test_the_wheel_ships_the_migrations_and_the_type_marker(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"replstore/py.typed", "replstore/reconcile/page/page.css"} <= set(names)
    assert {"replstore/migrations/env.py", "replstore/migrations/versions/0001_control_tables.py"} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "migrations/"))]


def test_the_installed_wheel_makes_a_pair_and_checks_it(installed: Path, tmp_path: Path) -> None:
    urls = ("--primary", "sqlite:///a.db", "--standby", "sqlite:///b.db")
    made = run(installed, tmp_path, "migrate", *urls)
    assert (made.returncode, made.stderr) == (0, "")
    checked = run(installed, tmp_path, "check", *urls, "--html", "page.html")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "<style>:root" in (tmp_path / "page.html").read_text()


@pytest.mark.slow
def test_the_installed_wheel_runs_the_demo(installed: Path, tmp_path: Path) -> None:
    shown = run(installed, tmp_path, "demo", "--workers", "2")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "Nothing lost, nothing doubled" in shown.stdout
