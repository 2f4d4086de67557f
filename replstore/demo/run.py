"""The course of events: orders, the primary's death, orders at the standby, the primary's return, a switchover back, the count."""

from __future__ import annotations

import logging
import random
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import TimeoutExpired
from typing import TypeVar

from replstore.demo.crew import Crew
from replstore.demo.orders import Base, customers
from replstore.demo.pairs import KINDS
from replstore.demo.screen import Screen
from replstore.demo.tally import Pause, Tally
from replstore.demo.verdict import Verdict, judge
from replstore.demo.worker import Job
from replstore.errors import ReplstoreError
from replstore.pair.status import Status
from replstore.reconcile.report import TableReport
from replstore.store import Store

CUSTOMERS = 40
T = TypeVar("T")
#: s within which each step must come about.
PATIENCE = 20.0
#: What part of the writing time is spent before the kill, without the primary, in sync again, and after the switchover back.
SHARES = (0.35, 0.3, 0.15, 0.2)


@dataclass(frozen=True)
class Plan:
    """What the demo is to do.

    Attributes:
        database: a name of ``pairs.KINDS``.
        seconds: how long orders are written, apart from waiting for the pair.
        workers: how many processes write.
        seed: for chance.
    """

    database: str
    seconds: float
    workers: int
    seed: int


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        verdict: what the count says.
        kill, switchover: pauses; None: it didn't come to it.
        orphans: rows, or transactions, that the lost primary had committed alone.
        fate: what became of these.
        troubles: how many calls ended in which error, with an example of its message.
        seconds: how long it all took.
    """

    verdict: Verdict
    kill: Pause | None
    switchover: Pause | None
    orphans: int
    fate: str
    troubles: dict[str, tuple[int, str]]
    seconds: float


class Broken(ReplstoreError):
    """A step of the demo didn't come about in time."""


