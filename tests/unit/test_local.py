"""Local pairs and the proxy do what the other tests rely on: real servers, real faults, nothing left behind."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from replstore import local
from replstore.errors import ConfigError, ReplstoreError
from replstore.local import programs, system

pytest_plugins = ("pytester",)


def connect(server: local.Server, timeout: int = 2) -> psycopg.Connection:
    return psycopg.connect(host="127.0.0.1", port=server.port, user="postgres", dbname="postgres", connect_timeout=timeout, autocommit=True)


@pytest.fixture(scope="module")
def one_server():
    with local.PostgresServer() as server:
        yield server


@pytest.fixture
def server(one_server: local.PostgresServer):
    one_server.revive()
    return one_server


@pytest.fixture
def server_with_row(server: local.PostgresServer):
    server.execute("drop table if exists t")
    server.execute("create table t (x int)")
    server.execute("insert into t values (1)")
    return server


# --- PostgreSQL as processes


def test_killed_server_leaves_no_process_and_refuses(server_with_row: local.PostgresServer):
    session = connect(server_with_row)
    pids = [server_with_row.pid, *system.children(server_with_row.pid)]
    assert session.info.backend_pid in pids
    server_with_row.kill()
    assert not server_with_row.running
    assert not [pid for pid in pids if system.alive(pid)]
    with pytest.raises(psycopg.OperationalError, match="refused"):
        connect(server_with_row)
    with pytest.raises(psycopg.OperationalError):
        session.execute("select 1")


def test_killed_server_comes_back_on_its_port_with_its_data(server_with_row: local.PostgresServer):
    port, logged = server_with_row.port, len(server_with_row.logs)
    server_with_row.kill()
    server_with_row.start()
    assert server_with_row.port == port
    assert server_with_row.execute("select x from t") == [(1,)]
    assert "was not properly shut down" in server_with_row.logs[logged:]


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
def test_stopped_server_comes_back(server_with_row: local.PostgresServer, mode: local.StopMode):
    server_with_row.stop(mode)
    assert not server_with_row.running
    server_with_row.start()
    assert server_with_row.execute("select x from t") == [(1,)]


def test_frozen_server_is_silent_until_it_is_thawed(server_with_row: local.PostgresServer):
    session = connect(server_with_row)
    server_with_row.freeze()
    began = time.monotonic()
    with pytest.raises(psycopg.errors.ConnectionTimeout):
        connect(server_with_row, timeout=2)
    assert time.monotonic() - began > 1.5
    session.pgconn.send_query(b"select x from t")
    time.sleep(0.2)
    session.pgconn.consume_input()
    assert session.pgconn.is_busy()
    server_with_row.thaw()
    assert session.pgconn.get_result().get_value(0, 0) == b"1"
    with connect(server_with_row) as again:
        assert again.execute("select x from t").fetchall() == [(1,)]


def test_frozen_server_can_be_killed(server_with_row: local.PostgresServer):
    server_with_row.freeze()
    server_with_row.kill()
    server_with_row.revive()
    assert server_with_row.execute("select x from t") == [(1,)]


def test_revive_does_nothing_to_a_healthy_server(server: local.PostgresServer):
    pid = server.pid
    server.revive()
    assert server.pid == pid


def test_settings_reach_the_server_and_may_change_at_a_restart(server: local.PostgresServer):
    assert server.execute("select name, setting from pg_settings where name in ('fsync', 'max_prepared_transactions') order by 1") == [
        ("fsync", "on"),
        ("max_prepared_transactions", "10"),
    ]
    server.settings["application_name"] = "it's me"
    server.execute("alter system set work_mem = '5MB'")
    server.stop()
    server.start()
    assert server.execute("select current_setting('application_name'), current_setting('work_mem')") == [("it's me", "5MB")]


def test_server_runs_without_root_and_listens_here_only(server: local.PostgresServer):
    assert (server.data / "PG_VERSION").stat().st_uid == Path(f"/proc/{server.pid}").stat().st_uid != 0
    assert server.execute("show listen_addresses") == [("127.0.0.1",)]


def test_server_that_cannot_start_says_why_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch):
    made: list[Path] = []
    real = system.private_directory
    monkeypatch.setattr(system, "private_directory", lambda: made.append(real()) or made[-1])
    with pytest.raises(ReplstoreError, match="no_such_setting"):
        local.PostgresServer(settings={"no_such_setting": "1"})
    assert made
    assert not made[0].exists()


def test_closed_server_leaves_nothing():
    with local.PostgresServer() as server:
        segment = int((server.data / "postmaster.pid").read_text().splitlines()[6].split()[1])
        pids = [server.pid, *system.children(server.pid)]
        watchdog = server._watchdog.pid
        assert f" {segment} " in Path("/proc/sysvipc/shm").read_text()
    assert not server.directory.exists()
    assert f" {segment} " not in Path("/proc/sysvipc/shm").read_text()
    assert not [pid for pid in [*pids, watchdog] if system.alive(pid)]
    server.close()


PROGRAM = """
import os, sys
from replstore import local
server = local.PostgresServer(fsync=False)
print(server.pid, server.directory, flush=True)
how = sys.argv[1]
if how == "fork" and os.fork() == 0:
    sys.exit()
if how == "fork":
    os.wait()
    print(server.execute("select 1"), flush=True)
elif how == "raise":
    raise RuntimeError
elif how == "wait":
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["exit", "raise", "fork"])
def test_server_ends_with_the_program(how: str):
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, timeout=60, check=False)
    pid, directory = done.stdout.split()[:2]
    assert done.returncode == (1 if how == "raise" else 0), done.stderr
    assert ("[(1,)]" in done.stdout) == (how == "fork"), "the exit of a forked child ended its parent's server"
    assert not Path(directory).exists()
    assert not system.alive(int(pid))


