"""Hazard 9: a client that is frozen, or whose machine lost its power, in the middle of something never stops the pair; on SQLite it is named."""

from __future__ import annotations

import contextlib
import os
import threading

import psycopg
import pytest

from replstore import CommittedNotReplicated, SwitchoverFailed, TransactionLost
from replstore.databases.postgresql.carrier import PostgreSQLCarrier
from replstore.pair.flip import PATIENCE
from tests.fix_programs import Program
from tests.fix_stores import Lab, insert, put, until

#: A process that stops itself in the middle of what its last lines do; ``pair`` are its two nodes.
BEGIN = """
import os, signal, sys
from sqlalchemy import make_url, text, update
from replstore import Store
from replstore.node import Node
from replstore.replication.journal.ship import Shipper
pair = [Node(name, make_url(url), seconds=2.0) for name, url in zip(("primary", "standby"), sys.argv[1:])]

def freeze():
    print("frozen", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""
#: With the shippers' turn on the follower, idle.
IN_TURN = "Shipper(*pair).carrier.follower(wait=2.0); freeze()"
#: The same in a batch so large that the server's own limit doesn't count.
IN_A_LARGE_BATCH = """
carrier = Shipper(*pair).carrier
carrier.follower(wait=2.0)
carrier._follower.last_result("SET LOCAL idle_in_transaction_session_timeout = 0")
freeze()
"""
#: While rows go in, which is a statement that runs, as the server sees it.
IN_COPY = """
carrier = Shipper(*pair).carrier
base = carrier.follower(wait=2.0)
carrier.snapshot(since=base.position, held=base.tick)
with carrier._follower.cursor().copy("COPY public.account (id, owner, amount) FROM STDIN") as sink:
    sink.write("100\\tsomebody\\t1\\n")
    freeze()
"""
#: In a heartbeat, with the row locked.
IN_HEARTBEAT = """
with pair[1].begin() as connection:
    control = pair[1].database.control
    connection.execute(update(control.heartbeat).values(no=control.heartbeat.c.no + 1))
    freeze()
"""
#: In a change of the follower's role.
IN_A_FLIP = """
from replstore.pair.flip import under_role_lock
under_role_lock(pair[1], lambda connection, state: freeze(), seconds=5.0)
"""
#: In a transaction of a Store's on the writer; it goes on when it is woken, and says how it ended.
IN_A_TRANSACTION = """
store = Store(primary=sys.argv[1], standby=sys.argv[2], background=False, detection_time=0.4, probe_interval=0.1, ack_timeout=2.0)
try:
    with store.begin() as session:
        session.execute(text("INSERT INTO account (id, owner, amount) VALUES (50, 'frozen', 1)"))
        freeze()
except Exception as error:
    print(type(error).__name__, flush=True)
else:
    print("acknowledged", flush=True)
