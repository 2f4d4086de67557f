"""Who changed a row of a SQLite file last, by its journal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sqlalchemy import Connection

from replstore.databases.base import Entry
from replstore.databases.catalog import Table
from replstore.databases.dialect import raw
from replstore.databases.sqlite.capture import MARKER
from replstore.databases.sqlite.reading_rows import markers

#: The marker before an entry, if the next one behind it is the same: so it is whose transaction that was (``journal.py``).
WHOSE = f"""
SELECT b.k1 FROM replstore_journal b WHERE b.tbl = '{MARKER}' AND b.seq = (SELECT max(seq) FROM replstore_journal WHERE tbl = '{MARKER}' AND seq < ?1)
    AND b.k1 = (SELECT a.k1 FROM replstore_journal a WHERE a.tbl = '{MARKER}' AND a.seq > ?1 ORDER BY a.seq LIMIT 1)"""


def last_changes(connection: Connection, table: Table, last: Mapping[str, int]) -> dict[str, Entry]:
    """See ``Database.last_changes``.

    Args:
        last: by key, the number of its last entry.
    """
    driver = raw(connection.connection)
    facts = markers(driver)
    whose = {seq: (driver.execute(WHOSE, (seq,)).fetchone() or (None,))[0] for seq in {*last.values()}}
    return {key: Entry(table.id, key, whose[seq], facts(whose[seq])[0], place=seq) for key, seq in last.items()}


def last_transactions(connection: Connection) -> Iterator[tuple[str, int]]:
    """See ``Database.last_transactions``."""
    found = connection.exec_driver_sql("SELECT k1, seq FROM replstore_journal WHERE tbl = ? ORDER BY seq DESC", (MARKER,))
    return ((row[0], row[1]) for row in found)
