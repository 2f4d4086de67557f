"""An application that writes all the time moves from SQLite to PostgreSQL, and back again, without stopping and without losing a write.

    python examples/move_to_postgresql.py

The steps are the same for a real one: add the new database as the standby, let replstore copy, check, switch over, drop the old one.  The server is a
throw-away one; everything is removed at the end.  Exit code 1 if a write that was acknowledged is missing, or there twice.
"""

from __future__ import annotations

import datetime as dt
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

from sqlalchemy import DateTime, Engine, Numeric, String, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from replstore import NotTheWriter, Store, local

BEGAN = time.monotonic()


class Base(DeclarativeBase):
    pass


class Entry(Base):
    """One line of the application's book; ``mark`` is what the example recognises it by."""

    __tablename__ = "entry"
    id: Mapped[int] = mapped_column(primary_key=True)
    mark: Mapped[str] = mapped_column(String(40), index=True)
    at: Mapped[dt.datetime] = mapped_column(DateTime(timezone=True))
    amount: Mapped[Decimal] = mapped_column(Numeric(10, 2))


class Application:
    """Writes in two threads until it is told to stop, and remembers what was acknowledged.

    Args:
        write: writes one entry; returns when it is safe.
    """

    def __init__(self, write: Callable[[Entry], None]) -> None:
        self._write = write
        self._over = threading.Event()
        self.acknowledged: list[str] = []
        self.longest = 0.0
        self.failed: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, name=f"application {number}") for number in (1, 2)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                began = time.monotonic()
                mark = str(uuid4())
                self._write(Entry(mark=mark, at=dt.datetime.now(dt.UTC), amount=Decimal(len(self.acknowledged)) / 100))
                self.acknowledged.append(mark)
                self.longest = max(self.longest, time.monotonic() - began)
                self._over.wait(0.005)
        except BaseException as error:
            self.failed.append(error)

    def stop(self) -> list[str]:
        """Ends it.

        Raises:
            What a write raised.
        """
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self.failed:
            raise self.failed[0]
        return self.acknowledged


def plainly(engine: Engine) -> Callable[[Entry], None]:
    """How the application writes before it knows of replstore."""

    def write(entry: Entry) -> None:
        with Session(engine) as session, session.begin():
            session.execute(text("BEGIN IMMEDIATE"))
            session.add(entry)

    return write


def through(store: Store) -> Callable[[Entry], None]:
    """And after."""

    def write(entry: Entry) -> None:
        mark, at, amount = entry.mark, entry.at, entry.amount
        store.run(lambda session: session.add(Entry(mark=mark, at=at, amount=amount)))

    return write


def say(sentence: str) -> None:
    """Prints a step with the time since the beginning."""
    print(f"{time.monotonic() - BEGAN:5.1f} s  {sentence}", flush=True)


def checked(store: Store) -> None:
    """Compares both nodes while the application goes on writing.

    Raises:
        SystemExit: they differ.
    """
    report = store.check()
    if not report.equal:
        raise SystemExit(f"the nodes differ: {report.as_dict()}")
    rows = next(table for table in report.tables if table.name.endswith("entry"))
    say(f"checked: {rows.primary} and {rows.standby} rows, equal but for {report.waiting} on their way")


def dropped(store: Store) -> None:
    """The follower is gone for good.  replstore finds out by itself that it may go on alone, if it had a contact just before; else a person says so."""
    while store.status().acknowledge != "solo":
        with suppress(NotTheWriter):  # it was faster
            store.solo()


def main() -> int:
    """Moves there and back, and counts."""
    acknowledged: list[str] = []
    with tempfile.TemporaryDirectory(prefix="replstore-move-") as folder, local.postgresql_pair(fsync=False) as servers:
        file = Path(folder) / "application.db"
        url, server = f"sqlite:///{file}", servers.primary_url
        engine = create_engine(url, connect_args={"timeout": 30, "isolation_level": None})
        Base.metadata.create_all(engine)
        application = Application(plainly(engine))
        say("the application writes to SQLite, as it always did")
        time.sleep(0.5)

        with Store(primary=url, standby=server) as store:
            store.migrate(Base.metadata)
            say("PostgreSQL is the standby; it gets a copy, and every write from now on")
            acknowledged += application.stop()
            engine.dispose()
            application = Application(through(store))
            say("the application writes through replstore: what it is told is safe is on both")
            store.sync()
            checked(store)
            store.switchover()
            say("switched over: PostgreSQL writes, SQLite follows")
            checked(store)
            for each in Path(folder).glob("application.db*"):
                each.unlink()
            dropped(store)
            say("SQLite is dropped: the move is done")
            time.sleep(1.0)

            store.migrate(Base.metadata, replace="primary")
            say("and back: a new SQLite file is the standby")
            store.sync()
            checked(store)
            store.switchover()
            say("switched over: SQLite writes, PostgreSQL follows")
            checked(store)
            servers.kill("primary")
            dropped(store)
            say("PostgreSQL is dropped")
            time.sleep(0.5)
            acknowledged += application.stop()

        engine = create_engine(url)
        with Session(engine) as session:
            found = list(session.scalars(select(Entry.mark)))
        engine.dispose()
    lost, twice = len(set(acknowledged) - set(found)), len(found) - len(set(found))
    say(f"{len(acknowledged)} writes acknowledged, {len(found)} found, {lost} lost, {twice} twice; longest write {application.longest:.2f} s")
    return 1 if lost or twice else 0


if __name__ == "__main__":
    sys.exit(main())
