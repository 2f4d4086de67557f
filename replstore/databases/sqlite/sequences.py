"""AUTOINCREMENT counters on SQLite: where they stand, moving them forward, and the jump at takeover.

They are rows of ``sqlite_sequence`` and transactional.  A plain INTEGER PRIMARY KEY has none: it takes the highest key and adds one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Connection

from replstore.control import Control
from replstore.databases.catalog import Table, quote
from replstore.databases.counting import Taken
from replstore.databases.sqlite.parse import parse_table

HIGHEST = 2**63 - 1

_TABLES = """SELECT name, sql FROM main.sqlite_master
WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%' AND sql NOT LIKE 'CREATE VIRTUAL %' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"""


def sequences(connection: Connection, control: Control, tables: Collection[Table] | None = None) -> dict[str, int | None]:
    """The highest key that each AUTOINCREMENT table has ever given out.

    Args:
        connection: of the node.
        control: which tables are replstore's own.
        tables: only the counters of these tables; None takes every user table.

    Returns:
        By table; None while it never had a row.
    """
    wanted = None if tables is None else {id for table in tables for id in table.sequences}
    names = [name for name in _counted(connection) if not name.startswith(control.prefix) and (wanted is None or name in wanted)]
    values = _values(connection) if names else {}
    return {name: values.get(name) for name in names}


def advance_sequences(connection: Connection, values: Mapping[str, int | None]) -> None:
    """Moves counters forward to the given values, never back; a table that this node lacks is left out.

    Args:
        connection: of the node whose counters move.
        values: as ``sequences`` reads them from the other node.
    """
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return
    here = _values(connection)
    for name in _counted(connection):
        value = known.get(name)
        if value is not None and value > (here.get(name) or 0):
            _set(connection, name, value, name in here)


def jump_sequences(connection: Connection, control: Control, margin: int) -> None:
    """Moves every user table's counter forward, so that keys the lost writer may have given out aren't given out again.

    A counter near its end moves by half of what is left of it: it must not run out because of the jump.

    Args:
        connection: of the node that becomes the writer.
        control: which tables are replstore's own.
        margin: keys to skip in each table.
    """
    counters = sequences(connection, control)
    here = _values(connection) if counters else {}
    for name, value in counters.items():
        _set(connection, name, (value or 0) + min(margin, (HIGHEST - (value or 0)) // 2), name in here)


def lagging(connection: Connection, values: Mapping[str, int | None]) -> dict[str, bool | None]:
    """Which counters stand before the given values here; a table that this node lacks is left out.

    Args:
        connection: of the node.
        values: as ``sequences`` reads them from the other node.

    Returns:
        By table, whether it has rows whose keys the counter would give again.
    """
    here = _values(connection)
    found: dict[str, bool | None] = {}
    for name in _counted(connection):
        there, value = values.get(name), here.get(name) or 0
        if there is not None and value < there:
            rows = f"SELECT EXISTS (SELECT 1 FROM {quote(name)} WHERE _rowid_ > ? AND _rowid_ <= ?)"
            found[name] = bool(connection.exec_driver_sql(rows, (value, there)).scalar())
    return found


def next_value(connection: Connection, name: str) -> int | None:
    """What the next row gets: SQLite goes on from the counter, or from the highest key if that is higher."""
    highest = connection.exec_driver_sql(f"SELECT max(_rowid_) FROM {quote(name)}").scalar() or 0
    last = max(highest, _values(connection).get(name) or 0)
    return last + 1 if last < HIGHEST else None


def taken(connection: Connection, name: str, after: int | None, through: int) -> Taken | None:
    """The first row with such a key; none is ever given twice while its row is there."""
    lowest = connection.exec_driver_sql(f"SELECT min(_rowid_) FROM {quote(name)} WHERE _rowid_ > ? AND _rowid_ <= ?", (after or 0, through)).scalar()
    if lowest is None:
        return None
    key = connection.exec_driver_sql("SELECT name FROM pragma_table_info(?) WHERE pk = 1", (name,)).scalar()
    return Taken(name, str(key), lowest, "skipped")


def _counted(connection: Connection) -> list[str]:
    return [name for name, sql in connection.exec_driver_sql(_TABLES) if parse_table(sql).autoincrement]


def _values(connection: Connection) -> dict[str, int | None]:
    """The table ``sqlite_sequence``, which exists once there has been an AUTOINCREMENT table."""
    if connection.exec_driver_sql("SELECT 1 FROM main.sqlite_master WHERE name = 'sqlite_sequence'").first() is None:
        return {}
    return {row.name: row.seq for row in connection.exec_driver_sql("SELECT name, seq FROM main.sqlite_sequence")}


def _set(connection: Connection, name: str, value: int, present: bool) -> None:
    change = "UPDATE main.sqlite_sequence SET seq = ? WHERE name = ?" if present else "INSERT INTO main.sqlite_sequence (seq, name) VALUES (?, ?)"
    connection.exec_driver_sql(change, (value, name))
