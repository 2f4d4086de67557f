"""replstore init writes a settings file that is valid, complete and safe."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path

import pytest

from replstore.cli import main
from replstore.cli.init import LOCAL_PAIR
from replstore.config import PAIR_SETTINGS, Settings
from tests.cli.fix_command import Run


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("REPLSTORE_")]:
        monkeypatch.delenv(name)


def uncommented(content: str) -> str:
    """The file with every setting in force."""
    return re.sub(r"^#(?=\w+ = )", "", content, flags=re.MULTILINE)


def test_the_file_loads_and_describes_a_local_pair(run: Run) -> None:
    done = run("init")
    assert (done.returncode, done.stderr) == (0, "")
    settings = Settings.load()
    assert settings.explicit == {"primary", "standby"}
    assert settings.primary_url.database == str(Path("replstore-primary.db").absolute())
    assert "replstore migrate` makes the pair" in done.stdout


def test_every_setting_stands_in_the_file_with_its_meaning_and_its_default(run: Run) -> None:
    run("init")
    content = Path("replstore.toml").read_text()
    shown = tomllib.loads(uncommented(content))
    assert shown.keys() == Settings.model_fields.keys()
    settings, defaults = Settings(**shown), Settings(**LOCAL_PAIR)
    assert [name for name in shown if getattr(defaults, name) is not None and getattr(settings, name) != getattr(defaults, name)] == []
    assert "None" not in shown.values()
    words = " ".join(re.sub(r"^# ?", "", content, flags=re.MULTILINE).split())
    assert [name for name, field in Settings.model_fields.items() if " ".join((field.description or "").split()) not in words] == []


def test_a_witness_is_offered_and_not_made(run: Run) -> None:
    run("init")
    content = Path("replstore.toml").read_text()
    assert '\n#witness = "sqlite:///replstore-witness.db"\n' in content
    assert "unmounted" in content
    assert [path.name for path in Path().iterdir()] == ["replstore.toml"]


def test_options_stand_uncommented(run: Run) -> None:
    servers = {"primary": "postgresql://app@db1/shop", "standby": "postgresql://app@db2/shop"}
    done = run("init", "--primary", servers["primary"], "--standby", servers["standby"], "--durability", "async", "--path", "other.toml")
    assert "replstore migrate --config other.toml" in done.stdout
    content = Path("other.toml").read_text()
    assert tomllib.loads(content) == servers | {"durability": "async"}
    assert '\n#witness = "postgresql://' in content
    assert set(PAIR_SETTINGS) < tomllib.loads(uncommented(content)).keys()


def test_quotes_and_control_characters_survive(run: Run) -> None:
    url = 'sqlite:///a "b" \\ \t é.db'
    assert run("init", "--primary", url, "--standby", "sqlite:///c.db").returncode == 0
    assert tomllib.loads(Path("replstore.toml").read_text())["primary"] == url


def test_an_existing_file_is_replaced_only_by_force(run: Run) -> None:
    Path("replstore.toml").write_text("mine")
    done = run("init")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "replstore: replstore.toml exists already: --force replaces it, --path writes another one\n"
    assert Path("replstore.toml").read_text() == "mine"
    assert run("init", "--force").returncode == 0
    assert Settings.load().explicit == {"primary", "standby"}


def test_a_file_with_a_password_is_for_its_owner_and_the_screen_does_not_show_it(run: Run) -> None:
    Path("replstore.toml").write_text("old")
    done = run("init", "--force", "--primary", "postgresql://app:s3cret@db1/shop", "--standby", "postgresql://app:s3cret@db2/shop")
    assert done.returncode == 0
    assert Path("replstore.toml").stat().st_mode & 0o777 == 0o600
    assert "s3cret" not in done.stdout + done.stderr
    url = Settings.load().primary_url
    assert url.password == "s3cret"


def test_json(run: Run) -> None:
    done = run("init", "--format", "json")
    here = Path.cwd()
    assert json.loads(done.stdout) == {
        "path": "replstore.toml",
        "primary": f"sqlite:///{here}/replstore-primary.db",
        "standby": f"sqlite:///{here}/replstore-standby.db",
        "overruled_by": [],
    }


def test_one_url_alone_is_refused(run: Run) -> None:
    done = run("init", "--primary", "sqlite:///a.db")
    assert done.returncode == 2
    assert done.stderr.startswith("replstore: standby isn't set: give --standby")
    assert not Path("replstore.toml").exists()


def test_settings_of_a_pyproject_are_not_hidden_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    Path("pyproject.toml").write_text('[tool.replstore]\nprimary = "sqlite:///mine.db"\nstandby = "sqlite:///other.db"\n')
    assert main(["init"]) == 2
    assert capsys.readouterr().err == (
        "replstore: pyproject.toml has settings already, [tool.replstore], and replstore.toml would hide them: --force writes it all the same\n"
    )
    assert not Path("replstore.toml").exists()
    assert main(["init", "--path", "other.toml"]) == 0  # hides nothing
    assert main(["init", "--force"]) == 0
    Path("replstore.toml").unlink()
    Path("pyproject.toml").write_text("[tool.ruff]\n")
    assert main(["init"]) == 0


def test_the_environment_that_wins_over_the_file_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("REPLSTORE_PRIMARY", "sqlite:///elsewhere.db")
    assert main(["init"]) == 0
    assert "Note: REPLSTORE_PRIMARY in your environment wins over what the file says." in capsys.readouterr().out


def test_the_next_command_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--config", "my shop's.toml"]) == 0
    assert "`replstore migrate --config 'my shop'\"'\"'s.toml'` makes the pair" in capsys.readouterr().out
    assert Path("my shop's.toml").is_file()
