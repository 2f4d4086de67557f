"""The settings file: mistakes that people make with it are told in one sentence, and never with a password."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from replstore.config import Settings
from replstore.errors import ConfigError
from replstore.store import Store
from replstore.urls import parse, shown

TWO = {"primary": "sqlite:///a.db", "standby": "sqlite:///b.db"}
URL = "postgresql://u:s3cret@h/d"


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("REPLSTORE_", "PG"))]:
        monkeypatch.delenv(name)


def refused(call: Any, *arguments: Any, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*arguments, **settings)
    everything = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__context__)
    assert "s3cret" not in everything.replace('"postgresql://u:s3cret@h/d"', "")
    return str(caught.value)


@pytest.mark.parametrize("given", [URL, Path(URL), make_url(URL), "sqlite:///a.db"], ids=["text", "path", "URL", "SQLite"])
@pytest.mark.parametrize("call", [Store, Store.from_config, Settings.load])
def test_a_url_in_the_place_of_the_file_is_not_repeated(call: Any, given: Any) -> None:
    assert refused(call, given) == ('this is a database URL (not shown), and a settings file was expected: write Store(primary="…", standby="…")')


def test_an_empty_name_is_no_directory() -> None:
    assert refused(Settings.load, "") == "the name of the settings file is empty: give a file, or leave it out"


def test_settings_under_a_table_of_their_own_are_told_where_they_belong() -> None:
    Path("replstore.toml").write_text('[replstore]\nprimary = "sqlite:///a.db"\n')
    assert refused(Settings.load) == "replstore.toml: settings stand at the top of the file, without the table [replstore]"
    Path("replstore.toml").write_text('[tool.replstore]\nprimary = "sqlite:///a.db"\n')
    assert "without the table [tool]" in refused(Settings.load)


@pytest.mark.parametrize("name", ["ack_timeout", "pool_size", "max_backlog"])
def test_true_is_no_number(name: str) -> None:
    assert f"{name}: must be a" in (message := refused(Settings, **TWO, **{name: True}))
    assert message.endswith(", it is true")


def test_a_home_directory_is_written_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    sentence = refused(Settings, primary="sqlite:///~/a.db", standby="sqlite:///b.db")
    assert sentence == "primary: ~/a.db: a ~ isn't expanded in a URL; write the directory in full, sqlite:////home/anna/a.db"
    Path("~").mkdir()  # whoever has such a directory means it
    assert Settings(primary="sqlite:///~/a.db", standby="sqlite:///b.db").primary_url.database == str(Path("~/a.db").absolute())


def test_letters_are_shown_as_letters() -> None:
    assert shown(parse("sqlite:////srv/bücher/é.db")) == "sqlite:////srv/bücher/é.db"
    assert shown(parse("postgresql://ü:s3cret@h/d%25C3%25BC")) == "postgresql+psycopg://ü:***@h/d%25C3%25BC"
    control = shown(parse("sqlite:////srv/\x9b1m.db"))  # a control sequence of eight bits stays encoded
    assert control == "sqlite:////srv/%C2%9B1m.db"
