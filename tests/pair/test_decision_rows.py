"""Each row of the decision table (who goes on alone, and when) once with the real fault, on both databases."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from replstore.errors import CommittedNotReplicated, NoWriter, ReplstoreError, TakeoverRefused
from replstore.pair.decide import Action, Reach
from replstore.store import Store
from tests.fix_proxy import MakeProxy
from tests.fix_stores import FAST, Lab, put, until

#: Longer than any disturbance of a busy machine: whatever happens here is no matter of time.  A node that is refused or locked out answers at once.
PATIENT: dict[str, Any] = {"detection_time": 30.0, "probe_timeout": 10.0, "ack_timeout": 15.0}
#: For a program that begins when a node is lost already: it waits for an answer, and for the detection time.
UNHURRIED: dict[str, Any] = {"probe_timeout": 10.0, "ack_timeout": 15.0}


def meets_one_restarted(lab: Lab, *, lost: str, restarted: str) -> Store:
    """A program that begins when one node is lost, and the other one has restarted since anybody watched."""
    store = lab.migrated(background=False)
    store.run(put(1))
    store.close()
    lab.kill(lost)
    lab.replace(restarted)
    return lab.store(takeover_timeout=0.5, **UNHURRIED)


# -- the writer is lost


def test_writer_refused_the_follower_takes_over_at_once(lab: Lab) -> None:
    store = lab.migrated(**PATIENT)
    store.run(put(1))
    lab.kill("primary")
    store.run(put(2))  # which waits for less than the detection time
    assert store.settings.takeover_timeout < PATIENT["detection_time"]
    assert lab.accounts("standby") == {1: 0, 2: 0}
    assert lab.state("standby").role == "writer"
    assert lab.state("standby").solo


def test_writer_refused_and_nobody_calls_the_monitor_takes_over(lab: Lab) -> None:
    store = lab.migrated(**PATIENT)
    store.run(put(1))
    lab.kill("primary")
    until(lambda: lab.state("standby").role == "writer", "the takeover")


def test_writer_silent_the_follower_takes_over_after_the_detection_time_and_the_old_one_can_not_acknowledge(
    postgresql_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = postgresql_lab
    store = lab.migrated()
    store.run(put(1))
    act, seen = store.pair.act, []
    monkeypatch.setattr(store.pair, "act", lambda view, decision: (seen.append((view, decision)), act(view, decision)))
    lab.pair.freeze("primary")  # type: ignore[attr-defined]
    store.run(put(2))
    (view,) = [view for view, decision in seen if decision.action is Action.TAKE_OVER]
    assert min(view.primary.silent_for, view.standby.still_for) >= FAST["detection_time"]
    assert lab.accounts("standby") == {1: 0, 2: 0}
    lab.pair.thaw("primary")  # type: ignore[attr-defined]
    until(lambda: store.status().healthy, "the former writer follows")
    assert lab.accounts("primary") == {1: 0, 2: 0}


def test_writer_refused_and_the_follower_restarted_since_the_last_contact_nobody_writes(lab: Lab) -> None:
    late = meets_one_restarted(lab, lost="primary", restarted="standby")
    until(lambda: "restarted or replaced" in str(late.pair.decision), "the primary is found lost")
    with pytest.raises(NoWriter, match=r"restarted or replaced.*takeover --force"):
        late.run(put(2))
    late.takeover("standby", force=True)
    late.run(put(2))
    assert lab.state("standby").term_no > 2


def test_takeover_by_hand_only_where_the_pair_says_so(lab: Lab) -> None:
    store = lab.migrated(takeover="manual", takeover_timeout=0.5, **PATIENT)
    store.run(put(1))
    with pytest.raises(TakeoverRefused, match="alive and writes"):
        store.takeover()
    lab.kill("primary")
    with pytest.raises(NoWriter, match="replstore takeover"):
        store.run(put(2))
    assert lab.state("standby").role == "follower"
    store.takeover()
    store.run(put(2))
    assert lab.accounts("standby") == {1: 0, 2: 0}


# -- the follower is lost


def test_follower_refused_right_after_a_contact_the_writer_goes_solo_and_says_so_first(lab: Lab) -> None:
    store = lab.migrated(**PATIENT)
    store.run(put(1))
    until(lambda: store.pair.watch.contact is not None, "a heartbeat")
    lab.kill("standby")
    store.run(put(2))
    assert lab.state("primary").solo
    assert "standby" in lab.sql("primary", f"SELECT reason FROM {lab.name('acknowledge')}")[0][0]
    assert store.status().acknowledge == "solo"
    lab.start("standby")
    until(lambda: store.status().healthy, "the follower is in sync again")
    assert not lab.state("primary").solo
    assert lab.accounts("standby") == {1: 0, 2: 0}


def test_follower_silent_a_commit_waits_and_is_reported_and_a_person_lets_the_writer_go_on(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    store = lab.migrated(detection_time=1.5)  # the primary is not silent for as long, and there is nobody who could take over
    store.run(put(1))
    lab.pair.freeze("standby")  # type: ignore[attr-defined]
    began = time.monotonic()
    with pytest.raises(CommittedNotReplicated, match="must not be repeated") as reported:
        store.run(put(2))
    assert time.monotonic() - began >= FAST["ack_timeout"]
    assert reported.value.id in lab.markers("primary")
    assert not lab.state("primary").solo
    store.solo()
    store.run(put(3))
    assert "forced" in lab.sql("primary", f"SELECT reason FROM {lab.name('acknowledge')}")[0][0]
    lab.pair.thaw("standby")  # type: ignore[attr-defined]
    until(lambda: store.status().healthy, "the follower is in sync again")
    assert lab.accounts("standby") == {1: 0, 2: 0, 3: 0}


@pytest.mark.timeout(60)
def test_a_follower_that_falls_silent_under_a_heartbeat_does_not_hold_the_monitor_up(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    store = lab.migrated(background=False)
    view, _ = store.pair.look()
    lab.pair.freeze("standby")  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="connection"):
        store.pair.watch.heartbeat(view, "primary")  # or it would wait for ever


def test_follower_refused_and_the_pair_says_block_nothing_is_acknowledged_until_it_is_back(lab: Lab) -> None:
    store = lab.migrated(**{**PATIENT, "ack_timeout": 1.0}, on_follower_down="block")
    store.run(put(1))
    lab.kill("standby")
    with pytest.raises(CommittedNotReplicated):
        store.run(put(2))
    assert not lab.state("primary").solo
    lab.start("standby")
    until(lambda: store.status().healthy and lab.accounts("standby") == {1: 0, 2: 0}, "the follower is in sync again")
    store.run(put(3))
    assert lab.accounts("standby") == {1: 0, 2: 0, 3: 0}


def test_async_follower_lost_the_writer_goes_on_and_the_backlog_arrives_later(lab: Lab) -> None:
    store = lab.migrated(durability="async", **PATIENT)
    store.run(put(1))
    store.sync()
    lab.kill("standby")
    store.run(put(2))
    assert not lab.state("primary").solo
    lab.start("standby")
    until(lambda: lab.accounts("standby") == {1: 0, 2: 0}, "the backlog arrives")


def test_async_writer_lost_the_follower_takes_over_and_what_was_lost_is_recorded(lab: Lab) -> None:
    store = lab.migrated(background=False, durability="async", **PATIENT)
    store.run(put(1))
    store.sync()
    store.run(put(2))
    lab.kill("primary")
    store.run(put(3))
    assert lab.accounts("standby") == {1: 0, 3: 0}
    lab.start("primary")
    store.rejoin()
    store.sync()
    assert lab.accounts("primary") == {1: 0, 3: 0}
    ((key, maybe),) = lab.sql("standby", f"SELECT key, maybe_acknowledged FROM {lab.name('orphan')} WHERE tbl LIKE '%account'")
    assert key == "[2]"
    assert maybe


# -- a node alone


def test_the_new_writer_is_solo_right_after_the_takeover_and_both_are_in_sync_when_the_other_is_back(lab: Lab) -> None:
    store = lab.migrated(**PATIENT)
    store.run(put(1))
    lab.kill("primary")
    store.run(put(2))
    assert store.status().acknowledge == "solo"
    lab.start("primary")
    until(lambda: store.status().healthy, "the former writer follows")
    lab.kill("standby")
    store.run(put(3))
    assert lab.accounts("primary") == {1: 0, 2: 0, 3: 0}


def test_a_node_alone_after_its_restart_is_unconfirmed_until_the_other_one_or_a_person_says_so(lab: Lab) -> None:
    late = meets_one_restarted(lab, lost="standby", restarted="primary")
    with pytest.raises(NoWriter, match=r"unconfirmed.*replstore solo"):
        late.run(put(2))
    late.takeover("primary", force=True)
    late.run(put(2))
    assert lab.state("primary").term_no > 2
    assert lab.accounts("primary") == {1: 0, 2: 0}


def test_a_node_alone_after_its_restart_is_confirmed_by_the_other_one(lab: Lab) -> None:
    late = meets_one_restarted(lab, lost="standby", restarted="primary")
    with pytest.raises(NoWriter, match="unconfirmed"):
        late.run(put(2))
    lab.start("standby")
    late.run(put(2))
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 2: 0}


# -- with a witness


@pytest.fixture
def witness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the witness is."""
    return tmp_path_factory.mktemp("witness") / "witness.db"