"""
#: While it applies a batch to the follower's file, with the file's write lock.
IN_APPLY = """
both = Shipper(*pair).carrier._open()
both.execute("BEGIN")
both.execute("UPDATE main.replstore_mark SET mark = 'apply'")
freeze()
"""


def frozen(lab: Lab, source: str) -> Program:
    """A program that has stopped itself."""
    program = lab.program(BEGIN + source)
    assert program.says() == "frozen"
    _, status = os.waitpid(program.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    return program


def end_of(program: Program) -> str:
    """Wakes it; how it ends."""
    program.wake()
    return program.says()


# --- shippers


@pytest.mark.parametrize("program", [IN_TURN, IN_A_LARGE_BATCH, IN_COPY], ids=["idle", "large", "copy"])
def test_a_shipper_frozen_with_the_turn_keeps_no_commit_from_being_acknowledged(postgresql_lab: Lab, program: str) -> None:
    store = postgresql_lab.migrated(background=False, ack_timeout=10.0)
    store.run(put(1))
    frozen(postgresql_lab, program)
    store.run(put(2))
    assert postgresql_lab.accounts("standby") == {1: 0, 2: 0}


@pytest.mark.parametrize("program", [IN_TURN, IN_A_LARGE_BATCH, IN_COPY, IN_A_FLIP], ids=["idle", "large", "copy", "flip"])
def test_a_program_frozen_in_a_transaction_on_the_follower_keeps_no_takeover_waiting(postgresql_lab: Lab, program: str) -> None:
    store = postgresql_lab.migrated(background=False, takeover_timeout=10.0)
    store.run(put(1))
    frozen(postgresql_lab, program)
    postgresql_lab.kill("primary")
    store.run(put(2))
    assert postgresql_lab.state("standby").role == "writer"
    assert postgresql_lab.accounts("standby") == {1: 0, 2: 0}


def test_a_shipper_whose_rows_take_long_to_read_is_not_taken_for_a_frozen_one(postgresql_lab: Lab) -> None:
    """On the follower it looks the same; on the writer one of its statements runs."""
    store = postgresql_lab.migrated(background=False)
    store.run(put(1))
    slow, other = postgresql_lab.shipper(), postgresql_lab.shipper()
    other._turn = 1.0
    assert isinstance(slow.carrier, PostgreSQLCarrier)
    slow.carrier.follower(wait=2.0)
    slow.carrier._follower.last_result("SET LOCAL idle_in_transaction_session_timeout = 0")
    slow.carrier._writer.begin("BEGIN")
    reading = threading.Thread(target=_read, args=(slow.carrier,))
    reading.start()
    for _ in range(4):
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.ship()
    slow.carrier._follower.last_result("SELECT 1")  # it is still there
    slow.interrupt()
    reading.join()
    slow.carrier.abandon()
    other.ship()


def test_a_shipper_that_takes_long_and_moves_keeps_the_turn(postgresql_lab: Lab) -> None:
    store = postgresql_lab.migrated(background=False)
    store.run(put(1))
    slow, other = postgresql_lab.shipper(), postgresql_lab.shipper()
    other._turn = 1.0
    assert isinstance(slow.carrier, PostgreSQLCarrier)
    slow.carrier.follower(wait=2.0)
    slow.carrier._follower.last_result("SET LOCAL idle_in_transaction_session_timeout = 0")
    for _ in range(4):
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.ship()
        slow.carrier._follower.last_result("SELECT 1")  # it is still there
    slow.carrier.abandon()
    other.ship()


def _read(carrier: PostgreSQLCarrier) -> None:
    with contextlib.suppress(psycopg.OperationalError):  # when the test is over
        carrier._writer.last_result("SELECT pg_sleep(20)")


def test_heartbeats_go_on_after_a_program_froze_in_one(postgresql_lab: Lab) -> None:
    store = postgresql_lab.migrated()
    store.run(put(1))
    frozen(postgresql_lab, IN_HEARTBEAT)
    before = postgresql_lab.state("standby").heartbeat
    until(lambda: postgresql_lab.state("standby").heartbeat > before, "another program's heartbeat")
    until(lambda: store.status().healthy, "all is well")
    store.run(put(2))
    assert store.status().term == 1


# --- transactions of the application


def test_a_transaction_frozen_on_the_writer_stops_no_other_and_no_takeover(postgresql_lab: Lab) -> None:
    store = postgresql_lab.migrated(background=False, takeover_timeout=10.0)
    store.run(put(1))
    process = frozen(postgresql_lab, IN_A_TRANSACTION)
    store.run(put(2))
    assert postgresql_lab.accounts("standby") == {1: 0, 2: 0}
    with pytest.raises(SwitchoverFailed, match=r"backend \d+, idle in transaction keeps it waiting"):
        store.switchover(timeout=2 * PATIENCE)
    store.run(put(3))
    postgresql_lab.kill("primary")
    store.run(put(4))
    postgresql_lab.start("primary")
    assert end_of(process) == TransactionLost.__name__
    assert postgresql_lab.accounts("standby").keys() == {1, 2, 3, 4}


@pytest.mark.parametrize("mine", [False, True], ids=["service", "application"])
def test_the_server_asks_after_seconds_whether_a_client_s_machine_is_still_there(postgresql_lab: Lab, mine: bool) -> None:
    node = postgresql_lab.nodes["primary"]
    with (node.engine if mine else node.service).connect() as connection:
        found = dict(connection.exec_driver_sql("SELECT name, setting::int FROM pg_settings WHERE name LIKE 'tcp\\_%%'").all())
    seconds = found["tcp_keepalives_idle"] + found["tcp_keepalives_interval"] * found["tcp_keepalives_count"]
    assert 0 < seconds <= (30 if mine else 6), found
    assert mine or 0 < found["tcp_user_timeout"] <= 5000


# --- SQLite: nothing can fence who holds a file's write lock


def test_sqlite_names_who_keeps_the_writer_s_file_and_a_person_goes_on_at_the_other(sqlite_lab: Lab) -> None:
    store = sqlite_lab.migrated(background=False, detection_time=0.4)
    store.run(put(1))
    process = frozen(sqlite_lab, IN_A_TRANSACTION)
    with store.read() as session:  # readers don't mind
        assert session.connection().exec_driver_sql("SELECT count(*) FROM account").scalar() == 1
    with pytest.raises(SwitchoverFailed, match=rf"process {process.pid} \(.+\), which is stopped holds the file's write lock keeps it waiting"):
        store.switchover(timeout=2 * PATIENCE)
    store.takeover("standby", force=True)
    store.run(put(2))
    # it commits on the former writer, is not acknowledged, and what it did is on record
    assert end_of(process) == TransactionLost.__name__
    assert sqlite_lab.accounts("primary").keys() == {1, 50}
    assert store.rejoin() == 1
    assert sqlite_lab.sql("standby", "SELECT key, tx_known FROM replstore_orphan WHERE tbl = 'account'") == [("[50]", "lost")]
    store.sync()
    assert sqlite_lab.accounts("primary") == sqlite_lab.accounts("standby") == {1: 0, 2: 0}


@pytest.mark.parametrize("ends", [True, False], ids=["it is ended", "solo"])
def test_sqlite_names_who_keeps_the_follower_s_file_and_a_person_ends_it_or_goes_solo(sqlite_lab: Lab, ends: bool) -> None:
    store = sqlite_lab.migrated(background=False)
    store.run(put(1))
    process = frozen(sqlite_lab, IN_APPLY)
    with pytest.raises(CommittedNotReplicated, match=rf"process {process.pid} .*which is stopped is writing to it"):
        store.run(put(2))
    if ends:
        process.kill()
    else:
        store.solo()
    store.run(put(3))
    assert sqlite_lab.accounts("primary") == {1: 0, 2: 0, 3: 0}
    assert sqlite_lab.accounts("standby").keys() == ({1, 2, 3} if ends else {1})


def test_a_takeover_that_a_frozen_program_keeps_waiting_names_it_and_succeeds_when_it_is_ended(sqlite_lab: Lab) -> None:
    store = sqlite_lab.migrated(background=False, takeover_timeout=20.0)
    store.run(put(1))
    process = frozen(sqlite_lab, IN_A_FLIP)
    sqlite_lab.kill("primary")
    with pytest.raises(SwitchoverFailed, match=rf"process {process.pid} .*, which is stopped holds the file's write lock"):
        store.takeover()
    process.kill()
    store.run(put(2))
    assert sqlite_lab.accounts("standby") == {1: 0, 2: 0}


def test_a_program_frozen_between_read_and_apply_keeps_no_lock_of_sqlite_s(sqlite_lab: Lab) -> None:
    store = sqlite_lab.migrated(background=False)
    store.run(put(1))
    sqlite_lab.sql("primary", insert(2))
    process = frozen(sqlite_lab, "from tests.fix_stores import Batch\nbatch = Batch(Shipper(*pair))\nfreeze()\n" + _APPLY)
    store.run(put(3))
    assert sqlite_lab.accounts("standby").keys() == {1, 2, 3}
    assert end_of(process) == "Moved"


_APPLY = """
try:
    batch.go_on()
except Exception as error:
    print(type(error).__name__, flush=True)
"""
