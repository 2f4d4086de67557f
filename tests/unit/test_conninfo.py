"""A connection string that can't be read is shown in no message, nor is a piece of it: it may be one of a password."""

from __future__ import annotations

import traceback
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from replstore import local
from replstore.errors import ConfigError, ReplstoreError
from replstore.local.conninfo import parsed
from replstore.local.following import _without_password, base_backup, follow, point_at, timelines_of
from replstore.local.server import Server
from replstore.urls import redact

MALFORMED = [
    "host=a password=very s3cret",
    "host=a password='very s3cret",
    "host=a password=very s3cret=1",
    "host=a user=b s3cret",
    "postgresql://u:50%s3cret@a/db",
    "postgresql://u:very/s3cret@a/db",
    "postgresql://u:s3cret@[a/db",
    "postgresql://a/db?password=s3cret=1",
    "postgresql://a/db?s3cret=1",
    "postgresql://u:s3cret/x@a/db",
]


def everything(error: BaseException) -> str:
    """An error as a log prints it, with all that it comes from."""
    causes = []
    at: BaseException | None = error
    while at is not None:
        causes.append(repr(at))
        at = at.__cause__ or at.__context__
    return "\n".join([*traceback.format_exception(error), *causes])


@pytest.mark.parametrize("conninfo", MALFORMED)
def test_of_one_that_cannot_be_read_nothing_is_shown(conninfo: str, tmp_path: Path) -> None:
    acts = (
        lambda: parsed(conninfo, "it"),
        lambda: _without_password(conninfo),
        lambda: timelines_of(conninfo),
        lambda: base_backup(tmp_path, conninfo, tmp_path / "into"),
        lambda: point_at(None, conninfo, "standby"),  # type: ignore[arg-type]
        lambda: follow(None, conninfo, name="standby", server=Server),  # type: ignore[arg-type]
    )
    for act in acts:
        with pytest.raises(ConfigError) as told:
            act()
        assert "s3cret" not in everything(told.value)
        assert "very" not in everything(told.value)
        assert "it isn't shown, because it may hold a password" in str(told.value)


def test_one_that_can_be_read_is_what_the_driver_reads() -> None:
    for conninfo in (r"host=a,b port=1,2 password='it\'s'", "postgresql://u:p%40ss@a:1,b:2/db", ""):
        assert parsed(conninfo, "it") == conninfo_to_dict(conninfo)


@pytest.mark.parametrize("conninfo", MALFORMED)
def test_what_the_driver_says_of_it_is_made_safe_in_any_text(conninfo: str) -> None:
    """A server's log and other programs' errors quote it in the same words."""
    with pytest.raises(psycopg.Error) as told:
        psycopg.connect(conninfo, connect_timeout=2)
    assert "s3cret" not in redact(str(told.value)), str(told.value)


def test_a_quoted_password_is_taken_out_of_a_text_whole() -> None:
    assert redact(r"primary_conninfo = 'user=a password=\'b s3cret\' host=c'").count("s3cret") == 0
    assert redact(r"primary_conninfo = 'user=a password=''b s3cret'' host=c'") == "primary_conninfo = 'user=a password=*** host=c'"
    assert redact(r"password = 'b \' s3cret' host=c") == "password=*** host=c"
    assert redact(r"password=b\ s3cret host=c") == "password=*** host=c"
    assert "s3cret" not in redact('unexpected spaces found in "s3cret x", use percent-encoded spaces (%20) instead')
    assert redact("host=c password=s3cret&x") == "host=c password=***&x"


def test_a_server_s_log_in_a_message_is_made_safe() -> None:
    with local.streaming_pair("wheel", fsync=False) as pair:
        pair.kill("standby")
        directory = pair.data("standby")
        with (directory.path / "postgresql.auto.conf").open("a") as file:
            file.write("primary_conninfo = 'host=a password=very s3cret'\n")
        log = directory.path / "server.log"
        log.write_text('FATAL:  invalid connection string syntax: missing "=" after "s3cret" in connection info string\n')
        (directory.path / "local.conf").write_text("no_such_setting = 1\n")
        with pytest.raises(ReplstoreError) as told:
            directory.start(5.0)
        assert "invalid connection string syntax" in str(told.value)
        assert "s3cret" not in everything(told.value)
