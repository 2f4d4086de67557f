"""For tests of the check: differences seeded behind the guard, and short forms of what a report says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

from replstore.node import Node
from replstore.reconcile.report import Report, TableReport
from replstore.store import Store
from tests.fix_stores import Lab, put

#: Keys of every storage class.
SQLITE_KEYS = [
    "1",
    "'1'",
    "x'31'",
    "1.5",
    "-1",
    "''",
    "x''",
    "'é'",
    "'z'",
    "'Z'",
    "9e999",
    "-9e999",
    "9223372036854775807",
    "CAST(x'ff' AS TEXT)",
    "'a' || char(0)",
]
#: SQLite keeps a value's storage class beside it, in a column without a type exactly as it was written.
SQLITE_VALUES = [
    ("1", "'1'"),
    ("1", "1.0"),
    ("1", "x'31'"),
    ("'1'", "x'31'"),
    ("'1'", "1.0"),
    ("1.0", "x'312e30'"),
    ("0.0", "-0.0"),
    ("0.1", "0.10000000000000002"),
    ("9e999", "-9e999"),
    ("9223372036854775807", "9.223372036854775807e18"),
    ("NULL", "''"),
    ("NULL", "'NULL'"),
    ("''", "x''"),
    ("'a'", "'a' || char(0)"),
    ("'a' || char(0) || 'b'", "'a' || char(0) || 'c'"),
    ("'a'", "'A'"),
    ("'a'", "'a '"),
    ("CAST(x'ff' AS TEXT)", "CAST(x'fe' AS TEXT)"),
    ("CAST(x'ff' AS TEXT)", "x'ff'"),
    ("'é'", "'e\u0301'"),
]


def adopted(lab: Lab, *tables: str, **settings: Any) -> Store:
    """A pair made of tables that the primary already has; without background threads."""
    lab.sql("primary", *tables)
    store = lab.store(background=False, **settings)
    store.migrate()
    return store


def statements(script: str) -> list[str]:
    """A script's statements, of which each ends with its line."""
    return [statement for line in script.split(";\n") if (statement := line.strip())]


def fill(store: Store, ids: range) -> None:
    """Accounts with these ids, in one transaction."""
    with store.begin() as session:
        for id in ids:
            put(id)(session)


def behind_the_guard(lab: Lab, node: str, *statements: str) -> None:
    """Executes statements in one transaction that neither the guard nor the capture of this node sees."""
    connection = lab.connect(node)
    if lab.postgresql:
        connection.execute("SET LOCAL replstore.mark = 'apply'")
    else:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE replstore_mark SET mark = 'apply'")
    for statement in statements:
        connection.execute(statement)
    if not lab.postgresql:
        connection.execute("UPDATE replstore_mark SET mark = NULL")
    connection.commit()
    connection.close()


def table(report: Report, name: str) -> TableReport:
    """The part of a report that is about a table."""
    (found,) = (each for each in report.tables if each.name in (name, f"public.{name}", f"replstore.{name}", f"replstore_{name}"))
    return found


def found(report: Report, name: str) -> list[tuple[tuple[Any, ...], str, tuple[str, ...]]]:
    """The differences of a table: the key's values, the kind, the columns."""
    return [(tuple(each.key.values()), each.kind, each.columns) for each in table(report, name).differences]


@contextmanager
def between_the_snapshots(store: Store, act: Callable[[], None]) -> Iterator[list[str]]:
    """Does something once the first node's snapshot is open and before the second one's is; yields the order in which they were opened."""
    opened: list[str] = []

    def watched(node: Node) -> Callable[[], Any]:
        real = node.snapshot

        @contextmanager
        def snapshot() -> Iterator[Connection]:
            if len(opened) == 1:
                act()
            opened.append(node.name)
            with real() as connection:
                yield connection

        return snapshot

    for node in store.pair.nodes.values():
        node.snapshot = watched(node)  # type: ignore[method-assign]
    try:
        yield opened
    finally:
        for node in store.pair.nodes.values():
            del node.snapshot
