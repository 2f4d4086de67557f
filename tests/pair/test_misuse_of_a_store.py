"""What a program must not do with a Store is refused, in one sentence, and nothing of it is half done."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import InvalidRequestError, OperationalError
from sqlalchemy.orm import Session

from replstore.errors import CommittedNotReplicated, KeyReused, NodeLost, NotTheWriter, StoreClosed
from replstore.transaction.keyed import function_name
from tests.fix_stores import Account, Lab, insert, put


@pytest.mark.parametrize("how", ["run", "begin", "attempts"])
def test_a_transaction_is_not_committed_in_parts(sqlite_lab: Lab, how: str) -> None:
    store = sqlite_lab.migrated(background=False)

    def in_parts(session: Session) -> None:
        put(1)(session)
        session.commit()
        put(2)(session)

    with pytest.raises(InvalidRequestError, match="at the end of its block"):
        if how == "run":
            store.run(in_parts)
        elif how == "begin":
            with store.begin() as session:
                in_parts(session)
        else:
            for attempt in store.attempts():
                with attempt as session:
                    in_parts(session)
    assert sqlite_lab.accounts("primary") == {}


def test_autocommit_by_any_way_is_refused(postgresql_lab: Lab) -> None:
    store = postgresql_lab.migrated(background=False)
    autocommit = {"isolation_level": "AUTOCOMMIT"}

    def aside(session: Session) -> None:
        session.connection(execution_options=autocommit)

    with pytest.raises(ValueError, match="AUTOCOMMIT"):
        store.run(aside)
    with store.sessionmaker()() as session, pytest.raises(ValueError, match="AUTOCOMMIT"):
        aside(session)
    with pytest.raises(ValueError, match="AUTOCOMMIT"):
        store.pair.primary.engine.connect().execution_options(**autocommit)
    store.run(put(1))
    assert postgresql_lab.accounts("standby") == {1: 0}


def test_a_call_without_a_statement_leaves_nothing_for_the_next_transaction_to_ride_on(lab: Lab) -> None:
    store = lab.migrated(background=False, on_follower_down="block")
    store.run(put(1))
    lab.kill("standby")
    store.run(lambda session: None, durability="async")
    with store.sessionmaker()() as session, pytest.raises(CommittedNotReplicated):
        session.add(Account(id=2, owner="owner 2", amount=0))
        session.commit()


def test_a_session_that_meets_a_change_of_role_is_told_so_and_not_of_an_integrity_error(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    late = lab.store(background=False)
    late.run(put(2))
    store.switchover()
    assert late.pair.lead is not None
    late.pair.lead = dataclasses.replace(late.pair.lead, confirmed=time.monotonic())  # as if it had looked right before
    factory = late.sessionmaker()
    with factory() as session, pytest.raises(NotTheWriter):
        session.add(Account(id=3, owner="owner 3", amount=0))
        session.commit()
    with factory() as session:  # and has looked for itself since
        session.add(Account(id=3, owner="owner 3", amount=0))
        session.commit()
    assert lab.accounts("standby") == {1: 0, 2: 0, 3: 0}


def test_an_error_of_another_database_after_the_commit_does_not_say_that_nothing_took_effect(sqlite_lab: Lab) -> None:
    store = sqlite_lab.migrated(background=False)
    lost = OperationalError("SELECT 1", None, ConnectionResetError())
    with pytest.raises(OperationalError), store.begin() as session:
        put(1)(session)
        session.get_transaction().commit()  # type: ignore[union-attr]
        raise lost
    assert sqlite_lab.accounts("standby") == {1: 0}


def test_a_read_that_changes_objects_says_so(sqlite_lab: Lab) -> None:
    store = sqlite_lab.migrated(background=False)
    store.run(put(1))
    with pytest.raises(InvalidRequestError, match=r"1 changed object\(s\), such as Account"), store.read() as session:
        session.get_one(Account, 1).amount = 5
    assert sqlite_lab.accounts("primary") == {1: 0}


def test_a_closed_store_does_nothing(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.close()
    calls: list[Any] = [
        lambda: store.run(put(1)),
        lambda: store.begin().__enter__(),
        lambda: store.read().__enter__(),
        lambda: store.read(node="follower").__enter__(),
        store.token,
        store.status,
        store.sync,
        store.switchover,
        store.check,
    ]
    for call in calls:
        with pytest.raises(StoreClosed):
            call()
    assert lab.accounts("primary") == {}


# --- keys


def pay(session: Session) -> str:
    return "paid"


def refund(session: Session) -> str:
    return "refunded"


def test_a_key_needs_a_function_with_a_name(sqlite_lab: Lab) -> None:
    store = sqlite_lab.migrated(background=False)
    with pytest.raises(ValueError, match="lambda"):
        store.run(lambda session: 1, key="k")
    with pytest.raises(ValueError, match="isn't empty"):
        store.run(pay, key="")
    assert store.run(functools.partial(pay), key="k") == store.run(pay, key="k") == "paid"
    with pytest.raises(KeyReused):
        store.run(functools.partial(refund), key="k")


def test_a_function_has_one_name_in_the_program_and_where_it_is_imported(tmp_path: Path) -> None:
    program = tmp_path / "shop.py"
    program.write_text("from replstore.transaction.keyed import function_name\ndef pay(session): ...\nprint(function_name(pay))\n")
    for arguments in (["shop.py"], ["-m", "shop"], ["-c", "import shop"]):
        said = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert said.stdout == "shop.pay\n"
    assert function_name(pay).endswith("test_misuse_of_a_store.pay")


def test_a_coroutine_function_is_refused(sqlite_lab: Lab) -> None:
    async def later(session: Session) -> None: ...

    with pytest.raises(TypeError, match="coroutine"):
        sqlite_lab.migrated(background=False).run(later)


# --- reads that meet a server that hangs


@pytest.mark.parametrize("watched", [True, False])
def test_a_read_that_meets_a_hang_never_returns_what_a_deposed_writer_has(postgresql_lab: Lab, *, watched: bool) -> None:
    lab = postgresql_lab
    store = lab.migrated()
    store.run(put(1, 5))
    reader = lab.store(background=watched)
    with reader.read() as session:
        assert session.get_one(Account, 1).amount == 5
    written, amounts = threading.Event(), []

    def read() -> None:
        with reader.read() as session:
            assert written.wait(10)
            amounts.append(session.get_one(Account, 1).amount)

    lab.pair.freeze("primary")  # type: ignore[attr-defined]
    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    store.run(put(1, 6))  # at the standby, which took over
    written.set()
    if watched:
        thread.join(10)  # the primary is frozen still, and the read was freed
        assert amounts == [6]
    lab.pair.thaw("primary")  # type: ignore[attr-defined]
    thread.join(10)
    assert amounts == [6]


def test_another_pairs_database_in_a_nodes_place_is_refused(sqlite_lab: Lab, tmp_path: Path) -> None:
    lab = sqlite_lab
    store = lab.migrated(background=False, durability="async")
    store.run(put(1))
    store.sync()
    (tmp_path / "other").mkdir()
    from replstore import local

    with local.sqlite_pair(tmp_path / "other") as other:
        other_lab = Lab(other)
        other_lab.migrated(background=False, durability="async").run(put(7))
        other_lab.close()
        for suffix in ("-wal", "-shm", ""):
            here, there = Path(f"{lab.pair.path('primary')}{suffix}"), Path(f"{other.path('primary')}{suffix}")  # type: ignore[attr-defined]
            here.unlink(missing_ok=True)
            if there.exists():
                there.rename(here)
    with pytest.raises(Exception, match=r"another pair|replaced"):
        store.run(put(2))
    assert lab.accounts("primary") == {7: 0}
    assert store.status().nodes["primary"].health != "up"


def test_an_empty_database_in_the_writers_place_is_refused(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.sql("primary", "DROP SCHEMA replstore CASCADE")
    for write in (lambda: store.run(put(2)), lambda: store.begin().__enter__()):
        with pytest.raises(Exception, match="control tables"):
            write()
    lab.sql("primary", insert(3))  # it is only a database now


# --- commands that need both nodes


def test_what_needs_both_nodes_says_which_one_is_lost(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.kill("standby")
    for call in (store.sync, store.switchover, store.rejoin):
        with pytest.raises(NodeLost, match="standby is refused"):
            call()
    assert lab.state("primary").role == "writer"
