"""Amounts of ``money``: a whole number of the smallest unit, which each database reads by its own ``lc_monetary``.

Where the two have another number of decimal places, 12.34 on one node is 1234 on the other, and no comparison of rows would see it.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from replstore.databases.catalog import Table
from replstore.databases.postgresql.usertypes import USES
from replstore.errors import CannotReplicate

#: What the database and the role have for a default, whatever this session has set.
_LOCALE = "SELECT reset_val, current_setting('lc_monetary'), set_config('lc_monetary', reset_val, true) FROM pg_settings WHERE name = 'lc_monetary'"
_PLACES = "SELECT scale(1::money::numeric), set_config('lc_monetary', %s, true)"
_MONEY = f"WITH RECURSIVE {USES} SELECT name FROM uses WHERE oid = 'money'::regtype ORDER BY number LIMIT 1"


def refuse_other_amounts(source: Connection, tables: Sequence[Table], target: Connection) -> None:
    """Raises CannotReplicate if a table holds amounts that would be others on the target."""
    (here, places), (there, other_places) = _reading(source), _reading(target)
    if places == other_places:
        return
    for table in tables:
        column = source.exec_driver_sql(_MONEY, {"schema": table.schema or "", "name": table.name}).scalar()
        if column is not None:
            raise CannotReplicate(
                f"table {table.id} can't be replicated: its column {column} is money, and lc_monetary is {here!r} on one node ({places} decimal places) and "
                f"{there!r} on the other ({other_places}), where its amounts would be others: give both databases one lc_monetary, or make the column numeric"
            )


def _reading(connection: Connection) -> tuple[str, int]:
    """The locale by which amounts are read, and how many decimal places it has."""
    locale, before, _ = connection.exec_driver_sql(_LOCALE).one()
    places, _ = connection.exec_driver_sql(_PLACES, (before,)).one()
    return locale, places
