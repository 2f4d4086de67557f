"""The commit marker of native replication: what it decides, and what is left without it (``commit_marker=False``)."""

from __future__ import annotations

import dataclasses
import time

import pytest
from sqlalchemy.orm import Session

from replstore import CommitUnknown, NotTheWriter
from replstore.replication.native.retain import Retention, prune
from tests.fix_native import NativeLab
from tests.fix_proxy import MakeProxy
from tests.fix_stores import insert, put
from tests.native.standby import name_of

AMOUNT = "SELECT amount FROM account WHERE id = 1"


def test_a_transaction_leaves_a_marker_unless_the_program_wants_none(native_lab: NativeLab) -> None:
    native_lab.migrated().run(put(1))
    assert len(native_lab.markers("primary")) == 1
    native_lab.store(commit_marker=False).run(put(2))
    assert len(native_lab.markers("primary")) == 1


def test_without_a_marker_the_follower_must_have_replayed_everything(native_lab: NativeLab) -> None:
    native_lab.migrated(durability="replicated")
    store = native_lab.store(durability="replicated", commit_marker=False)
    store.run(put(1))
    assert native_lab.accounts("standby") == {1: 0}


def test_without_a_marker_a_commit_whose_answer_is_lost_is_unknown(native_lab: NativeLab, proxy: MakeProxy) -> None:
    native_lab.migrated()
    network = proxy(native_lab.pair.primary_url)
    store = native_lab.store(primary=network.url, commit_marker=False)
    store.run(put(1))
    network.cut_after(b"COMMIT", forward=True)
    with pytest.raises(CommitUnknown, match="commit_marker is false") as raised:
        store.run(put(1, amount=7))
    assert raised.value.id is None
    assert native_lab.accounts("primary") == {1: 7}  # it did happen, and nothing could have told it from the other case


def test_a_key_has_its_marker_all_the_same(native_lab: NativeLab) -> None:
    native_lab.migrated(durability="replicated")
    store = native_lab.store(durability="replicated", commit_marker=False)
    calls = [store.run(one_more, key="order-1") for _ in range(2)]
    assert calls == [1, 1]
    assert len(native_lab.markers("standby")) == 1


def one_more(session: Session) -> int:
    put(1)(session)
    session.flush()
    return 1


# --- how long they are kept


def age(lab: NativeLab, days: int = 2) -> None:
    """Makes all markers older."""
    lab.sql("primary", f"UPDATE replstore.marker SET at = at - interval '{days} days'")


def test_old_markers_go_on_both_nodes_and_keyed_ones_stay(native_lab: NativeLab) -> None:
    store = native_lab.migrated()
    store.run(put(1))
    store.run(one_more, key="order-1")
    age(native_lab)
    store.run(put(2))
    kept = native_lab.sql("primary", "SELECT id FROM replstore.marker WHERE key IS NOT NULL OR at > now() - interval '1 day'")
    retention = store.pair.link._retention  # type: ignore[attr-defined]
    retention._next_walk = time.monotonic()  # a program that has begun lets some time pass
    store.pair.nudged.set()
    deadline = time.monotonic() + 10
    while sorted(native_lab.sql("standby", "SELECT id FROM replstore.marker")) != sorted(kept):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_nothing_goes_while_the_standby_may_be_a_former_primary(native_lab: NativeLab) -> None:
    """What it alone had can be told only by what the primary still has."""
    native_lab.migrated().close()
    ahead, behind = native_lab.state("primary"), native_lab.state("standby")
    native_lab.store(background=False).run(put(1))
    age(native_lab)
    writer, retention = native_lab.nodes["primary"], Retention(60.0)
    retention._next_walk = 0.0
    retention.work(writer, ahead, dataclasses.replace(behind, stream_uuid="another"), 0.0)
    retention.work(writer, ahead, dataclasses.replace(behind, role="writer"), 0.0)
    retention.work(writer, ahead, behind, 31.0)
    assert len(native_lab.markers("primary")) == 1
    with pytest.raises(NotTheWriter):
        prune(writer, dataclasses.replace(ahead, term_uuid="another"), 60.0, 0)
    assert len(native_lab.markers("primary")) == 1
    retention.work(writer, ahead, behind, 29.0)
    assert native_lab.markers("primary") == {}


@pytest.mark.parametrize("prepared", [False, True])
def test_a_marker_younger_than_a_transaction_that_still_runs_stays(native_lab: NativeLab, *, prepared: bool) -> None:
    native_lab.migrated().close()
    other = native_lab.connect("primary")
    other.execute(insert(1))
    native_lab.store(background=False).run(put(2))
    if prepared:
        other.execute("PREPARE TRANSACTION 'stays'")
        other.commit()
    writer, ahead = native_lab.nodes["primary"], native_lab.state("primary")
    prune(writer, ahead, 0.0, 0)
    assert len(native_lab.markers("primary")) == 1
    if prepared:
        native_lab.sql("primary", "COMMIT PREPARED 'stays'")
    else:
        other.commit()
    prune(writer, ahead, 0.0, 0)
    assert native_lab.markers("primary") == {}


def test_without_a_marker_a_demoted_primary_is_left_all_the_same(native_lab: NativeLab) -> None:
    """There is no marker that it could refuse, and what only reads would be answered."""
    native_lab.migrated().close()
    store = native_lab.store(background=False, commit_marker=False)
    assert store.run(lambda session: name_of(native_lab, session)) == "primary"
    native_lab.pair.switch_over()
    assert store.run(lambda session: name_of(native_lab, session)) == "standby"
