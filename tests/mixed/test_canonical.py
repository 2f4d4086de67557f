"""The canonical texts that docs/types.md promises, value by value, on both nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from replstore import local
from replstore.databases.mixed.kinds import CannotCross
from replstore.databases.mixed.reading_sqlite import canonical
from replstore.databases.mixed.types import kind_of
from tests.fix_pairs import plain

DOCS = Path(__file__).parents[2] / "docs" / "types.md"
#: What the documents' row is called, PostgreSQL's type, what SQLite stores, what PostgreSQL is given, and the text.
EXAMPLES: list[tuple[str, str, Any, str, str]] = [
    ("whole numbers", "bigint", -42, "-42", "-42"),
    ("`boolean`", "boolean", 1, "true", "true"),
    ("`boolean`", "boolean", 0, "false", "false"),
    ("`numeric(p,s)`", "numeric(6,2)", 1.5, "1.5", "1.50"),
    ("`numeric(p,s)`", "numeric(6,2)", 0, "-0.00", "0.00"),
    ("`numeric(p,s)`", "numeric(15,0)", 999999999999999, "999999999999999", "999999999999999"),
    ("`double precision`", "double precision", 0.1, "0.1", "0.1"),
    ("`double precision`", "double precision", 1e16, "10000000000000000", "1e+16"),
    ("`double precision`", "double precision", float("inf"), "Infinity", "inf"),
    ("text, enumerations, JSON", "text", "a", "a", "a"),
    ("text, enumerations, JSON", "json", '{"a" : 1.0}', '{"a" : 1.0}', '{"a" : 1.0}'),
    ("`bytea`", "bytea", b"\x00\xff", "\\x00FF", "\\x00ff"),
    ("`uuid`", "uuid", "12345678123456781234567812345678", "{12345678-1234-5678-1234-567812345678}", "12345678-1234-5678-1234-567812345678"),
    ("`date`", "date", "2024-12-31", "2024-12-31", "2024-12-31"),
    ("`timestamp`", "timestamp without time zone", "2024-12-31 23:59:59", "2024-12-31 23:59:59", "2024-12-31 23:59:59.000000"),
    ("`timestamp`", "timestamp without time zone", "0001-01-01 00:00:00.5", "0001-01-01 00:00:00.5", "0001-01-01 00:00:00.500000"),
    (
        "`timestamp with time zone`",
        "timestamp with time zone",
        "2024-12-31 23:59:59.000",
        "2025-01-01 05:29:59+05:30",
        "2024-12-31 23:59:59.000000+00",
    ),
    ("`time`", "time without time zone", "23:59:59", "23:59:59", "23:59:59.000000"),
]


@pytest.mark.parametrize(("row", "type", "here", "there", "text"), EXAMPLES)
def test_a_value_has_one_text_on_both_nodes(postgresql_servers: local.PostgresPair, row: str, type: str, here: Any, there: str, text: str) -> None:
    kind = kind_of(type)
    assert kind is not None
    with plain(postgresql_servers.primary_url) as connection:
        ((value,),) = connection.execute(f"SELECT {kind.out('v')} FROM (SELECT %s::text::{type} AS v) q", (there,)).fetchall()
        if kind.in_keys:
            assert connection.execute(f"SELECT ({kind.text('v')})::text FROM (SELECT %s::text::{type} AS v) q", (there,)).fetchone() == (text,)
    assert kind.canonical(value) == canonical(here, kind) == text
    assert canonical(kind.to_sqlite(value), kind) == text
    assert f"\n| {row} |" in DOCS.read_text()


def test_the_documents_examples_are_among_them() -> None:
    table = DOCS.read_text().split("## How values are compared")[1]
    shown = {text for line in table.splitlines() if line.startswith("| ") for text in line.split("|")[3].replace("`", "").strip().split(", ")}
    assert shown - {"---", "example", ""} <= {text for *_, text in EXAMPLES}


def test_a_value_that_is_none_of_its_type_is_shown_as_what_it_is() -> None:
    kind = kind_of("integer")
    assert kind is not None
    assert canonical("twelve", kind) == "str: 'twelve'"
    with pytest.raises(CannotCross):
        kind.from_sqlite("twelve")
