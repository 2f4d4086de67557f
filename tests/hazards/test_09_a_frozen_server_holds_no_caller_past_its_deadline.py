"""Hazard 9, the other way round: a server that is frozen, or a thread that waits for one, holds nobody up for longer than the caller said."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from replstore import NodeLost, NoWriter, SwitchoverFailed, local
from replstore.databases.postgresql.capture import GUARD, LOCK_CLASS
from replstore.node import Node
from replstore.pair import by_hand, flip
from replstore.pair.flip import under_role_lock
from tests.fix_proxy import MakeProxy
from tests.fix_stores import Lab, put, until

#: s after which a test says that a call hangs: far above any limit that is asked for here.
HANGS = 20.0


def servers(lab: Lab) -> local.PostgresPair:
    assert isinstance(lab.pair, local.PostgresPair)
    return lab.pair


def ended(call: Callable[[], Any]) -> BaseException | None:
    """What a call raised that has to come to its end by itself."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(HANGS)
    assert not thread.is_alive(), "it hangs"
    return raised[0] if raised else None


@pytest.mark.parametrize("when", ["before", "under the lock"])
def test_a_flip_on_a_frozen_server_ends_in_time_and_names_it(postgresql_lab: Lab, when: str) -> None:
    lab = postgresql_lab
    lab.migrated(background=False)
    node = lab.nodes["standby"]
    with node.begin():  # the connection is there already
        pass
    if when == "before":
        servers(lab).freeze("standby")

    def change(connection: Any, state: Any) -> None:
        servers(lab).freeze("standby")
        connection.exec_driver_sql("SELECT 1")

    error = ended(lambda: under_role_lock(node, change, seconds=0.5))
    servers(lab).thaw("standby")
    assert isinstance(error, NodeLost)
    assert str(error) == "standby's role can't change: standby hasn't answered for 0.5 s"


def test_a_flip_whose_blockers_can_t_be_asked_ends_in_time(postgresql_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server freezes when it has said that somebody keeps the lock."""
    lab = postgresql_lab
    lab.migrated(background=False)
    program = lab.connect("standby")
    program.execute("BEGIN")
    program.execute(f"SELECT pg_advisory_xact_lock_shared({LOCK_CLASS}, {GUARD})")
    frozen = threading.Event()

    def blockers(node: Node) -> list[str]:
        if not frozen.is_set():
            frozen.set()
            servers(lab).freeze("standby")
        return asked(node)

    asked = flip._blockers
    monkeypatch.setattr(flip, "_blockers", blockers)
    error = ended(lambda: under_role_lock(lab.nodes["standby"], lambda connection, state: None, seconds=0.5))
    servers(lab).thaw("standby")
    assert isinstance(error, SwitchoverFailed)
    assert frozen.is_set()


def test_a_change_that_takes_longer_on_a_server_that_answers_goes_on(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    lab.migrated(background=False)

    def slowly(connection: Any, state: Any) -> str:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql("SELECT pg_sleep(1.2)")
        return str(state.role)

    assert under_role_lock(lab.nodes["standby"], slowly, seconds=0.2) == "follower"


def test_a_switchover_whose_network_swallows_everything_ends_in_time(postgresql_lab: Lab, proxy: MakeProxy) -> None:
    lab = postgresql_lab
    lab.migrated(background=False).close()
    path = proxy(lab.pair.primary_url)
    store = lab.store(background=False, primary=path.url)
    store.run(put(1))
    handed_over = by_hand.hand_over

    def swallowed(*arguments: Any, **options: Any) -> None:
        path.black_hole()
        handed_over(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_hand, "hand_over", swallowed)
        error = ended(lambda: store.switchover(timeout=1.0))
    path.restore()
    assert isinstance(error, NodeLost)
    assert "primary hasn't answered for 1 s" in str(error)


@pytest.mark.parametrize("what", ["begin", "switchover", "takeover", "solo"])
def test_whoever_waits_for_another_thread_s_flip_keeps_its_own_deadline(lab: Lab, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    store = lab.migrated(background=False, takeover_timeout=0.5)
    under_way, go_on = threading.Event(), threading.Event()
    hand_over = by_hand.hand_over

    def long(*arguments: Any, **options: Any) -> None:
        under_way.set()
        assert go_on.wait(2 * HANGS)
        hand_over(*arguments, **options)

    monkeypatch.setattr(by_hand, "hand_over", long)
    switching = threading.Thread(target=store.switchover, daemon=True)
    switching.start()
    assert under_way.wait(HANGS)
    store.pair.lead = None  # nobody is known to write at this moment
    calls: dict[str, Callable[[], Any]] = {
        "begin": lambda: store.run(put(1)),
        "switchover": lambda: store.switchover(timeout=0.2),
        "takeover": store.takeover,
        "solo": store.solo,
    }
    error = ended(calls[what])
    go_on.set()
    switching.join(HANGS)
    assert isinstance(error, NoWriter if what == "begin" else SwitchoverFailed)
    assert "by another thread of this program" in str(error)
    if what != "switchover":
        assert "a switchover by another thread of this program has been under way for" in str(error)
    until(lambda: lab.state("standby").role == "writer", "the switchover is done")
    store.run(put(2))
