"""The user's tables on SQLite, read from the schema table and its pragmas, and which of them can be replicated.

Needs SQLite 3.37 or later.  ``ddl.py`` makes tables anew elsewhere, ``sequences.py`` reads and moves their AUTOINCREMENT counters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from functools import lru_cache
from itertools import repeat
from typing import Any

from sqlalchemy import Connection

from replstore.control import Control
from replstore.databases.catalog import MAX_KEY_COLUMNS, TRIGGER_PREFIX, Column, ForeignKey, Table, quote, quoted
from replstore.databases.sqlite.ddl import create_statements, drop_statements
from replstore.databases.sqlite.parse import Reference, TableText, leaves_others_out, parse_table
from replstore.databases.sqlite.sequences import advance_sequences, jump_sequences, sequences

__all__ = [
    "advance_sequences",
    "create_statements",
    "drop_statements",
    "jump_sequences",
    "refusal",
    "sequences",
    "table_ids",
    "tables",
]

_TABLES = """
SELECT l.name, l.type, l.wr, l.strict, s.sql FROM pragma_table_list l JOIN main.sqlite_master s ON s.type = 'table' AND s.name = l.name
WHERE l.schema = 'main' AND l.type IN ('table', 'virtual') AND l.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY l.name"""
_OF_EACH = "FROM pragma_table_list t JOIN {pragma} WHERE t.schema = 'main' AND t.type = 'table' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
_COLUMNS = (
    'SELECT t.name AS tbl, x.name, x.type, x."notnull", x.dflt_value, x.pk, x.hidden '
    + _OF_EACH.format(pragma="pragma_table_xinfo(t.name, 'main') x")
    + " ORDER BY t.name, x.cid"
)
_INDEXES = (
    'SELECT t.name AS tbl, i.name, i."unique", i.origin, i.partial, x.name AS column, x.coll '
    + _OF_EACH.format(pragma="pragma_index_list(t.name, 'main') i JOIN pragma_index_xinfo(i.name, 'main') x")
    + " AND x.key ORDER BY t.name, i.name, x.seqno"
)
_FOREIGN_KEYS = (
    'SELECT t.name AS tbl, f.id, f."table", f."from", f."to", f.on_update, f.on_delete, f."match" '
    + _OF_EACH.format(pragma="pragma_foreign_key_list(t.name, 'main') f")
    + " ORDER BY t.name, f.id DESC, f.seq"
)
_STATEMENTS = "SELECT tbl_name, type, name, sql FROM main.sqlite_master WHERE type IN ('index', 'trigger') AND sql IS NOT NULL ORDER BY name"

_parse_table = lru_cache(maxsize=1000)(parse_table)


def tables(connection: Connection, control: Control, *, only: Collection[str] | None = None) -> list[Table]:
    """The user's tables, in a handful of statements for all of them.

    Views, temporary tables, attached files, the control tables and the shadow tables of virtual ones are no user tables.

    Args:
        connection: of the node.
        control: which tables are replstore's own.
        only: names of the tables to read; None reads all.

    Returns:
        In the order of their names.
    """
    rows = [row for row in _users(connection, control) if only is None or row["name"] in only]
    parts = {
        name: _by_table(_read(connection, query)) for name, query in {"columns": _COLUMNS, "indexes": _INDEXES, "foreign_keys": _FOREIGN_KEYS}.items()
    }
    statements = _by_table({**row, "tbl": row["tbl_name"]} for row in _read(connection, _STATEMENTS))
    keys = {name.lower(): _key(columns) for name, columns in parts["columns"].items()}
    names = {name.lower(): name for name in parts["columns"]}
    found = []
    for row in rows:
        if row["type"] == "virtual":
            found.append(Table(None, row["name"], (), (), kind="virtual"))
            continue
        each = {name: by_table[row["name"]] for name, by_table in parts.items()}
        text = _parse_table(row["sql"])
        references = _references(each["foreign_keys"], text.references, keys, names)
        found.append(_table(row, each, text, references, statements[row["name"]]))
    return found


def table_ids(connection: Connection, control: Control) -> list[str]:
    """See ``Database.table_ids``."""
    return [row["name"] for row in _users(connection, control)]


def _users(connection: Connection, control: Control) -> list[dict[str, Any]]:
    return [row for row in _read(connection, _TABLES) if not row["name"].startswith(control.prefix)]


def _read(connection: Connection, query: str) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.exec_driver_sql(query).mappings()]


def _by_table(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["tbl"]].append(row)
    return found


def _key(columns: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(row["name"] for row in sorted(columns, key=lambda row: int(row["pk"])) if row["pk"])


def _table(
    row: dict[str, Any],
    parts: dict[str, list[dict[str, Any]]],
    text: TableText,
    foreign_keys: tuple[ForeignKey, ...],
    statements: list[dict[str, Any]],
) -> Table:
    key = _key(parts["columns"])
    # the rowid itself is the key; a column that is declared INTEGER PRIMARY KEY DESC has an index instead, and admits NULL
    rowid = key if len(key) == 1 and not row["wr"] and not any(index["origin"] == "pk" for index in parts["indexes"]) else ()
    plain, partial, other = _unique(parts["indexes"], text)
    return Table(
        schema=None,
        name=row["name"],
        columns=tuple(_column(column, text, rowid) for column in parts["columns"]),
        key=key,
        options=tuple(name for name, on in (("without_rowid", row["wr"]), ("strict", row["strict"]), ("autoincrement", text.autoincrement)) if on),
        unique=plain,
        partial_unique=partial,
        expression_unique=other,
        constraints=tuple(
            sorted([*(f"{name}: {clause}" for name, column in text.columns.items() for clause in column.constraints), *text.constraints])
        ),
        indexes=tuple(each["sql"] for each in statements if each["type"] == "index"),
        foreign_keys=foreign_keys,
        triggers=tuple(
            (each["name"], each["sql"]) for each in statements if each["type"] == "trigger" and not each["name"].startswith(TRIGGER_PREFIX)
        ),
        sequences=(row["name"],) if text.autoincrement else (),
    )


def _column(row: dict[str, Any], text: TableText, rowid: tuple[str, ...]) -> Column:
    own = text.columns.get(row["name"])
    generated = {2: "virtual", 3: "stored"}.get(row["hidden"], "")
    collation = own.collation.upper() if own and own.collation else None
    return Column(
        name=row["name"],
        type=row["type"].upper().removesuffix("GENERATED ALWAYS").rstrip() if generated else row["type"].upper(),
        nullable=not row["notnull"] and row["name"] not in rowid,
        default=(own.expression if own else None) if generated else row["dflt_value"],
        generated=generated,
        collation=None if collation == "BINARY" else collation,
    )


def _unique(rows: list[dict[str, Any]], text: TableText) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """Columns of unique indexes other than the primary key's: whole ones, partial ones, and the names of those that equality doesn't decide."""
    plain: list[tuple[str, ...]] = []
    partial: list[tuple[str, ...]] = []
    other: list[str] = []
    indexes: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["unique"] and row["origin"] != "pk":
            indexes[row["name"]].append(row)
        elif row["unique"] and not _own_collation(row, text):
            other.append("the primary key")
    for name, parts in indexes.items():
        if not all(part["column"] is not None and _own_collation(part, text) for part in parts):
            other.append(name)
        else:
            (partial if parts[0]["partial"] else plain).append(tuple(part["column"] for part in parts))
    return tuple(plain), tuple(partial), tuple(other)


def _own_collation(part: dict[str, Any], text: TableText) -> bool:
    own = text.columns.get(part["column"])
    return str(part["coll"]).upper() == ((own and own.collation) or "BINARY").upper()


def _references(
    rows: list[dict[str, Any]], texts: tuple[Reference, ...], keys: dict[str, tuple[str, ...]], names: dict[str, str]
) -> tuple[ForeignKey, ...]:
    """The pragma numbers foreign keys from the last to the first of the text."""
    by_id: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_id[row["id"]].append(row)
    found = []
    for text, parts in zip(texts if len(texts) == len(by_id) else repeat(Reference("", "")), by_id.values(), strict=False):
        first = parts[0]
        columns = tuple(part["from"] for part in parts)
        to = tuple(part["to"] for part in parts) if first["to"] is not None else keys.get(first["table"].lower(), ())
        table = names.get(first["table"].lower(), first["table"])
        actions = [f"ON UPDATE {first['on_update']}", f"ON DELETE {first['on_delete']}"]
        words = [f"FOREIGN KEY ({quoted(columns)}) REFERENCES {quote(table)} ({quoted(to)})", *(each for each in actions if "NO ACTION" not in each)]
        if first["match"] != "NONE":
            words.append(f"MATCH {first['match']}")
        definition = " ".join([*words, *([text.deferred] if text.deferred else [])])
        found.append(ForeignKey(text.name, columns, table, to, definition))
    return tuple(found)


def refusal(table: Table) -> str | None:
    """Why a table can't be replicated by journal, as one sentence that says what to change; None when it can."""
    if table.kind == "virtual":
        return f"table {table.id} is a virtual table, which can't be replicated: leave it out, and fill it anew on each node"
    if not table.key:
        remedy = f"make a new table with PRIMARY KEY ({_candidate(table)}), copy the rows and rename it, since SQLite can't add a key to this one"
        return f"table {table.id} has no primary key: {remedy}"
    if len(table.key) > MAX_KEY_COLUMNS:
        return f"table {table.id} has a primary key of {len(table.key)} columns: at most {MAX_KEY_COLUMNS} can be replicated"
    nullable = [name for name in table.key if table.column(name).nullable]
    if nullable:
        columns = "column" if len(nullable) == 1 else "columns"
        return f"table {table.id} admits NULL in its primary key: declare the {columns} {', '.join(nullable)} NOT NULL"
    if mean := [name for name, statement in table.triggers if leaves_others_out(statement)]:
        return f"table {table.id} has a trigger whose RAISE(IGNORE) keeps the triggers that record changes from acting ({', '.join(mean)}): make it a BEFORE trigger"
    return None


def _candidate(table: Table) -> str:
    """The columns of a unique constraint that would do as a key, else an ellipsis."""
    required = {column.name for column in table.columns if not column.nullable}
    return next((quoted(columns) for columns in table.unique if required.issuperset(columns)), "…")
