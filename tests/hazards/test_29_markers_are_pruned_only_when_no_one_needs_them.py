"""Hazard 29 (c), and 4: a marker or a tombstone goes only when it was shipped, the follower is in sync under this term, and nothing older still runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import uuid4

import pytest

from replstore import CommitUnknown, Store, TransactionLost
from replstore.databases.base import NodeState
from replstore.errors import NotTheWriter
from replstore.node import Node
from replstore.pair.decide import Term
from replstore.pair.rejoin import fence_former
from replstore.replication.journal import retain
from replstore.replication.journal.retain import Retention, in_sync, prune_journal, prune_markers
from replstore.timestamps import uptime
from replstore.transaction.acknowledge import acknowledge
from replstore.transaction.doubt import resolve
from tests.fix_markers import committed
from tests.fix_stores import Lab, insert, put
from tests.hazards.test_29_a_tombstone_counts_only_where_it_holds import place

DAY = 86400.0


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing rests or waits for a position to have been confirmed for a while."""
    for name in ("CONFIRMED", "SETTLED", "WALK"):
        monkeypatch.setattr(retain, name, 0.0)
    monkeypatch.setattr(retain, "SPELL", 60.0)


def work(lab: Lab, retention: Retention, writer: str = "primary") -> None:
    """Two rounds of a keeper that sees both nodes as they are."""
    follower = "standby" if writer == "primary" else "primary"
    for _ in range(2):
        retention.work(lab.nodes[writer], lab.nodes[follower], lab.state(writer), lab.state(follower))


def age(lab: Lab, days: int = 2, *, nodes: tuple[str, ...] = ("primary", "standby"), only: str = "true") -> None:
    """Every marker was written so many days ago."""
    for node in nodes:
        if lab.postgresql:
            lab.sql(node, f"UPDATE replstore.marker SET at = at - interval '{days} days' WHERE {only}")
        else:  # without the capture: the marker stays shipped
            mark = "UPDATE replstore_mark SET mark = {}"
            shifted = f"UPDATE replstore_marker SET at = strftime('%Y-%m-%d %H:%M:%f', at, '-{days} days') WHERE {only}"
            lab.sql(node, mark.format("'apply'"), shifted, mark.format("NULL"))


def bury(store: Store, id: str | None = None) -> str:
    """A tombstone on the writer."""
    id = id or str(uuid4())
    with pytest.raises(TransactionLost):
        resolve(store.pair, store.pair.current(time.monotonic() + 5).term, id, "replicated", cause=None)
    return id


def both(lab: Lab) -> tuple[Node, Node]:
    """The writer and its follower."""
    return lab.nodes["primary"], lab.nodes["standby"]


# --- what goes


def test_old_markers_and_tombstones_without_a_key_go_on_both_nodes(lab: Lab, at_once: None) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    bury(store)
    store.run(place, key="order-7")
    store.sync()
    age(lab)
    store.run(put(2))
    young = bury(store)
    store.sync()
    assert len(lab.markers("primary")) == 5
    work(lab, Retention(DAY))
    assert lab.markers("primary") == lab.markers("standby")
    assert sorted(lab.markers("primary").values()) == ["committed", "committed", "lost"]
    assert young in lab.markers("standby")
    assert store.run(place, key="order-7") == 7
    assert lab.accounts("primary") == lab.accounts("standby")


