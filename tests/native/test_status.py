"""Status of a pair whose database copies itself: what each server is to the other, how far the standby is, and what stands in a promotion's way."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from replstore.cli.status import render
from replstore.databases.base import Stream
from replstore.pair.native_rules import decide
from replstore.pair.native_status import native_meaning, native_warnings
from replstore.pair.status import Status
from replstore.pair.view import NodeView, Policy, Reach, Role, Term, View
from tests.fix_native import NativeLab
from tests.fix_stores import put
from tests.fix_streaming import on_an_installed_server_too


def screen(status: Status) -> str:
    """What a person sees, in one line."""
    console = Console(width=300, highlight=False)
    with console.capture() as capture:
        console.print(render(status))
    return " ".join(capture.get().split())


@on_an_installed_server_too
def test_a_pair_in_order_and_one_whose_standby_lags(native_lab: NativeLab) -> None:
    store = native_lab.migrated(background=False, promote=False)
    store.run(put(1))
    store.sync()
    status = store.status()
    standby = status.nodes["standby"]
    assert (standby.state, standby.receiving, standby.term, status.replication) == ("it follows", True, status.term, "native")
    assert status.healthy
    assert "which waits for no standby: a lost writer takes its last commits with it" in screen(status)
    assert f"timeline {status.term} {status.term}" in screen(status)

    native_lab.pair.standby.execute("SELECT pg_wal_replay_pause()")
    try:
        store.run(put(2))
        standby = store.status().nodes["standby"]
        assert standby.lag_bytes is not None
        assert standby.lag_bytes > 0
        assert "bytes" in screen(store.status())
    finally:
        native_lab.pair.standby.execute("SELECT pg_wal_replay_resume()")


def test_a_standby_that_receives_nothing_is_no_healthy_one(native_lab: NativeLab) -> None:
    store = native_lab.migrated(background=False, promote=False)
    standby = native_lab.pair.standby
    standby.execute("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'")
    standby.execute("SELECT pg_reload_conf()")
    try:
        deadline = time.monotonic() + 10
        while (status := store.status()).healthy and time.monotonic() < deadline:
            time.sleep(0.05)
        assert status.nodes["standby"].state == "a standby that receives nothing: it isn't connected to primary"
        assert status.nodes["standby"].receiving is False
        assert not status.healthy
    finally:
        standby.execute("ALTER SYSTEM SET primary_conninfo = ''")  # the pair's own is put back when it is brought into order


TL1, TL2 = Term(1, "one"), Term(2, "two")


def node(name: str, role: Role, term: Term | None, **stream: Any) -> NodeView:
    facts = {
        "timeline": term.number if role is Role.WRITER and term else None,
        "place": 100,
        "flushed": 100,
        "system": "s",
        "retry_ms": 100,
        **stream,
    }
    return NodeView(name=name, role=role, term=term, boot=f"boot of {name}", stream=Stream(**facts), still_for=9.0)


WRITER = node("primary", Role.WRITER, TL1)
FOLLOWER = node("standby", Role.FOLLOWER, TL1, receiving=True)
GONE = NodeView(name="primary", reach=Reach.REFUSED, error="connection refused")


@pytest.mark.parametrize(
    ("primary", "standby", "means"),
    [
        (WRITER, FOLLOWER, ("it writes", "it follows")),
        (
            WRITER,
            node("standby", Role.WRITER, TL2),
            (
                "a former primary that takes writes of others: stop its server; standby has replaced it",
                "it takes writes, and so does primary: no Store writes to either before a person has decided",
            ),
        ),
        (
            WRITER,
            replace(FOLLOWER, stream=replace(FOLLOWER.stream, receiving=False)),
            (None, "a standby that receives nothing: it isn't connected to primary"),
        ),  # type: ignore[type-var]
        (GONE, replace(FOLLOWER, stream=replace(FOLLOWER.stream, receiving=False)), (None, "a standby that receives nothing")),  # type: ignore[type-var]
        (
            node("primary", Role.WRITER, TL2),
            FOLLOWER,
            (None, "a standby that has nothing of primary's timeline 2; `replstore rejoin` lets it follow"),
        ),
        (node("primary", Role.WRITER, None, timeline=2), FOLLOWER, ("it was promoted, which is recorded first", None)),
    ],
)
def test_what_a_server_is_to_the_other_one(primary: NodeView, standby: NodeView, means: tuple[str | None, str | None]) -> None:
    view = View(primary, standby, Policy(durability="server"))
    decision = decide(view)
    found = native_meaning(view, decision, primary, standby), native_meaning(view, decision, standby, primary)
    assert tuple(each if wanted is not None else None for each, wanted in zip(found, means, strict=True)) == means


def test_what_stands_in_a_promotions_way_is_said_before_it_is_needed() -> None:
    slow = node("standby", Role.FOLLOWER, TL1, receiving=True, retry_ms=5000)
    assert native_warnings(View(WRITER, FOLLOWER, Policy())) == []
    (warning,) = native_warnings(View(WRITER, slow, Policy()))
    assert warning.startswith("standby: wal_retrieve_retry_interval is 5 s")
    (warning,) = native_warnings(View(WRITER, FOLLOWER, Policy(promote=True)))
    assert "GRANT EXECUTE ON FUNCTION pg_promote" in warning
