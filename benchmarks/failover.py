"""How long a program can't write when its writer is lost, over native replication; cases of ``benchmarks.native``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial

import psycopg
from sqlalchemy import make_url
from sqlalchemy.orm import Session

from benchmarks.measure import Ratio, Rounds, Section, Spread
from benchmarks.model import change
from benchmarks.plan import Plan
from benchmarks.streaming import Relay, Streaming
from replstore import Store
from replstore.errors import ReplstoreError

#: s after which a round is given up, and counts as that long.
GIVEN_UP = 10.0
#: Acknowledged writes before a fault.
BEFORE = 20
Write = Callable[[], int]


class Writer:
    """A thread that writes all the time, and remembers which server acknowledged when.

    Args:
        write: one transaction; returns the port of the server that has acknowledged it, and raises where it has none.
    """

    def __init__(self, write: Write) -> None:
        self._write, self._stop, self._changed = write, threading.Event(), threading.Condition()
        self._acknowledged: list[tuple[float, int]] = []
        self.errors = 0
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                port = self._write()
            except Exception:
                self.errors += 1
                time.sleep(0.002)
                continue
            with self._changed:
                self._acknowledged.append((time.monotonic(), port))
                self._changed.notify_all()

    def begun(self) -> None:
        """Waits for the first writes.

        Raises:
            RuntimeError: there are none.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._acknowledged) >= BEFORE, timeout=30.0):
                raise RuntimeError("nothing is written before the fault")

    def next_at(self, port: int, since: float) -> float:
        """How many s after a moment a server acknowledged its first write; ``GIVEN_UP`` at most."""

        def found() -> float | None:
            return next((at for at, by in self._acknowledged if by == port and at > since), None)

        with self._changed:
            self._changed.wait_for(lambda: found() is not None, timeout=max(0.0, since + GIVEN_UP - time.monotonic()))
            at = found()
        return GIVEN_UP if at is None else at - since

    def stop(self) -> None:
        """Ends it; one that hangs is left behind."""
        self._stop.set()
        self._thread.join(timeout=2.0)


@contextmanager
def through_store(ground: Streaming, url: str) -> Iterator[Write]:
    """Writes through a Store with default settings that may promote; as a program that was started after the last round."""
    with Store(primary=url, standby=ground.urls[1], replication="native", promote=True) as store:
        store.sync()

        def body(session: Session) -> int:
            change(session)
            return session.connection().engine.url.port or 0

        yield lambda: store.run(body)


@contextmanager
def through_psycopg(ground: Streaming, url: str) -> Iterator[Write]:
    """Writes through psycopg with both hosts in one URL, connected anew after each error; a new connection is given up after 2 s, libpq's least."""
    ports = [make_url(each).port for each in (url, ground.urls[1])]
    user, database = make_url(url).username, make_url(url).database
    where = f"host=127.0.0.1,127.0.0.1 port={ports[0]},{ports[1]} user={user} dbname={database} target_session_attrs=read-write connect_timeout=2"
    connections: list[psycopg.Connection[tuple[object, ...]]] = []

    def write() -> int:
        try:
            if not connections:
                connections.append(psycopg.connect(where))
            with connections[0].transaction():
                connections[0].execute("UPDATE item SET amount = amount + 1 WHERE id = %s", (7,))
            return connections[0].info.port
        except psycopg.Error:
            while connections:
                connections.pop().close()
            raise

    yield write
    for connection in connections:
        connection.close()


WAYS = {"Store": through_store, "psycopg": through_psycopg}


def round_of(ground: Streaming, relay: Relay, fault: str, way: str) -> float:
    """One loss of the writer: s until the next acknowledged write.  Brings the pair back into order first."""
    relay.go_on()
    ground.pair.restore()
    url = relay.url if fault == "cut off" else ground.urls[0]
    with WAYS[way](ground, url) as write, closing(psycopg.connect(ground.superuser("standby"), autocommit=True)) as promoting:
        writer = Writer(write)
        try:
            writer.begun()
            ground.pair.catch_up()
            began = time.monotonic()
            faults: dict[str, Callable[[], None]] = {
                "killed": partial(ground.pair.kill, "primary"),
                "hung": partial(ground.pair.freeze, "primary"),
                "cut off": relay.stop,
            }
            faults[fault]()
            if way == "psycopg":  # whoever promotes knows at once
                promoting.execute("SELECT pg_promote(false)")
            return writer.next_at(make_url(ground.urls[1]).port or 0, began)
        finally:
            relay.go_on()
            with suppress(ReplstoreError):
                ground.pair.thaw("primary")
            writer.stop()


def failover(plan: Plan) -> list[Section]:
    """Each fault as often as asked for, the ways in turns."""
    rounds, sections = Rounds(), []
    with Streaming() as ground, Relay(ground.urls[0]) as relay:
        for number in range(plan.faults):
            for fault in ("killed", "hung", "cut off"):
                rounds.add({f"Store, {fault}": round_of(ground, relay, fault, "Store") * 1000})
                if fault == "killed" or number == 0:  # hung: it waits as long as TCP does, which is told once
                    rounds.add({f"psycopg, {fault}": round_of(ground, relay, fault, "psycopg") * 1000})
    section = Section(
        "From the loss of the writer to the next acknowledged write",
        "A thread writes all the time. `Store`: `store.run` with `promote=True`, other settings as by default. `psycopg`: both hosts in one URL with "
        "`target_session_attrs=read-write`, connected anew after each error, and the standby is promoted by somebody who knows of the fault at once. `killed`: "
        "SIGKILL of the primary. `hung`: SIGSTOP of all its processes. `cut off`: a proxy before it takes all packets and passes none on. A round is given "
        f"up after {GIVEN_UP:g} s.",
        rounds.figures("ms"),
    )
    for fault, middle, most in (("killed", 100.0, 1000.0), ("hung", 2500.0, 2500.0), ("cut off", 2500.0, 2500.0)):
        section.ratios += _both(f"Store, {fault}", rounds.values[f"Store, {fault}"], middle, most)
    section.ratios += _both("psycopg, killed", rounds.values["psycopg, killed"], None, None)
    sections.append(section)
    return sections


def _both(name: str, values: list[float], middle: float | None, most: float | None) -> list[Ratio]:
    worst = sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]
    return [
        Ratio(f"{name}: p50, ms", Spread.of(values), middle, at_most=True),
        Ratio(f"{name}: p99, ms", Spread(worst, worst, worst, 1), most, at_most=True),
    ]
