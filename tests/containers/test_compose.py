"""The set-ups of compose/ do what they promise while their nodes are killed, paused and cut off: what was acknowledged is there, once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fix_compose import PATRONICTL, SetUp, other

pytestmark = [pytest.mark.containers, pytest.mark.slow, pytest.mark.timeout(1200)]


def test_journal_loses_nothing_when_its_writer_is_killed_paused_and_cut_off(set_up: Callable[..., SetUp]):
    pair = set_up("journal.yaml")
    pair.kill("primary")
    pair.go_on()  # the follower took over
    pair.start("primary")
    assert pair.in_order() == "standby"  # and the former writer follows, without a hand
    for writer, fault in (("standby", pair.paused), ("primary", pair.cut_off)):
        with fault(writer):
            pair.go_on()
        assert pair.in_order() == other(writer)
    with pair.paused("primary"):
        pass  # a follower that is away for a moment
    pair.go_on()
    assert pair.count() > 20


def test_streaming_loses_nothing_when_its_writer_is_killed_paused_and_cut_off(set_up: Callable[..., SetUp]):
    pair = set_up("streaming.yaml")
    pair.kill("primary")
    pair.promoted("standby")
    pair.start("primary")
    pair.go_on()
    for writer, fault in (("standby", pair.paused), ("primary", pair.cut_off)):
        assert pair.in_order() == writer
        with fault(writer):
            pair.promoted(other(writer))
        pair.restart(writer)  # it had gone on alone: node.sh finds that the other one writes now
        pair.go_on()
    assert pair.in_order() == "standby"
    assert pair.count() > 15


def test_patroni_loses_nothing_in_its_switchover_and_failovers_when_its_writer_is_killed_cut_off_and_paused(set_up: Callable[..., SetUp]):
    pair = set_up("patroni.yaml")
    writer = pair.in_order()
    pair.execute("primary", *PATRONICTL, "switchover", "--force")
    pair.promoted(other(writer))
    pair.go_on()
    # Patroni lives on: it lets the other one take over, or starts this one again.
    pair.execute(pair.in_order(), "sh", "-c", "kill -9 $(head -1 $PGDATA/postmaster.pid)")
    pair.go_on()
    writer = pair.in_order()
    with pair.cut_off(writer):
        pair.go_on()
    assert pair.in_order() == other(writer)
    pair.kill(other(writer))
    pair.go_on()
    pair.start(other(writer))
    assert pair.in_order() == writer
    with pair.paused(writer):
        pair.go_on()
    assert pair.in_order() == other(writer)  # it woke as a writer whose lease had run out
    assert pair.count() > 25
