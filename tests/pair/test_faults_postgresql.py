"""Errors of PostgreSQL, provoked on a real server of the module's own, mean what the pair takes them for."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, Connection, NullPool, create_engine, exc, text

from replstore.databases.base import Fault
from replstore.databases.postgresql.faults import classify, commit_in_doubt
from replstore.local import PostgresServer, free_port

PASSWORD = "right"

SCHEMA = f"""
CREATE ROLE ordinary LOGIN;
CREATE ROLE secretive LOGIN PASSWORD '{PASSWORD}';
CREATE ROLE limited LOGIN CONNECTION LIMIT 0;
CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL);
INSERT INTO account VALUES (1, 10), (2, 20);
CREATE TABLE payment (account int REFERENCES account DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE slow (id int);
CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(30); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION sleep();
"""


class Scene:
    """A server and the sessions of one test."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.stack = contextlib.ExitStack()

    def url(self, **changes: Any) -> URL:
        query = {"host": "127.0.0.1", "port": str(self.server.port), **changes.pop("query", {})}
        return URL.create("postgresql+psycopg", **{"username": "postgres", "database": "postgres", "query": query, **changes})

    def connect(self, **changes: Any) -> Connection:
        """A session whose errors come as SQLAlchemy's; closed with the test."""
        connection = create_engine(self.url(**changes), poolclass=NullPool).connect()
        self.stack.callback(close, connection)
        return connection

    def to(self, **query: str) -> None:
        """Connects with other connection parameters."""
        self.connect(query=query)

    def execute(self, statement: str) -> None:
        self.server.execute(statement)

    def set(self, setting: str, then: str, *, pause: float = 0.0) -> None:
        """Runs a statement in a transaction with this setting, in which something was done before."""
        connection = self.connect()
        run(connection, f"SET LOCAL {setting}")
        time.sleep(pause)
        run(connection, then)

    def listen(self, answer: Callable[[socket.socket], None] | None = None) -> str:
        """A port where something listens that is no database; without ``answer`` it never even accepts."""
        listener = self.stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def serve() -> None:
            with contextlib.suppress(OSError):
                while answer:
                    client, _ = listener.accept()
                    with client:
                        answer(client)

        threading.Thread(target=serve, name="listener", daemon=True).start()
        self.stack.callback(listener.shutdown, socket.SHUT_RDWR)
        return str(listener.getsockname()[1])

    def interrupted_commit(self, connection: Connection, meanwhile: Callable[[], Any]) -> BaseException:
        """The error of a COMMIT that takes long, while something else is done."""
        run(connection, "INSERT INTO slow VALUES (1)")
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(connection.commit)
            self.wait_for("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query = 'COMMIT'")
            meanwhile()
            error = done.exception()
        assert error is not None
        return error

    def wait_for(self, query: str) -> None:
        """Waits until the query has rows; a server that recovers from a crash has none."""
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                if self.server.execute(query):
                    return
            time.sleep(0.01)


def run(connection: Connection, statement: str) -> None:
    connection.execute(text(statement))


def close(connection: Connection) -> None:
    with contextlib.suppress(exc.DBAPIError):  # its server may be gone
        connection.close()


def pid(connection: Connection) -> int:
    return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(fsync=False, settings={"max_connections": "12", "deadlock_timeout": "20ms", "autovacuum": "off"}) as server:
        hba = server.data / "pg_hba.conf"
        hba.write_text("host all secretive all scram-sha-256\n" + hba.read_text())
        server.execute("SELECT pg_reload_conf()")
        server.execute(SCHEMA)
        yield server


@pytest.fixture
def scene(server: PostgresServer) -> Iterator[Scene]:
    server.revive()
    scene = Scene(server)
    scene.wait_for("SELECT 1 WHERE NOT pg_is_in_recovery()")
    with scene.stack:
        yield scene


# --- one statement or connection attempt each

CASES: dict[str, tuple[Fault, Callable[[Scene], Any]]] = {
    "refused: port closed": (Fault.REFUSED, lambda s: s.to(port=str(free_port()))),
    "refused: socket missing": (Fault.REFUSED, lambda s: s.to(host=str(s.server.directory), port="1")),
    "refused: at each address": (Fault.REFUSED, lambda s: s.to(host="127.0.0.1,127.0.0.2", port="1,1")),
    "a missing certificate is no missing socket": (Fault.LOCKED_OUT, lambda s: s.to(sslmode="require", sslrootcert="/nowhere/root.crt")),
    "a socket that isn't ours": (Fault.LOCKED_OUT, lambda s: s.to(host="127.0.0.1", port=s.listen(lambda c: c.sendall(b"HTTP/1.1 400 No\r\n")))),
    "connection closed while connecting": (Fault.LOST_CONNECTION, lambda s: s.to(port=s.listen(lambda c: None))),
    "silent: network unreachable": (Fault.SILENT, lambda s: s.to(host="255.255.255.255")),
    "silent: unreachable or refused": (Fault.SILENT, lambda s: s.to(host="127.0.0.1,255.255.255.255", port="1,1")),
    "silent: name not found": (Fault.SILENT, lambda s: s.to(host="nowhere.invalid")),
    "wrong password": (Fault.LOCKED_OUT, lambda s: s.connect(username="secretive", password="wrong")),
    "no password": (Fault.LOCKED_OUT, lambda s: s.connect(username="secretive")),
    "unknown role": (Fault.LOCKED_OUT, lambda s: s.connect(username="nobody")),
    "unknown database": (Fault.LOCKED_OUT, lambda s: s.connect(database="nothing")),
    "too many connections of a role": (Fault.LOCKED_OUT, lambda s: s.connect(username="limited")),
    "too many connections": (Fault.LOCKED_OUT, lambda s: [s.connect(username="ordinary") for _ in range(12)]),
    "too many connections, reserve included": (Fault.LOCKED_OUT, lambda s: [s.connect() for _ in range(13)]),
    "unknown connection option": (Fault.CALLER, lambda s: s.to(colour="blue")),
    "read-only session asked for writer": (
        Fault.NOT_THE_WRITER,
        lambda s: s.to(target_session_attrs="read-write", options="-cdefault_transaction_read_only=on"),
    ),
    "read-only": (
        Fault.NOT_THE_WRITER,
        lambda s: run(s.connect(query={"options": "-cdefault_transaction_read_only=on"}), "DELETE FROM account"),
    ),
    "statement timeout": (Fault.TIMEOUT, lambda s: s.set("statement_timeout = 50", "SELECT pg_sleep(30)")),
    "idle in transaction": (Fault.LOST_CONNECTION, lambda s: s.set("idle_in_transaction_session_timeout = 50", "SELECT 1", pause=0.3)),
    "transaction timeout": (Fault.LOST_CONNECTION, lambda s: s.set("transaction_timeout = 50", "SELECT pg_sleep(30)")),
    "a configured limit": (
        Fault.LOCKED_OUT,
        lambda s: s.set("temp_file_limit = '64kB'; SET LOCAL work_mem = '64kB'", "SELECT g FROM generate_series(1, 100000) g ORDER BY -g"),
    ),
    "disk full": (Fault.LOCKED_OUT, lambda s: run(s.connect(), "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100)) TO '/dev/full'")),
    "integrity": (Fault.CALLER, lambda s: run(s.connect(), "INSERT INTO account VALUES (1, 1)")),
    "bad value": (Fault.CALLER, lambda s: run(s.connect(), "SELECT 1/0")),
    "unknown table": (Fault.CALLER, lambda s: run(s.connect(), "SELECT * FROM nothing")),
    "no right to a table": (Fault.CALLER, lambda s: run(s.connect(username="ordinary"), "SELECT * FROM account")),
    "a missing file in a statement": (Fault.CALLER, lambda s: run(s.connect(), "COPY account FROM '/nowhere/file'")),
    "value that the driver refuses": (Fault.CALLER, lambda s: s.connect().execute(text("SELECT :x"), {"x": object()})),
}


@pytest.mark.parametrize("name", CASES)
def test_error_is_classified(scene: Scene, name: str) -> None:
    fault, cause = CASES[name]
    with pytest.raises(exc.DBAPIError) as caught:
        cause(scene)
    assert classify(caught.value) is fault, str(caught.value)
    assert caught.value.orig is not None
    assert classify(caught.value.orig) is fault
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("RS001", Fault.NOT_THE_WRITER),
        ("25006", Fault.NOT_THE_WRITER),
        ("40001", Fault.TRANSIENT),
        ("28000", Fault.LOCKED_OUT),
        ("53200", Fault.LOCKED_OUT),
        ("58030", Fault.LOCKED_OUT),
        ("XX001", Fault.LOCKED_OUT),
        ("57014", Fault.TIMEOUT),
        ("23514", Fault.CALLER),
        ("0A000", Fault.CALLER),
        ("P0001", Fault.CALLER),
        # as dblink and postgres_fdw pass on what happened to another connection; this one lives
        ("57P01", Fault.CALLER),
        ("57P03", Fault.CALLER),
        ("08006", Fault.CALLER),
    ],
)
def test_error_of_a_session_that_lives_is_classified_by_its_code(scene: Scene, code: str, fault: Fault) -> None:
    connection = scene.connect()
    with pytest.raises(exc.DBAPIError) as caught:
        run(connection, f"DO $$ BEGIN RAISE EXCEPTION 'said' USING ERRCODE = '{code}'; END $$")
    assert classify(caught.value) is fault
    assert not commit_in_doubt(caught.value)
    connection.rollback()
    run(connection, "SELECT 1")