def test_a_program_that_dies_between_both_nodes_leaves_the_rest_to_the_next(lab: Lab, at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    age(lab)
    writer, real = lab.nodes["primary"], lab.nodes["primary"].database.forget_markers
    died: list[str] = []

    def forget(connection: object, ids: list[str]) -> None:
        if not died and len(lab.markers("standby")) == 0:
            died.append("here")
            raise OSError("killed")
        real(connection, ids)  # type: ignore[arg-type]

    monkeypatch.setattr(writer.database, "forget_markers", forget)
    with pytest.raises(OSError):
        work(lab, Retention(DAY))
    assert (len(lab.markers("primary")), len(lab.markers("standby"))) == (1, 0)
    work(lab, Retention(DAY))
    assert lab.markers("primary") == lab.markers("standby") == {}


# --- what stays


def test_what_was_not_shipped_stays(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    behind = lab.state("standby")
    assert behind.position is not None
    late = committed(lab, "primary", 2)
    age(lab)
    prune_markers(*both(lab), lab.state("primary"), behind, behind.position, seconds=DAY, after=None, until=time.monotonic())
    assert set(lab.markers("primary")) == {late}


def test_nothing_goes_before_the_former_writer_has_rejoined(lab: Lab, at_once: None) -> None:
    """An orphan that comes back after two days still meets its tombstone, and the lost writer's own marker is still there."""
    store = lab.migrated(background=False)
    store.run(put(1))
    id, asleep = committed(lab, "primary", 2), lab.lead()
    lab.kill("primary")
    with pytest.raises(TransactionLost):
        acknowledge(store.pair, asleep, id, "replicated")
    age(lab, nodes=("standby",))
    lab.start("primary")
    retention = Retention(DAY)
    work(lab, retention, "standby")
    work(lab, retention, "primary")  # it doesn't know that it was replaced
    assert lab.markers("standby")[id] == "lost"
    assert lab.markers("primary")[id] == "committed"
    assert store.rejoin() == 1
    assert lab.sql("standby", f"SELECT tx_known FROM {lab.name('orphan')} WHERE tbl LIKE '%account'") == [("lost",)]
    store.sync()
    work(lab, retention, "standby")
    assert id not in lab.markers("standby") | lab.markers("primary")


@pytest.mark.parametrize(
    "change",
    [
        {"eligible_boot": None},
        {"eligible_boot": "another"},
        {"copying": True},
        {"role": "fenced"},
        {"stream_uuid": "another"},
        {"term_uuid": "another"},
        {"source": "another"},
        {"position": None},
    ],
)
def test_a_follower_that_is_not_in_sync_under_this_term_keeps_everything(sqlite_lab: Lab, at_once: None, change: dict[str, object]) -> None:
    store = sqlite_lab.migrated(background=False)
    store.run(put(1))
    age(sqlite_lab)
    ahead, behind = sqlite_lab.state("primary"), sqlite_lab.state("standby")
    assert in_sync(ahead, behind)
    for _ in range(2):
        Retention(DAY).work(*both(sqlite_lab), ahead, NodeState(**{**vars(behind), **change}))
        Retention(DAY).work(*both(sqlite_lab), NodeState(**{**vars(ahead), "solo": True}), behind)
    assert len(sqlite_lab.markers("primary")) == len(sqlite_lab.markers("standby")) == 1
    Retention(DAY).work(*both(sqlite_lab), ahead, behind)
    assert sqlite_lab.markers("primary") == sqlite_lab.markers("standby") == {}


@pytest.mark.parametrize("prepared", [False, True], ids=["running", "prepared"])
def test_nothing_goes_that_a_transaction_still_open_is_older_than(postgresql_lab: Lab, at_once: None, prepared: bool) -> None:
    store = postgresql_lab.migrated(background=False)
    store.run(put(1))
    older = postgresql_lab.connect("primary")
    older.execute(insert(2))
    if prepared:
        older.execute("PREPARE TRANSACTION 'older'")
    tomb = bury(store)
    store.run(put(3))
    age(postgresql_lab)
    work(postgresql_lab, Retention(DAY))
    assert len(postgresql_lab.markers("primary")) == 2
    assert postgresql_lab.markers("standby")[tomb] == "lost"
    if prepared:
        postgresql_lab.sql("primary", "COMMIT PREPARED 'older'")
    else:
        older.commit()
    store.sync()
    work(postgresql_lab, Retention(DAY))
    assert postgresql_lab.markers("primary") == postgresql_lab.markers("standby") == {}
    assert postgresql_lab.accounts("standby").keys() == {1, 2, 3}


@pytest.mark.parametrize("prune", [prune_journal, prune_markers])
def test_a_writer_whose_time_went_back_loses_nothing_by_a_position_from_before(restorable_lab: Lab, prune: Callable[..., object]) -> None:
    lab = restorable_lab
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.save("primary")
    for id in range(2, 6):
        store.run(put(id))
    ahead, behind = lab.state("primary"), lab.state("standby")
    lab.restore("primary")
    new = committed(lab, "primary", 9)  # not shipped, and numbered like those that were
    age(lab)
    journal = lab.sql("primary", f"SELECT count(*) FROM {lab.name('journal')}")
    arguments = (lab.nodes["primary"], ahead, behind, behind.position)
    with pytest.raises(NotTheWriter, match="doesn't know the last batch"):
        if prune is prune_journal:
            prune_journal(*arguments, until=time.monotonic())  # type: ignore[arg-type]
        else:
            prune_markers(*both(lab), *arguments[1:], seconds=DAY, after=None, until=time.monotonic())  # type: ignore[arg-type]
    assert lab.sql("primary", f"SELECT count(*) FROM {lab.name('journal')}") == journal
    assert new in lab.markers("primary")


def test_a_program_that_was_frozen_over_a_change_of_roles_prunes_nothing(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    age(lab)
    ahead, behind = lab.state("primary"), lab.state("standby")
    assert behind.position is not None
    store.switchover()
    journal = lab.sql("standby", f"SELECT count(*) FROM {lab.name('journal')}")
    with pytest.raises(NotTheWriter):
        prune_journal(lab.nodes["primary"], ahead, behind, behind.position, until=time.monotonic())
    with pytest.raises(NotTheWriter):
        prune_markers(*both(lab), ahead, behind, behind.position, seconds=DAY, after=None, until=time.monotonic())
    assert lab.sql("standby", f"SELECT count(*) FROM {lab.name('journal')}") == journal
    assert len(lab.markers("primary")) == len(lab.markers("standby")) == 1


def test_a_follower_that_took_over_forgets_nothing_for_the_writer_that_does_not_know(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    age(lab)
    ahead, behind = lab.state("primary"), lab.state("standby")
    assert behind.position is not None
    store.takeover("standby", force=True)
    with pytest.raises(NotTheWriter, match="standby no longer follows"):
        prune_markers(*both(lab), ahead, behind, behind.position, seconds=DAY, after=None, until=time.monotonic())
    assert len(lab.markers("primary")) == len(lab.markers("standby")) == 1


def test_a_former_writer_that_was_fenced_and_did_not_rejoin_yet_keeps_everything(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    age(lab)
    ahead, behind = lab.state("primary"), lab.state("standby")
    assert behind.position is not None
    fence_former(lab.nodes["primary"], Term(2, str(uuid4())))
    with pytest.raises(NotTheWriter, match="no longer the writer"):
        prune_journal(lab.nodes["primary"], ahead, behind, behind.position, until=time.monotonic())
    with pytest.raises(NotTheWriter, match="no longer the writer"):
        prune_markers(*both(lab), ahead, behind, behind.position, seconds=DAY, after=None, until=time.monotonic())
    assert len(lab.markers("primary")) == len(lab.markers("standby")) == 1


# --- whoever is still in doubt (hazard 4)


def test_a_transaction_in_doubt_that_began_longer_ago_than_half_the_retention_is_unknown(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    term = store.pair.current(time.monotonic() + 5).term
    done, never = committed(lab, "primary", 2), str(uuid4())
    for id in (done, never):
        with pytest.raises(CommitUnknown, match=r"began more than 43200 s ago.*can't be decided") as raised:
            resolve(store.pair, term, id, "replicated", began=uptime() - DAY / 2 - 1, cause=None)
        assert raised.value.id == id
    assert never not in lab.markers("primary")
    assert resolve(store.pair, term, done, "replicated", began=uptime() - DAY / 2 + 60, cause=None).term == term
    with pytest.raises(TransactionLost):
        resolve(store.pair, term, never, "replicated", began=uptime() - DAY / 2 + 60, cause=None)


@pytest.mark.parametrize("keyed", [False, True])
def test_an_attempt_knows_when_it_began_and_one_with_a_key_is_never_too_old(lab: Lab, keyed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    before = uptime()
    began: list[float | None] = []
    monkeypatch.setattr("replstore.transaction.attempt.acknowledge", lambda *_, **options: began.append(options["began"]))
    store.run(place, key="order-7") if keyed else store.run(put(2))
    (since,) = began
    assert since is None if keyed else since is not None and before <= since <= uptime()
