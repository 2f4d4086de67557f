"""What is killed at every statement, and what must be true once somebody has gone on from there."""

from __future__ import annotations

import contextlib
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import Column, Integer, MetaData, String, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from replstore import ConfigError, local
from replstore.replication.journal import recording
from replstore.store import Store

SHORT: dict[str, Any] = {
    "detection_time": 0.4, "probe_interval": 0.1, "probe_timeout": 0.5, "ack_timeout": 2.0, "takeover_timeout": 5.0, "background": False
}  # fmt: skip


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(unique=True)
    amount: Mapped[int]


class Place:
    """A directory with a pair of files.

    Args:
        directory: where they are; nothing else is in it.

    Attributes:
        settings: of every Store on them.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pair = local.SqlitePair(directory)
        self.settings: dict[str, Any] = {}

    def store(self, **settings: Any) -> Store:
        """A Store without background threads: whatever happens is the operation's own doing."""
        return Store(primary=self.pair.primary_url, standby=self.pair.standby_url, **{**SHORT, **self.settings, **settings})

    def rows(self, node: local.Name, query: str = "SELECT id, owner, amount FROM account ORDER BY id") -> list[tuple[Any, ...]]:
        """A query by another program."""
        with contextlib.closing(sqlite3.connect(self.pair.path(node), timeout=5)) as connection:
            return connection.execute(query).fetchall()

    def acknowledge(self) -> None:
        """Remembers outside both databases that the caller was told of success."""
        self._acknowledged.touch()

    @property
    def acknowledged(self) -> bool:
        """Whether it was."""
        return self._acknowledged.exists()

    @property
    def _acknowledged(self) -> Path:
        return self.directory / "acknowledged"


def add(id: int, amount: int) -> Callable[[Session], int]:
    """Adds to an account; done twice, it shows."""

    def change(session: Session) -> int:
        account = session.get(Account, id) or Account(id=id, owner=f"owner {id}", amount=0)
        session.add(account)
        account.amount += amount
        return account.amount

    return change


class Operation(ABC):
    """Something that may die anywhere."""

    settings: ClassVar[dict[str, Any]] = {}

    def everywhere(self, place: Place) -> dict[str, Any]:
        """Settings of all Stores, also of those that go on."""
        return {}

    def prepare(self, place: Place) -> None:
        """Brings about the state from which every run begins."""
        with place.store(**self.settings) as store:
            store.migrate(Base.metadata)
            store.run(add(1, 100))
            store.run(add(2, 200))

    @abstractmethod
    def operate(self, place: Place) -> None:
        """What may die."""

    def again(self, place: Place, store: Store) -> None:
        """What a person, or the program that starts again, does next: by default the same."""
        self.operate(place)

    @abstractmethod
    def expected(self) -> dict[int, int]:
        """The amounts after it, by account."""

    def before_recovery(self, place: Place) -> None:
        """What comes back in the meantime."""

    def recover(self, place: Place) -> None:
        """Goes on from wherever it died, and looks whether all is as it must be."""
        if place.acknowledged:
            self.acknowledged(place)
        self.before_recovery(place)
        with place.store(**self.settings) as store:
            self.again(place, store)
        with place.store(**self.settings) as store:
            store.run(add(9, 9))
            former = store.pair.current(0.0).follower
            if store.pair.watch.states[former.name].state is not None and _role(store, former.name) != "follower":
                store.rejoin()
            store.sync()
            report = store.check()
            assert report.equal, report
            status = store.status()
            assert status.healthy, status
        primary, standby = place.rows("primary"), place.rows("standby")
        assert primary == standby
        assert {id: amount for id, _, amount in primary} == {**self.expected(), 9: 9}
        self.verify(place)

    def acknowledged(self, place: Place) -> None:
        """Looks, before anybody has gone on, whether what was acknowledged is where it must be."""

    def verify(self, place: Place) -> None:
        """Looks at whatever else must hold."""


def _role(store: Store, node: str) -> str:
    state = store.pair.watch.states[node].state
    return state.role if state else "unknown"


class Commit(Operation):
    """One replicated transaction, under a key."""

    def operate(self, place: Place) -> None:
        with place.store() as store:
            store.run(add(1, 11), key="once")
            place.acknowledge()

    def acknowledged(self, place: Place) -> None:
        assert {id: amount for id, _, amount in place.rows("standby")}[1] == 111

    def expected(self) -> dict[int, int]:
        return {1: 111, 2: 200}


class Backlog(Operation):
    """Shipping what was committed without waiting."""

    settings: ClassVar[dict[str, Any]] = {"durability": "async"}

    def prepare(self, place: Place) -> None:
        super().prepare(place)
        with place.store() as store:
            store.sync()
            store.run(add(1, 1))
            store.run(lambda session: session.delete(session.get_one(Account, 2)))
            store.run(add(3, 300))

    def operate(self, place: Place) -> None:
        with place.store() as store:
            store.sync()

    def expected(self) -> dict[int, int]:
        return {1: 101, 3: 300}