def test_server_ends_when_the_program_is_killed():
    with subprocess.Popen([sys.executable, "-c", PROGRAM, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        pid, directory = program.stdout.readline().split()
        assert system.alive(int(pid))
        program.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 15
    while system.alive(int(pid)) or Path(directory).exists():
        assert time.monotonic() < deadline, "the server outlived its program"
        time.sleep(0.05)


def test_programs_that_the_servers_user_cannot_reach_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if os.geteuid() != 0:
        pytest.skip("only root runs servers as another user")
    wheel = programs.bindir("wheel")
    copy = programs._copied(wheel)
    assert copy != wheel
    assert programs._runs(copy)
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    (hidden / "postgres").symlink_to(wheel / "postgres")
    (hidden / "initdb").symlink_to(wheel / "initdb")
    assert not programs._runs(hidden)


# --- pairs


def test_postgresql_pair_is_two_clusters(own_postgresql_pair: local.PostgresPair):
    identity = "select system_identifier from pg_control_system()"
    one, other = (server.execute(identity) for server in (own_postgresql_pair.primary, own_postgresql_pair.standby))
    assert one != other
    assert own_postgresql_pair.primary_url != own_postgresql_pair.standby_url
    assert own_postgresql_pair.primary.execute("select current_database()", own_postgresql_pair.database) == [("app",)]


def test_fresh_databases_are_dropped_and_their_servers_revived(own_postgresql_pair: local.PostgresPair):
    pair = own_postgresql_pair
    pair.kill("primary")
    with pair.fresh("new", owner="someone") as fresh:
        with psycopg.connect(fresh.primary_url.replace("+psycopg", "")) as session:
            row = session.execute(
                "select current_user::text, (select rolsuper from pg_roles where rolname = current_user), current_database()::text"
            ).fetchone()
            assert row == ("someone", False, "new")
        fresh.freeze("standby")
    for server in (pair.primary, pair.standby):
        assert server.execute("select from pg_database where datname = 'new'") == []


def test_unknown_source_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REPLSTORE_LOCAL", "floppy")
    with pytest.raises(ConfigError, match="floppy"):
        local.postgresql_pair()


def test_missing_server_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch):
    programs._bindir.cache_clear()
    monkeypatch.setattr(programs, "_in_wheel", lambda: None)
    try:
        with pytest.raises(ConfigError, match=r"pip install 'replstore\[local\]'"):
            local.postgresql_pair("wheel")
    finally:
        programs._bindir.cache_clear()


def test_lost_sqlite_file_comes_back_as_the_same_file(sqlite_pair: local.SqlitePair):
    path = sqlite_pair.path("primary")
    with sqlite3.connect(path) as writer:
        writer.execute("pragma journal_mode=wal")
        writer.execute("create table t (x)")
        writer.execute("insert into t values (1)")
        writer.commit()
        inode = path.stat().st_ino
        sqlite_pair.kill("primary")
        assert not list(path.parent.glob("primary.db*"))
        with pytest.raises(sqlite3.OperationalError):
            sqlite3.connect(f"file:{path}?mode=rw", uri=True)
        sqlite_pair.start("primary")
    assert path.stat().st_ino == inode
    assert sqlite3.connect(path).execute("select x from t").fetchall() == [(1,)]


def test_new_file_in_place_of_a_lost_one_is_not_overwritten(sqlite_pair: local.SqlitePair):
    path = sqlite_pair.path("primary")
    path.write_bytes(b"old")
    sqlite_pair.kill("primary")
    path.write_bytes(b"new")
    with pytest.raises(FileExistsError, match=r"primary\.db"):
        sqlite_pair.start("primary")
    assert path.read_bytes() == b"new"


def test_temporary_sqlite_pair_is_removed():
    with local.sqlite_pair() as pair:
        pair.path("primary").touch()
    assert not pair.directory.exists()


@pytest.mark.containers
def test_server_in_a_container_survives_the_same_faults(monkeypatch: pytest.MonkeyPatch):
    with local.DockerPostgres() as server:
        server.execute("create table t (x int)")
        server.execute("insert into t values (1)")
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            connect(server)
        server.start()
        server.freeze()
        with pytest.raises(psycopg.OperationalError):
            connect(server)
        server.revive()
        server.stop()
        assert not server.running
        server.revive()
        assert server.execute("select x from t") == [(1,)]
        name = server._container.name
    import docker

    assert name not in [container.name for container in docker.from_env().containers.list(all=True)]


# --- the plugin for other people's tests


def test_plugin_fixtures_work_in_another_project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    pytester.makepyfile(
        """
        import sys
        assert "psycopg" not in sys.modules, "the plugin loads drivers that nobody asked for"

        def test_files(replstore_sqlite_pair):
            assert replstore_sqlite_pair.primary_url.startswith("sqlite:////")

        def test_servers(replstore_postgresql_pair):
            replstore_postgresql_pair.kill("primary")

        def test_killed_server_is_back(replstore_postgresql_pair):
            pair = replstore_postgresql_pair
            assert pair.primary.execute("select count(*) from pg_class where relname = 't'", pair.database) == [(0,)]

        def test_standby_takes_over(replstore_streaming_pair):
            replstore_streaming_pair.kill("primary")
            replstore_streaming_pair.promote("standby")

        def test_standby_follows_again(replstore_streaming_pair):
            assert replstore_streaming_pair.follows("standby")
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=5)
