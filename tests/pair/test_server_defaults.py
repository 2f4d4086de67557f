"""What a database or a role has for defaults changes nothing of how replstore's own sessions work."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import text

from replstore.errors import NeedsCopy, NotTheWriter, TakeoverRefused
from replstore.pair.flip import under_role_lock
from replstore.pair.takeover import take_over
from replstore.pair.watch import node_view
from tests.fix_check import adopted, behind_the_guard, found
from tests.fix_stores import Lab, Steps, put, until

WAITS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


def _set(lab: Lab, setting: str) -> None:
    for node in ("primary", "standby"):
        (database,) = lab.sql(node, "SELECT current_database()")[0]
        lab.sql(node, f'ALTER DATABASE "{database}" SET {setting}')
        lab.nodes[node].service.dispose()
        lab.nodes[node].engine.dispose()


def test_a_takeover_that_waited_for_its_lock_compares_with_what_is_there_then(postgresql_lab: Lab) -> None:
    """Under REPEATABLE READ the snapshot is that of the statement which waits: older than what it waited for."""
    lab = postgresql_lab
    _set(lab, "default_transaction_isolation = 'repeatable read'")
    store = lab.migrated(background=False)
    store.run(put(1))
    seen = node_view(lab.state("standby"), "standby")
    other = lab.connect("standby")  # another program, which reaches the writer
    other.execute("SELECT set_config('replstore.mark', 'apply', true), pg_advisory_xact_lock_shared(1919250540, 1)")
    outcome: list[object] = []

    def take() -> None:
        try:
            outcome.append(take_over(lab.nodes["standby"], seen, reason="silent", compare_heartbeat=True))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=take)
    thread.start()
    until(lambda: lab.sql("standby", WAITS) == [(1,)], "the takeover waits")
    other.execute("UPDATE replstore.heartbeat SET no = no + 1")
    other.commit()
    thread.join()
    assert isinstance(outcome[0], TakeoverRefused), outcome
    assert lab.state("standby").role == "follower"


def test_a_batch_that_waited_for_a_takeover_is_not_applied_to_the_new_writer(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    _set(lab, "default_transaction_isolation = 'repeatable read'")
    lab.migrated(background=False).run(put(1, 10))
    lab.sql("primary", "UPDATE account SET amount = 11 WHERE id = 1")
    outcome: list[object] = []

    def ship() -> None:
        try:
            outcome.append(lab.shipper().ship())
        except Exception as error:
            outcome.append(error)

    shipping = threading.Thread(target=ship)

    def change(connection: object, state: object) -> None:
        shipping.start()
        until(lambda: lab.sql("standby", WAITS) == [(1,)], "the batch waits")
        connection.execute(text("UPDATE replstore.role SET role = 'writer', term_no = term_no + 1, term_uuid = 'next'"))  # type: ignore[attr-defined]

    under_role_lock(lab.nodes["standby"], change, seconds=5.0)
    shipping.join()
    assert isinstance(outcome[0], Exception), outcome
    assert lab.accounts("standby") == {1: 10}


@pytest.mark.parametrize("moved", ["role = 'writer'", "term_no = term_no + 1", "term_uuid = 'next'"])
def test_the_batch_s_last_statement_compares_role_and_term_itself(lab: Lab, moved: str) -> None:
    """It would hold without the locks: nobody else can be in between, and if somebody is, nothing lands."""
    store = lab.migrated(background=False)
    store.run(put(1, 10))
    lab.sql("primary", "UPDATE account SET amount = 11 WHERE id = 1")
    shipper = lab.shipper()
    shipper.carrier = Steps(shipper.carrier, after={"tick": lambda: lab.sql("standby", f"UPDATE {lab.name('role')} SET {moved}")})
    with pytest.raises((NotTheWriter, NeedsCopy)):
        shipper.ship()
    assert lab.accounts("standby") == {1: 10}


@pytest.mark.parametrize("setting", ["default_transaction_read_only = on", "standard_conforming_strings = off"])
def test_a_pair_works_whatever_the_defaults(postgresql_lab: Lab, setting: str) -> None:
    lab = postgresql_lab
    store = adopted(lab, "CREATE TABLE place (path text PRIMARY KEY, note text)")
    store.close()
    _set(lab, setting)
    lab.sql("primary", "SET default_transaction_read_only = off", r"INSERT INTO place VALUES (E'c:\\new', E'\\'), (E'it''s', E'\\''')")
    again = lab.store(background=False)
    again.sync()
    assert lab.sql("standby", "SELECT count(*) FROM place") == [(2,)]
    assert again.check().equal
    behind_the_guard(lab, "standby", "SET TRANSACTION READ WRITE", r"DELETE FROM place WHERE path = E'c:\\new'")
    assert found(again.check(), "place") == [(("c:\\new",), "missing_on_standby", ())]