class BacklogThenLost(Backlog):
    """The same, and then the writer is lost too: the follower has all of the batch or nothing, and says which."""

    def recover(self, place: Place) -> None:
        place.pair.kill("primary")
        with place.store() as store:
            store.run(add(9, 9))
        amounts = {id: amount for id, _, amount in place.rows("standby")}
        shipped = amounts == {**self.expected(), 9: 9}
        assert shipped or amounts == {1: 100, 2: 200, 9: 9}, amounts
        place.pair.start("primary")
        with place.store() as store:
            store.rejoin()
            store.sync()
            assert store.check().equal
        records = place.rows("standby", "SELECT key FROM replstore_orphan ORDER BY key")
        assert records == ([] if shipped else [("[1]",), ("[2]",), ("[3]",)]), records


class Takeover(Operation):
    """The writer is gone; the next transaction makes the follower the writer."""

    def prepare(self, place: Place) -> None:
        super().prepare(place)
        place.pair.kill("primary")

    def operate(self, place: Place) -> None:
        with place.store() as store:
            store.run(add(1, 11), key="once")
            place.acknowledge()

    def acknowledged(self, place: Place) -> None:
        assert {id: amount for id, _, amount in place.rows("standby")}[1] == 111

    def again(self, place: Place, store: Store) -> None:
        self.operate(place)
        place.pair.start("primary")

    def expected(self) -> dict[int, int]:
        return {1: 111, 2: 200}


class TakeoverInterrupted(Takeover):
    """The same, and the old writer is back before anybody has gone on."""

    def before_recovery(self, place: Place) -> None:
        place.pair.start("primary")

    def again(self, place: Place, store: Store) -> None:
        self.operate(place)


class Switchover(Operation):
    """Writer and follower change places; whoever comes next finishes what was begun."""

    def operate(self, place: Place) -> None:
        with place.store() as store:
            store.switchover()

    def again(self, place: Place, store: Store) -> None:
        store.run(add(2, 22), key="once")

    def expected(self) -> dict[int, int]:
        return {1: 100, 2: 222}


class Rejoin(Operation):
    """A former writer with orphans comes back."""

    settings: ClassVar[dict[str, Any]] = {"durability": "async", "rejoin": "manual"}
    copy = False

    def prepare(self, place: Place) -> None:
        super().prepare(place)
        with place.store() as store:
            store.sync()
            store.run(add(1, 1))  # an orphan: changed
            store.run(add(5, 500))  # an orphan: new
            store.run(lambda session: session.delete(session.get_one(Account, 2)))  # an orphan: deleted
        place.pair.kill("primary")
        with place.store() as store:
            store.run(add(6, 600))
        place.pair.start("primary")

    def operate(self, place: Place) -> None:
        with place.store() as store:
            store.rejoin(copy=self.copy)

    def again(self, place: Place, store: Store) -> None:
        store.pair.current(0.0)
        if _role(store, "primary") != "follower":
            store.rejoin(copy=self.copy)

    def expected(self) -> dict[int, int]:
        return {1: 100, 2: 200, 6: 600}

    def verify(self, place: Place) -> None:
        for node in ("primary", "standby"):
            records = place.rows(node, "SELECT tbl, key, former_row IS NULL, writer_row IS NULL FROM replstore_orphan ORDER BY key")  # type: ignore[arg-type]
            assert records == [("account", "[1]", 0, 0), ("account", "[2]", 1, 0), ("account", "[5]", 0, 1)], records


class RejoinByCopy(Rejoin):
    """The same, by a copy of every table."""

    copy = True


class RejoinInPieces(Rejoin):
    """The same with more orphans than one transaction records; who comes after the crash records more at once."""

    def operate(self, place: Place) -> None:
        recording.PIECE = 1
        super().operate(place)

    def verify(self, place: Place) -> None:
        for node in ("primary", "standby"):
            marks = place.rows(node, "SELECT state FROM replstore_orphan WHERE tbl = ''")  # type: ignore[arg-type]
            assert marks in ([], [("recorded",)]), marks
            records = place.rows(node, "SELECT key, former_row IS NULL, writer_row IS NULL FROM replstore_orphan WHERE tbl <> '' ORDER BY key")  # type: ignore[arg-type]
            assert records == [("[1]", 0, 0), ("[2]", 1, 0), ("[5]", 0, 1)], records