def test_with_a_witness_a_silent_follower_is_left_behind_and_does_not_take_over_any_more(postgresql_lab: Lab, witness: Path) -> None:
    lab, url = postgresql_lab, f"sqlite:///{witness}"
    store = lab.migrated(witness=url, ack_timeout=5.0)
    store.run(put(1))
    lab.pair.freeze("standby")  # type: ignore[attr-defined]
    store.run(put(2))  # solo, by the witness
    store.close()
    lab.pair.freeze("primary")  # type: ignore[attr-defined]
    lab.pair.thaw("standby")  # type: ignore[attr-defined]
    other = lab.store(witness=url, takeover_timeout=2.0)
    until(lambda: "went on without standby" in str(other.pair.decision), "the primary is found lost")
    with pytest.raises(NoWriter, match="went on without standby"):
        other.run(put(3))
    lab.pair.thaw("primary")  # type: ignore[attr-defined]
    until(lambda: other.status().healthy, "the follower is in sync again")
    other.run(put(4))
    assert lab.accounts("standby") == {1: 0, 2: 0, 4: 0}


def test_with_a_witness_a_lost_writer_is_replaced_and_does_not_go_solo_any_more(lab: Lab, witness: Path) -> None:
    url = f"sqlite:///{witness}"
    store = lab.migrated(witness=url, **UNHURRIED)
    store.run(put(1))
    lab.kill("primary")
    store.run(put(2))
    assert lab.state("standby").role == "writer"
    store.close()
    lab.kill("standby")
    lab.start("primary")
    late = lab.store(witness=url, takeover_timeout=0.5, **UNHURRIED)
    with pytest.raises(NoWriter, match="witness has given the pair to standby"):
        late.run(put(3))
    lab.start("standby")
    until(lambda: late.status().writer == "standby", "the new writer is found")
    late.run(put(3))
    assert lab.accounts("standby") == {1: 0, 2: 0, 3: 0}


