"""However much waits for the follower, it gets there, whole; and a client that stands still holds up nobody meanwhile."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from replstore.databases.postgresql import carrier, rows
from replstore.node import Node
from replstore.replication.journal.ship import Shipper
from tests.fix_check import adopted
from tests.fix_stores import Lab, Steps, insert, put, until

#: One key of one column, one of several, one of text whose equality isn't identity, values that are unique, a column that is computed.
TABLES = (
    "CREATE TABLE single (id int PRIMARY KEY, place int UNIQUE, twice int GENERATED ALWAYS AS (place * 2) STORED)",
    "CREATE TABLE composite (day date, name varchar(20), number int, PRIMARY KEY (name, day))",
    "CREATE TABLE numbered (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text)",
)
FILL = (
    "INSERT INTO single SELECT i, i FROM generate_series(1, 300) i",
    "INSERT INTO composite SELECT date '2024-01-01' + i, 'name ' || i % 7, i FROM generate_series(1, 300) i",
    "INSERT INTO numbered (note) SELECT 'note ' || i FROM generate_series(1, 300) i",
)
#: Hot rows, places that change hands between rows of different pieces, keys that change, rows that come and go.
CHANGE = (
    "UPDATE single SET place = -place",
    "UPDATE single SET place = 301 + place",
    "UPDATE single SET id = id + 1000 WHERE id % 3 = 0",
    "UPDATE composite SET day = day + 1000, number = -number WHERE number % 2 = 0",
    "DELETE FROM composite WHERE number % 5 = 0",
    "DELETE FROM numbered WHERE id % 2 = 0",
    "UPDATE numbered SET note = 'later' WHERE id % 3 = 0",
)


@pytest.fixture
def slow_lab(postgresql_lab: Lab) -> Lab:
    """A pair on sessions that wait longer for a lock than a frozen client's transaction is left open."""
    lab = postgresql_lab
    lab.migrated(background=False).run(put(1))
    for name, node in lab.nodes.items():
        node.close()
        lab.nodes[name] = Node(name, make_url(lab.pair.url(name)), seconds=10.0)  # type: ignore[arg-type]
    return lab


def _shipping(shipper: Shipper) -> tuple[threading.Thread, dict[str, Any]]:
    outcome: dict[str, Any] = {}

    def ship() -> None:
        try:
            outcome["shipped"] = shipper.ship()
        except Exception as error:
            outcome["error"] = error

    thread = threading.Thread(target=ship)
    thread.start()
    return thread, outcome


def _waiting_for_the_journal(lab: Lab) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'replstore service' AND wait_event_type = 'Lock'"
    return bool(lab.sql("primary", waiting)[0][0])


def test_a_batch_that_takes_longer_to_read_than_a_frozen_client_is_given_is_shipped(slow_lab: Lab) -> None:
    lab = slow_lab
    lab.sql("primary", insert(2))
    program = lab.connect("primary")
    program.execute("LOCK TABLE replstore.journal")
    thread, outcome = _shipping(lab.shipper())
    until(lambda: _waiting_for_the_journal(lab), "the shipper reads the journal")
    time.sleep(3.0)  # the limit is two
    program.rollback()
    thread.join()
    assert outcome["shipped"].rows == 1, outcome
    assert lab.accounts("standby") == {1: 0, 2: 0}


def test_a_writer_that_hangs_does_not_keep_the_follower_s_transaction_open(slow_lab: Lab) -> None:
    """The client is well, but what it waits for may never come: a takeover needs the follower."""
    lab = slow_lab
    lab.sql("primary", insert(2))
    program = lab.connect("primary")
    program.execute("LOCK TABLE replstore.journal")
    thread, outcome = _shipping(lab.shipper())
    until(lambda: _waiting_for_the_journal(lab), "the shipper reads the journal")
    lab.pair.freeze("primary")  # type: ignore[union-attr]
    try:
        thread.join(timeout=15)
        assert "error" in outcome
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        until(lambda: lab.sql("standby", held) == [(0,)], "the follower is free")
    finally:
        lab.pair.thaw("primary")  # type: ignore[union-attr]
        thread.join()


@pytest.mark.parametrize("step", ["follower", "snapshot", "tick", "apply", "still_there"])
def test_a_client_that_stands_still_after_any_step_is_ended_by_the_servers(postgresql_lab: Lab, step: str) -> None:
    lab = postgresql_lab
    lab.migrated(background=False).run(put(1))
    lab.sql("primary", insert(2))
    shipper = lab.shipper()
    stops = threading.Event()

    def stand_still() -> None:
        open_ones = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'replstore service' AND xact_start IS NOT NULL"
        until(lambda: lab.sql("primary", open_ones) == lab.sql("standby", open_ones) == [(0,)], "both servers are free")
        stops.set()

    shipper.carrier = Steps(shipper.carrier, after={step: stand_still})
    with pytest.raises(psycopg.Error, match=r"idle-in-transaction|gone|closed"):
        shipper.ship()
    assert stops.is_set()
    assert lab.accounts("standby") == {1: 0}
    lab.ship()
    assert lab.accounts("standby") == {1: 0, 2: 0}


@pytest.mark.parametrize("limit", ["few", "many", "pieces", "too many for an array"])
def test_every_row_arrives_however_it_travels(postgresql_lab: Lab, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    """A few rows are values of statements, many are a COPY; keys go in pieces, and are looked up one by one or joined."""
    lab = postgresql_lab
    store = adopted(lab, *TABLES)
    if limit == "few":
        monkeypatch.setattr(carrier, "FEW", 100_000)
        monkeypatch.setattr(carrier, "SELECT_JOURNAL", carrier.SELECT_JOURNAL.replace("100", "100000").replace("101", "100001"))
        monkeypatch.setattr(carrier, "SELECT_MARKERS", carrier.SELECT_MARKERS.replace("101", "100001"))
    if limit == "pieces":
        monkeypatch.setattr(rows, "PIECE", 500)
    if limit == "too many for an array":
        monkeypatch.setattr(rows, "ARRAY", 0)
    lab.sql("primary", *FILL)
    store.sync()
    assert store.check().equal
    lab.sql("primary", *CHANGE)
    lab.sql("primary", *(f"UPDATE single SET place = place + 10000 WHERE id = {id}" for id in range(1, 4)))
    store.sync()
    report = store.check()
    assert report.equal, report
    assert lab.sql("standby", "SELECT count(*) FROM single, (SELECT count(*) FROM composite) c(n)") == [(300,)]


def test_more_markers_than_travel_as_values_arrive_too(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    store = lab.migrated(background=False)
    store.run(put(1))
    marker = f"INSERT INTO {lab.name('marker')} (id, key, outcome, durability, term_no, at) "
    lab.sql(
        "primary",
        marker
        + "SELECT 'many ' || i, 'key ' || i, 'committed', 'async', 1, timestamptz '2024-01-01 00:00:00.000001+00' FROM generate_series(1, 500) i",
    )
    store.sync()
    columns = f"SELECT id, key, fn, outcome, result, durability, term_no, at FROM {lab.name('marker')} ORDER BY id"
    assert lab.sql("standby", columns) == lab.sql("primary", columns)
    lab.sql("primary", marker + "VALUES ('one', NULL, 'lost', 'async', 1, '2024-01-01')")
    store.sync()
    assert lab.sql("standby", columns) == lab.sql("primary", columns)
