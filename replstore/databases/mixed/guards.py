"""Triggers that refuse, at the writer, a value that the other database can't hold: the user's own statement fails, and says why (HAZARDS 20).

They stand on both nodes, and let the shipper's rows pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

from replstore.databases.catalog import Table
from replstore.databases.mixed.types import kind_of
from replstore.databases.postgresql.capture import CHECKS, qualified
from replstore.databases.sqlite.capture import MARK, quote, text, trigger_name

#: A call's key is text as well; SQLAlchemy's own sessions write it.

SQLITE_MARKER_GUARD = [
    "DROP TRIGGER IF EXISTS replstore_check_marker",
    "CREATE TRIGGER replstore_check_marker BEFORE INSERT ON replstore_marker WHEN instr(NEW.key, char(0)) > 0 "
    "BEGIN SELECT RAISE(ABORT, 'the key of a call holds a NUL character, which PostgreSQL can''t store'); END",
]


def strict_columns(table: Table) -> set[str]:
    """Columns in which two forms of one value must not be two rows."""
    return {name for columns in (table.key, *table.unique) for name in columns}


def sqlite_guards(table: Table, native: Table) -> list[str]:
    """The statements that put the guards on a SQLite table.

    Args:
        table: with PostgreSQL's types.
        native: the same, as SQLite has it.
    """
    checks = "".join(f"SELECT RAISE(ABORT, {text(sentence)}) WHERE {condition}; " for condition, sentence in _sqlite_checks(table))
    statements = []
    for event in ("insert", "update"):
        name = trigger_name(native, f"check_{event}")
        if checks:
            statements.append(f"CREATE TRIGGER {name} AFTER {event.upper()} ON {quote(native.name)} WHEN {MARK} IS NOT 'apply' BEGIN {checks}END")
    return statements


def _sqlite_checks(table: Table) -> Iterator[tuple[str, str]]:
    strict = strict_columns(table)
    for column in table.data_columns:
        kind, value = kind_of(table.column(column).type), f"NEW.{quote(column)}"
        for condition, wrong in kind.faults(value, strict=column in strict) if kind is not None else ():
            yield f"{value} IS NOT NULL AND ({condition})", f"{_place(table, column)} {wrong}, so PostgreSQL can't hold it"


def postgresql_guards(table: Table) -> list[str]:
    """The statements that put the guards on a PostgreSQL table.

    Nothing depends on the columns, so a migration may drop or change one: where it is gone, its name means the NULL around the query.
    """
    checks = []
    for column in table.data_columns:
        type = table.column(column).type
        kind = kind_of(type)
        fault = kind.fault(quote(column)) if kind is not None else None
        if fault is not None:
            found = f"SELECT EXISTS (SELECT FROM new_rows WHERE {fault[0]}) FROM (SELECT NULL::{type} AS {quote(column)}) gone"
            sentence = text(f"{_place(table, column)}: {fault[1]}")
            checks.append(f"IF ({found}) THEN RAISE EXCEPTION USING ERRCODE = 'check_violation', MESSAGE = {sentence}; END IF;")
    function = f"replstore.check_{sha256(table.id.encode()).hexdigest()[:16]}"
    statements = [*(f"DROP TRIGGER IF EXISTS {name} ON {qualified(table)}" for name in CHECKS), f"DROP FUNCTION IF EXISTS {function}()"]
    if checks:
        statements.append(
            f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN "
            f"IF current_setting('replstore.mark', true) = 'apply' THEN RETURN NULL; END IF; {' '.join(checks)} RETURN NULL; END $$"
        )
        statements += [
            (
                f"CREATE TRIGGER {name} AFTER {name.removeprefix('replstore_check_').upper()} ON {qualified(table)} REFERENCING NEW TABLE AS new_rows "
                f"FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
            )
            for name in CHECKS
        ]
    return statements


def _place(table: Table, column: str) -> str:
    return f"column {column} of table {table.name}"