def test_without_its_witness_a_pair_in_contact_writes_and_a_lost_node_stops_it(lab: Lab, witness: Path) -> None:
    url = f"sqlite:///{witness}"
    store = lab.migrated(witness=url, takeover_timeout=1.0, detection_time=30.0, ack_timeout=15.0)
    store.run(put(1))
    held = sqlite3.connect(witness, isolation_level=None)
    held.execute("BEGIN EXCLUSIVE")  # it answers nobody
    store.run(put(2))
    assert lab.accounts("standby") == {1: 0, 2: 0}
    lab.kill("primary")
    with pytest.raises((NoWriter, CommittedNotReplicated), match="witness can't be reached"):
        store.run(put(3))
    assert lab.state("standby").role == "follower"
    held.execute("ROLLBACK")
    held.close()
    until(lambda: lab.state("standby").role == "writer", "the takeover")
    store.run(put(4))
    assert lab.state("standby").role == "writer"


# -- a node that answers, and doesn't serve us


def test_a_server_without_a_free_connection_is_not_taken_over(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    lab.migrated(background=False).close()
    ordinary = "CREATE ROLE visitor LOGIN CONNECTION LIMIT 0"
    lab.sql("primary", ordinary)
    try:
        visitor = lab.pair.primary_url.replace("postgres@", "visitor@")
        lab.sql("standby", "CREATE ROLE visitor LOGIN SUPERUSER")
        with pytest.raises(ReplstoreError, match="too many connections"):
            lab.store(primary=visitor, standby=lab.pair.standby_url.replace("postgres@", "visitor@"), takeover_timeout=1.0).run(put(1))
        assert lab.state("standby").role == "follower"
    finally:
        for node in ("primary", "standby"):
            lab.sql(node, "DROP ROLE IF EXISTS visitor")


def test_a_writer_that_becomes_full_is_not_taken_over(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    store = lab.migrated(takeover_timeout=1.0, probe_timeout=PATIENT["probe_timeout"])  # time for an answer, so that it isn't silence
    store.run(put(1))
    server = lab.pair.primary  # type: ignore[attr-defined]
    server.execute(f"ALTER DATABASE {lab.pair.database} ALLOW_CONNECTIONS false")  # type: ignore[attr-defined]
    server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{lab.pair.database}'")  # type: ignore[attr-defined]
    until(lambda: "locked out" in str(store.pair.decision), "the monitor is refused entry")
    time.sleep(2 * FAST["detection_time"])
    with pytest.raises(Exception, match=r"not currently accepting connections|locked out"):
        store.run(put(2))
    assert lab.state("standby").role == "follower"
    server.execute(f"ALTER DATABASE {lab.pair.database} ALLOW_CONNECTIONS true")  # type: ignore[attr-defined]
    until(lambda: store.status().healthy, "the writer serves again")
    store.run(put(3))
    assert lab.accounts("standby") == {1: 0, 3: 0}


def test_a_writer_that_refuses_entry_slowly_is_locked_out_and_not_silent(postgresql_lab: Lab, proxy: MakeProxy) -> None:
    lab = postgresql_lab
    lab.migrated(background=False).close()
    way = proxy(lab.pair.primary_url)
    store = lab.store(background=False, primary=way.url, probe_timeout=PATIENT["probe_timeout"])
    server = lab.pair.primary  # type: ignore[attr-defined]
    store.pair.primary.service.dispose()
    server.execute(f"ALTER DATABASE {lab.pair.database} ALLOW_CONNECTIONS false")  # type: ignore[attr-defined]
    way.delay(0.2)
    for _ in range(3):  # each answer takes as long as the first
        view, decision = store.pair.look()
        assert (view.primary.reach, decision.action) == (Reach.LOCKED_OUT, Action.WAIT), view.primary
    server.execute(f"ALTER DATABASE {lab.pair.database} ALLOW_CONNECTIONS true")  # type: ignore[attr-defined]


def test_a_writer_whose_file_may_not_be_opened_is_not_taken_over(sqlite_lab: Lab) -> None:
    lab = sqlite_lab
    store = lab.migrated(takeover_timeout=1.0)
    store.run(put(1))
    path = Path(str(store.pair.primary.url.database))
    lab.kill("primary")
    path.mkdir()  # something is there, and it is no database that could be opened
    store.close()
    try:
        with pytest.raises(ReplstoreError, match="primary"):
            lab.store(takeover_timeout=1.0).run(put(2))
        assert lab.state("standby").role == "follower"
    finally:
        path.rmdir()
    lab.start("primary")
    store = lab.store()
    store.run(put(3))
    assert lab.accounts("standby") == {1: 0, 3: 0}


def test_a_follower_that_locks_us_out_is_not_left_behind(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    store = lab.migrated(probe_timeout=PATIENT["probe_timeout"], detection_time=PATIENT["detection_time"])
    store.run(put(1))
    server = lab.pair.standby  # type: ignore[attr-defined]
    server.execute(f"ALTER DATABASE {lab.pair.database} ALLOW_CONNECTIONS false")  # type: ignore[attr-defined]
    server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{lab.pair.database}'")  # type: ignore[attr-defined]
    with pytest.raises(CommittedNotReplicated):
        store.run(put(2))
    assert not lab.state("primary").solo
    assert "locked out" in store.status().reason
    server.execute(f"ALTER DATABASE {lab.pair.database} ALLOW_CONNECTIONS true")  # type: ignore[attr-defined]
    until(lambda: store.status().healthy, "the follower serves again")
    store.run(put(3))
    assert lab.accounts("standby") == {1: 0, 2: 0, 3: 0}
