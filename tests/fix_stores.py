"""A pair with its control tables and one table, Stores on it with short times, and ways to reach behind replstore's back."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey, MetaData, make_url, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from replstore import local
from replstore.control import Control
from replstore.databases.base import NodeState
from replstore.databases.carrier import Carrier, Keys, Landing, Snapshot
from replstore.local.process import PostgresServer
from replstore.node import Node
from replstore.pair.decide import Acknowledge, Term
from replstore.pair.lead import Lead
from replstore.replication.journal.ship import Shipper
from replstore.store import Store
from tests.fix_migrated import NODES, copied
from tests.fix_pairs import FreshPair, plain
from tests.fix_programs import Program

#: Short times, so that a test which waits for a detection doesn't wait long.
FAST: dict[str, Any] = {
    "detection_time": 0.4,
    "probe_interval": 0.1,
    "probe_timeout": 0.5,
    "ack_timeout": 1.0,
    "takeover_timeout": 5.0,
    "ship_interval": 0.05,
}
#: Long times, for a pair that a module's tests share and never let fall silent: a pause of a busy machine is no loss of the writer.
PATIENT: dict[str, Any] = {"detection_time": 30.0, "probe_timeout": 10.0, "ack_timeout": 30.0, "takeover_timeout": 30.0}


class Base(DeclarativeBase):
    pass


class Account(Base):
    """The one table of most tests."""

    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(unique=True)
    amount: Mapped[int]


class FamilyBase(DeclarativeBase):
    pass


class Parent(FamilyBase):
    __tablename__ = "parent"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Child(FamilyBase):
    """Its rows go with their parent's."""

    __tablename__ = "child"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int] = mapped_column(ForeignKey("parent.id", ondelete="CASCADE"))


