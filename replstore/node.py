"""One node: its engines, and what it answers when it is asked how it is."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import Pool

from replstore.databases.base import Fault, NodeState
from replstore.databases.database import Database
from replstore.databases.registry import database_for
from replstore.urls import shown

#: s to wait for a node that still owes the answer to an earlier question, and for one that didn't answer the last time.
LATE, AGAIN = 0.05, 0.25
#: What libpq puts on lines of its own below its message.
_GUESS = re.compile(r"\n\t(?:Is the server running|This probably means)[^\n]*(?:\n\t[^\n]*)*")
UNANSWERED = (Fault.SILENT, Fault.LOST_CONNECTION, Fault.TIMEOUT, Fault.TRANSIENT)


@dataclass(frozen=True)
class Observation:
    """What a node answered.

    Attributes:
        state: its control state; None: it did not answer, or has no control tables.
        fault: why it did not; None: it answered.
        error: the sentence it answered with, without password.
        since: when the question was sent, on the monotonic clock.
        answered: when the answer came, or it was given up.
    """

    state: NodeState | None
    fault: Fault | None = None
    error: str = ""
    since: float = 0.0
    answered: float = 0.0


class Node:
    """One database of the pair.

    Args:
        name: ``primary`` or ``standby``; it never changes, whatever the role.
        url: SQLAlchemy URL.
        seconds: limit for one statement of replstore's own sessions.
        engine_options: passed to ``create_engine`` for the application's transactions.
        beside: URL of the other node.
        native: the database's own engine copies the data.
    """

    def __init__(
        self,
        name: str,
        url: URL,
        *,
        seconds: float = 1.0,
        engine_options: dict[str, Any] | None = None,
        beside: URL | None = None,
        native: bool = False,
    ) -> None:
        self.name = name
        self.url = url
        self.database: Database = database_for(url, beside, native=native)
        self.engine: Engine = self.database.user_engine(url, **(engine_options or {}))
        self.service: Engine = self.database.service_engine(url, seconds=seconds)
        self._prober = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"replstore probe {name}")
        self._probing: Any = None  # the driver connection of the running probe
        self._late: Future[Observation] | None = None
        self._asked = 0.0
        self._silent = False
        self._pair: str | None = None
        self._pools: list[Pool] = []

    def __repr__(self) -> str:
        return f"Node({self.name!r}, {shown(self.url)!r})"

    @contextmanager
    def _named(self) -> Iterator[None]:
        """An error of the driver says which node it comes from: the driver itself doesn't know."""
        try:
            yield
        except DBAPIError as error:
            if not hasattr(error, "replstore_node"):
                error.replstore_node = f"{self.name} {shown(self.url)}"  # type: ignore[attr-defined]
            raise

    @contextmanager
    def begin(self, limit: float | None = None, *, while_silent: bool = False) -> Iterator[Connection]:
        """A transaction of replstore's own on this node.

        Args:
            limit: s after which the connection is shut from this side: a server that hangs keeps no limit of its own.
            while_silent: only if the node doesn't answer on another connection either, then and later on: what takes its time goes on.
        """
        with self._named(), self.service.connect() as connection:
            ended = threading.Event()
            if limit is not None:
                watched = (connection.connection.dbapi_connection, ended, limit, while_silent)
                threading.Thread(target=self._shut_after, args=watched, name=f"replstore limit {self.name}", daemon=True).start()
            try:
                with connection.begin():
                    yield connection
            finally:
                ended.set()

    def _shut_after(self, connection: Any, ended: threading.Event, limit: float, while_silent: bool) -> None:
        while not ended.wait(limit):
            answers = False
            if while_silent:
                with suppress(Exception):
                    answers = self.observe(AGAIN).fault is None
            if not answers and not ended.is_set():
                self.database.interrupt(connection)
                return
            limit = AGAIN

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """One read-only snapshot on this node."""
        with self._named(), self.service.connect() as connection:
            self.database.begin_snapshot(connection)
            yield connection
            connection.rollback()

    def observe(self, seconds: float) -> Observation:
        """Asks the node for its state, and doesn't wait longer than ``seconds`` for the answer.

        A node that still owes an answer gets a moment only: it is silent already.
        """
        if self._late is None:
            self._asked, future = time.monotonic(), self._prober.submit(self._observe)
            seconds = min(seconds, AGAIN) if self._silent else seconds
        else:
            future, seconds, self._late = self._late, LATE, None
        asked = self._asked
        try:
            seen = future.result(timeout=seconds)
        except TimeoutError:
            self._late, self._silent = future, True
            self.database.interrupt(self._probing)
            waited = time.monotonic() - asked
            return Observation(None, Fault.SILENT, f"no answer for {waited:.1f} s", asked, time.monotonic())
        self._silent = seen.fault in UNANSWERED  # one that refuses entry may take as long for it the next time
        return replace(seen, since=asked)

    def _observe(self) -> Observation:
        deadline, pause = time.monotonic() + 0.5, 0.0
        while True:
            try:
                with self.service.connect() as connection:
                    self._probing = connection.connection.dbapi_connection
                    state = self.database.state(connection)
                    connection.rollback()
                if state is not None and (stranger := self._stranger(state)):
                    return Observation(None, Fault.LOCKED_OUT, stranger, answered=time.monotonic())
                if state is None:
                    return Observation(None, None, "it has no replstore control tables: run `replstore migrate`", answered=time.monotonic())
                return Observation(state, answered=time.monotonic())
            except Exception as error:
                fault = self.database.classify(error)
                # an old connection died: whether the node did, a new one tells, at once
                if fault in (Fault.LOST_CONNECTION, Fault.TRANSIENT) and time.monotonic() < deadline:
                    time.sleep(pause)
                    pause = 0.02
                    continue
                return Observation(None, fault, one_line(error), answered=time.monotonic())
            finally:
                self._probing = None

    def reconnect(self) -> None:
        """Closes the connections that nobody uses: the URL leads to another server than they do."""
        for engine in (self.engine, self.service):
            engine.dispose()

    def forget_pair(self) -> None:
        """The database is about to be made anew: what stands there now belongs to no pair."""
        self._pair = None
        for engine in (self.engine, self.service):
            engine.dialect.expected_pair = None  # type: ignore[attr-defined]

    def _stranger(self, state: NodeState) -> str:
        """Why what answers isn't this node; the first answer says which pair it belongs to, and from then on every connection is asked."""
        if self._pair is None:
            self._pair = state.pair
            for engine in (self.engine, self.service):
                engine.dialect.expected_pair = state.pair  # type: ignore[attr-defined]
        return "" if state.pair == self._pair else "another pair's database is in its place"

    def close(self) -> None:
        """Closes every connection; doesn't wait for a node that doesn't answer.  Called once more, it closes those that were in use the first time."""
        self.database.interrupt(self._probing)
        self._prober.shutdown(wait=False, cancel_futures=True)
        for engine in (self.engine, self.service):
            self._pools.append(engine.pool)  # what is in use comes back to this one
            with suppress(Exception):
                engine.dispose()
        for pool in self._pools:
            with suppress(Exception):
                pool.dispose()


def one_line(error: BaseException) -> str:
    """An error as one line: the driver's own message, without SQLAlchemy's statement and parameters, and without libpq's guesses."""
    error = getattr(error, "orig", None) or error
    if isinstance(error, OSError) and error.strerror:  # its text begins with a number
        return ": ".join(str(part) for part in (error.filename, error.strerror) if part)
    return " ".join(_GUESS.sub("", str(error)).split()) or type(error).__name__
