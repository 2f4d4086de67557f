"""The commit marker of native replication: what it decides, and what is left without it (``commit_marker=False``)."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from replstore import CommitUnknown
from tests.fix_native import NativeLab
from tests.fix_proxy import MakeProxy
from tests.fix_stores import put

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
