"""Store: what programs import.  Transactions on the writer, reads on either node, and the pair's state."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast

import tenacity
from sqlalchemy import Connection, Engine, MetaData
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Session, SessionTransaction, sessionmaker

from replstore.config import Settings
from replstore.databases.base import Fault
from replstore.errors import NodeLost, NotTheWriter, ReplstoreError, TransactionLost
from replstore.node import Node, one_line
from replstore.pair.admission import admit
from replstore.pair.links import link_of
from replstore.pair.monitor import Monitor
from replstore.pair.pair import Pair
from replstore.pair.status import Status, status
from replstore.pair.token import Token
from replstore.transaction.acknowledge import acknowledge
from replstore.transaction.attempt import Attempt
from replstore.transaction.keyed import claim, store_result
from replstore.transaction.orphans import Orphans
from replstore.transaction.read import Reader, Wanted
from replstore.transaction.writing import Block, Writing
from replstore.urls import shown

if TYPE_CHECKING:
    from replstore.migrate import Migrated
    from replstore.reconcile import Outcome, Repair, Report
    from replstore.reconcile.rows import Progress

log = logging.getLogger("replstore")
Durability = Literal["replicated", "async", "server", "remote_apply", "remote_write", "on", "local", "off"]
ReadFrom = Literal["writer", "follower", "any"]
Result = TypeVar("Result")
RETRIED = (TransactionLost, NotTheWriter)


class Store:
    """A primary/standby pair as one data-access object.  Thread-safe; make one per process.

    Args:
        path: settings file; by default ``replstore.toml`` or ``[tool.replstore]`` of the working directory, if there is one.
        background: look after the pair in background threads (heartbeats, takeover of an idle program, shipping for others).
        overrides: any setting by its name: ``primary="sqlite:///a.db", standby="sqlite:///b.db", durability="replicated", …``.

    Raises:
        ConfigError: the settings can't be used, or aren't those of this pair.

    >>> store = Store(primary="sqlite:///a.db", standby="sqlite:///b.db")  # doctest: +SKIP
    """

    def __init__(self, path: str | Path | None = None, *, background: bool = True, **overrides: Any) -> None:
        self.settings = admit(Settings.load(path, **overrides))
        self.pair = Pair(self.settings, link_of)
        self._monitor = Monitor(self.pair) if background else None
        for node in self.pair.nodes.values():
            node.engine.dialect.new_hook = partial(self._new_hook, node)  # type: ignore[attr-defined]
        self._reader = Reader(self.pair)
        self._writing = Writing(self.pair)

    @classmethod
    def from_config(cls, path: str | Path, **overrides: Any) -> Self:
        """A Store from a settings file."""
        return cls(path, **overrides)

    def __repr__(self) -> str:
        return f"Store(primary={shown(self.settings.primary_url)!r}, standby={shown(self.settings.standby_url)!r})"

    def _new_hook(self, node: Node, connection: Any) -> Attempt:
        """Rides on a transaction that a sessionmaker's Session, or a bare Connection, begins."""
        lead = self.pair.current(self._deadline())
        if lead.node is not node:
            raise NotTheWriter(f"{node.name} is not the writer any more, {lead.node.name} is: begin the transaction again")
        attempt = Attempt(self.pair, lead, self.settings.durability)
        try:
            attempt.ride(connection)
        except NotTheWriter:
            connection.close()  # else the pool would give it to the next one
            raise
        return attempt

    def _deadline(self) -> float:
        return time.monotonic() + self.settings.takeover_timeout

    # -- writing

    def begin(self, *, durability: Durability | None = None, isolation: str | None = None) -> AbstractContextManager[Session]:
        """A Session in a transaction on the writer; it commits at the end of the block and rolls back on an exception.

        Fails over when it begins.  Returns from the block only when the commit is safe, as ``durability`` demands.

        Args:
            durability: ``replicated`` or ``async`` for this transaction; by default the pair's.
            isolation: isolation level, such as ``SERIALIZABLE``; by default the database's.

        Raises:
            NoWriter: no node may write now.
            TransactionLost: the writer was lost during the block; nothing took effect, you may repeat it.
            CommitUnknown: whether it committed can't be decided now.
            CommittedNotReplicated: committed, and not known to be on the follower; don't repeat it.
        """
        return self._writing.begun(durability, isolation)

    def run(
        self,
        fn: Callable[[Session], Result],
        *,
        key: str | None = None,
        durability: Durability | None = None,
        isolation: str | None = None,
        attempts: int = 10,
    ) -> Result:
        """Calls ``fn(session)`` in a transaction, again over a failover, a deadlock or a serialization failure, and takes effect exactly once.

        Args:
            fn: the transaction's body; it may be called several times, so it should change nothing but the database.
            key: the call takes effect once under this key, for ever, from every process; its result must fit into JSON, and every later call
                with the key gets that result without calling ``fn``.
            durability, isolation: as for ``begin``.
            attempts: how often at most.

        Returns:
            What ``fn`` returned; with ``key``, as JSON gives it back.

        Raises:
            What ``fn`` raises; NoWriter, CommitUnknown, CommittedNotReplicated, KeyReused, ResultNotSerializable; the last error after ``attempts``.
        """
        code = getattr(fn, "__code__", None)  # most functions show at a glance that they are ordinary ones
        if (code is None or code.co_flags & inspect.CO_COROUTINE) and inspect.iscoroutinefunction(fn):
            raise TypeError("fn is a coroutine function: run() calls fn(session) and needs an ordinary function")
        if key is not None and (not key or "\0" in key):
            raise ValueError("a key is a text that isn't empty and holds no NUL character")
        try:
            return self._call(fn, key, durability, isolation)
        except Exception as error:
            failed: Exception | None = error
        for retry in self._retrying(attempts):  # only now: what there is to a retry would take a tenth of a call that needs none
            with retry:
                if failed is not None:
                    first, failed = failed, None
                    raise first
                return self._call(fn, key, durability, isolation)
        raise AssertionError("tenacity returns or raises")

    def attempts(
        self, *, durability: Durability | None = None, isolation: str | None = None, attempts: int = 10
    ) -> Iterator[AbstractContextManager[Session]]:
        """Retries a whole block: ``for attempt in store.attempts(): with attempt as session: …``; exactly once, as ``run``."""
        for retry in self._retrying(attempts):
            yield _Block(retry, self._writing.block(durability, isolation))

    def _retrying(self, attempts: int) -> tenacity.Retrying:
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._is_retried),
            stop=tenacity.stop_after_attempt(attempts),
            wait=tenacity.wait_random_exponential(multiplier=0.01, max=0.5),
            reraise=True,
        )

    def _is_retried(self, error: BaseException) -> bool:
        if isinstance(error, RETRIED):
            return True
        return isinstance(error, DBAPIError) and self.pair.primary.database.classify(error) is Fault.TRANSIENT

    def _call(self, fn: Callable[[Session], Result], key: str | None, durability: str | None, isolation: str | None) -> Result:
        block = self._writing.block(durability, isolation, keyed=key is not None)
        with block as session:
            attempt = block.attempt
            done = None if key is None else claim(session, attempt, key, fn)
            if done is None:
                result: Any = fn(session)
                return cast(Result, result if key is None else store_result(session, attempt, result))
        waits = self.pair.link.waits(attempt.lead, attempt.durability)  # the first call's COMMIT may have had another durability
        acknowledge(self.pair, attempt.lead, done.id, "replicated" if waits else attempt.durability)
        return cast(Result, done.result)

    def sessionmaker(self, **options: Any) -> sessionmaker[Session]:
        """A sessionmaker whose Sessions keep the Store's promises: each transaction begins on the writer of that moment, and ``commit()`` returns when it
        is safe or raises as ``begin`` does.

        Args:
            options: passed to SQLAlchemy's ``sessionmaker``.
        """
        store = self

        class StoreSession(Session):
            _pinned: tuple[SessionTransaction, Engine] | None = None

            def get_bind(self, *args: Any, **kwargs: Any) -> Engine | Connection:
                transaction = self.get_transaction() or self.begin()
                if self._pinned is None or self._pinned[0] is not transaction:  # a transaction never moves to another node half-way
                    self._pinned = transaction, store.pair.current(store._deadline()).node.engine
                return self._pinned[1]

        return sessionmaker(class_=StoreSession, **options)

    # -- reading

    def read(
        self, *, node: ReadFrom = "writer", max_lag: float | None = None, max_lag_bytes: int | None = None, after: Token | None = None
    ) -> AbstractContextManager[Session]:
        """A Session that only reads.

        Args:
            node: ``writer``: confirmed no longer ago than ``detection_time``; ``follower``, or the writer where it can't serve, after up to 1 s for it to
                come within the terms; ``any``: the follower if it is within the terms now, else the writer.
            max_lag: s that the data may be old at most, by this program's own clock.
            max_lag_bytes: bytes of the write-ahead log that the follower may lack at most, of what the writer had when it was seen last, at most
                ``detection_time`` ago; native replication only.
            after: a token; the read sees everything that it stands for.

        Raises:
            StaleRead: no node can serve the read within these terms.
            TokenLost: the token's commits went down with a former writer, or may have.
            ValueError: terms that mean nothing.
            sqlalchemy.exc.OperationalError: the server was lost within the block, or cancelled a query that was in its recovery's way: the block may be
                repeated, as ``query`` does.
        """
        return self._reader.read(Wanted(node, max_lag, max_lag_bytes, after))

    def query(
        self,
        fn: Callable[[Session], Result],
        *,
        node: ReadFrom = "writer",
        max_lag: float | None = None,
        max_lag_bytes: int | None = None,
        after: Token | None = None,
        attempts: int = 3,
    ) -> Result:
        """Calls ``fn(session)`` in a read, again where its server is lost or cancels it for its recovery; the last time on the writer.

        Args:
            fn: what reads; it may be called several times.
            node, max_lag, max_lag_bytes, after: as for ``read``.
            attempts: how often at most.

        Returns:
            What ``fn`` returned.

        Raises:
            What ``fn`` raises; StaleRead, TokenLost, ValueError.
        """
        return self._reader.query(fn, Wanted(node, max_lag, max_lag_bytes, after), attempts)

    def token(self) -> Token:
        """The position of everything that this Store has committed, for ``read(after=…)`` on either node, here or in another process."""
        return self._reader.token()

    # -- the pair

    def status(self) -> Status:
        """Who writes, which term, how each node is and what to do next.

        Raises:
            StoreClosed: the Store was closed.
        """
        self.pair.refuse_closed()
        return status(self.pair)

    def sync(self, *, timeout: float = 60.0) -> None:
        """Ships until the follower has everything that was committed before the call.

        Raises:
            TimeoutError: it took longer than ``timeout`` s.
            NodeLost: a node doesn't answer.
            ReplicationStopped, NoWriter.
        """
        deadline = time.monotonic() + timeout
        with self._both_needed("shipping"):
            self.pair.current(deadline)
            self.pair.ship(deadline)

    def switchover(self, *, timeout: float = 10.0, told: Callable[[str], Any] | None = None) -> None:
        """Lets writer and follower change places, with no failed transaction.

        Args:
            timeout: s to wait for open transactions at most.
            told: native replication, where the settings don't name both data directories: called with what whoever runs the servers has to run, which is
                then waited for, ``timeout`` s at most; None: that ends in SwitchoverFailed.

        Raises:
            SwitchoverFailed: somebody keeps a transaction open for longer than ``timeout`` s; the message names them.
            NodeLost: a node doesn't answer.
        """
        with self._both_needed("the switchover"):
            self.pair.link.switchover(timeout, told)

    def takeover(self, node: Literal["primary", "standby"] | None = None, *, force: bool = False) -> None:
        """Makes the follower the writer although nothing, or not enough, says that the writer is lost.

        Args:
            node: the node to become the writer; by default the follower.
            force: also where the rules forbid it, because it may lose acknowledged transactions; recorded.

        Raises:
            TakeoverRefused: the rules forbid it.
            SwitchoverFailed: another thread of this program is at a change of role, or somebody keeps a transaction open on the node.
        """
        self.pair.link.takeover(node, force=force)

    @property
    def orphans(self) -> Orphans:
        """What lost writers had committed alone: ``records()``, ``plan()``, ``replay()``, ``discard()``."""
        self.pair.refuse_closed()
        return Orphans(self.pair, self.run)

    def solo(self) -> None:
        """Lets the writer acknowledge alone although the follower isn't known to be dead; recorded."""
        self.pair.link.solo()

    def rejoin(self, *, copy: bool = False, discard: bool = False) -> int:
        """Brings a former writer back as the follower.

        Args:
            copy: copy every table if the former writer's history doesn't continue the writer's; native replication: the whole server, whatever it has.
            discard: native replication: throw away what only the former writer has, although nobody has exported it.

        Returns:
            How many orphan rows were recorded; native replication: how many transactions that only it had were taken back.

        Raises:
            OrphansNotExported: native replication: it has transactions that the writer lacks.
            NodeLost: a node doesn't answer; native replication: its data directory isn't here, with what whoever runs it has to run.
        """
        with self._both_needed("the rejoin"):
            return self.pair.link.rejoin(copy=copy, discard=discard)

    @contextmanager
    def _both_needed(self, what: str) -> Iterator[None]:
        """A driver's error becomes a sentence about the pair."""
        try:
            yield
        except (ReplstoreError, TimeoutError):
            raise
        except Exception as error:
            if self.pair.primary.database.classify(error) is Fault.CALLER:
                raise
            _, decision = self.pair.look()
            step = f"; {decision.next_step}" if decision.next_step else ""
            raise NodeLost(f"{what} didn't come to its end ({one_line(error)}): {decision.reason}{step}") from error

    def migrate(
        self,
        metadata: MetaData | type[DeclarativeBase] | None = None,
        *,
        alembic_config: str | Path | None = None,
        replace: Literal["primary", "standby", "witness"] | None = None,
        drop_witness: bool = False,
    ) -> Migrated:
        """Brings control tables, the user's tables and the triggers to the same revision on both nodes, and makes a pair of two databases.

        With neither argument the tables that the primary has are adopted: made on the standby, and copied.

        Args:
            metadata: tables to create where they are missing, or a declarative base.
            alembic_config: the user's ``alembic.ini``; its environment is brought to its head on both nodes.
            replace: name of a node that was lost or dropped for good, and is made anew of an empty database, as the follower; or ``witness``, to make
                another one of the database that the settings name.
            drop_witness: the pair has no witness from now on; then leave it out of every program's settings.

        Raises:
            CannotReplicate: a table can't be replicated; the message names it.
            MigrationFailed: the user's migration failed on a node; the message says which, and how to go on.
            NotAPair, ConfigError: the databases aren't what they should be.
        """
        from replstore.migrate import migrate

        return migrate(self.pair, metadata, alembic_config=alembic_config, replace=replace, drop_witness=drop_witness)

    def check(
        self,
        *,
        tables: Collection[str] | None = None,
        exclude: Collection[str] = (),
        where: str = "",
        sample: float = 1.0,
        limit: int = 1000,
        settle: float = 1.0,
        workers: int = 2,
        max_load: float = 1.0,
        progress: Progress | None = None,
        expected: Progress | None = None,
        resume: str = "",
        since: Literal["last"] | None = None,
    ) -> Report:
        """Compares schema, sequences and rows of both nodes, while writes go on; changes nothing but what replstore remembers of the check.

        Args:
            tables: names of the tables to compare, with their schema where there is more than one of the name; None: all.
            exclude: names of tables to leave out.
            where: SQL condition for the rows to compare, the same on both nodes.
            sample: share of the rows to compare, in ranges of keys chosen by chance, the same ones each time.
            limit: how many differences of each table the report keeps; all are counted.
            settle: s to wait for a sequence that may only be late.
            workers: sessions of each node that read a large table at once, where the database can give several one snapshot.
            max_load: share of the time in which a session may keep its server busy.
            progress: called now and then with a table's name and how many of its rows were compared.
            expected: called with a table's name and about how many rows it has, before they are read.
            resume: path of a file that keeps what was found while the check runs: one that broke off goes on where it was; empty: none.
            since: ``"last"``: of each table only the rows that changed since it was last compared as a whole, or in this way; None: all rows.

        Raises:
            CannotCheck: a node doesn't answer, has no control tables, or was lost meanwhile; or what has changed since then isn't known any more.
            ConfigError: there is no such table.
        """
        from replstore.reconcile import Wishes, check

        self.pair.refuse_closed()
        return check(self.pair, Wishes(tables, exclude, where, sample, limit, settle, workers, max_load, progress, expected, resume, since))

    def repair(
        self,
        report: Report | None = None,
        *,
        source: Literal["writer", "primary", "standby", "newest"] = "writer",
        column: str | None = None,
        dry_run: bool = True,
        tables: Collection[str] | None = None,
        exclude: Collection[str] = (),
        where: str = "",
        limit: int = 100_000,
    ) -> Outcome:
        """Makes rows that differ equal.  Each is kept as it was, so that ``undo_repair`` can bring it back.

        Args:
            report: of an earlier check: only what it lists, as far as it is still so; None: everything that a check finds now.
            source: which node's rows are right; ``newest``: of each row, the one with the greater value in ``column``, and the only one there is.
            column: of ``newest``.
            dry_run: only say what would be done.
            tables, exclude, where: as for ``check``.
            limit: rows of each table that are repaired at most; they are held in memory.

        Raises:
            CannotRepair: a table, or the pair as it is, can't be repaired.
            RepairBrokeOff: a node was lost, or the roles changed, after some rows; what was repaired stays, and can be undone by the error's ``id``.
            CannotCheck, ConfigError, NoWriter, CommitUnknown, CommittedNotReplicated.
        """
        from replstore.reconcile import Wishes, repair_pair

        self.pair.refuse_closed()
        wishes = Wishes(tables, exclude, where, limit=limit)
        return repair_pair(self.pair, self.run, wishes, source, column, report, dry_run=dry_run)

    def repairs(self) -> list[Repair]:
        """The repairs that both nodes have on record, the newest first."""
        from replstore.reconcile import listed

        self.pair.refuse_closed()
        return listed(self.pair)

    def undo_repair(self, id: str) -> Outcome:
        """Gives each row that a repair changed back what it was, on the node where it was; rows that have changed since are left as they are.

        Args:
            id: of the repair, or its first letters.

        Raises:
            ConfigError: there is no such repair, or it was undone.
            CannotRepair, RepairBrokeOff, NoWriter, CommitUnknown, CommittedNotReplicated.
        """
        from replstore.reconcile import undo

        self.pair.refuse_closed()
        return undo(self.pair, self.run, id)

    def close(self) -> None:
        """Ends the background threads and closes every connection, within about a second."""
        self.pair.close()
        if self._monitor is not None:
            self._monitor.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Block:
    """One attempt of ``Store.attempts()``: a block whose failure tenacity sees."""

    def __init__(self, retry: Any, block: Block) -> None:
        self._retry, self._block = retry, block

    def __enter__(self) -> Session:
        self._retry.__enter__()
        return self._block.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        try:
            self._block.__exit__(kind, error, trace)  # returns, and doesn't raise, where the error stays what it is
        except BaseException as raised:
            error = raised
        return bool(self._retry.__exit__(type(error) if error else None, error, error.__traceback__ if error else None))
