"""Statements that go to PostgreSQL one behind the other without waiting for each other's answers, and COPY between two servers, on libpq itself.

A statement is prepared once in a connection and then sent with its values.  Whoever waits here waits with a purpose: once a second it may do something
else, such as keeping another session's transaction from being ended as a frozen client's.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import methodcaller
from typing import Any

import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus
from psycopg.waiting import Ready

#: Bytes that are sent on together.
CHUNK = 256 * 1024
_BOOL, _INT8 = 16, 20
_INTEGERS = frozenset({20, 21, 23})
_BAD = (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED, ExecStatus.BAD_RESPONSE)


@dataclass(frozen=True)
class Answer:
    """What a statement has answered.

    Attributes:
        rows: its rows.
        touched: how many rows it inserted, changed or removed.
    """

    rows: list[tuple[Any, ...]]
    touched: int


class Pipeline:
    """Speaks for one driver connection, which nobody else uses between the first ``send`` and the ``receive`` that ends it.

    Args:
        connection: psycopg's, in autocommit.
        meanwhile: called about once a second while an answer is waited for; may raise.
    """

    def __init__(self, connection: psycopg.Connection[Any], meanwhile: Callable[[], None]) -> None:
        self._pq, self._meanwhile = connection.pgconn, meanwhile
        self._prepares = connection.prepare_threshold is not None  # behind some poolers a prepared statement is gone with the next one
        self._names: dict[tuple[str, tuple[int, ...]], bytes] = {}
        self._made = 0
        self._sent: deque[str] = deque()
        self.carries = False
        """A statement of the driver's is under way behind those of replstore's own."""
        self.failed = False
        """There was an error, so what was to be prepared behind it isn't known: the connection is not used again."""
        self._poll = select.poll()
        self._events = select.POLLIN
        self._poll.register(self._pq.socket, self._events)

    # -- statements

    def send(self, statement: str, *values: Any, raw: bool = False) -> None:
        """Puts one statement on its way.

        Args:
            statement: its places are $1, $2, …
            values: for the places. ``bytes`` are a value in its type's own binary form.
            raw: the answer's values are wanted in that form.
        """
        if not self._sent:
            self._pq.enter_pipeline_mode()
        types, given, forms = _sent_as(values)
        if not self._prepares:
            self._pq.send_query_params(statement.encode(), given, types, forms, raw)
        else:
            name = self._names.get((statement, types))
            if name is None:
                name = self._names[statement, types] = b"replstore_%d" % (self._made + len(self._names))
                self._pq.send_prepare(name, statement.encode(), types)
                self._sent.append("prepare")
            self._pq.send_query_prepared(name, given, forms, raw)
        self._sent.append("raw" if raw else "text")

    def forget(self) -> None:
        """Nothing that was prepared is there any more."""
        self._made += len(self._names)
        self._names.clear()
        self.failed = False

    def end(self) -> None:
        """Everything up to here is sent off; after an error in it the rest of it is skipped by the server."""
        self._pq.pipeline_sync()
        self._sent.append("end")
        self._flush()

    def receive(self) -> list[Answer]:
        """The answers up to the next ``end``.

        Raises:
            psycopg.Error: the first error among them.
        """
        answers, error = [], None
        while (kind := self._sent.popleft()) != "end":
            while (result := self._result()) is not None:
                if result.status in _BAD:
                    error = error or error_from_result(result)
                elif kind != "prepare":
                    answers.append(_answer(result, raw=kind == "raw"))
        self._result()  # the end itself
        if not self._sent:
            self._pq.exit_pipeline_mode()
        if error is not None:
            self.failed = True
            raise error
        return answers

    def say(self, statement: bytes) -> None:
        """Executes one statement without values, and waits for its end.

        Raises:
            psycopg.Error: the server's.
        """
        error = None
        try:
            self._pq.send_query(statement)
            self._flush()
            while (result := self._result()) is not None:
                if result.status in _BAD:
                    error = error or error_from_result(result)
        except (KeyboardInterrupt, SystemExit):
            self._pq.finish()  # nobody takes its answer any more
            raise
        if error is not None:
            raise error

    # -- a statement of the driver's

    def carry(self, statement: Generator[Any, Any, None]) -> None:
        """Sends what was put on its way together with a statement of the driver's, in one round trip.

        Args:
            statement: the driver's own generator, which sends it, waits for its answer and takes that.  Whoever owns it calls ``sent`` when it has sent
                something, and ``land`` before it sends what a pipeline refuses.

        Raises:
            psycopg.Error: the first error among replstore's statements, behind which the driver's wasn't executed; else the driver's own.
        """
        self.carries, own = True, True
        try:
            next(statement)
            while True:
                self._flush()
                if own:
                    own = False
                    self._own_answers()
                self._ready()
                statement.send(Ready.R)
        except StopIteration:
            self.land()
        except Exception:
            statement.close()
            with suppress(psycopg.Error):
                self.land()
            raise
        except BaseException:
            self._pq.finish()  # what is on its way isn't known any more
            raise
        finally:
            self.carries = False

    def sent(self) -> None:
        """The driver has put a statement on its way behind what is there: all of it is sent off."""
        self._pq.pipeline_sync()
        self._sent.append("end")
        if self._sent[0] == "end":  # the driver had only prepared its statement before
            self._skip()

    def land(self) -> None:
        """Takes the answers that are still to come, and leaves the pipeline."""
        if self._sent and self._pq.status != ConnStatus.BAD:
            if self._sent[-1] != "end":  # the driver refused to send its statement
                self.end()
            while self._sent:
                self._skip()
            self._pq.exit_pipeline_mode()
        self._sent.clear()

    def _own_answers(self) -> None:
        error = None
        while self._sent[0] != "end":
            self._sent.popleft()
            while (result := self._result()) is not None:
                if result.status in _BAD:
                    error = error or error_from_result(result)
        if error is not None:
            self.failed = True
            raise error

    def _skip(self) -> None:
        """Takes the answers up to the next end, and that."""
        while self._sent.popleft() != "end":
            pass
        while (result := self._result()) is None or result.status != ExecStatus.PIPELINE_SYNC:
            pass

    def _ready(self) -> None:
        """Waits until the next answer is there as a whole."""
        while self._pq.is_busy():
            self._wait(select.POLLIN)
            self._pq.consume_input()

    # -- rows as they come

    def stream(self) -> Iterator[tuple[Any, ...]]:
        """The rows of the statement whose answer is the next one, as they arrive: they aren't held together."""
        while self._sent[0] == "prepare":
            self._sent.popleft()
            for result in self._results():
                _check(result)
        raw = self._sent.popleft() == "raw"
        self._pq.set_single_row_mode()
        for result in self._results():
            _check(result)
            yield from _answer(result, raw=raw).rows

    # -- COPY

    def copy_out(self, statement: str) -> Iterator[bytes]:
        """Executes a COPY … TO STDOUT and gives what it sends, as one piece a row."""
        self._copy(statement, ExecStatus.COPY_OUT)
        while True:
            size, data = self._pq.get_copy_data(1)
            if size > 0:
                yield bytes(data)
            elif size == 0:
                self._wait(select.POLLIN)
                self._pq.consume_input()
            else:
                break
        for result in self._results():
            _check(result)

    def copy_in(self, statement: str, pieces: Iterator[bytes]) -> int:
        """Executes a COPY … FROM STDIN of these pieces, and returns how many rows it wrote."""
        self._copy(statement, ExecStatus.COPY_IN)
        chunk = bytearray()
        for piece in pieces:
            chunk += piece
            if len(chunk) >= CHUNK:
                self._put(bytes(chunk))
                chunk.clear()
        self._put(bytes(chunk))
        while not self._pq.put_copy_end():
            self._flush()
        self._flush()
        written = 0
        for result in self._results():
            _check(result)
            written += result.command_tuples or 0
        return written

    def _copy(self, statement: str, expected: ExecStatus) -> None:
        self._pq.send_query(statement.encode())
        self._flush()
        result = self._result()
        if result is None or result.status != expected:
            _check(result)
            raise psycopg.InternalError(f"not a COPY: {statement}")

    def _put(self, chunk: bytes) -> None:
        while not self._pq.put_copy_data(chunk):
            self._flush()
        self._flush()

    # -- the wire

    def _results(self) -> Iterator[Any]:
        """The results of one statement."""
        while (result := self._result()) is not None:
            yield result

    def _result(self) -> Any:
        pq = self._pq
        while pq.is_busy():
            self._wait(select.POLLIN)
            pq.consume_input()
        result = pq.get_result()
        if (result is None or result.status in _BAD) and pq.status == ConnStatus.BAD:
            if result is not None and result.error_field(DiagnosticField.SQLSTATE):  # the server said why
                raise error_from_result(result)
            raise psycopg.OperationalError("the session of this transaction is gone: " + self._pq.get_error_message())
        return result

    def _flush(self) -> None:
        while self._pq.flush():
            if self._wait(select.POLLIN | select.POLLOUT) != select.POLLOUT:
                self._pq.consume_input()

    def _wait(self, events: int) -> int:
        if events != self._events:
            self._events = events
            self._poll.modify(self._pq.socket, events)
        while True:
            ready = self._poll.poll(1000)
            if ready:
                return ready[0][1]
            self._meanwhile()