# --- silence


def test_server_that_never_answers_is_silent(scene: Scene) -> None:
    """Frozen, a black hole, and a black hole at one of two addresses; at once, as each takes psycopg's shortest timeout of 2 s."""
    hole = scene.listen()
    scene.server.freeze()
    timeout = {"connect_timeout": "1"}
    attempts = [
        timeout,
        timeout | {"port": hole},
        timeout | {"host": "127.0.0.1,127.0.0.1", "port": f"1,{hole}"},
        timeout | {"host": "127.0.0.1,127.0.0.1", "port": f"{hole},1"},
    ]
    try:
        with ThreadPoolExecutor(len(attempts)) as pool:
            running = [pool.submit(scene.to, **attempt) for attempt in attempts]
            errors = [attempt.exception() for attempt in running]
    finally:
        scene.server.thaw()
    assert [classify(error) for error in errors if error] == [Fault.SILENT] * len(attempts)


def test_server_shutting_down_is_silent(scene: Scene) -> None:
    scene.connect()  # a session that a smart shutdown waits for
    os.kill(scene.server.pid, signal.SIGTERM)
    error = first_error(scene)
    assert "shutting down" in str(error)
    assert classify(error) is Fault.SILENT
    scene.stack.close()
    scene.server.stop()


def test_server_in_crash_recovery_is_silent(scene: Scene) -> None:
    """A killed backend makes the postmaster start anew; a frozen one makes it wait before that."""
    frozen, killed = scene.connect(), scene.connect()
    frozen_pid = pid(frozen)
    os.kill(frozen_pid, signal.SIGSTOP)
    os.kill(pid(killed), signal.SIGKILL)
    error = first_error(scene)
    os.kill(frozen_pid, signal.SIGCONT)
    assert "in recovery mode" in str(error)
    assert classify(error) is Fault.SILENT
    with pytest.raises(exc.DBAPIError) as caught:
        run(frozen, "SELECT 1")
    assert classify(caught.value) is Fault.LOST_CONNECTION


