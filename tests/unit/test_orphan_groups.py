"""Which orphans belong together, from the records alone."""

from __future__ import annotations

from typing import Any

from replstore.replication.journal.groups import Change, Group, Record, State, groups, merged


def record(key: str, *places: int, table: str = "t", term: int = 1, state: State = State.OPEN) -> Record:
    changes = tuple(Change(place, f"tx{place}") for place in places)
    facts: dict[str, Any] = dict.fromkeys(("former_row", "writer_row", "common", "common_term", "touched", "shape", "decided_at", "reason"))
    return Record(id=f"{table}{term}{key}", node="primary", term_no=term, table=table, key=key, changes=changes, state=state, **facts)


def members(found: list[Group]) -> list[list[str]]:
    return [sorted(each.key for each in group.records) for group in found]


def test_a_shared_row_joins_and_so_does_a_row_of_one_that_is_joined() -> None:
    assert members(groups([record("a", 1), record("b", 1, 2), record("c", 2), record("d", 3)])) == [["a", "b", "c"], ["d"]]


def test_groups_come_in_the_order_of_their_first_transactions() -> None:
    assert members(groups([record("a", 7), record("b", 5, 9), record("c", 6)])) == [["b"], ["c"], ["a"]]


def test_an_emptied_table_joins_all_that_changed_it_and_no_other_table() -> None:
    found = groups([record("*", 2), record("a", 1), record("b", 3), record("a", 4, table="u")])
    assert [sorted((each.table, each.key) for each in group.records) for group in found] == [[("t", "*"), ("t", "a"), ("t", "b")], [("u", "a")]]


def test_rows_without_a_known_transaction_stay_apart_and_come_last() -> None:
    assert members(groups([record("a"), record("b"), record("c", 1)])) == [["c"], ["a"], ["b"]]


def test_what_another_node_or_term_committed_is_another_history() -> None:
    found = groups([record("a", 1), record("a", 1, term=3)])
    assert [group.history for group in found] == [(1, "primary"), (3, "primary")]
    assert merged(found) == found


def test_groups_that_lie_between_one_another_are_merged_in_strict_order() -> None:
    found = groups([record("a", 1, 5), record("b", 3), record("c", 6), record("d", 7, 8)])
    assert members(merged(found)) == [["a", "b"], ["c"], ["d"]]


def test_the_transactions_of_a_group_come_in_commit_order() -> None:
    (group,) = groups([record("a", 2, 9), record("b", 9, 4)])
    assert [change.place for change in group.changes] == [2, 4, 9]
    assert group.ids == ("tx2", "tx4", "tx9")


def test_a_group_is_discarded_if_a_part_of_it_is_and_replayed_if_all_of_it_is() -> None:
    (group,) = groups([record("a", 1, state=State.REPLAYED), record("b", 1)])
    assert group.state is State.OPEN
    assert group.now({"t1b": State.REPLAYED}) is State.REPLAYED
    assert group.now({"t1b": State.DISCARDED}) is State.DISCARDED
