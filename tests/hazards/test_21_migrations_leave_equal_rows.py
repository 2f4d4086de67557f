"""Hazard 21: what a user's migration does to rows runs on both nodes, and the writer's rows are those of both afterwards."""

from __future__ import annotations

from tests.fix_stores import Lab, insert


def test_a_node_that_other_programs_wrote_to_is_adopted_with_its_rows(lab: Lab) -> None:
    lab.sql("primary", "CREATE TABLE account (id integer PRIMARY KEY NOT NULL, owner text, amount integer)", insert(1, 5))
    lab.store(background=False).migrate()
    assert lab.accounts("standby") == {1: 5}
