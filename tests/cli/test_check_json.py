"""docs/check.schema.json is what the command prints: every field of it is documented, and every documented field is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.fix_command import Run
from tests.fix_check import behind_the_guard
from tests.fix_reconcile import Two
from tests.fix_stores import Lab, insert
from tests.json_schema import faults

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA: dict[str, Any] = json.loads((DOCS / "check.schema.json").read_text())


def printed(run: Run, *arguments: str) -> dict[str, Any]:
    done = run("check", *arguments, "--format", "json")
    assert done.returncode in (0, 1), done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def test_a_pair_s_report_is_as_documented(lab: Lab, run: Run) -> None:
    store = lab.migrated(background=False, detection_time=1.5)
    for id in range(5):
        lab.sql("primary", insert(id))
    store.sync()
    urls = ("--primary", lab.pair.primary_url, "--standby", lab.pair.standby_url)
    assert list(faults(printed(run, *urls), SCHEMA)) == []
    behind_the_guard(lab, "standby", "UPDATE account SET amount = 77 WHERE id = 2", "DELETE FROM account WHERE id = 3")
    behind_the_guard(lab, "primary", "DELETE FROM account WHERE id = 4")
    lab.sql("standby", "CREATE TABLE extra (id INTEGER PRIMARY KEY)")
    facts = printed(run, *urls)
    assert list(faults(facts, SCHEMA)) == []
    assert {each["kind"] for table in facts["tables"] for each in table["differences"]} == {"changed", "missing_on_standby", "missing_on_primary"}
    assert facts["schema"]


def test_a_report_of_any_two_databases_is_as_documented(two: Two, run: Run) -> None:
    binary = "bytea" if two.urls["primary"].startswith("postgresql") else "blob"
    hexadecimal = "'\\x00ff'" if binary == "bytea" else "x'00ff'"
    two.both(
        f"CREATE TABLE a (k {binary} PRIMARY KEY, v text)", f"INSERT INTO a VALUES ({hexadecimal}, 'x')",
        "CREATE TABLE b (k double precision, l text, v int, PRIMARY KEY (k, l))", "INSERT INTO b VALUES (0.1, 'x', 1), (1e300, 'y', NULL)",
        "CREATE TABLE c (v int)", "INSERT INTO c VALUES (1), (NULL)",
    )  # fmt: skip
    two.sql("primary", "CREATE TABLE d (k int PRIMARY KEY, v text)")
    two.sql("standby", "CREATE TABLE d (k text PRIMARY KEY, v text)", "UPDATE a SET v = 'y'", "UPDATE b SET v = 2", "DELETE FROM c WHERE v = 1")
    facts = printed(run, *two.urls.values(), "--settle", "0")
    assert list(faults(facts, SCHEMA)) == []
    assert [table["total"] for table in facts["tables"]] == [1, 2, 1, 0]
    assert facts["urls"].keys() == {"primary", "standby"}


def test_the_example_in_the_docs_is_as_documented() -> None:
    text = (DOCS / "check.md").read_text()
    example = text.partition("```json\n")[2].partition("```")[0]
    assert list(faults(json.loads(example), SCHEMA)) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda facts: facts.pop("equal"), "$.equal: missing"),
        (lambda facts: facts.update(equal="yes"), "$.equal: 'yes' is no boolean"),
        (lambda facts: facts.update(new=1), "$.new: not documented"),
        (lambda facts: facts["tables"][0].update(total=True), "$.tables[0].total: True is no integer"),
        (lambda facts: facts["tables"][0]["differences"][0].update(kind="other"), "$.tables[0].differences[0].kind: 'other' is none of"),
        (lambda facts: facts["tables"][0]["differences"][0]["key"].update(id=[]), "$.tables[0].differences[0].key.id: [] is none of several"),
        (lambda facts: facts["tables"][0]["map"]["ranges"][0].pop("low"), "$.tables[0].map: "),
    ],
)
def test_what_is_not_as_documented_is_found(change: Any, fault: str) -> None:
    text = (DOCS / "check.md").read_text()
    facts = json.loads(text.partition("```json\n")[2].partition("```")[0])
    change(facts)
    assert [each for each in faults(facts, SCHEMA) if each.startswith(fault)]
