"""A Store over PostgreSQL's own replication: what it promises over a journal it promises here."""

from __future__ import annotations

import pytest

from replstore import CommittedNotReplicated
from tests.fix_native import NativeLab
from tests.fix_stores import Account
from tests.fix_streaming import on_an_installed_server_too


@on_an_installed_server_too
def test_what_was_committed_is_on_both_nodes_and_read_from_either(native_lab: NativeLab) -> None:
    store = native_lab.migrated(durability="replicated")
    store.run(lambda session: session.add(Account(id=1, owner="ada", amount=5)))
    assert native_lab.sql("standby", "SELECT owner, amount FROM account") == [("ada", 5)]
    with store.read(node="follower", after=store.token()) as session:
        assert session.get(Account, 1).owner == "ada"  # type: ignore[union-attr]


@on_an_installed_server_too
def test_a_call_goes_on_at_the_standby_that_is_promoted_when_the_primary_dies(native_lab: NativeLab) -> None:
    store = native_lab.migrated()
    store.run(lambda session: session.add(Account(id=1, owner="ada", amount=5)))
    store.sync()
    term = store.status().term
    assert term is not None
    native_lab.kill("primary")
    store.run(lambda session: session.add(Account(id=2, owner="bob", amount=7)))
    status = store.status()
    assert (status.writer, status.term) == ("standby", term + 1)
    assert native_lab.sql("standby", "SELECT owner FROM account ORDER BY id") == [("ada",), ("bob",)]


def test_without_its_follower_nothing_counts_as_replicated(native_lab: NativeLab) -> None:
    store = native_lab.migrated(durability="replicated", ack_timeout=0.5)
    native_lab.kill("standby")
    with pytest.raises(CommittedNotReplicated, match="standby"):
        store.run(lambda session: session.add(Account(id=1, owner="ada", amount=5)))
    store.run(lambda session: session.add(Account(id=2, owner="bob", amount=5)), durability="server")