def first_error(scene: Scene) -> exc.DBAPIError:
    """The first error of a new session, other than one cut off while the server changes its state."""
    while True:
        try:
            close(scene.connect())
        except exc.DBAPIError as error:
            if classify(error) is not Fault.LOST_CONNECTION:
                return error


def test_server_starting_up_is_silent(scene: Scene) -> None:
    """Recovery from an archive that keeps the server waiting."""
    server, go = scene.server, scene.server.directory / "go"
    server.stop()
    (server.data / "recovery.signal").touch()
    server.settings["restore_command"] = f"while [ ! -e {go} ]; do sleep 0.02; done; false"
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(server.start)
        try:
            while "starting up" not in str(error := first_error(scene)):
                assert classify(error) is Fault.REFUSED  # not listening yet
            assert classify(error) is Fault.SILENT
        finally:
            go.touch()
        started.result()
    del server.settings["restore_command"]


# --- lost connections, and COMMITs in doubt


def test_server_killed_in_a_transaction(scene: Scene) -> None:
    went_on, committed = scene.connect(), scene.connect()
    for connection in (went_on, committed):
        run(connection, "INSERT INTO slow VALUES (1)")
    scene.server.kill()
    with pytest.raises(exc.DBAPIError) as caught:
        run(went_on, "SELECT 1")
    assert classify(caught.value) is Fault.LOST_CONNECTION
    with pytest.raises(exc.PendingRollbackError) as swallowed:
        went_on.commit()
    assert classify(swallowed.value) is Fault.LOST_CONNECTION
    assert not commit_in_doubt(swallowed.value)  # it was never sent
    with pytest.raises(exc.DBAPIError) as caught:
        committed.commit()
    assert classify(caught.value) is Fault.LOST_CONNECTION
    assert commit_in_doubt(caught.value)
    with pytest.raises(exc.DBAPIError) as caught:
        scene.connect()
    assert classify(caught.value) is Fault.REFUSED


@pytest.mark.parametrize("how", ["kill", "immediate", "fast", "terminate"])
def test_commit_cut_off_is_in_doubt(scene: Scene, how: str) -> None:
    connection = scene.connect()
    backend = pid(connection)
    ways: dict[str, Callable[[], Any]] = {
        "kill": scene.server.kill,
        "immediate": lambda: scene.server.stop("immediate"),
        "fast": lambda: scene.server.stop("fast"),
        "terminate": lambda: scene.execute(f"SELECT pg_terminate_backend({backend})"),
    }
    error = scene.interrupted_commit(connection, ways[how])
    assert classify(error) is Fault.LOST_CONNECTION
    assert commit_in_doubt(error)


