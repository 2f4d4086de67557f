"""Store: what programs import.  Transactions on the writer, and reads on either node; what operators order is in ``upkeep.py``."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, cast

import tenacity
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, SessionTransaction, sessionmaker

from replstore.config import Settings
from replstore.databases.base import Fault
from replstore.errors import NotTheWriter, TransactionLost
from replstore.node import Node
from replstore.pair.admission import admit
from replstore.pair.links import link_of
from replstore.pair.monitor import Monitor
from replstore.pair.pair import Pair
from replstore.pair.token import Token
from replstore.transaction.acknowledge import acknowledge
from replstore.transaction.attempt import Attempt
from replstore.transaction.keyed import claim, store_result
from replstore.transaction.read import Reader, Wanted
from replstore.transaction.writing import Block, Writing
from replstore.upkeep import Upkeep
from replstore.urls import shown

Durability = Literal["replicated", "async", "server", "remote_apply", "remote_write", "on", "local", "off"]
ReadFrom = Literal["writer", "follower", "any"]
Result = TypeVar("Result")
RETRIED = (TransactionLost, NotTheWriter)


class Store(Upkeep):
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
            isolation: isolation level, such as ``SERIALIZABLE``; by default the database's.  A SET TRANSACTION in the block comes too late for it.

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
            wait=_wait,
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

    # -- ending

    def close(self) -> None:
        """Ends the background threads and closes every connection, within about a second."""
        self.pair.close()
        if self._monitor is not None:
            self._monitor.join()
            for node in self.pair.nodes.values():
                node.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


#: Who conflicts with others comes back at another moment than they do.
_APART = tenacity.wait_random_exponential(multiplier=0.01, max=0.5)


def _wait(state: tenacity.RetryCallState) -> float:
    """s before a transaction is repeated: none where a writer was lost and the next one is there, unless that doesn't help."""
    error = state.outcome.exception() if state.outcome is not None else None
    return 0.0 if isinstance(error, RETRIED) and state.attempt_number == 1 else _APART(state)


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
