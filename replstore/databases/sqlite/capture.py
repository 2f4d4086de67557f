"""What runs inside SQLite: journal, marker, mark, guard and the triggers that capture which keys changed.

- The **journal** has one row per changed key, the key in native columns (``json_array`` would mangle blobs, -0.0 and infinities, HAZARDS 18), numbered
  by AUTOINCREMENT, which never gives a number twice.  SQLite has one writer, so a number is a position.  No key at all: the whole table.
- The **guard** reads the role row: a snapshot older than a flip can't write (BUSY_SNAPSHOT).
- The **mark** is a row that the shipper sets and clears inside its own transaction: nobody else ever sees it, a crash rolls it back.
- REPLACE deletes rows without firing a delete trigger, so BEFORE triggers journal the rows that stand in the way on every unique index (HAZARDS 8).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256

from replstore.databases.catalog import Column, Table

KEYS = 16
MARK = "(SELECT mark FROM replstore_mark)"
#: The journal's name for the marker table: markers travel by the journal too.
MARKER = "replstore_marker"
_LITERAL = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?""")

CONTROL_STATEMENTS = [
    f"CREATE TABLE replstore_journal (seq INTEGER PRIMARY KEY AUTOINCREMENT, tbl TEXT NOT NULL, {', '.join(f'k{n}' for n in range(1, KEYS + 1))})",
    """CREATE TABLE replstore_marker (
        id TEXT NOT NULL PRIMARY KEY, key TEXT UNIQUE, fn TEXT, outcome TEXT NOT NULL CHECK (outcome IN ('committed', 'lost')), result TEXT,
        durability TEXT NOT NULL, term_no INTEGER NOT NULL, at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))) WITHOUT ROWID""",
    "CREATE TABLE replstore_mark (id INTEGER PRIMARY KEY CHECK (id = 1), mark TEXT)",
    "INSERT INTO replstore_mark (id, mark) VALUES (1, NULL)",
    f"""CREATE TRIGGER replstore_guard_marker BEFORE INSERT ON replstore_marker WHEN {MARK} IS NULL
        AND NOT EXISTS (SELECT 1 FROM replstore_role WHERE role = 'writer' AND term_no = NEW.term_no)
        BEGIN SELECT RAISE(ABORT, 'replstore: this node is not the writer of that term'); END""",
    f"""CREATE TRIGGER replstore_capture_marker_insert AFTER INSERT ON replstore_marker WHEN {MARK} IS NOT 'apply'
        BEGIN INSERT INTO replstore_journal (tbl, k1) VALUES ('{MARKER}', NEW.id); END""",
    f"""CREATE TRIGGER replstore_capture_marker_update AFTER UPDATE ON replstore_marker WHEN {MARK} IS NOT 'apply'
        BEGIN INSERT INTO replstore_journal (tbl, k1) VALUES ('{MARKER}', NEW.id); END""",
]


def quote(name: str) -> str:
    """An identifier, quoted."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A string literal."""
    return "'" + value.replace("'", "''") + "'"


def trigger_name(table: Table, what: str) -> str:
    """A trigger's name: it begins with ``replstore_`` and is the table's own."""
    return f"replstore_{what}_{sha256(table.id.encode()).hexdigest()[:16]}"


def install_statements(table: Table) -> list[str]:
    """The statements that put guard and capture on a table, replacing older ones."""
    name = quote(table.name)
    into = f"INSERT INTO replstore_journal (tbl, {', '.join(f'k{n}' for n in range(1, len(table.key) + 1))})"
    refused = text(f"replstore: this node is not the writer, table {table.name} can't be changed here")
    capture = f"WHEN {MARK} IS NOT 'apply'"

    def key(row: str) -> str:
        return ", ".join(f"{row}.{quote(column)}" for column in table.key)

    def same_key(a: str, b: str) -> str:
        return " AND ".join(f"{a}.{quote(column)} IS {b}.{quote(column)}" for column in table.key)

    def in_the_way(besides: str) -> str:
        # before an insert NEW has no key yet where SQLite gives it, so there a row of the same key is not left out
        others = f" AND NOT ({same_key('t', besides)})" if besides else ""
        return "".join(f"{into} SELECT {text(table.id)}, {key('t')} FROM {name} t WHERE {match}{others};\n" for match in _conflicts(table))

    bodies = {
        "insert": f"{into} VALUES ({text(table.id)}, {key('NEW')});",
        "update": f"{into} VALUES ({text(table.id)}, {key('NEW')}); {into} SELECT {text(table.id)}, {key('OLD')} WHERE NOT ({same_key('OLD', 'NEW')});",
        "delete": f"{into} VALUES ({text(table.id)}, {key('OLD')});",
    }
    statements = remove_statements(table)
    for event, body in bodies.items():
        statements.append(
            f"CREATE TRIGGER {trigger_name(table, f'guard_{event}')} BEFORE {event.upper()} ON {name} "
            f"WHEN {MARK} IS NULL AND NOT EXISTS (SELECT 1 FROM replstore_role WHERE role = 'writer') BEGIN SELECT RAISE(ABORT, {refused}); END"
        )
        statements.append(f"CREATE TRIGGER {trigger_name(table, f'capture_{event}')} AFTER {event.upper()} ON {name} {capture} BEGIN {body} END")
        if event != "delete" and (replaced := in_the_way("OLD" if event == "update" else "")):
            statements.append(
                f"CREATE TRIGGER {trigger_name(table, f'replace_{event}')} BEFORE {event.upper()} ON {name} {capture} BEGIN {replaced} END"
            )
    return statements


def _conflicts(table: Table) -> Iterator[str]:
    """Conditions under which REPLACE deletes a row t because of NEW, one for each unique index, and one for the rowid where the key is another."""
    for columns in (*table.unique, *table.partial_unique):
        if tuple(columns) != table.key:
            yield " AND ".join(f"t.{quote(column)} = {_new(table.column(column))}" for column in columns)
    names = {column.name.lower() for column in table.columns}
    rowid = next((name for name in ("rowid", "oid", "_rowid_") if name not in names), None)
    is_key = len(table.key) == 1 and table.column(table.key[0]).type == "INTEGER"
    if rowid is not None and not is_key and "without_rowid" not in table.options:
        yield f"t.{rowid} = NEW.{rowid}"


def _new(column: Column) -> str:
    """A new value as the index will have it: OR REPLACE puts the default where NOT NULL forbids NULL."""
    value = f"NEW.{quote(column.name)}"
    if column.nullable or column.default is None or not _LITERAL.fullmatch(column.default):
        return value
    literal = text(column.default[1:-1].replace('""', '"')) if column.default.startswith('"') else column.default
    return f"coalesce({value}, {literal})"


def remove_statements(table: Table) -> list[str]:
    """The statements that take guard and capture off a table again."""
    # "check" is on tables beside PostgreSQL only (databases/mixed); it goes when they have another partner
    kinds = [f"{kind}_{event}" for event in ("insert", "update", "delete") for kind in ("guard", "capture", "replace", "check")]
    return [f"DROP TRIGGER IF EXISTS {trigger_name(table, kind)}" for kind in kinds]
