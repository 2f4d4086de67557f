"""Hazard 22: no decision hangs on a wall clock, a program that stood still discards what it knew, and no key is given twice."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from replstore import local
from replstore.errors import NotAPair, ReplicationStopped, StaleRead
from replstore.pair.decide import Action, Reach, Term
from replstore.store import Store
from tests.fix_proxy import MakeProxy
from tests.fix_stores import FAST, Lab, count, insert, put, until


class NumberedBase(DeclarativeBase):
    pass


class Numbered(NumberedBase):
    """Its keys come from the database."""

    __tablename__ = "numbered"
    __table_args__ = ({"sqlite_autoincrement": True},)
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@pytest.mark.parametrize("jump", [-86400.0, 86400.0])
def test_a_wall_clock_that_jumps_decides_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    store = lab.migrated()
    store.run(put(1))
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + jump)
    time_stays = store.pair.watch.view()
    assert time_stays.standby.still_for < FAST["detection_time"]
    store.run(put(2))
    assert lab.state("primary").role == "writer"
    lab.kill("primary")
    store.run(put(3))
    assert lab.accounts("standby") == {1: 0, 2: 0, 3: 0}


def test_a_bounded_lag_is_measured_from_the_last_batch_and_a_read_beyond_it_goes_to_the_writer(lab: Lab) -> None:
    store = lab.migrated(background=False, durability="async")
    store.run(put(1))
    store.sync()
    store.run(put(2))
    with store.read(node="follower", max_lag=60) as session:
        assert count(session) == 1  # old, and within the bound
    with store.read(node="follower", max_lag=0) as session:
        assert count(session) == 2
    assert len(lab.accounts("standby")) == 2  # it was brought up to date for the read
    lab.sql("primary", f"DELETE FROM {lab.name('tick')}")  # shipping stops
    store.run(put(3))
    with store.read(node="follower", max_lag=0) as session:
        assert count(session) == 3
    with pytest.raises(ReplicationStopped):
        store.sync()


def test_a_read_within_a_lag_that_nobody_can_serve_is_refused(lab: Lab) -> None:
    store = lab.migrated(background=False, durability="async", takeover="manual", takeover_timeout=0.5)
    store.run(put(1))
    store.sync()
    lab.kill("primary")
    store.pair.look()
    store.pair.shipping.synced_at = float("-inf")
    with pytest.raises(StaleRead, match=r"within|refused"), store.read(node="any", max_lag=0.0):
        pass


#: A refused node counts as a silent one, so that two files can show what a program does about silence.
SILENCE: dict[str, Any] = {"refused_means_dead": False, "detection_time": 0.3}


def _stand_still(store: Store) -> None:
    """For longer than the detection time, and for longer than a watch may have a gap."""
    store.pair.watch._gap = 0.2
    time.sleep(2 * SILENCE["detection_time"])


def test_silence_that_was_watched_for_the_detection_time_is_a_loss(sqlite_lab: Lab) -> None:
    lab = sqlite_lab
    store = lab.migrated(background=False, **SILENCE)
    store.run(put(1))
    lab.kill("primary")
    until(lambda: store.pair.look()[1].action is Action.TAKE_OVER, "it was watched without a gap")


def test_a_program_that_stood_still_begins_to_watch_a_silent_writer_anew(sqlite_lab: Lab) -> None:
    """Meanwhile the writer may have been back, and the heartbeat may have gone on and stopped again."""
    lab = sqlite_lab
    store = lab.migrated(background=False, **SILENCE)
    store.run(put(1))
    lab.kill("primary")
    store.pair.look()
    _stand_still(store)
    view, decision = store.pair.look()
    assert (view.primary.silent_for, view.standby.still_for) < (SILENCE["detection_time"], SILENCE["detection_time"])
    assert decision.action is Action.WAIT
    assert view.standby.still_for == 0.0


def test_a_program_that_stood_still_while_it_asked_has_watched_nothing(postgresql_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = postgresql_lab
    store = lab.migrated(background=False, detection_time=0.3)
    store.pair.look()
    lab.pair.freeze("primary")  # type: ignore[attr-defined]
    monkeypatch.setattr(store.pair.nodes["primary"].database, "interrupt", lambda connection: _stand_still(store))  # before the answer is given up
    view, _ = store.pair.look()
    monkeypatch.undo()
    assert view.primary.reach is Reach.SILENT
    assert view.primary.silent_for < SILENCE["detection_time"]


def test_a_program_that_stood_still_holds_its_last_contact_for_as_old_as_it_is(sqlite_lab: Lab) -> None:
    lab = sqlite_lab
    store = lab.migrated(background=False, detection_time=0.3)
    store.run(put(1))
    view, _ = store.pair.look()
    store.pair.watch.heartbeat(view, "primary")
    _stand_still(store)
    lab.kill("standby")
    view, decision = store.pair.look()
    assert view.contact is not None
    assert view.contact.age >= 2 * SILENCE["detection_time"]
    assert decision.action is Action.WAIT


def test_a_contact_is_as_old_as_its_sending(sqlite_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer may have been under way for long: the follower may have gone since it was given."""
    lab = sqlite_lab
    store = lab.migrated(background=False)
    view, _ = store.pair.look()
    database = store.pair.standby.database
    state = database.state

    def slow(connection: Any) -> Any:
        time.sleep(0.3)
        return state(connection)

    monkeypatch.setattr(database, "state", slow)
    store.pair.watch.heartbeat(view, "primary")
    monkeypatch.undo()
    contact = store.pair.watch.view().contact
    assert contact is not None
    assert contact.age >= 0.3