def test_commit_that_was_cancelled_is_rolled_back(scene: Scene) -> None:
    connection = scene.connect()
    backend = pid(connection)
    error = scene.interrupted_commit(connection, lambda: scene.execute(f"SELECT pg_cancel_backend({backend})"))
    assert classify(error) is Fault.TIMEOUT
    assert not commit_in_doubt(error)
    assert scene.server.execute("SELECT count(*) FROM slow") == [(0,)]


@pytest.mark.parametrize("ended", [True, False], ids=["terminated", "killed"])
def test_one_backend_ended(scene: Scene, ended: bool) -> None:
    connection = scene.connect()
    backend = pid(connection)
    if ended:
        scene.execute(f"SELECT pg_terminate_backend({backend}, 5000)")
    else:
        os.kill(backend, signal.SIGKILL)
    with pytest.raises(exc.DBAPIError) as caught:
        run(connection, "SELECT 1")
    assert classify(caught.value) is Fault.LOST_CONNECTION
    run(scene.connect(), "SELECT 1") if ended else scene.wait_for("SELECT 1")


# --- two sessions


def test_deadlock_is_transient(scene: Scene) -> None:
    one, two = scene.connect(), scene.connect()
    run(one, "UPDATE account SET balance = 1 WHERE id = 1")
    run(two, "UPDATE account SET balance = 1 WHERE id = 2")

    def cross(connection: Connection, key: int) -> None:
        run(connection, f"UPDATE account SET balance = 2 WHERE id = {key}")
        connection.commit()

    with ThreadPoolExecutor(2) as pool:
        crossings = [pool.submit(cross, one, 2), pool.submit(cross, two, 1)]
        (error,) = [crossing.exception() for crossing in crossings if crossing.exception()]
    assert error is not None
    assert classify(error) is Fault.TRANSIENT


def test_serialization_failure_is_transient(scene: Scene) -> None:
    one, two = (scene.connect().execution_options(isolation_level="SERIALIZABLE") for _ in range(2))
    for connection, key in ((one, 1), (two, 2)):
        run(connection, "SELECT sum(balance) FROM account")
        run(connection, f"UPDATE account SET balance = balance + 1 WHERE id = {key}")
    one.commit()
    with pytest.raises(exc.DBAPIError) as caught:
        two.commit()
    assert classify(caught.value) is Fault.TRANSIENT
    assert not commit_in_doubt(caught.value)


@pytest.mark.parametrize("how", ["SELECT * FROM account FOR UPDATE NOWAIT", "UPDATE account SET balance = 3"])
def test_lock_timeout_is_the_callers_limit(scene: Scene, how: str) -> None:
    run(scene.connect(), "UPDATE account SET balance = 2")
    with pytest.raises(exc.DBAPIError) as caught:
        scene.set("lock_timeout = 50", how)
    assert classify(caught.value) is Fault.TIMEOUT


def test_integrity_error_at_commit_is_the_callers_and_stays_sqlalchemys(scene: Scene) -> None:
    connection = scene.connect()
    run(connection, "INSERT INTO payment VALUES (99)")
    with pytest.raises(exc.IntegrityError) as caught:
        connection.commit()
    assert classify(caught.value) is Fault.CALLER
    assert not commit_in_doubt(caught.value)


def test_full_disk_is_locked_out(scene: Scene, tmp_path: Path) -> None:
    """A real table on a small file system of its own, where one may be mounted; elsewhere the kernel's own full device."""
    connection = scene.connect()
    mounted = mount(scene, Path(scene.server.directory) / "small")
    if mounted:
        scene.execute(f"CREATE TABLESPACE small LOCATION '{mounted}'")
        statement = "CREATE TABLE big TABLESPACE small AS SELECT repeat('x', 1000) FROM generate_series(1, 10000)"
    else:
        statement = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 10000)) TO '/dev/full'"
    with pytest.raises(exc.DBAPIError, match="No space left on device") as caught:
        run(connection, statement)
    assert classify(caught.value) is Fault.LOCKED_OUT
    connection.rollback()
    if mounted:
        scene.execute("DROP TABLESPACE small")


def mount(scene: Scene, directory: Path) -> Path | None:
    """A tmpfs of 1 MB that belongs to the server's user; None where none may be mounted."""
    directory.mkdir()
    owner = scene.server.data.stat()
    options = f"size=1m,uid={owner.st_uid},gid={owner.st_gid},mode=700"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], capture_output=True, check=False)
    if done.returncode:
        return None
    scene.stack.callback(subprocess.run, ["umount", "-l", str(directory)], check=True)
    return directory
