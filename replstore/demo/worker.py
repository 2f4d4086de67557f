"""One process that writes orders until its standard input ends: ``python -m replstore.demo.worker``, told what to do by one line of JSON.

Each order that a call has acknowledged is written into the process's log before the next one is begun: one unbuffered line, so that whoever reads the log
knows what was acknowledged and when (the monotonic clock is the same in every process).  Some orders go through ``store.run(key=…)``, and of those some
twice, as an impatient customer sends them; the others through ``store.attempts()`` and ``store.begin()``.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from replstore.demo.orders import NewOrder
from replstore.errors import CommittedNotReplicated, CommitUnknown, NoWriter, TransactionLost
from replstore.node import one_line
from replstore.store import Store

#: Every how many keyed orders one is sent again.
AGAIN = 5


@dataclass(frozen=True)
class Job:
    """What a process is to do.

    Attributes:
        worker: its number.
        primary, standby: URLs.
        log: path of its log.
        seed: for chance.
        customers: how many there are.
        rest: s between two orders.
        settings: of its Store, besides the URLs.
    """

    worker: int
    primary: str
    standby: str
    log: str
    seed: int
    customers: int
    rest: float = 0.005
    settings: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The line that the process reads."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Event:
    """One line of the log.

    Attributes:
        outcome: ``acknowledged``, or the name of the error that the call ended in.
        at: when, on the monotonic clock, s.
        number: the order's.
        node: who wrote, as the process saw it.
        term: under which term.
        note: the error's message.
    """

    outcome: str
    at: float
    number: str
    node: str
    term: int
    note: str = ""

    @property
    def acknowledged(self) -> bool:
        """Whether the caller was told that the order is safe."""
        return self.outcome == "acknowledged"

    def to_json(self) -> str:
        """The line."""
        return json.dumps([self.outcome, self.at, self.number, self.node, self.term, self.note])

    @classmethod
    def from_json(cls, line: str | bytes) -> Event:
        """What ``to_json`` wrote."""
        return cls(*json.loads(line))


class Worker:
    """Writes orders.

    Args:
        job: what to do.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._dice = random.Random(job.seed)
        self._log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._where = ("", 0)

    def work(self, stop: threading.Event) -> None:
        """Writes until it is told to stop."""
        with Store(primary=self._job.primary, standby=self._job.standby, **self._job.settings) as store:
            count = 0
            while not stop.is_set():
                count += 1
                self._write(store, NewOrder.draw(f"{self._job.worker}-{count}", self._job.customers, self._dice), count)
                stop.wait(self._job.rest * self._dice.random() * 2)

    def _write(self, store: Store, order: NewOrder, count: int) -> None:
        try:
            if count % 2:
                self._under_key(store, order, again=count % (2 * AGAIN) == 1)
            elif count % 4:
                self._in_attempts(store, order)
            else:
                self._in_a_block(store, order)
        except Exception as error:
            self._record(store, type(error).__name__, order, one_line(error))
            if isinstance(error, NoWriter):
                time.sleep(0.1)
        else:
            self._record(store, "acknowledged", order)

    def _under_key(self, store: Store, order: NewOrder, *, again: bool) -> None:
        def place(session: Session) -> int:
            return order.place(session)

        try:
            store.run(place, key=order.number)
        except (CommitUnknown, CommittedNotReplicated):
            again = True  # whatever became of it: with the key it may be sent again
        if again:
            store.run(place, key=order.number)

    def _in_attempts(self, store: Store, order: NewOrder) -> None:
        for attempt in store.attempts():
            with attempt as session:
                order.place(session)

    def _in_a_block(self, store: Store, order: NewOrder) -> None:
        """A plain block isn't retried by itself; it says whether it may be."""
        try:
            with store.begin() as session:
                order.place(session)
        except TransactionLost:
            self._in_attempts(store, order)

    def _record(self, store: Store, outcome: str, order: NewOrder, note: str = "") -> None:
        at, lead = time.monotonic(), store.pair.lead
        if lead is not None:
            self._where = (lead.node.name, lead.term.number)
        os.write(self._log, (Event(outcome, at, order.number, *self._where, note).to_json() + "\n").encode())


def main() -> None:
    """Reads the job, works, and ends when standard input does: told to, or because the process that started it is gone."""
    logging.getLogger("replstore").addHandler(logging.NullHandler())
    job = Job(**json.loads(sys.stdin.readline()))
    stop = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=listen, name="demo stop", daemon=True).start()
    Worker(job).work(stop)


if __name__ == "__main__":
    main()
