"""Putting back rows on SQLite: triggers are dropped and created again in the same transaction, values are SQL literals."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

from replstore.databases.catalog import Column, Table, execute, quote
from replstore.databases.dialect import raw
from replstore.databases.replaying import Replaying, pieces
from replstore.databases.sqlite.capture import text
from replstore.databases.sqlite.dialect import any_text
from replstore.databases.sqlite.reading_rows import key_of

INFINITE = {"inf": "9e999", "-inf": "-9e999"}
#: Keys that are looked for at once in the journal.
NAMED = 10_000


class SQLiteReplaying(Replaying):
    """See :class:`replstore.databases.replaying.Replaying`."""

    @contextmanager
    def reading(self, connection: Connection) -> Iterator[None]:
        driver = raw(connection.connection)
        before = driver.text_factory
        driver.text_factory = any_text
        try:
            yield
        finally:
            driver.text_factory = before

    def quiet(self, connection: Connection, tables: Sequence[Table]) -> None:
        execute(connection, ["PRAGMA defer_foreign_keys = ON"])
        execute(connection, [f"DROP TRIGGER {quote(name)}" for table in tables for name, _ in table.triggers])

    def loud(self, connection: Connection, tables: Sequence[Table]) -> None:
        execute(connection, [definition for table in tables for _, definition in table.triggers])

    def value(self, column: Column, shown: str | None) -> str:
        if shown is None:
            return "NULL"
        if shown in INFINITE:
            return INFINITE[shown]
        return _text(shown[1:-1].replace("''", "'")) if shown.startswith("'") else shown

    def among(self, table: Table, keys: Collection[str], alias: str) -> str:
        columns = ", ".join(f"{alias}.{quote(column)}" for column in table.key)
        rows = ", ".join(f"({values})" for values in map(self._literals(table), keys))
        return f"(({columns}) IN (VALUES {rows}))" if keys else "0"

    def named(self, connection: Connection, table: Table, keys: Collection[str], since: str) -> set[str]:
        driver, name = raw(connection.connection), self._journaled(table)
        whole = "SELECT EXISTS (SELECT 1 FROM replstore_journal WHERE tbl = ? AND seq > ? AND k1 IS NULL)"
        if driver.execute(whole, (name, int(since))).fetchone()[0]:
            return set(keys)
        found: set[str] = set()
        for piece in pieces(keys, NAMED):  # each one walks through the journal
            statement = self._joined(table, piece, "DISTINCT w.number") + f" AND j.seq > {int(since)}"
            found |= {piece[row[0]] for row in driver.execute(statement)}
        return found

    def last_named(self, connection: Connection, table: Table, keys: Collection[str]) -> dict[str, int]:
        """By key, the number of the last entry of the journal that names it, as the database compares keys, or the whole table."""
        driver, name = raw(connection.connection), self._journaled(table)
        whole = driver.execute("SELECT max(seq) FROM replstore_journal WHERE tbl = ? AND k1 IS NULL", (name,)).fetchone()[0]
        found = dict.fromkeys(keys, whole) if whole is not None else {}
        for piece in pieces(keys, NAMED):
            for number, seq in driver.execute(self._joined(table, piece, "w.number, max(j.seq)") + " GROUP BY 1"):
                found[piece[number]] = max(seq, found.get(piece[number], 0))
        return found

    def _joined(self, table: Table, keys: Sequence[str], what: str) -> str:
        """A SELECT from the journal's entries (``j``) that name these keys (``w``, numbered)."""
        rows = ", ".join(f"({number}, {values})" for number, values in enumerate(map(self._literals(table), keys)))
        names = ", ".join(f"k{n}" for n in range(1, len(table.key) + 1))
        collated = [f" COLLATE {table.column(column).collation}" if table.column(column).collation else "" for column in table.key]
        on = " AND ".join(f"j.k{n} = w.k{n}{collation}" for n, collation in enumerate(collated, 1))
        return f"WITH w(number, {names}) AS (VALUES {rows}) SELECT {what} FROM w JOIN replstore_journal j ON {on} WHERE j.tbl = {text(self._journaled(table))}"

    def keys(self, connection: Connection, table: Table, rest: str = "") -> set[str]:
        columns = ", ".join(f"t.{quote(column)}" for column in table.key)
        return set(map(self._key_of(table), raw(connection.connection).execute(f"SELECT DISTINCT {columns} FROM {self.name(table)} t {rest}")))

    def identity_override(self, table: Table) -> str:
        return ""

    def _literals(self, table: Table) -> Callable[[str], str]:
        """What makes of a key's JSON the literals of its values, with commas between them."""
        return lambda key: ", ".join(map(literal, json.loads(key)))

    def _key_of(self, table: Table) -> Callable[[Sequence[Any]], str]:
        """What makes of a key's values its JSON."""
        return key_of

    def _journaled(self, table: Table) -> str:
        """The name that the journal has for a table."""
        return table.id


def literal(value: Any) -> str:
    """A value as a literal: the driver's, or a key's as a journal's or a record's JSON has it."""
    if isinstance(value, dict):
        return f"x'{value['blob']}'"
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    if isinstance(value, str):
        return _text(value)
    return INFINITE.get(repr(value), repr(value)) if value is not None else "NULL"


def _text(value: str) -> str:
    """Text as an expression: a statement holds neither what is no UTF-8 nor a NUL."""
    if any("\ud800" <= sign <= "\udfff" for sign in value):
        return f"CAST(x'{value.encode('utf-8', 'surrogateescape').hex()}' AS TEXT)"
    return f"({' || char(0) || '.join(text(part) for part in value.split(chr(0)))})" if "\0" in value else text(value)