def test_a_heartbeat_that_meets_another_follower_than_the_one_seen_is_no_contact(sqlite_lab: Lab) -> None:
    lab = sqlite_lab
    store = lab.migrated(background=False)
    view, _ = store.pair.look()
    for change in ("term_no = 2", "term_uuid = 'another'", "role = 'fenced'"):
        before = lab.sql("standby", "SELECT role, term_no, term_uuid FROM replstore_role")[0]
        lab.sql("standby", f"UPDATE replstore_role SET {change}")
        store.pair.watch.heartbeat(view, "primary")
        assert store.pair.watch.contact is None
        lab.sql("standby", f"UPDATE replstore_role SET role = '{before[0]}', term_no = {before[1]}, term_uuid = '{before[2]}'")
    lab.replace("standby")  # its boot identity is another one
    store.pair.standby.service.dispose()
    store.pair.watch.heartbeat(view, "primary")
    assert store.pair.watch.contact is None


def test_a_contact_with_a_writer_that_has_been_replaced_confirms_nothing(sqlite_lab: Lab) -> None:
    lab = sqlite_lab
    store = lab.migrated(background=False)
    view, _ = store.pair.look()
    store.pair.watch.heartbeat(view, "primary")
    assert store.pair.watch.view().contact is not None
    store.pair.watch.learn(Term(2, "another"))
    assert store.pair.watch.view().contact is None


PROGRAM = """
import logging, sys
from replstore.store import Store
from sqlalchemy import make_url, text
logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
settings = dict(detection_time=0.4, probe_interval=0.1, probe_timeout=0.5, ack_timeout=5, ship_interval=0.05)
store = Store(primary=sys.argv[1], standby=sys.argv[2], **settings)
print("ready", flush=True)
for line in sys.stdin:
    store.run(lambda session: session.execute(text(line)))
    print("done", flush=True)
"""


def test_a_program_that_was_stopped_for_longer_than_the_detection_time_takes_nothing_over(lab: Lab) -> None:
    store = lab.migrated(ack_timeout=10.0)  # the stopped program may have had the shippers' turn, for two seconds at most
    program = lab.program(PROGRAM)
    assert program.says() == "ready"
    for id in range(1, 4):
        program.freeze()
        store.run(put(id))
        time.sleep(0.9)  # twice the detection time
        program.wake()
        assert program.ask(insert(id + 100)) == "done"
    assert lab.state("primary").role == "writer"
    assert lab.state("primary").term_no == 1
    assert len(lab.accounts("standby")) == 6


def test_a_program_whose_own_network_was_cut_takes_nothing_over_while_another_reaches_the_writer(postgresql_lab: Lab, proxy: MakeProxy) -> None:
    lab = postgresql_lab
    store = lab.migrated()  # its heartbeats reach the follower
    way = proxy(lab.pair.primary_url)
    cut_off = lab.store(primary=way.url)
    cut_off.run(put(1))
    way.black_hole()
    until(lambda: "another program may reach" in (cut_off.pair.decision.reason if cut_off.pair.decision else ""), "the cut is noticed")
    time.sleep(2 * FAST["detection_time"])
    assert lab.state("standby").role == "follower"
    store.run(put(2))
    way.restore()
    until(lambda: cut_off.pair.decision is not None and cut_off.pair.decision.writer == "primary", "the network is back")
    cut_off.run(put(3))
    assert lab.accounts("standby").keys() == {1, 2, 3}


