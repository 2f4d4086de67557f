"""What a mixed pair takes over from a pair of one kind and hands on to the next: calls under a key, batches that stand still, guards that come and go."""

from __future__ import annotations

import datetime as dt
from typing import Any

import psycopg
import pytest
from sqlalchemy import DateTime, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from replstore import local
from replstore.databases.carrier import CompareFailed
from replstore.errors import NotAPair
from replstore.store import Store
from tests.fix_mixed import MixedLab
from tests.fix_stores import FAST, Account, Batch, count, put
from tests.fix_things import Thing, ThingBase


def add(session: Session) -> dict[str, Any]:
    session.add(Account(owner="once", amount=1))
    return {"accounts": count(session), "text": "ä\u2028\x01"}


def test_a_call_under_a_key_is_known_on_the_other_kind_of_node(mixed_lab: MixedLab) -> None:
    store = mixed_lab.migrated(background=False)
    first = store.run(add, key="key ä")
    store.switchover()
    assert store.run(add, key="key ä") == first
    store.switchover()
    assert store.run(add, key="key ä") == first
    assert len(mixed_lab.accounts("primary")) == len(mixed_lab.accounts("standby")) == 1
    (row,) = mixed_lab.sql("primary", f"SELECT at FROM {mixed_lab.name('marker', 'primary')} WHERE key = 'key ä'")
    at = row[0] if isinstance(row[0], dt.datetime) else dt.datetime.fromisoformat(row[0] + "+00:00")
    assert abs(dt.datetime.now(dt.UTC) - at) < dt.timedelta(minutes=10)


def test_a_batch_that_stood_still_changes_nothing_after_another(mixed_lab: MixedLab) -> None:
    mixed_lab.migrated(background=False).run(put(1, 10))
    for writer in ("primary", "standby"):
        if writer == "standby":
            mixed_lab.store(background=False).switchover()
        mixed_lab.sql(writer, "UPDATE account SET amount = 20")
        late = Batch(mixed_lab.shipper(writer))
        mixed_lab.sql(writer, "UPDATE account SET amount = 30")
        mixed_lab.ship(writer)
        with pytest.raises((CompareFailed, psycopg.Error)):  # a server ends what stands still, so that the other gets its turn
            late.go_on()
        assert mixed_lab.accounts("primary") == mixed_lab.accounts("standby") == {1: 30}


def test_a_batch_does_not_land_on_a_node_that_took_over_meanwhile(mixed_lab: MixedLab) -> None:
    store = mixed_lab.migrated(background=False)
    store.run(put(1, 10))
    mixed_lab.sql("primary", "UPDATE account SET amount = 20")
    late = Batch(mixed_lab.shipper())
    if mixed_lab.sqlite == "standby":  # a server's batch holds the guard, so nobody can take over beside it
        store.takeover("standby", force=True)
        with pytest.raises(CompareFailed):
            late.go_on()
    else:
        late.carrier.abandon()
        store.takeover("standby", force=True)
    assert mixed_lab.accounts("standby") == {1: 10}


class MomentBase(DeclarativeBase):
    pass


class Moment(MomentBase):
    __tablename__ = "moment"
    at: Mapped[dt.datetime] = mapped_column(DateTime, primary_key=True)


def test_two_forms_of_one_value_are_not_two_keys(file_first: MixedLab) -> None:
    store = file_first.migrated(MomentBase.metadata, background=False)
    store.run(lambda session: session.add(Moment(at=dt.datetime(2024, 1, 1))))
    with pytest.raises(Exception, match="with six places"):
        store.run(lambda session: session.execute(text("INSERT INTO moment VALUES ('2024-01-01 00:00:00')")))
    store.run(lambda session: session.add(Moment(at=dt.datetime(2024, 1, 2))))
    assert store.check().equal


def test_guards_come_with_a_partner_of_the_other_kind_and_go_with_it(server_first: MixedLab) -> None:
    servers = server_first.pair.kinds["primary"]  # type: ignore[attr-defined]
    assert isinstance(servers, local.PostgresPair)
    both = {"primary": servers.primary_url, "standby": servers.standby_url}
    with Store(background=False, **both, **FAST) as store:
        store.migrate(ThingBase.metadata)
        store.run(lambda session: session.add(Thing(id=1, ratio=float("nan"))))
    server_first.sql("primary", "UPDATE thing SET ratio = NULL")
    with Store(background=False, **{**both, "standby": server_first.pair.standby_url}, **FAST) as store:
        store.migrate(ThingBase.metadata, replace="standby")
        with pytest.raises(Exception, match="can't be stored by SQLite"):
            store.run(lambda session: session.add(Thing(id=2, ratio=float("nan"))))
        store.run(lambda session: session.add(Thing(id=2, ratio=0.5)))
        assert store.check().equal, store.check().as_dict()
    servers.standby.drop_database(servers.database)  # type: ignore[attr-defined]
    servers.standby.create_database(servers.database)
    with Store(background=False, **both, **FAST) as store:
        store.migrate(ThingBase.metadata, replace="standby")
        store.run(lambda session: session.add(Thing(id=3, ratio=float("nan"))))
        assert store.check().equal, store.check().as_dict()


def test_the_same_on_a_file(file_first: MixedLab) -> None:
    urls = {"primary": file_first.pair.primary_url, "standby": f"{file_first.pair.primary_url}.second"}
    file_first.migrated(ThingBase.metadata, background=False).close()
    with Store(background=False, **urls, **FAST) as store:
        store.migrate(ThingBase.metadata, replace="standby")
        store.run(lambda session: session.execute(text("INSERT INTO thing (id, touched, number) VALUES (1, 0, 'twelve')")))
        assert store.check().equal, store.check().as_dict()


def test_a_file_with_the_writers_empty_tables_is_taken_and_one_with_rows_is_not(server_first: MixedLab) -> None:
    server_first.sql("primary", "CREATE TABLE word (id bigint PRIMARY KEY, word text)")
    server_first.sql("standby", "CREATE TABLE word (id BIGINT NOT NULL PRIMARY KEY, word TEXT)", "INSERT INTO word VALUES (7, 'mine')")
    with pytest.raises(NotAPair, match=r"its table public\.word holds rows"):
        server_first.store(background=False).migrate()
    server_first.sql("standby", "DELETE FROM word")
    server_first.store(background=False).migrate()
    assert server_first.store(background=False).check().equal
