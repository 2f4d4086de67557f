"""What the check says of nodes that are lost, strangers, or not what they should be."""

from __future__ import annotations

import pytest

from replstore.errors import CannotCheck, NotAPair
from tests.fix_check import fill, found
from tests.fix_stores import Lab, insert

NODES = ("primary", "standby")


@pytest.mark.parametrize("node", NODES)
def test_a_check_needs_both_nodes(lab: Lab, node: str) -> None:
    store = lab.migrated(background=False)
    lab.kill(node)
    with pytest.raises(CannotCheck, match=f"a check reads both nodes; {node}: "):
        store.check()


def test_a_node_without_control_tables_is_named(lab: Lab) -> None:
    store = lab.migrated(background=False)
    if lab.postgresql:
        lab.sql("standby", "DROP SCHEMA replstore CASCADE")
    else:
        lab.sql("standby", "DROP TABLE replstore_role")
    with pytest.raises(CannotCheck, match="standby: it has no replstore control tables: run `replstore migrate`"):
        store.check()


def test_nodes_of_different_pairs_are_refused(lab: Lab) -> None:
    store = lab.migrated(background=False)
    lab.sql("standby", f"UPDATE {lab.name('node')} SET pair = 'another'")
    with pytest.raises((NotAPair, CannotCheck), match=r"different pairs|another pair"):
        store.check()


def test_a_node_that_is_lost_while_it_is_read_is_named(postgresql_lab: Lab) -> None:
    store = postgresql_lab.migrated(background=False)
    fill(store, range(5))

    def cut(name: str, rows: int) -> None:
        postgresql_lab.sql(
            "standby", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'replstore service' AND state <> 'active'"
        )

    with pytest.raises(CannotCheck, match="standby can't be read: "):
        store.check(progress=cut)


def test_nodes_of_different_terms_are_compared_as_they_are(lab: Lab) -> None:
    store = lab.migrated(background=False)
    fill(store, range(3))
    lab.sql("primary", insert(7))
    lab.sql("standby", f"UPDATE {lab.name('role')} SET term_uuid = 'another'")
    report = store.check()
    assert not report.exact
    assert found(report, "account") == [((7,), "missing_on_standby", ())]


def test_two_followers_are_compared_as_they_are(lab: Lab) -> None:
    store = lab.migrated(background=False)
    fill(store, range(3))
    lab.sql("primary", f"UPDATE {lab.name('role')} SET role = 'follower'")
    report = store.check()
    assert (report.equal, report.exact, report.writer) == (True, False, None)
    assert any("neither node is the writer" in note for note in report.notes)


def test_a_half_done_migration_is_told(lab: Lab) -> None:
    store = lab.migrated(background=False)
    lab.sql("primary", f"UPDATE {lab.name('schema_no')} SET no = no + 1")
    assert any("nothing is shipped until `replstore migrate` was run" in note for note in store.check().notes)
