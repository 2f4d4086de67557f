"""A program that writes through replstore: one row after another, each exactly once, and a line for each that was acknowledged.

Which nodes, and how they replicate, is in the environment: ``REPLSTORE_PRIMARY``, ``REPLSTORE_STANDBY``, ``REPLSTORE_REPLICATION``, …  The URLs hold no
password: libpq finds it in the file that ``PGPASSFILE`` names.  ``PAUSE`` is the time between two rows, in seconds.

``program.py healthy`` ends with 0 if a row was acknowledged within the last ten seconds.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from pathlib import Path

from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from replstore import Store
from replstore.errors import ReplstoreError

LAST = Path("/tmp/acknowledged")


class Base(DeclarativeBase):
    pass


class Entry(Base):
    """Nothing but its number: one that was lost or doubled is seen at once."""

    __tablename__ = "entry"
    id: Mapped[int] = mapped_column(primary_key=True)
    run: Mapped[str]
    number: Mapped[int]


def opened() -> Store:
    """The Store, as soon as the pair can be used."""
    while True:
        try:
            store = Store()
            store.migrate(Base)
        except ReplstoreError as error:
            print(f"waiting: {error}", flush=True)
            time.sleep(1)
        else:
            return store


def write(store: Store, run: str, number: int) -> None:
    """Write one row, however long that takes; the key makes it one row also if it has to be said twice."""

    def add(session: Session) -> None:
        session.add(Entry(run=run, number=number))

    while True:
        try:
            store.run(add, key=f"{run}-{number}")
        except ReplstoreError as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            time.sleep(0.2)
        else:
            print(f"acknowledged {run} {number}", flush=True)
            LAST.touch()
            return


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    run, pause = f"{os.getpid()}.{time.time_ns()}", float(os.environ.get("PAUSE", "0.05"))
    with opened() as store:
        for number in itertools.count(1):
            write(store, run, number)
            time.sleep(pause)


if __name__ == "__main__":
    if sys.argv[1:] == ["healthy"]:
        sys.exit(not LAST.exists() or time.time() - LAST.stat().st_mtime > 10)
    main()
