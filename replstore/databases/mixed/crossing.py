"""Which values of rows that are here the other node of a mixed pair can't hold: by the very conditions of the guards that refuse them (``guards.py``)."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from sqlalchemy import Connection

from replstore.databases.catalog import Table, quote
from replstore.databases.dialect import raw
from replstore.databases.mixed.digests import is_known
from replstore.databases.mixed.keys import kinds, natives, on, postgresql_columns, postgresql_key
from replstore.databases.mixed.types import kind_of
from replstore.databases.postgresql.capture import qualified, text

Strange = dict[str, dict[str, str]]


def lookable(table: Table, keys: Collection[str]) -> list[str]:
    """See ``Database.lookable``."""
    of = [kind for column in table.key if (kind := kind_of(table.column(column).type)) is not None]
    return [key for key in keys if is_known(key, of)] if len(of) == len(table.key) else []


def of_sqlite(connection: Connection, table: Table, here: Table, keys: Collection[str]) -> Strange:
    """See ``Database.uncrossable``.

    Args:
        here: the table as SQLite has it.
    """
    driver, of, found = raw(connection.connection), kinds(table, table.key), Strange()
    where = " AND ".join(f"t.{quote(column)} = ?" for column in table.key)
    conditions = [*_sqlite_faults(table)]
    if not conditions:
        return {}
    tested = ", ".join(f"{value} IS NOT NULL AND ({condition})" for _, value, condition, _ in conditions)
    for key in keys:
        for row in driver.execute(f"SELECT {tested} FROM {quote(here.name)} AS t WHERE {where}", natives(key, of)):
            _keep(found, key, [(column, wrong) for (column, _, _, wrong), is_so in zip(conditions, row, strict=True) if is_so])
    return found


def _sqlite_faults(table: Table) -> Iterator[tuple[str, str, str, str]]:
    for column in table.data_columns:
        kind, value = kind_of(table.column(column).type), f"t.{quote(column)}"
        for condition, wrong in kind.faults(value, strict=False) if kind is not None else ():
            yield column, value, condition, f" {wrong}, so PostgreSQL can't hold it"


def of_postgresql(connection: Connection, table: Table, keys: Collection[str]) -> Strange:
    """See ``Database.uncrossable``."""
    found, conditions = Strange(), []
    for column in table.data_columns:
        kind = kind_of(table.column(column).type)
        if kind is not None and (fault := kind.fault(f"t.{quote(column)}")) is not None:
            conditions.append((column, *fault))
    if not conditions or not keys:
        return {}
    given = f"jsonb_array_elements({text('[' + ','.join(keys) + ']')}::jsonb) e(v)"
    tested = ", ".join(condition for _, condition, _ in conditions)
    with raw(connection.connection).cursor() as cursor:
        cursor.execute(
            f"SELECT {postgresql_key(table, 't')}::text, {tested} FROM {qualified(table)} t "
            f"JOIN (SELECT DISTINCT {postgresql_columns(table, 'e.v')} FROM {given}) j ON {on(table)}"
        )
        for key, *row in cursor.fetchall():
            _keep(found, key, [(column, f": {wrong}") for (column, _, wrong), is_so in zip(conditions, row, strict=True) if is_so])
    return found


def _keep(found: Strange, key: str, faults: Collection[tuple[str, str]]) -> None:
    for column, wrong in faults:
        found.setdefault(key, {}).setdefault(column, wrong)
