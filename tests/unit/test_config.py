"""Settings: where they come from, what is refused and in which words, and that a password is never shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from replstore.config import PAIR_SETTINGS, Settings
from replstore.errors import ConfigError, SettingsDiffer
from replstore.urls import parse, redact, same_database, shown

TWO = {"primary": "sqlite:///a.db", "standby": "sqlite:///b.db"}
SERVERS = {"primary": "postgresql://app:s3cret@db1/shop", "standby": "postgresql://app:s3cret@db2/shop"}


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("REPLSTORE_", "PG"))]:
        monkeypatch.delenv(name)


def refused(**settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        Settings(**settings)
    everything = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__context__) + repr(caught.value.__cause__)
    assert "s3cret" not in everything
    return str(caught.value)


def test_keywords_win_over_the_environment_and_the_environment_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("replstore.toml").write_text(
        'primary = "sqlite:///file.db"\nstandby = "sqlite:///file2.db"\nack_timeout = 1\npool_size = 2\nship_interval = 3\n'
    )
    monkeypatch.setenv("REPLSTORE_ACK_TIMEOUT", "11")
    monkeypatch.setenv("REPLSTORE_POOL_SIZE", "12")
    monkeypatch.setenv("REPLSTORE_WITNESS", "")
    settings = Settings.load(ack_timeout=21, primary=None)
    assert (settings.ack_timeout, settings.pool_size, settings.ship_interval) == (21.0, 12, 3.0)
    assert settings.primary_url.database == str(Path("file.db").absolute())
    assert settings.witness_url is None
    assert settings.explicit == {"primary", "standby", "ack_timeout", "pool_size", "ship_interval"}


def test_settings_alone_reads_no_file() -> None:
    Path("replstore.toml").write_text('durability = "async"\n')
    assert Settings(**TWO).durability == "replicated"
    assert Settings.load(**TWO).durability == "async"


def test_pyproject_toml_is_read_where_there_is_no_replstore_toml() -> None:
    Path("pyproject.toml").write_text('[tool.replstore]\ntakeover = "manual"\n')
    assert Settings.load(**TWO).takeover == "manual"
    assert Settings.load("pyproject.toml", **TWO).takeover == "manual"
    Path("replstore.toml").write_text("pool_size = 7\n")
    assert Settings.load(**TWO).takeover == "auto"


def test_a_foreign_pyproject_toml_is_no_settings_file() -> None:
    Path("pyproject.toml").write_text("[tool.ruff]\nline-length = 99\n")
    assert Settings.load(**TWO).pool_size == 5
    with pytest.raises(ConfigError, match=r"pyproject.toml has no table \[tool.replstore\]"):
        Settings.load("pyproject.toml", **TWO)


@pytest.mark.parametrize(("given", "seconds"), [("500ms", 0.5), ("10 s", 10.0), ("2", 2.0), (3, 3.0), ("5m", 300.0), (" 1.5S ", 1.5)])
def test_durations_take_units(given: Any, seconds: float) -> None:
    assert Settings(**TWO, ack_timeout=given).ack_timeout == seconds


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "primary isn't set: give --primary, REPLSTORE_PRIMARY, or primary = "),
        (TWO | {"ack_timout": 5}, "'ack_timout' isn't a setting; did you mean 'ack_timeout'?"),
        (TWO | {"probe-interval": 5}, "'probe-interval' isn't a setting; did you mean 'probe_interval'?"),
        (TWO | {"xyz": 5}, "'xyz' isn't a setting; there are primary, standby, witness"),
        (TWO | {"ack_timeout": 0}, "ack_timeout must be more than 0, it is 0"),
        (TWO | {"ack_timeout": "soon"}, "ack_timeout: must be a number of seconds, or a text with a unit"),
        (TWO | {"ack_timeout": float("nan")}, "ack_timeout must be a number, it is nan"),
        (TWO | {"pool_size": 0}, "pool_size must be at least 1, it is 0"),
        (TWO | {"pool_size": 1.5}, "pool_size must be a whole number, it is 1.5"),
        (TWO | {"pool_size": 10**6}, "pool_size must be at most 1000, it is 1000000"),
        (TWO | {"refused_means_dead": "perhaps"}, "refused_means_dead must be true or false, it is 'perhaps'"),
        (TWO | {"durability": "most"}, "durability must be 'replicated', 'async' or 'server', it is 'most'"),
        (TWO | {"durability": "postgresql://u:s3cret@h/d"}, "durability must be 'replicated', 'async' or 'server'"),
        (TWO | {"commit_marker": False}, "commit_marker can be false with native replication only"),
        (TWO | {"durability": "server"}, 'durability "server" belongs to native replication'),
        (TWO | {"replication": "native"}, 'replication "native" is PostgreSQL\'s own, and primary is sqlite:///'),
        (SERVERS | {"replication": "native", "durability": "async"}, 'durability "async" belongs to the journal'),
        (SERVERS | {"replication": "native", "witness": "sqlite:///w.db"}, 'replication "native" has no witness'),
        (TWO | {"detection_time": 1.0}, "detection_time (1 s) must be more than twice probe_interval (0.5 s)"),
        (TWO | {"probe_interval": 0.75}, "detection_time (1.5 s) must be more than twice probe_interval (0.75 s)"),
        (TWO | {"primary": "nonsense"}, "primary: not a database URL"),
        (TWO | {"primary": 5}, "primary must be a text"),
        (TWO | {"primary": "postgresql://u:s3cret:5432/db"}, "primary: not a database URL (not shown"),
        (TWO | {"primary": "postgresql://u:p@s3cret@h/db"}, "primary: the URL has more than one @ (it isn't shown)"),
        (TWO | {"primary": "postgresql://u:s3cret@h:99999/db"}, "primary: 99999 isn't a port"),
        (TWO | {"primary": "postgresql://u:s3cret@h,i/db"}, "primary: the URL names several hosts"),
        (TWO | {"primary": "postgresql://u:s3cret@h/db?sslmod=require"}, "primary: the URL parameter 'sslmod' isn't one of PostgreSQL's"),
        (TWO | {"primary": "postgresql+asyncpg://u:s3cret@h/db"}, "primary: postgresql+asyncpg: this driver isn't supported; write postgresql://"),
        (TWO | {"primary": "oracle://u:s3cret@h/db"}, "primary: oracle: this kind of database isn't supported; replstore takes sqlite:///"),
        (TWO | {"standby": "sqlite://"}, "standby: SQLite in memory can't be a node"),
        (TWO | {"standby": "sqlite:///:memory:"}, "standby: SQLite in memory can't be a node"),
        (TWO | {"standby": "sqlite:///file:x?mode=memory&uri=true"}, "standby: SQLite in memory can't be a node"),
        (TWO | {"standby": "sqlite://b.db"}, "standby: a SQLite URL has no host"),
        (TWO | {"standby": "sqlite:///b.db?timeout=long"}, "standby: the URL parameter 'timeout' is a number of seconds"),
        (TWO | {"standby": "sqlite:///."}, "is a directory: a SQLite URL names a file"),
        (TWO | {"standby": "sqlite:///./x/../a.db"}, "primary and standby name the same database, sqlite:///"),
        (TWO | {"witness": "sqlite:///b.db"}, "standby and witness name the same database, sqlite:///"),
    ],
)
def test_bad_settings_are_refused_in_one_clear_sentence(settings: dict[str, Any], sentence: str) -> None:
    message = refused(**settings)
    assert sentence in message
    assert "\n" not in message


def test_every_fault_has_its_sentence() -> None:
    assert (
        refused(**TWO, pool_size=0, durability="most")
        == "durability must be 'replicated', 'async' or 'server', it is 'most'; pool_size must be at least 1, it is 0"
    )


def test_a_fault_says_where_the_value_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("replstore.toml").write_text("pool_size = 0\n")
    monkeypatch.setenv("REPLSTORE_ACK_TIMEOUT", "-1")
    with pytest.raises(ConfigError) as caught:
        Settings.load(**TWO, durability="most")
    assert str(caught.value).split("; ") == [
        "durability must be 'replicated', 'async' or 'server', it is 'most'",
        "REPLSTORE_ACK_TIMEOUT must be more than 0, it is -1.0",
        "replstore.toml: pool_size must be at least 1, it is 0",
    ]


def test_a_misspelt_variable_is_refused_and_a_foreign_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLSTORE_PORT", "tcp://10.0.0.1:80")  # what a cluster sets for a service of this name
    assert Settings(**TWO).pool_size == 5
    monkeypatch.setenv("REPLSTORE_DURABLITY", "async")
    assert refused(**TWO) == "the environment variable REPLSTORE_DURABLITY isn't a setting; did you mean REPLSTORE_DURABILITY?"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"primary = [", "settings.toml isn't valid TOML: "),
        (b"\xff\xfe", "settings.toml isn't a text file in UTF-8"),
        (
            b"ack_timout = 5\n[tables]\n",
            "settings.toml: 'ack_timout' isn't a setting; did you mean 'ack_timeout'?; settings.toml: 'tables' isn't a setting",
        ),
    ],
)
def test_a_bad_file_is_refused(content: bytes, sentence: str) -> None:
    Path("settings.toml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Settings.load("settings.toml", **TWO)
    assert sentence in str(caught.value)


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"none\.toml can't be read: No such file or directory"):
        Settings.load("none.toml", **TWO)


def test_no_password_is_ever_shown() -> None:
    settings = Settings(**SERVERS, witness="postgresql://w@db3/w?password=s3cret&sslpassword=s3cret")
    assert settings.primary_url.password == "s3cret"
    assert settings.witness_url is not None
    assert settings.witness_url.password == "s3cret"
    texts = [repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json(), shown(settings.witness_url)]
    texts += [repr(settings.primary_url), str(settings.primary_url)]
    assert not [text for text in texts if "s3cret" in text]
    assert "postgresql+psycopg://app:***@db1/shop" in repr(settings)
    assert shown(settings.witness_url) == "postgresql+psycopg://w:***@db3/w?sslpassword=***"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("at postgresql://app:s3cret@db1/shop now", "at postgresql://app:***@db1/shop now"),
        ("postgresql://app:s3/cr@et@db1/shop", "postgresql://app:***@db1/shop"),
        ("host=db1 password=s3cret user=app", "host=db1 password=*** user=app"),
        ("http://db1:80/a no@password", "http://db1:80/a no@password"),
    ],
)
def test_redact_takes_passwords_out_of_a_text(text: str, redacted: str) -> None:
    assert redact(text) == redacted


def test_a_url_object_keeps_its_password() -> None:
    assert Settings(**SERVERS | {"primary": make_url(SERVERS["primary"])}).primary_url.password == "s3cret"


@pytest.mark.parametrize("given", ["postgresql://h/d", "postgres://h/d", "postgresql+psycopg://h/d"])
def test_postgresql_means_psycopg_3(given: str) -> None:
    assert parse(given).drivername == "postgresql+psycopg"


def test_a_relative_path_stays_where_it_was_when_the_program_changes_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(**TWO)
    monkeypatch.chdir("/")
    assert settings.primary_url.database == str(tmp_path / "a.db")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("postgresql://localhost/d", "postgresql://127.0.0.1:5432/d", True),
        ("postgresql://[::1]/d", "postgresql:///d", True),
        ("postgresql:///d?host=/var/run/postgresql", "postgresql://u:x@LOCALHOST/d", True),
        ("postgresql://u@h/d", "postgresql://v@H/d", True),
        ("postgresql://u@h", "postgresql://v@h/u", True),
        ("postgresql://h/d", "postgresql://h/e", False),
        ("postgresql://h/d", "postgresql://h:5433/d", False),
        ("postgresql://h/d", "postgresql://i/d", False),
        ("postgresql:///d?host=/one", "postgresql:///d?host=/two", False),
        ("sqlite:///a.db", "sqlite:///b.db", False),
        ("sqlite:///real.db", "sqlite:///symlink.db", True),
        ("sqlite:///real.db", "sqlite:///hardlink.db", True),
        ("sqlite:///d", "postgresql://h/d", False),
    ],
)
def test_the_same_database_is_recognised_under_two_names(one: str, other: str, same: bool) -> None:
    Path("real.db").touch()
    Path("symlink.db").symlink_to("real.db")
    Path("hardlink.db").hardlink_to("real.db")
    assert same_database(parse(one), parse(other)) is same


def test_the_pairs_values_are_adopted_where_the_user_said_nothing() -> None:
    settings = Settings(**TWO, takeover="manual")
    held = Settings(**TWO, takeover="manual", durability="async", detection_time=3).pair_values()
    assert tuple(held) == PAIR_SETTINGS
    adopted = settings.adopt(json.loads(json.dumps(held)) | {"from_a_newer_version": "1"})
    assert (adopted.durability, adopted.detection_time, adopted.takeover, adopted.refused_means_dead) == ("async", 3.0, "manual", True)
    assert adopted.explicit == settings.explicit
    assert adopted.pair_values() == held


def test_a_setting_that_differs_from_the_pairs_is_refused_with_both_values() -> None:
    with pytest.raises(SettingsDiffer, match=r"durability is async here and replicated in the pair's control tables"):
        Settings(**TWO, durability="async").adopt(Settings(**TWO).pair_values())


def test_every_setting_says_what_it_is() -> None:
    assert not [name for name, field in Settings.model_fields.items() if len(field.description or "") < 40]


def test_importing_the_settings_imports_no_driver() -> None:
    code = "import sys, replstore.config; print([name for name in ('psycopg', 'typer', 'rich', 'alembic') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]).stdout == "[]\n"