class Replay(Rejoin):
    """What the former writer had alone is done on the new one: two transactions on one account, and one apart from them."""

    def prepare(self, place: Place) -> None:
        super(Rejoin, self).prepare(place)
        with place.store() as store:
            store.sync()
            store.run(add(1, 1))
            store.run(add(1, 10), key="lost")
            store.run(lambda session: session.delete(session.get_one(Account, 2)))
        place.pair.kill("primary")
        with place.store() as store:
            store.run(add(6, 600))
        place.pair.start("primary")
        with place.store() as store:
            store.rejoin()
            store.sync()

    def operate(self, place: Place) -> None:
        with place.store() as store:
            with contextlib.suppress(ConfigError):  # there is nothing more to decide on
                store.orphans.replay(reason="wanted")
            assert store.run(add(1, 10), key="lost") == 111  # known by its key, and done once
            place.acknowledge()

    def again(self, place: Place, store: Store) -> None:
        before = {state for (state,) in place.rows("standby", "SELECT DISTINCT state FROM replstore_orphan WHERE key = '[1]'")}
        amount = {id: amount for id, _, amount in place.rows("standby")}[1]
        assert (before, amount) in (({"open"}, 100), ({"replayed"}, 111))  # both transactions of the group, or none
        self.operate(place)

    def acknowledged(self, place: Place) -> None:
        for node in ("primary", "standby"):
            assert {id: amount for id, _, amount in place.rows(node)}[1] == 111  # type: ignore[arg-type]

    def expected(self) -> dict[int, int]:
        return {1: 111, 6: 600}

    def verify(self, place: Place) -> None:
        for node in ("primary", "standby"):
            assert place.rows(node, "SELECT key, state, reason FROM replstore_orphan ORDER BY key") == [  # type: ignore[arg-type]
                ("[1]", "replayed", "wanted"),
                ("[2]", "replayed", "wanted"),
            ]


class Discard(Replay):
    """A person decides against it."""

    def operate(self, place: Place) -> None:
        with place.store() as store:
            with contextlib.suppress(ConfigError):
                store.orphans.discard(everything=True, reason="not wanted")
            place.acknowledge()

    def again(self, place: Place, store: Store) -> None:
        assert len(place.rows("standby", "SELECT DISTINCT state FROM replstore_orphan")) == 1  # all of it, or nothing
        self.operate(place)

    def acknowledged(self, place: Place) -> None:
        for node in ("primary", "standby"):
            assert place.rows(node, "SELECT DISTINCT state FROM replstore_orphan") == [("discarded",)]  # type: ignore[arg-type]

    def expected(self) -> dict[int, int]:
        return {1: 100, 2: 200, 6: 600}

    def verify(self, place: Place) -> None:
        self.acknowledged(place)


class Resync(Operation):
    """The follower was away, and the writer acknowledged alone."""

    def prepare(self, place: Place) -> None:
        super().prepare(place)
        with place.store() as store:
            store.run(add(1, 1))
            place.pair.kill("standby")
            store.pair.look()
            store.solo()
            store.run(add(1, 10))
            store.run(add(4, 400))
        place.pair.start("standby")

    def operate(self, place: Place) -> None:
        with place.store() as store:
            store.sync()

    def expected(self) -> dict[int, int]:
        return {1: 111, 2: 200, 4: 400}


class FirstMigration(Operation):
    """An existing database becomes a pair: control tables, capture, and the copy of what is there."""

    def prepare(self, place: Place) -> None:
        with contextlib.closing(sqlite3.connect(place.pair.path("primary"))) as connection:
            connection.executescript(
                "CREATE TABLE account (id INTEGER PRIMARY KEY, owner VARCHAR NOT NULL UNIQUE, amount INTEGER NOT NULL);"
                "INSERT INTO account VALUES (1, 'owner 1', 100), (2, 'owner 2', 200)"
            )

    def operate(self, place: Place) -> None:
        with place.store() as store:
            store.migrate()

    def expected(self) -> dict[int, int]:
        return {1: 100, 2: 200}


class Migration(Operation):
    """A further table, on both nodes."""

    def operate(self, place: Place) -> None:
        more = MetaData()
        Base.metadata.tables["account"].to_metadata(more)
        Table("branch", more, Column("id", Integer, primary_key=True), Column("name", String, nullable=False))
        with place.store() as store:
            store.migrate(more)

    def expected(self) -> dict[int, int]:
        return {1: 100, 2: 200}

    def verify(self, place: Place) -> None:
        with place.store() as store:
            store.run(lambda session: session.connection().exec_driver_sql("INSERT INTO branch VALUES (1, 'here')"))
        assert place.rows("standby", "SELECT * FROM branch") == [(1, "here")]


OPERATIONS: dict[str, type[Operation]] = {
    "commit": Commit,
    "backlog": Backlog,
    "backlog, then the writer is lost": BacklogThenLost,
    "takeover": Takeover,
    "takeover, then the writer is back": TakeoverInterrupted,
    "switchover": Switchover,
    "rejoin": Rejoin,
    "rejoin by copy": RejoinByCopy,
    "rejoin in pieces": RejoinInPieces,
    "replay of orphans": Replay,
    "discard of orphans": Discard,
    "resync": Resync,
    "first migration": FirstMigration,
    "migration": Migration,
}
