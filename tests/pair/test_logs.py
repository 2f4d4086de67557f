"""What is logged at INFO: each trouble once, and nothing of a pair that isn't made yet."""

from __future__ import annotations

import errno
import logging

import pytest

from replstore.cli import main
from replstore.node import one_line
from replstore.pair.alone import describe
from replstore.pair.decide import Reach
from replstore.pair.view import NodeView
from tests.fix_stores import Lab, until


def test_a_node_that_is_away_is_told_once(sqlite_lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    store = sqlite_lab.migrated(on_follower_down="block")
    with caplog.at_level(logging.INFO, logger="replstore"):
        looks = store.pair.watch.states
        sqlite_lab.kill("standby")
        until(lambda: any(record.getMessage().startswith("keeper: ") for record in caplog.records), "the keeper says what it can't do")
        for _ in range(5):
            looks = store.pair.watch.states
            until(lambda: store.pair.watch.states is not looks, "the next look")  # noqa: B023
        told = [record.getMessage() for record in caplog.records if record.getMessage().startswith(("keeper: ", "monitor: "))]
    assert len(told) == len(set(told)) <= 2
    assert store.status().nodes["standby"].health.startswith("refused")


def test_before_the_pair_is_made_nothing_is_wrong(sqlite_lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="replstore.pair"):
        store = sqlite_lab.store()
        until(lambda: store.pair.decision is not None, "the first look")
    assert [record.getMessage() for record in caplog.records] == []


def test_a_node_that_has_just_fallen_silent_is_not_silent_for_nothing() -> None:
    assert describe(NodeView("primary", reach=Reach.SILENT, error="starting up")) == "primary is silent (starting up)"
    assert describe(NodeView("primary", reach=Reach.SILENT, silent_for=0.3, error="no answer for 0.3 s")) == "primary is silent for 0.3 s"


def test_an_error_in_one_line_has_no_number_and_no_guess() -> None:
    assert one_line(OSError(errno.ENOSPC, "No space left on device")) == "No space left on device"
    assert one_line(OSError(errno.ENOENT, "No such file or directory", "a.db")) == "a.db: No such file or directory"
    refused = "connection failed: Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?"
    assert one_line(Exception(refused)) == "connection failed: Connection refused"
    cut = "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally\n\tbefore or while it did so."
    assert one_line(Exception(cut)) == "server closed the connection unexpectedly"


def test_sync_says_soon_that_nobody_writes(sqlite_lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A primary that is locked out stays so: an hour of patience doesn't help."""
    sqlite_lab.migrated(background=False).close()
    sqlite_lab.sql("primary", "DROP TABLE replstore_role")
    monkeypatch.setenv("REPLSTORE_TAKEOVER_TIMEOUT", "0.5")
    code = main(["sync", "--timeout", "3600", "--primary", sqlite_lab.pair.primary_url, "--standby", sqlite_lab.pair.standby_url])
    said = capsys.readouterr()
    assert (code, said.out) == (1, "")
    assert said.err.startswith("replstore: primary is locked out")
    assert "mend primary" in said.err