def test_keys_that_a_lost_writer_gave_and_did_not_ship_are_not_given_again(lab: Lab) -> None:
    store = lab.migrated(NumberedBase.metadata, background=False, rejoin="manual")
    store.run(lambda session: session.add(Numbered(name="shipped")))
    for number in range(5):  # behind replstore's back: captured, never shipped
        lab.sql("primary", f"INSERT INTO numbered (name) VALUES ('lost {number}')")
    lost = {id for (id,) in lab.sql("primary", "SELECT id FROM numbered WHERE name LIKE 'lost%'")}
    lab.kill("primary")
    store.run(lambda session: session.add(Numbered(name="after")))
    given = {id for (id,) in lab.sql("standby", "SELECT id FROM numbered WHERE name = 'after'")}
    assert given.isdisjoint(lost)
    lab.start("primary")
    store.rejoin()
    keys = lab.sql("standby", f"SELECT key FROM {lab.name('orphan')}")
    assert {key for (key,) in keys} == {f"[{id}]" for id in lost}  # with the keys that they had


def test_numbers_that_were_given_without_a_row_are_not_given_again_after_a_switchover(postgresql_lab: Lab) -> None:
    """A program may take keys first and insert later: by then the other node writes, and no batch had anything to carry."""
    lab = postgresql_lab
    store = lab.migrated(NumberedBase.metadata, background=False)
    for node, last in (("primary", 5), ("standby", 10)):
        given = [id for (id,) in lab.sql(node, "SELECT nextval('numbered_id_seq') FROM generate_series(1, 5)")]
        assert given[-1] == last  # and no jump was needed
        store.switchover()
        store.run(lambda session, given=given: session.add_all([Numbered(id=id, name="taken first") for id in given[:-1]]))
    store.run(lambda session: session.add(Numbered(name="one more")))
    assert lab.sql("primary", "SELECT id FROM numbered WHERE name = 'one more'") == [(11,)]


@pytest.mark.parametrize("right", ["SELECT", "USAGE"])
def test_a_sequence_that_is_not_the_role_s_stops_no_shipping_and_keeps_no_follower_from_taking_over(
    ordinary_postgresql_pair: local.PostgresPair, right: str
) -> None:
    with closing(Lab(ordinary_postgresql_pair)) as lab:
        store = lab.migrated(background=False)
        store.run(put(1))
        for node in ("primary", "standby"):
            url = make_url(lab.pair.url(node)).set(username="postgres")  # type: ignore[arg-type]
            with psycopg.connect(host=url.host, port=url.port, user=url.username, dbname=url.database) as connection:
                connection.execute("CREATE SEQUENCE not_ours; CREATE SCHEMA another_s; CREATE SEQUENCE another_s.hidden")
                connection.execute(f"SELECT nextval('not_ours'), nextval('another_s.hidden'); GRANT {right} ON SEQUENCE not_ours TO ordinary")
                if node == "primary":
                    connection.execute("SELECT nextval('not_ours')")
        store.run(put(4))
        store.switchover()
        store.run(put(2))
        lab.kill("standby")
        store.run(put(3))
        assert lab.accounts("primary") == {1: 0, 2: 0, 3: 0, 4: 0}


def test_a_follower_s_sequence_is_never_lowered(lab: Lab) -> None:
    store = lab.migrated(NumberedBase.metadata, background=False)
    if lab.postgresql:
        lab.sql("standby", "SELECT setval('numbered_id_seq', 500)")
    else:
        lab.sql("standby", "UPDATE sqlite_sequence SET seq = 500 WHERE name = 'numbered'")
    store.run(lambda session: session.add(Numbered(name="one")))
    store.switchover()
    store.run(lambda session: session.add(Numbered(name="two")))
    (id,) = lab.sql("standby", "SELECT id FROM numbered WHERE name = 'two'")[0]
    assert id > 500


def test_exchanged_urls_are_refused(lab: Lab) -> None:
    lab.migrated(background=False).close()
    with pytest.raises(NotAPair, match="exchanged"):
        lab.store(primary=lab.pair.standby_url, standby=lab.pair.primary_url)


def test_a_node_of_another_pair_is_refused(sqlite_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> None:
    sqlite_lab.migrated(background=False).close()
    other = Lab(local.sqlite_pair(tmp_path_factory.mktemp("other")))
    other.migrated(background=False).close()
    with pytest.raises(NotAPair, match="different pairs"):
        sqlite_lab.store(standby=other.pair.standby_url)
    other.close()


def test_a_copy_of_the_primary_is_no_standby(sqlite_lab: Lab) -> None:
    lab = sqlite_lab
    lab.migrated(background=False).close()
    lab.save("primary")
    with pytest.raises(NotAPair):
        lab.store(standby=f"sqlite:///{lab._backup('primary')}")


def test_a_connection_of_the_application_s_pool_is_not_used_under_the_next_term(lab: Lab) -> None:
    store = lab.migrated()
    store.run(put(1))
    store.switchover()
    with pytest.raises((psycopg.Error, sqlite3.Error)):
        lab.sql("primary", insert(2))
    store.switchover()
    store.run(lambda session: session.execute(text(insert(3))))
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 3: 0}
