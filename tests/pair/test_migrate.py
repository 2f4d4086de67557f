"""Migrations of a pair, on two SQLite files and on two PostgreSQL servers."""

from __future__ import annotations

from sqlalchemy import text

from tests.fix_stores import Lab, put


def test_metadata_makes_a_pair_of_two_empty_databases(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1, 10))
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 10}
    with store.read() as session:
        assert session.execute(text("SELECT owner FROM account")).scalars().all() == ["owner 1"]
