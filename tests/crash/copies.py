"""Operations that copy tables in parts, or by a person's word: what has come stays, what was written meanwhile arrives, half a copy serves nobody."""

from __future__ import annotations

import contextlib
import sqlite3
from unittest.mock import patch

from operations import Backlog, FirstMigration, Operation, Place, add

from replstore import NeedsCopy, NoWriter, ReplicationStopped
from replstore.replication.journal import copying
from replstore.store import Store

ROWS = 5


def execute(place: Place, *statements: str) -> None:
    """Statements of another program on the primary, in one transaction."""
    with contextlib.closing(sqlite3.connect(place.pair.path("primary"), timeout=5)) as connection:
        connection.executescript("; ".join(["BEGIN IMMEDIATE", *statements, "COMMIT"]))


class Broken(Exception):
    """The program that made the pair dies before the first part."""


class CopyInParts(FirstMigration):
    """A filled database is copied, two rows at a time; another program writes before whoever comes after the crash goes on."""

    def prepare(self, place: Place) -> None:
        super().prepare(place)
        execute(place, *(f"INSERT INTO account VALUES ({id}, 'owner {id}', {id * 100})" for id in range(3, ROWS + 1)))
        with patch.object(copying.Copying, "next_part", side_effect=Broken), contextlib.suppress(Broken):
            super().operate(place)
        assert place.rows("standby") == []

    def operate(self, place: Place) -> None:
        copying.ROWS = 2
        with place.store() as store:
            store.sync()

    def again(self, place: Place, store: Store) -> None:
        # rows that have come or are still to come; two of them exchange a unique value
        execute(
            place,
            "UPDATE account SET amount = 111 WHERE id = 1",
            "DELETE FROM account WHERE id IN (3, 4)",
            "UPDATE account SET owner = 'x' WHERE id = 2",
            "UPDATE account SET owner = 'owner 2' WHERE id = 5",
            "UPDATE account SET owner = 'owner 5' WHERE id = 2",
        )
        self.operate(place)

    def expected(self) -> dict[int, int]:
        return {1: 111, 2: 200, 5: 500}


class CopyInPartsThenLost(CopyInParts):
    """The same, and the writer is lost: the copy takes over only if it is whole."""

    def recover(self, place: Place) -> None:
        place.pair.kill("primary")
        copied = {id: id * 100 for id in range(1, ROWS + 1)}
        whole = False
        with contextlib.suppress(NoWriter), place.store(takeover_timeout=0.2) as store:
            store.run(add(9, 9))
            whole, copied[9] = True, 9
            assert {id: amount for id, _, amount in place.rows("standby")} == copied
        place.pair.start("primary")
        copying.ROWS = 2
        with place.store() as store:
            if whole:
                store.rejoin()
            store.sync()
            assert store.check().equal
            assert store.status().healthy, store.status()
        assert {id: amount for id, _, amount in place.rows("primary")} == copied


class CopyOfALostFollower(Backlog):
    """A person lets a follower be copied whole whose place in the writer's history is gone; what only it has is recorded."""

    settings = {"durability": "async"}  # noqa: RUF012

    def prepare(self, place: Place) -> None:
        super().prepare(place)
        with place.store() as store:
            store.sync()
            store.run(add(4, 400))
        execute(place, "DELETE FROM replstore_tick")
        with contextlib.closing(sqlite3.connect(place.pair.path("standby"))) as connection:
            connection.executescript(
                "UPDATE replstore_mark SET mark = 'apply'; INSERT INTO account VALUES (8, 'only here', 8); UPDATE replstore_mark SET mark = NULL"
            )

    def operate(self, place: Place) -> None:
        with place.store() as store:
            store.rejoin(copy=True)

    def again(self, place: Place, store: Store) -> None:
        try:
            store.sync()
        except (NeedsCopy, ReplicationStopped):
            self.operate(place)

    def expected(self) -> dict[int, int]:
        return {1: 101, 3: 300, 4: 400}

    def verify(self, place: Place) -> None:
        for node in ("primary", "standby"):
            assert place.rows(node, "SELECT key FROM replstore_orphan WHERE tbl = 'account'") == [("[8]",)]  # type: ignore[arg-type]


OPERATIONS: dict[str, type[Operation]] = {
    "copy in parts": CopyInParts,
    "copy in parts, then the writer is lost": CopyInPartsThenLost,
    "copy of a follower that lost its place": CopyOfALostFollower,
}
