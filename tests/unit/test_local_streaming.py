"""The local streaming pair does what the tests of native replication rely on: one cluster on two servers, real failovers, a way back from each."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
import pytest

from replstore import local
from replstore.errors import ConfigError, ReplstoreError
from replstore.local import programs
from tests.fix_pairs import plain

TIMELINE = "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"


def rows(pair: local.StreamingPair, node: local.Name) -> list[int]:
    with plain(pair.url(node)) as session:
        return [x for (x,) in session.execute("SELECT x FROM t ORDER BY x")]


def insert(pair: local.StreamingPair, node: local.Name, x: int) -> None:
    with plain(pair.url(node)) as session:
        session.execute("INSERT INTO t VALUES (%s)", [x])


@pytest.fixture
def pair(streaming_pair: local.StreamingPair) -> local.StreamingPair:
    with plain(streaming_pair.primary_url) as session:
        session.execute("CREATE TABLE t (x int)")
    return streaming_pair


def lose_alone(pair: local.StreamingPair, writer: local.Name, x: int) -> None:
    """The writer commits a row that its follower never gets, and is killed; the follower takes over."""
    to: local.Name = "standby" if writer == "primary" else "primary"
    pair.catch_up()
    pair.kill(to)
    insert(pair, writer, x)
    pair.kill(writer)
    pair.start(to)
    pair.promote(to)


def test_the_standby_is_the_same_cluster_and_reads_what_the_primary_wrote(pair: local.StreamingPair):
    insert(pair, "primary", 1)
    pair.catch_up()
    assert rows(pair, "standby") == [1]
    one, other = (server.execute("SELECT system_identifier FROM pg_control_system()") for server in (pair.primary, pair.standby))
    assert one == other
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        insert(pair, "standby", 2)
    assert pair.primary.execute("SELECT application_name, state FROM pg_stat_replication") == [("standby", "streaming")]


def test_each_node_takes_over_in_turn_and_the_other_follows_it(pair: local.StreamingPair):
    began = pair.primary.execute(TIMELINE)[0][0]
    for number in range(2):
        for writer, to in (("primary", "standby"), ("standby", "primary")):
            insert(pair, writer, number)
            pair.catch_up()
            pair.kill(writer)
            pair.promote(to)
            insert(pair, to, 10 + number)
            assert pair.follow(writer) == "rewound"
            pair.catch_up()
            assert rows(pair, writer) == rows(pair, to)
    assert rows(pair, "primary") == [0, 0, 1, 1, 10, 10, 11, 11]
    assert pair.primary.execute(TIMELINE) == [(began + 4,)]


@pytest.mark.parametrize("writer", ["primary", "standby"])
def test_what_a_former_writer_alone_had_is_gone_when_it_follows(pair: local.StreamingPair, writer: local.Name):
    if writer == "standby":
        pair.switch_over()
    to: local.Name = "standby" if writer == "primary" else "primary"
    lose_alone(pair, writer, 1)
    insert(pair, to, 2)
    pair.start(writer)  # as a service manager would: it knows nothing, and takes writes
    insert(pair, writer, 3)
    assert rows(pair, writer) == [1, 3]
    assert pair.follow(writer) == "rewound"
    pair.catch_up()
    assert rows(pair, writer) == rows(pair, to) == [2]


def test_a_switch_over_loses_nothing_and_needs_no_copy(pair: local.StreamingPair):
    insert(pair, "primary", 1)
    pair.switch_over()
    assert rows(pair, "standby") == [1]
    insert(pair, "standby", 2)
    pair.switch_over()
    assert rows(pair, "primary") == [1, 2]
    assert not pair.follows("primary")
    assert pair.follows("standby")


def test_a_switch_over_to_a_standby_that_stands_still_leaves_the_writer_writing(pair: local.StreamingPair):
    pair.standby.execute("SELECT pg_wal_replay_pause()")
    with pytest.raises(ReplstoreError, match="hasn't replayed"):
        pair.switch_over(seconds=0.3)
    insert(pair, "primary", 1)
    assert pair.follows("standby")
    pair.standby.execute("SELECT pg_wal_replay_resume()")


def test_an_ordinary_role_may_promote(pair: local.StreamingPair):
    pair.kill("primary")
    with plain(pair.standby_url, autocommit=True) as session:
        assert session.execute("SELECT rolname::text, rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == ("app", False)
        session.execute("SELECT pg_promote(false)")
        deadline = time.monotonic() + 30
        while session.execute("SELECT pg_is_in_recovery()").fetchone() == (True,):
            assert time.monotonic() < deadline
        session.execute("INSERT INTO t VALUES (1)")


def test_an_installed_server_does_the_same():
    """It may be older: pg_rewind 15 sees no fork as long as the control file names the old timeline."""
    try:
        programs.bindir("path")
    except ConfigError as missing:
        pytest.skip(str(missing))
    with local.streaming_pair("path", fsync=False, segment=1) as pair:
        pair.primary.execute("CREATE TABLE t (x int)", "app")
        lose_alone(pair, "primary", 1)
        insert(pair, "standby", 2)
        assert pair.follow("primary") == "rewound"
        pair.switch_over()
        assert rows(pair, "primary") == [2]


# --- a pair for the whole run


def takeover(pair: local.StreamingPair) -> None:
    pair.kill("primary")
    pair.promote("standby")


def takeover_and_rejoin(pair: local.StreamingPair) -> None:
    takeover(pair)
    pair.follow("primary")


def lose_both(pair: local.StreamingPair) -> None:
    takeover_and_rejoin(pair)
    pair.kill("standby")
    pair.kill("primary")


def freeze_both(pair: local.StreamingPair) -> None:
    pair.freeze("standby")
    pair.freeze_postmaster("primary")


def two_writers(pair: local.StreamingPair) -> None:
    takeover(pair)
    pair.start("primary")


def wait_for_nobody(pair: local.StreamingPair) -> None:
    pair.synchronous()
    pair.kill("standby")


MISCHIEF = (takeover, takeover_and_rejoin, lose_both, freeze_both, two_writers, wait_for_nobody, local.StreamingPair.switch_over)


@pytest.mark.parametrize("mischief", MISCHIEF, ids=lambda act: act.__name__)
def test_a_shared_pair_is_in_order_again_for_the_next_test(streaming_servers: local.StreamingPair, mischief: Callable[[local.StreamingPair], None]):
    with streaming_servers.fresh("before", "app") as pair:
        mischief(pair)
    began = time.monotonic()
    with streaming_servers.fresh("after", "app") as pair:
        with plain(pair.primary_url) as session:
            session.execute("CREATE TABLE t (x int)")
        insert(pair, "primary", 1)
        pair.catch_up()
        assert rows(pair, "standby") == [1]
        assert pair.primary.execute("SELECT 1 FROM pg_database WHERE datname = 'before'") == []
        assert pair.primary.execute("SHOW synchronous_standby_names") == [("",)]
    assert time.monotonic() - began < 30


# --- faults


def test_a_frozen_postmaster_answers_its_sessions_and_no_new_one(pair: local.StreamingPair):
    with plain(pair.primary_url, autocommit=True) as session:
        pair.freeze_postmaster("primary")
        assert session.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.connect(pair.primary_url.replace("+psycopg", ""), connect_timeout=2)
        pair.thaw("primary")
        assert rows(pair, "primary") == []


def test_a_synchronous_writer_waits_for_its_follower(pair: local.StreamingPair):
    pair.synchronous()
    pair.standby.execute("SELECT pg_wal_replay_pause()")
    with plain(pair.primary_url, autocommit=True) as session:
        session.execute("SET synchronous_commit = remote_apply")
        session.pgconn.send_query(b"INSERT INTO t VALUES (1)")
        time.sleep(0.3)
        session.pgconn.consume_input()
        assert session.pgconn.is_busy()
        pair.standby.execute("SELECT pg_wal_replay_resume()")
        while session.pgconn.get_result():  # None: it has ended
            pass
    assert rows(pair, "standby") == [1]


def test_a_pair_may_wait_from_the_start():
    with local.streaming_pair("wheel", fsync=False, segment=1, synchronous=True, settings={"hot_standby_feedback": "off"}, user="someone") as pair:
        assert pair.primary.execute("SELECT sync_state FROM pg_stat_replication") == [("sync",)]
        assert pair.standby.execute("SHOW hot_standby_feedback") == [("off",)]
        pair.kill("standby")
        pair.restore()
        assert pair.primary.execute("SHOW synchronous_standby_names") == [("FIRST 1 (primary, standby)",)]
        with plain(pair.primary_url) as session:
            assert session.execute("SELECT current_user::text").fetchone() == ("someone",)


def test_docker_is_no_source_of_a_streaming_pair():
    with pytest.raises(ConfigError, match=r"'docker'.*compose/streaming\.yaml"):
        local.streaming_pair("docker")  # type: ignore[arg-type]
