"""Hazard 11: an orphan is recorded as the work of the transaction that made it; another program's is nobody's, and counts as acknowledged."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy.orm import Session

from replstore import CommittedNotReplicated, Store
from tests.fix_mixed import MixedLab
from tests.fix_stores import Account, Lab, insert, put


class Maker:
    """Who made what on a primary that is lost before any of it is shipped.

    Args:
        lab: the pair.
        store: without background threads.
    """

    def __init__(self, lab: Lab, store: Store) -> None:
        self.lab, self.store = lab, store
        store.run(put(1))
        self._known = set(lab.markers("primary"))

    @contextlib.contextmanager
    def nothing_arrives(self) -> Iterator[None]:
        """The follower takes no batch, and lives."""
        connection = self.lab.connect("standby")
        connection.execute("LOCK TABLE account, replstore.marker IN SHARE MODE" if self.lab.postgresql else "BEGIN IMMEDIATE")
        yield
        connection.rollback()

    def store_s(self, change: Callable[[Session], Any], **options: Any) -> str:
        """A Store's transaction that isn't replicated; its id."""
        with pytest.raises(CommittedNotReplicated):
            self.store.run(change, **options)
        (made,) = set(self.lab.markers("primary")) - self._known
        self._known.add(made)
        return made

    def another_s(self, *statements: str) -> None:
        """What a program without a Store commits, each by itself."""
        self.lab.sql("primary", *statements)

    def records(self) -> dict[str, tuple[str | None, bool]]:
        """After a takeover and a rejoin, by key: the transaction on record, and whether it may have been acknowledged."""
        self.lab.kill("primary")
        self.store.takeover("standby")
        self.lab.start("primary")
        self.store.rejoin()
        rows = self.lab.sql("standby", f"SELECT key, tx, maybe_acknowledged FROM {self.lab.name('orphan')}")
        return {key: (tx, bool(acknowledged)) for key, tx, acknowledged in rows}


@pytest.fixture
def maker(lab: Lab) -> Maker:
    return Maker(lab, lab.migrated(background=False, rejoin="manual", ack_timeout=0.5))


def three(session: Session) -> None:
    for id in (10, 11, 12):
        put(id)(session)
        session.flush()


def keyed(session: Session) -> int:
    put(30)(session)
    return 30


def test_what_another_program_wrote_after_a_store_s_transaction_is_not_that_transaction_s(maker: Maker) -> None:
    with maker.nothing_arrives():
        maker.another_s(insert(2))
        ours = maker.store_s(three)
        maker.another_s(insert(20), "UPDATE account SET amount = 5 WHERE id = 11")
        called = maker.store_s(keyed, key="once")
        maker.another_s(insert(40))
        last = maker.store_s(put(50))
        maker.another_s(insert(60))
    assert maker.records() == {
        "[2]": (None, True),
        "[10]": (ours, False),
        "[11]": (None, True),  # who changed it last
        "[12]": (ours, False),
        "[20]": (None, True),
        "[30]": (called, False),
        "[40]": (None, True),
        "[50]": (last, False),
        "[60]": (None, True),
    }


def test_a_transaction_that_only_read_and_a_tombstone_own_nothing(maker: Maker) -> None:
    with maker.nothing_arrives():
        maker.store_s(lambda session: session.get(Account, 1))
        maker.another_s(insert(2))
        with maker.lab.nodes["primary"].begin() as connection:
            marker = maker.lab.control.marker
            connection.execute(marker.insert().values(id="buried", outcome="lost", durability="replicated", term_no=1))
        maker.another_s(insert(3))
    assert maker.records() == {"[2]": (None, True), "[3]": (None, True)}


def test_what_is_undone_inside_of_a_transaction_moves_no_boundary(maker: Maker) -> None:
    def changed_his_mind(session: Session) -> None:
        put(10)(session)
        session.flush()
        with contextlib.suppress(ValueError), session.begin_nested():
            put(11)(session)
            session.flush()
            raise ValueError
        put(12)(session)

    with maker.nothing_arrives():
        ours = maker.store_s(changed_his_mind)
        maker.another_s(insert(11))
    assert maker.records() == {"[10]": (ours, False), "[11]": (None, True), "[12]": (ours, False)}


def test_the_file_of_a_mixed_pair_knows_whose_its_entries_are(file_first: MixedLab) -> None:
    lab = file_first
    store = lab.migrated(background=False)
    node = lab.nodes["primary"]
    with node.snapshot() as connection:
        since = node.database.position(connection)
    store.run(put(1))
    (ours,) = lab.markers("primary")
    lab.sql("primary", insert(2))
    with node.snapshot() as connection:
        found = [*node.database.entries(connection, since)]
    assert {entry.key: (entry.tx, entry.durability) for entry in found if entry.table} == {"[1]": (ours, "replicated"), "[2]": (None, None)}
