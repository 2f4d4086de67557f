"""One of several client processes: takes commands as lines of JSON, answers each with one line.

``open`` (plain or a Store), ``run`` for some seconds, ``close``; ``watch`` a value on the follower; ``carry`` a large transaction and say how much memory
that took.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.orm import sessionmaker

from benchmarks.measure import rate
from benchmarks.model import Transaction, change
from replstore import Store


class Worker:
    """What the commands do; the names of the methods are the commands'."""

    def __init__(self) -> None:
        self._transaction: Transaction = lambda: None
        self._close: Callable[[], object] = lambda: None

    def open(self, urls: list[str], first: int, count: int, settings: dict[str, Any] | None = None) -> dict[str, Any]:
        """Gets ready: one URL is a plain database, two are a pair, with a Store's settings; the rows from ``first`` on are this process's own."""
        body = partial(change, first=first, count=count)
        if len(urls) == 2:
            store = Store(primary=urls[0], standby=urls[1], **(settings or {}))
            self._transaction, self._close = lambda: store.run(body), store.close
        else:
            engine = create_engine(urls[0])
            factory = sessionmaker(engine)

            def plainly() -> None:
                with factory.begin() as session:
                    body(session)

            self._transaction, self._close = plainly, engine.dispose
        random.seed(first)
        for _ in range(20):
            self._transaction()
        return {}

    def run(self, seconds: float) -> dict[str, Any]:
        """Transactions for some seconds."""
        cpu = time.process_time()
        measured = rate(self._transaction, seconds)
        return {"rate": measured, "cpu": (time.process_time() - cpu) / (measured * seconds)}

    def close(self) -> dict[str, Any]:
        """Ends what ``open`` began."""
        self._close()
        return {}

    def watch(self, url: str, id: int, until: int, seconds: float) -> dict[str, Any]:
        """Looks at a row's amount again and again until it is ``until``: when was which value first seen, on the machine's monotonic clock?"""
        engine, seen, deadline, last = create_engine(url), [], time.monotonic() + seconds, 0
        print(json.dumps({"watching": True}), flush=True)
        with engine.connect() as connection:
            while last < until and time.monotonic() < deadline:
                value = connection.scalar(text("SELECT amount FROM item WHERE id = :id"), {"id": id})
                at = time.monotonic()
                connection.rollback()
                if value is not None and value != last:
                    seen.append((value, at))
                    last = value
                time.sleep(0.004)
        engine.dispose()
        return {"seen": seen}

    def carry(self, urls: list[str], statement: str, first: int, last: int) -> dict[str, Any]:
        """Inserts many rows in one transaction and ships them."""
        store = Store(primary=urls[0], standby=urls[1], durability="async", background=False)
        store.sync()
        before = _peak()
        store.run(lambda session: session.execute(text(statement), {"first": first, "last": last}))
        began = time.perf_counter()
        store.sync(timeout=600)
        seconds = time.perf_counter() - began
        store.close()
        return {"before": before, "peak": _peak(), "seconds": seconds}


def _peak() -> float:
    """The most memory this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Until the input ends."""
    worker = Worker()
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(getattr(worker, command.pop("do"))(**command)), flush=True)


if __name__ == "__main__":
    main()