class Lab:
    """A pair under test.

    Args:
        pair: two empty databases.

    Attributes:
        postgresql: whether they are PostgreSQL's.
        nodes: both, on sessions of the test's own.
    """

    def __init__(self, pair: local.Pair) -> None:
        self.pair = pair
        self.postgresql = isinstance(pair, local.PostgresPair)
        self._closing = contextlib.ExitStack()

    @cached_property
    def nodes(self) -> dict[str, Node]:
        nodes = {name: self._node(name) for name in NODES}
        for node in nodes.values():
            self._closing.callback(node.close)
        return nodes

    def _node(self, name: local.Name) -> Node:
        return Node(name, make_url(self.pair.url(name)), seconds=2.0)

    @property
    def control(self) -> Control:
        return self.nodes["primary"].database.control

    # -- Stores

    def store(self, *, background: bool = True, **settings: Any) -> Store:
        """A Store; without background threads nothing happens but what the test does."""
        urls = {"primary": self.pair.primary_url, "standby": self.pair.standby_url}
        store = Store(background=background, **{**urls, **FAST, **settings})
        self._closing.callback(store.close)
        return store

    def migrated(self, metadata: MetaData = Base.metadata, *, background: bool = True, **settings: Any) -> Store:
        """The pair's first Store, with tables."""
        ready = copied(self.pair, metadata, {**FAST, **settings})
        store = self.store(background=background, **settings)
        if ready:
            store.pair.look()
        else:
            store.migrate(metadata)
        if background:
            in_contact(store)
        return store

    def close(self) -> None:
        self._closing.close()

    # -- behind the Store's back

    def connect(self, node: str) -> Any:
        """The plain driver's connection, as any other program has one; transactions are the test's (SQLite: BEGIN as well)."""
        url = self.pair.url(node)  # type: ignore[arg-type]
        if self.postgresql:
            connection: Any = plain(url)
        else:
            connection = sqlite3.connect(str(make_url(url).database), timeout=2.0, isolation_level=None, check_same_thread=False)
        self._closing.callback(connection.close)
        return connection

    def sql(self, node: str, *statements: str) -> list[tuple[Any, ...]]:
        """Executes statements, each committed by itself, and returns the rows of the last one."""
        connection = self.connect(node)
        try:
            if self.postgresql:
                connection.autocommit = True
            for statement in statements:
                cursor = connection.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def name(self, table: str) -> str:
        """The SQL name of a control table."""
        return self.control.name(table)

    def accounts(self, node: str) -> dict[int, int]:
        """The amounts by id."""
        return dict(self.sql(node, "SELECT id, amount FROM account"))

    def markers(self, node: str) -> dict[str, str]:
        """The outcomes by id."""
        return dict(self.sql(node, f"SELECT id, outcome FROM {self.name('marker')}"))

    def state(self, node: str) -> NodeState:
        """What a node's control tables say."""
        with self.nodes[node].begin() as connection:
            state = self.nodes[node].database.state(connection)
        assert state is not None
        return state

    def lead(self, node: str = "primary") -> Lead:
        """The writer, as a program that looked just now sees it."""
        state = self.state(node)
        other = "standby" if node == "primary" else "primary"
        return Lead(self.nodes[node], self.nodes[other], Term(state.term_no, state.term_uuid), Acknowledge.REPLICATED, time.monotonic(), "")

    # -- shipping step by step

    def shipper(self, writer: str = "primary") -> Shipper:
        """A shipper of the test's own."""
        shipper = Shipper(self.nodes[writer], self.nodes["standby" if writer == "primary" else "primary"])
        self._closing.callback(shipper.close)
        return shipper

    def ship(self, writer: str = "primary") -> None:
        """Ships everything, as a program that comes and goes does."""
        shipper = self.shipper(writer)
        shipper.ship()
        shipper.close()

    # -- faults

    def kill(self, node: str) -> None:
        """SIGKILL to the server; a file is moved away."""
        self.pair.kill(node)  # type: ignore[arg-type]

    def hold_log(self, node: str) -> None:
        """Until the server is killed nothing is written but what a commit waits for: the process that writes in between stands still."""
        ((pid,),) = self.sql(node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
        os.kill(pid, signal.SIGSTOP)

    def start(self, node: str) -> None:
        """Brings a node back as it was."""
        self.pair.start(node)  # type: ignore[arg-type]
        self._forget_connections(node)

    def crash(self, node: str) -> None:
        """Kill and start: a crash that nobody sees but the node."""
        self.kill(node)
        self.start(node)

    def replace(self, node: str) -> None:
        """The node restarts: a server is killed and started, a file is copied to another inode (a moved file has no other boot identity)."""
        if self.postgresql:
            self.crash(node)
        else:
            self.save(node)
            self.restore(node)

    def save(self, node: str) -> None:
        """A backup of the node as it is now; a server is stopped for it."""
        if self.postgresql:
            server = self._server(node)
            server.stop()
            _copy(server.data, self._backup(node))
            self.start(node)
        else:
            with contextlib.closing(self.connect(node)) as source, contextlib.closing(sqlite3.connect(self._backup(node))) as target:
                source.backup(target)

    def restore(self, node: str) -> None:
        """The node goes back to its backup."""
        if self.postgresql:
            server = self._server(node)
            server.stop("immediate")
            _copy(self._backup(node), server.data)
            server.start()
        else:
            path = str(make_url(self.pair.url(node)).database)  # type: ignore[arg-type]
            replacement = Path(path + ".new")
            shutil.copy(self._backup(node), replacement)
            for suffix in ("-wal", "-shm"):
                Path(path + suffix).unlink(missing_ok=True)
            replacement.rename(path)
        self._forget_connections(node)

    def _forget_connections(self, node: str) -> None:
        for engine in (self.nodes[node].service, self.nodes[node].engine):
            engine.dispose()

    def _server(self, node: str) -> PostgresServer:
        assert isinstance(self.pair, local.PostgresPair)
        server = self.pair.server(node)  # type: ignore[arg-type]
        assert isinstance(server, PostgresServer)
        return server

    def _backup(self, node: str) -> Path:
        if self.postgresql:
            return self._server(node).directory / "backup"
        return Path(f"{make_url(self.pair.url(node)).database}.backup")  # type: ignore[arg-type]

    # -- other processes

    def program(self, source: str, *more: str) -> Program:
        """Another program, which is given both URLs; it ends with the test."""
        program = Program(source, self.pair.primary_url, self.pair.standby_url, *more)
        self._closing.callback(program.kill)
        return program


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


class Steps(Carrier):
    """A real carrier between whose steps something else happens: what another process does while this one stands still.

    Args:
        carrier: does the work.
        before, after: by the step's name, what happens right before and after it; each once.
    """

    def __init__(self, carrier: Carrier, *, before: dict[str, Callable[[], Any]] | None = None, after: dict[str, Callable[[], Any]] | None = None):
        self.carrier = carrier
        self._before, self._after = dict(before or {}), dict(after or {})

    def _step(self, name: str, run: Callable[[], Any]) -> Any:
        self._before.pop(name, lambda: None)()
        result = run()
        self._after.pop(name, lambda: None)()
        return result

    def follower(self, *, wait: float, transactions: Collection[str] = ()) -> NodeState:
        state = self._step("follower", lambda: self.carrier.follower(wait=wait, transactions=transactions))
        self.holds = self.carrier.holds
        return state  # type: ignore[no-any-return]

    def snapshot(self, *, since: str | None, held: str | None, batch: int | None = None) -> Snapshot:
        return self._step("snapshot", lambda: self.carrier.snapshot(since=since, held=held))  # type: ignore[no-any-return]

    def tables(self) -> Any:
        return self.carrier.tables()

    def boundary(self, name: str, after: str | None, rows: int) -> str | None:
        return self.carrier.boundary(name, after, rows)

    def recorded(self, node: str, term_no: int) -> Any:
        return self.carrier.recorded(node, term_no)

    def tick(self, *, batch: int, held: str | None) -> str:
        return self._step("tick", lambda: self.carrier.tick(batch=batch, held=held))  # type: ignore[no-any-return]

    def apply(self, rows: Any, landing: Landing) -> int:
        return self._step("apply", lambda: self.carrier.apply(rows, landing))  # type: ignore[no-any-return]

    def still_there(self) -> None:
        self._step("still_there", self.carrier.still_there)

    def land(self) -> None:
        self._step("land", self.carrier.land)

    def abandon(self) -> None:
        self.carrier.abandon()

    def close(self) -> None:
        self.carrier.close()


class Batch:
    """One batch of a shipper that stands still after its snapshot, until ``go_on``.

    Args:
        shipper: whose batch.
    """

    def __init__(self, shipper: Shipper) -> None:
        self.carrier = shipper.carrier
        self.base = self.carrier.follower(wait=2.0)
        self.snapshot = self.carrier.snapshot(since=self.base.position, held=self.base.tick)

    def go_on(self, *, eligible: bool = False) -> None:
        """Tick, sign of life, apply."""
        try:
            tick = self.carrier.tick(batch=(self.base.batch or 0) + 1, held=self.base.tick)
            rows = {name: Keys(whole=count is None) for name, count in self.snapshot.changed.items()}
            self.carrier.apply(rows, Landing(self.base, self.snapshot.state, self.snapshot.position, tick, eligible=eligible))
            self.carrier.still_there()
            self.carrier.land()
        finally:
            self.carrier.abandon()


def put(id: int, amount: int = 0) -> Callable[[Session], None]:
    """A transaction: one account more, or another amount in it."""

    def change(session: Session) -> None:
        session.merge(Account(id=id, owner=f"owner {id}", amount=amount))

    return change


def insert(id: int, amount: int = 0) -> str:
    """The same as a statement, for programs that know nothing of replstore."""
    return f"INSERT INTO account (id, owner, amount) VALUES ({id}, 'owner {id}', {amount})"


def until(condition: Callable[[], Any], what: str, seconds: float = 10.0) -> None:
    """Looks until something holds; background threads bring it about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def commit_as_store(program: Any, id: str) -> None:
    """Commits on a plain connection as a Store does: on SQLite a transaction with a marker says in the journal where it ends."""
    if isinstance(program, sqlite3.Connection):
        program.execute("INSERT INTO replstore_journal (tbl, k1) VALUES ('replstore_marker', ?)", (id,))
    program.commit()


def in_contact(store: Store) -> None:
    """Waits for the first contact: of a follower that dies before it nobody can tell whether it went on alone."""
    until(lambda: store.pair.watch.contact is not None, "a heartbeat is answered")


def count(session: Session) -> int:
    """How many accounts there are."""
    return session.scalar(text("SELECT count(*) FROM account")) or 0


@pytest.fixture
def lab(any_pair: local.Pair) -> Iterator[Lab]:
    """A pair of each kind of database, in turn."""
    with contextlib.closing(Lab(any_pair)) as lab:
        yield lab


@pytest.fixture
def postgresql_lab(postgresql_pair: local.PostgresPair) -> Iterator[Lab]:
    """A pair of PostgreSQL servers."""
    with contextlib.closing(Lab(postgresql_pair)) as lab:
        yield lab


@pytest.fixture
def sqlite_lab(sqlite_pair: local.SqlitePair) -> Iterator[Lab]:
    """A pair of SQLite files."""
    with contextlib.closing(Lab(sqlite_pair)) as lab:
        yield lab


@pytest.fixture(scope="session")
def forgetful_servers() -> Iterator[local.PostgresPair]:
    """Servers that lose their last commits when they are killed, unless somebody asks for durability: nothing is written for 10 s by itself."""
    with local.postgresql_pair("wheel", fsync=False, settings={"synchronous_commit": "off", "wal_writer_delay": "10s"}) as pair:
        yield pair


@pytest.fixture
def forgetful_lab(forgetful_servers: local.PostgresPair) -> Iterator[Lab]:
    """A pair on such servers."""
    with FreshPair(forgetful_servers) as pair, contextlib.closing(Lab(pair)) as lab:
        yield lab


@pytest.fixture(params=["sqlite", "postgresql"])
def restorable_lab(request: pytest.FixtureRequest) -> Lab:
    """A pair of each kind of which backups can be restored: the servers are not shared with other tests."""
    lab: Lab = request.getfixturevalue("sqlite_lab" if request.param == "sqlite" else "forgetful_lab")
    return lab
