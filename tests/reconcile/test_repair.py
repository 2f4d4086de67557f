"""A repair makes both nodes equal, and an undo brings back what was there."""

from __future__ import annotations

import pytest

from tests.fix_check import found
from tests.fix_repair import NODES, changed, filled, other, spoiled
from tests.fix_stores import Lab, insert


@pytest.mark.parametrize("writer", NODES)
@pytest.mark.parametrize("source", ["writer", "follower"])
def test_a_repair_makes_the_nodes_equal(lab: Lab, writer: str, source: str) -> None:
    store = filled(lab, writer)
    spoiled(lab, other(writer))
    right = lab.accounts(writer if source == "writer" else other(writer))
    done = store.repair(source="writer" if source == "writer" else other(writer), dry_run=False)  # type: ignore[arg-type]
    assert (done.applied, done.complete, done.left) == (True, True, ())
    if source == "writer":
        assert changed(done) == {(other(writer), "[5]", "update"), (other(writer), "[7]", "insert"), (other(writer), "[100]", "delete")}
    else:
        assert changed(done) == {(writer, "[5]", "update"), (writer, "[7]", "delete"), (writer, "[100]", "insert")}
    report = store.check()
    assert report.equal, report.as_dict()
    assert report.waiting == 0
    assert lab.accounts(writer) == lab.accounts(other(writer)) == right
    with pytest.raises(Exception, match="is not the writer"):  # the guard is closed again
        lab.sql(other(writer), insert(200))
    lab.sql(writer, insert(201))  # and what others write on the writer is captured
    store.sync()
    assert 201 in lab.accounts(other(writer))


def test_a_plan_changes_nothing(lab: Lab) -> None:
    store = filled(lab)
    spoiled(lab, "standby")
    before = [lab.accounts(node) for node in NODES]
    plan = store.repair()
    assert (plan.applied, plan.complete, plan.id, plan.done) == (False, False, None, ())
    assert {(change.key, change.what, change.columns) for change in plan.plan.changes} == {
        ("[5]", "update", ("amount",)),
        ("[7]", "insert", ()),
        ("[100]", "delete", ()),
    }
    assert [lab.accounts(node) for node in NODES] == before
    assert store.repairs() == []


@pytest.mark.parametrize("source", ["primary", "standby"])
def test_an_undo_brings_back_each_row_where_it_was(lab: Lab, source: str) -> None:
    store = filled(lab)
    spoiled(lab, "standby")
    wrong = other(source)
    before = lab.accounts(wrong)
    done = store.repair(source=source, dry_run=False)  # type: ignore[arg-type]
    assert lab.accounts(wrong) != before
    (kept,) = store.repairs()
    assert (kept.id, kept.node, kept.source, kept.rows, kept.undone) == (done.id, wrong, source, 3, 0)

    undone = store.undo_repair(kept.id[:8])
    assert (undone.left, len(undone.done)) == ((), 3)
    assert lab.accounts(wrong) == before
    if wrong == "primary":  # the writer's rows are shipped
        assert store.check().equal
    else:
        assert sorted(found(store.check(), "account")) == [
            ((5,), "changed", ("amount",)),
            ((7,), "missing_on_standby", ()),
            ((100,), "missing_on_primary", ()),
        ]
    assert [each.undone for each in store.repairs()] == [3]