def _sent_as(values: Sequence[Any]) -> tuple[tuple[int, ...], list[bytes | None], list[int]]:
    """Types, bytes and forms (text or binary) of a statement's values."""
    types, given, forms = [], [], []
    for value in values:
        binary = isinstance(value, bytes)
        types.append(_BOOL if isinstance(value, bool) else _INT8 if isinstance(value, int) else 0)
        given.append(value if binary or value is None else str(value).encode("utf-8", "surrogateescape"))
        forms.append(int(binary))
    return tuple(types), given, forms


def _check(result: Any) -> None:
    if result is not None and result.status in _BAD:
        raise error_from_result(result)


def _answer(result: Any, *, raw: bool) -> Answer:
    if not result.ntuples:
        return Answer([], result.command_tuples or 0)
    get, columns = result.get_value, [(column, bytes if raw else _READ.get(result.ftype(column), _text)) for column in range(result.nfields)]
    rows = [
        tuple([None if (value := get(row, column)) is None else read(value) for column, read in columns])  # a list is made faster than a generator
        for row in range(result.ntuples)
    ]
    return Answer(rows, result.command_tuples or 0)


_text: Callable[[bytes], Any] = methodcaller("decode", "utf-8", "surrogateescape")
_READ: Mapping[int, Callable[[bytes], Any]] = {_BOOL: b"t".__eq__, **dict.fromkeys(_INTEGERS, int)}
