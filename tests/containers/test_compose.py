"""The set-ups of compose/ do what they promise while their nodes are killed, paused and cut off: what was acknowledged is there, once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fix_compose import SetUp, until

pytestmark = [pytest.mark.containers, pytest.mark.slow, pytest.mark.timeout(1200)]


def other(node: str) -> str:
    return "standby" if node == "primary" else "primary"


def test_journal_loses_nothing_when_its_writer_is_killed_paused_and_cut_off(set_up: Callable[..., SetUp]):
    pair = set_up("journal.yaml")
    writer = pair.in_order()
    pair.kill(writer)
    pair.go_on()  # the follower took over
    pair.start(writer)
    assert pair.in_order() == other(writer)  # and the former writer follows, without a hand
    for fault in (pair.paused, pair.cut_off):
        writer = pair.in_order()
        with fault(writer):
            pair.go_on()
        assert pair.in_order() == other(writer)
    with pair.paused(other(pair.in_order())):
        pass  # a follower that is away for a moment
    pair.go_on()
    assert pair.count() > 20


def test_streaming_loses_nothing_when_its_writer_is_killed_paused_and_cut_off(set_up: Callable[..., SetUp]):
    pair = set_up("streaming.yaml")
    assert pair.in_order() == "primary"
    pair.kill("primary")
    pair.promoted("standby")
    pair.start("primary")
    pair.go_on()
    for fault in (pair.paused, pair.cut_off):
        writer = pair.in_order()
        with fault(writer):
            pair.promoted(other(writer))
        pair.restart(writer)  # it had gone on alone: node.sh finds that the other one writes now
        pair.go_on()
        assert pair.in_order() == other(writer)
    assert pair.count() > 15


def test_patroni_loses_nothing_in_its_own_switchover_and_failovers(set_up: Callable[..., SetUp]):
    pair = set_up("patroni.yaml")
    control = ("patronictl", "-c", "/patroni/patroni.yml")
    writer = pair.in_order()
    pair.execute("primary", *control, "switchover", "--force")
    until("the other node writes", lambda: pair.in_order() != writer)
    pair.go_on()
    writer = pair.in_order()
    pair.execute(writer, "sh", "-c", "kill -9 $(head -1 $PGDATA/postmaster.pid)")  # Patroni lives on, and doesn't start it again
    pair.go_on()
    assert pair.in_order() == other(writer)
    writer = pair.in_order()
    with pair.cut_off(writer):
        pair.go_on()
    assert pair.in_order() == other(writer)
    writer = pair.in_order()
    pair.kill(writer)
    pair.go_on()
    pair.start(writer)
    assert pair.in_order() == other(writer)
    assert pair.count() > 20
