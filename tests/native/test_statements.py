"""A transaction's first statement goes with BEGIN and the marker: what fails in it is told apart, and never leaves the caller outside of a transaction."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.orm import Session

from replstore import CommittedNotReplicated, NotAPair, ReplstoreError
from tests.fix_native import NativeLab
from tests.fix_stores import put
from tests.native.standby import Call, configured, replay_paused, waits_for_standby

INSERT = text("INSERT INTO account (id, owner, amount) VALUES (:id, md5(random()::text), 0)")


def test_nothing_is_committed_behind_a_first_statement_that_failed(native_lab: NativeLab) -> None:
    store = native_lab.migrated()

    def careless(session: Session) -> None:
        with pytest.raises(ProgrammingError, match="no_such_table"):
            session.execute(text("SELECT :x FROM no_such_table"), {"x": 1})
        session.execute(INSERT, {"id": 1})

    with pytest.raises(DBAPIError, match="current transaction is aborted"):
        store.run(careless)
    assert native_lab.accounts("primary") == {}


def test_nothing_is_committed_behind_a_commit_of_the_callers_own(native_lab: NativeLab) -> None:
    store = native_lab.migrated()

    def careless(session: Session) -> None:
        session.execute(INSERT, {"id": 1})
        session.execute(text("COMMIT"))
        session.execute(INSERT, {"id": 2})

    with pytest.raises(DBAPIError, match="of the caller's own has ended the transaction"):
        store.run(careless)
    assert native_lab.accounts("primary") == {1: 0}


def test_a_database_that_lost_its_control_tables_is_named(native_lab: NativeLab) -> None:
    store = native_lab.migrated(background=False)
    store.run(put(1))
    native_lab.sql("primary", "DROP SCHEMA replstore CASCADE")
    with pytest.raises(NotAPair):
        store.run(put(2))


def test_a_role_that_wants_no_warnings_is_warned_of_a_cancelled_wait(native_lab: NativeLab) -> None:
    native_lab.migrated()
    native_lab.pair.synchronous()
    with configured(native_lab.pair.primary, synchronous_commit="remote_apply", client_min_messages="error"), replay_paused(native_lab):
        store = native_lab.store()
        call = Call(lambda: store.run(put(1), durability="server"))
        native_lab.sql("primary", f"SELECT pg_cancel_backend({waits_for_standby(native_lab)})")
        assert isinstance(call.end(), CommittedNotReplicated)


def test_a_snapshot_of_the_follower_is_younger_than_the_place_that_it_is_judged_by(native_lab: NativeLab) -> None:
    native_lab.migrated()
    with configured(native_lab.pair.standby, default_transaction_isolation="repeatable read"):
        store = native_lab.store()
        store.run(put(1))
        with store.read(node="follower", after=store.token()) as session:
            store.run(put(2), durability="replicated")
            assert session.scalar(text("SELECT count(*) FROM account")) == 2
            store.run(put(3), durability="replicated")
            assert session.scalar(text("SELECT count(*) FROM account")) == 2
            assert session.scalar(text("SELECT inet_server_port()")) == native_lab.pair.standby.port


def test_a_control_table_that_is_gone_is_named_by_a_read_too(native_lab: NativeLab) -> None:
    store = native_lab.migrated(background=False, takeover_timeout=0.5)
    store.run(put(1))
    native_lab.sql("primary", "DROP SCHEMA replstore CASCADE")
    with pytest.raises(ReplstoreError), store.read():
        pass


SERIALIZABLE = text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")


def isolation_of(session: Session) -> str:
    return str(session.scalar(text("SHOW transaction_isolation")))


@pytest.mark.parametrize("way", ["run", "attempts", "sessionmaker"])
def test_what_must_be_a_transactions_first_statement_goes_before_the_marker(native_lab: NativeLab, way: str) -> None:
    store = native_lab.migrated(background=False)
    levels: list[str] = []

    def body(session: Session) -> None:
        session.execute(SERIALIZABLE)
        session.execute(text("SET TRANSACTION READ WRITE, DEFERRABLE"))
        session.execute(INSERT, {"id": 1})
        levels.append(isolation_of(session))

    if way == "run":
        store.run(body)
    elif way == "attempts":
        for attempt in store.attempts():
            with attempt as session:
                body(session)
    else:
        with store.sessionmaker().begin() as session:
            body(session)
    assert levels == ["serializable"]
    assert native_lab.accounts("primary") == {1: 0}
    assert native_lab.sql("primary", "SELECT count(*) FROM replstore.marker") == [(1,)]
    assert store.run(isolation_of) == "read committed"


def test_nothing_is_written_without_a_marker_behind_a_commit_of_what_went_before_it(native_lab: NativeLab) -> None:
    store = native_lab.migrated(background=False)

    def careless(session: Session) -> None:
        session.execute(SERIALIZABLE)
        session.execute(text("COMMIT"))
        session.execute(INSERT, {"id": 1})

    with pytest.raises(DBAPIError, match="of the caller's own has ended the transaction"):
        store.run(careless)
    assert native_lab.accounts("primary") == {}


def test_a_transaction_that_only_gives_itself_an_isolation_level_leaves_nothing(native_lab: NativeLab) -> None:
    store = native_lab.migrated(background=False)
    store.run(lambda session: session.execute(SERIALIZABLE))
    assert native_lab.sql("primary", "SELECT count(*) FROM replstore.marker") == [(0,)]
    assert native_lab.sql("primary", "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'") == [(0,)]
    store.run(put(1))
    assert native_lab.accounts("primary") == {1: 0}


def test_what_the_session_has_forgotten_lets_nothing_be_committed_by_itself(native_lab: NativeLab) -> None:
    """Whose first statement is SET TRANSACTION has begun before the marker is sent: it can't be repeated with a BEGIN of its own."""
    store = native_lab.migrated(background=False)
    store.run(put(1))
    store.run(lambda session: session.execute(text("DEALLOCATE ALL")))

    def late(session: Session) -> str:
        session.execute(text("SET TRANSACTION DEFERRABLE"))
        put(2)(session)
        session.flush()
        return isolation_of(session)

    assert store.run(late, isolation="SERIALIZABLE") == "serializable"
    assert native_lab.accounts("primary") == {1: 0, 2: 0}
    assert native_lab.sql("primary", "SELECT count(*) FROM replstore.marker") == [(3,)]