@dataclass
class Demo:
    """One run.

    Args:
        plan: what to do.
        screen: where it is shown.
    """

    plan: Plan
    screen: Screen
    faults: list[str] = field(default_factory=list)
    kill: Pause | None = None
    switchover: Pause | None = None
    gone: int = 0

    def run(self) -> Outcome:
        """Does it all; whatever happens, no process, server or file stays behind."""
        began = time.monotonic()
        logging.getLogger("replstore").addHandler(logging.NullHandler())
        with ExitStack() as stack:
            self._pair = KINDS[self.plan.database]()
            with self.screen.busy(f"Making a pair ({self.plan.database}) …"):
                self._pair.open()
            stack.callback(self._pair.close)
            self.screen.term = self._pair.term
            self.screen.say(self._pair.made)
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="replstore-demo-")))
            self._store = stack.enter_context(
                Store(primary=self._pair.local.primary_url, standby=self._pair.local.standby_url, **self._pair.settings)
            )
            self._migrate()
            jobs = self._jobs(directory)
            self._tally = Tally([Path(job.log) for job in jobs])
            self._crew = Crew(jobs, directory)
            stack.callback(self._crew.kill)
            with self.screen.live(self._tally):
                self._events()
            return self._count(began)

    def _migrate(self) -> None:
        done = self._store.migrate(Base.metadata)
        with self._store.begin() as session:
            session.add_all(customers(CUSTOMERS))
        self.screen.say(f"{len(done.tables)} tables are on both nodes; the primary writes.")

    def _jobs(self, directory: Path) -> list[Job]:
        dice = random.Random(self.plan.seed)
        pair = self._pair.local
        return [
            Job(
                number,
                pair.primary_url,
                pair.standby_url,
                str(directory / f"worker-{number}.log"),
                dice.getrandbits(32),
                CUSTOMERS,
                settings=self._pair.settings,
            )
            for number in range(1, self.plan.workers + 1)
        ]

    # -- what happens while orders are written

    def _events(self) -> None:
        try:
            self._lose_the_primary()
            self._bring_it_back()
            self._switch_over()
        except Broken as error:
            self.faults.append(str(error))
            self.screen.say(f"{error}.", good=False)
        with self.screen.busy("The processes finish their orders …"):
            try:
                self._crew.stop()
            except TimeoutExpired:
                self.faults.append("not every process finished its last order")
        self.faults += self._crew.dead()

    def _lose_the_primary(self) -> None:
        self._until(lambda: all(log.acknowledged for log in self._tally.logs), "not every process has written an order")
        self.screen.say(f"{len(self._tally.logs)} processes write orders.")
        self._write_for(0)
        killed = time.monotonic()
        self._pair.local.kill("primary")
        self.screen.mark(self._pair.killed)
        self._killed = killed
        if self._pair.alone:
            self._acknowledge_again()
            return
        self._until(lambda: self._status().writer == "standby", "the standby isn't promoted")
        after = milliseconds((time.monotonic() - killed) * 1000)
        self.screen.say(f"The standby is promoted, {after} later; it acknowledges what a follower has replayed.")

    def _acknowledge_again(self) -> None:
        self._until(lambda: self._tally.pause(self._killed, 2) is not None, "not every process has written an order since the primary was lost")
        self.kill = self._tally.pause(self._killed, 2)
        assert self.kill is not None
        self.screen.say(f"The standby writes, {self._pair.term} 2: {milliseconds(self.kill.overall)} without an acknowledged order.")
        self.screen.pause = self.kill
        self._write_for(1)

    def _bring_it_back(self) -> None:
        self.screen.mark(self._pair.back)
        began = time.monotonic()
        try:
            self.gone = self._while(lambda: self._pair.bring_back(self._store))
        except ReplstoreError as error:
            raise Broken(f"the primary doesn't follow: {error}") from error
        self._until(self._in_sync, "the primary isn't in sync again")
        self.screen.say(f"The primary follows and is in sync, {milliseconds((time.monotonic() - began) * 1000)} later.")
        if not self._pair.alone:
            self._acknowledge_again()
        self._write_for(2)

    def _switch_over(self) -> None:
        began = time.monotonic()
        self.screen.mark("The nodes change roles again (switchover).")
        try:
            self._while(self._store.switchover)
        except ReplstoreError as error:
            raise Broken(f"the switchover failed: {error}") from error
        term = self._status().term or 0
        self._until(lambda: self._tally.pause(began, term) is not None, "not every process has written an order since the switchover")
        self.switchover = self._tally.pause(began, term)
        assert self.switchover is not None
        self.screen.pause = self.switchover
        self.screen.say(f"The primary writes, {self._pair.term} {term}: {milliseconds(self.switchover.overall)} without an acknowledged order.")
        self._write_for(3)

    def _in_sync(self) -> bool:
        status = self._status()
        return status.healthy and status.writer == "standby"

    def _status(self) -> Status:
        return self._store.status()

    def _write_for(self, part: int) -> None:
        end = time.monotonic() + self.plan.seconds * SHARES[part]
        while time.monotonic() < end:
            self._look()

    def _until(self, condition: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise Broken(f"after {PATIENCE:g} s {otherwise}")
            self._look()

    def _while(self, act: Callable[[], T]) -> T:
        """Shows what goes on while something is done."""
        with ThreadPoolExecutor(1, thread_name_prefix="demo") as pool:
            done = pool.submit(act)
            while not done.done():
                self._look()
            return done.result()

    def _look(self) -> None:
        self._tally.read()
        if dead := self._crew.dead():
            raise Broken("; ".join(dead))
        self.screen.refresh()
        time.sleep(0.05)

    # -- the count

    def _count(self, began: float) -> Outcome:
        self._tally.read()
        divergences: list[str] = []
        orphans = 0
        with self.screen.busy("Comparing both nodes …"):
            try:
                self._store.sync()
                orphans = self._status().orphans + self.gone
                divergences = self._check()
            except Exception as error:
                self.faults.append(f"the nodes could not be compared: {error}")
            verdict = judge(
                self._tally.acknowledged,
                {"primary": self._pair.rows("primary"), "standby": self._pair.rows("standby")},
                divergences=divergences,
                faults=self.faults,
            )
        notes = self._tally.trouble_notes()
        troubles = {name: (count, notes[name]) for name, count in self._tally.troubles.items()}
        return Outcome(verdict, self.kill, self.switchover, orphans, self._pair.orphans, troubles, time.monotonic() - began)

    def _check(self) -> list[str]:
        """What ``replstore check`` finds."""
        report = self._store.check()
        schema = [f"{each.table}: {each.text}" for each in report.schema]
        sequences = [f"sequence {each.name} of {each.behind} stands behind" for each in report.sequences]
        return [*schema, *sequences, *(difference for table in report.tables for difference in _differences(table))]


def _differences(table: TableReport) -> list[str]:
    """A table's differing rows, named as the verdict names its own."""
    name = table.name.rpartition(".")[2]
    named = [f"{name} {next(iter(each.key.values()))}" for each in table.differences]
    return named or [f"{name}: {table.total} rows"] * bool(table.total)


def milliseconds(value: float) -> str:
    """As people read it."""
    return f"{value / 1000:.1f} s" if value >= 10_000 else f"{value:,.0f} ms"
