"""The check finds every difference that was put between two real nodes, and none that wasn't."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from replstore.errors import ConfigError
from replstore.pair.decide import Term
from replstore.pair.rejoin import fence_former
from replstore.store import Store
from tests.fix_check import adopted, behind_the_guard, fill, found, table
from tests.fix_stores import FamilyBase, Lab, insert, put, until

NODES = ("primary", "standby")


def other(node: str) -> str:
    return "standby" if node == "primary" else "primary"


# -- equal


def test_a_pair_that_only_replstore_has_written_to_is_equal(lab: Lab) -> None:
    store = lab.migrated(background=False)
    fill(store, range(50))
    with store.begin() as session:
        session.execute(text("UPDATE account SET amount = 7 WHERE id < 10"))
        session.execute(text("DELETE FROM account WHERE id > 40"))
    report = store.check()
    assert report.equal
    assert (report.writer, report.exact, report.notes) == ("primary", True, ())
    assert (table(report, "account").primary, table(report, "account").standby) == (41, 41)
    assert report.waiting == report.total == 0


def test_an_empty_pair_is_equal(lab: Lab) -> None:
    report = lab.migrated(background=False).check()
    assert report.equal
    assert [(each.primary, each.standby) for each in report.tables] == [(0, 0), (0, 0)]


# -- every kind of difference, on either node


@pytest.mark.parametrize("node", NODES)
def test_a_row_that_one_node_lacks_is_found(lab: Lab, node: str) -> None:
    store = lab.migrated(background=False)
    fill(store, range(20))
    behind_the_guard(lab, node, "DELETE FROM account WHERE id IN (3, 11)")
    report = store.check()
    assert not report.equal
    assert sorted(found(report, "account")) == [((id,), f"missing_on_{node}", ()) for id in (3, 11)]
    assert {"primary": table(report, "account").primary, "standby": table(report, "account").standby} == {node: 18, other(node): 20}
    first = table(report, "account").differences[0]
    present = {"primary": first.primary, "standby": first.standby}
    assert present[node] is None
    assert present[other(node)] is not None
    assert present[other(node)].keys() == {"id", "owner", "amount"}  # type: ignore[union-attr]


@pytest.mark.parametrize("node", NODES)
def test_a_changed_row_is_found_with_the_columns_that_differ_and_both_values(lab: Lab, node: str) -> None:
    store = lab.migrated(background=False)
    fill(store, range(20))
    behind_the_guard(lab, node, "UPDATE account SET amount = 99 WHERE id = 5")
    report = store.check()
    (difference,) = table(report, "account").differences
    assert (difference.key, difference.kind, difference.columns) == ({"id": 5}, "changed", ("amount",))
    values = {"primary": difference.primary, "standby": difference.standby}
    assert values == {node: {"amount": "99"}, other(node): {"amount": "0"}}
    assert (difference.cause, difference.tx) == (None, None)


@pytest.mark.parametrize("node", NODES)
def test_every_difference_among_many_rows_is_found(lab: Lab, node: str) -> None:
    store = lab.migrated(background=False)
    fill(store, range(300))
    behind_the_guard(
        lab,
        node,
        "UPDATE account SET amount = -1, owner = 'x' || owner WHERE id % 50 = 1",
        "DELETE FROM account WHERE id % 50 = 2",
        *(insert(id) for id in (1000, 1001)),
    )
    report = store.check()
    expected = [((id,), "changed", ("owner", "amount")) for id in range(1, 300, 50)]
    expected += [((id,), f"missing_on_{node}", ()) for id in range(2, 300, 50)]
    expected += [((id,), f"missing_on_{other(node)}", ()) for id in (1000, 1001)]
    assert sorted(found(report, "account")) == sorted(expected)
    assert table(report, "account").total == len(expected)


def test_differences_that_the_limit_leaves_out_are_counted(lab: Lab) -> None:
    store = lab.migrated(background=False)
    fill(store, range(20))
    behind_the_guard(lab, "standby", "DELETE FROM account WHERE id < 12")
    report = store.check(limit=5)
    assert (len(table(report, "account").differences), table(report, "account").total) == (5, 12)
    assert store.check(limit=0).total == 12
    with pytest.raises(ConfigError, match="limit"):
        store.check(limit=-1)


COMPOSITE = {
    "sqlite": ("CREATE TABLE part (a TEXT NOT NULL, b INTEGER NOT NULL, v TEXT, PRIMARY KEY (b, a))",),
    "postgresql": ("CREATE TABLE part (a text, b int, v text, PRIMARY KEY (b, a))",),
}


@pytest.mark.parametrize("node", NODES)
def test_a_composite_key_is_named_by_its_columns(lab: Lab, node: str) -> None:
    store = adopted(lab, *COMPOSITE["postgresql" if lab.postgresql else "sqlite"])
    with store.begin() as session:
        for a, b in itertools.product(("", "ä", "a'b", 'a"b', "Z", "a"), range(3)):
            session.execute(text("INSERT INTO part VALUES (:a, :b, 'v')"), {"a": a, "b": b})
    assert store.check().equal
    behind_the_guard(lab, node, "UPDATE part SET v = NULL WHERE a = 'ä' AND b = 2", "DELETE FROM part WHERE a = 'a''b' AND b = 0")
    report = store.check()
    kinds = {(each.key["b"], each.key["a"]): each.kind for each in table(report, "part").differences}
    assert kinds == {(2, "ä"): "changed", (0, "a'b"): f"missing_on_{node}"}
    changed = next(each for each in table(report, "part").differences if each.kind == "changed")
    assert {"primary": changed.primary, "standby": changed.standby}[node] == {"v": None}


# -- what is on its way


def test_rows_on_their_way_are_no_differences(lab: Lab) -> None:
    store = lab.migrated(background=False, durability="async")
    fill(store, range(10))
    lab.ship()
    for id in range(10, 15):
        store.run(put(id))
    with store.begin() as session:
        session.execute(text("UPDATE account SET amount = 1 WHERE id IN (1, 2)"))
        session.execute(text("DELETE FROM account WHERE id = 3"))
    report = store.check()
    assert report.equal
    assert report.exact
    assert table(report, "account").waiting == 5 + 2 + 1
    assert (table(report, "account").primary, table(report, "account").standby) == (14, 10)
    lab.ship()
    report = store.check()
    assert (report.equal, report.waiting) == (True, 0)


def test_a_difference_beside_rows_on_their_way_is_found(lab: Lab) -> None:
    store = lab.migrated(background=False, durability="async")
    fill(store, range(10))
    lab.ship()
    store.run(put(4, 44))
    behind_the_guard(lab, "standby", "UPDATE account SET amount = 55 WHERE id = 5")
    behind_the_guard(lab, "primary", "UPDATE account SET amount = 66 WHERE id = 6")
    report = store.check()
    assert sorted(found(report, "account")) == [((5,), "changed", ("amount",)), ((6,), "changed", ("amount",))]
    assert report.waiting == 1


def test_everything_is_on_its_way_to_a_follower_that_was_never_shipped_to(lab: Lab) -> None:
    store = lab.migrated(background=False, durability="async")
    fill(store, range(5))
    lab.sql("standby", f"DELETE FROM {lab.name('position')}")
    report = store.check()
    assert (report.equal, report.exact, report.waiting) == (True, True, 5)


def test_a_truncated_table_is_on_its_way_as_a_whole(postgresql_lab: Lab) -> None:
    store = postgresql_lab.migrated(background=False, durability="async")
    fill(store, range(5))
    postgresql_lab.ship()
    with store.begin() as session:
        session.execute(text("TRUNCATE account"))
        put(7)(session)
    report = store.check()
    assert (report.equal, report.waiting) == (True, 6)


def test_a_table_that_is_being_copied_is_on_its_way_as_a_whole(lab: Lab) -> None:
    store = lab.migrated(background=False)
    fill(store, range(5))
    copying = json.dumps({table(store.check(), "account").name: None})
    lab.sql(
        "standby",
        f"UPDATE {lab.name('position')} SET copying = (1 = 1)",
        f"UPDATE {lab.name('setting')} SET value = '{copying}' WHERE name = 'copying'",
    )
    behind_the_guard(lab, "standby", "DELETE FROM account")
    report = store.check()
    assert (report.equal, report.waiting) == (True, 5)
    assert "standby is being copied" in report.notes


@contextlib.contextmanager
def load(store: Store, ids: range) -> Iterator[list[int]]:
    """Threads that insert, change and delete these rows all the time, each its own; yields how many transactions each has done."""
    stop = threading.Event()
    done = [0, 0]
    failed: list[BaseException] = []

    def write(number: int) -> None:
        mine = ids[number :: len(done)]
        try:
            for round in itertools.count():
                if stop.is_set():
                    return
                id = mine[round * 7 % len(mine)]
                if round % 5 == 4:
                    store.run(lambda session, id=id: session.execute(text("DELETE FROM account WHERE id = :id"), {"id": id}) and None)
                else:
                    store.run(put(id, round))
                done[number] += 1
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,), name=f"load {number}") for number in range(len(done))]
    for thread in threads:
        thread.start()
    try:
        yield done
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed, failed


@pytest.mark.parametrize("durability", ["async", "replicated"])
def test_no_false_alarm_and_no_missed_difference_while_writes_go_on(lab: Lab, durability: str) -> None:
    store = lab.migrated(durability=durability, ack_timeout=10.0)
    fill(store, range(1000, 1100))
    store.sync()
    with load(store, range(100)) as done:
        until(lambda: min(done) > 5, "both threads write")
        waiting = 0
        for _ in range(20):
            report = store.check()
            assert report.equal, report.as_dict()
            assert report.exact
            waiting += report.waiting
        behind_the_guard(lab, "standby", "UPDATE account SET amount = -5 WHERE id = 1050")
        before = list(done)
        for _ in range(3):
            assert found(store.check(), "account") == [((1050,), "changed", ("amount",))]
        until(lambda: all(now > then for now, then in zip(done, before, strict=True)), "both threads still write")
    store.sync()
    report = store.check()
    assert found(report, "account") == [((1050,), "changed", ("amount",))]
    assert report.waiting == 0


# -- which node writes


def test_the_check_works_whichever_node_writes(lab: Lab) -> None:
    store = lab.migrated(background=False)
    fill(store, range(10))
    store.switchover()
    store.sync()
    fill(store, range(10, 15))
    report = store.check()
    assert (report.equal, report.writer, report.exact) == (True, "standby", True)
    lab.sql("standby", insert(100))  # on its way to the primary
    behind_the_guard(lab, "primary", "DELETE FROM account WHERE id = 4")
    report = store.check()
    assert found(report, "account") == [((4,), "missing_on_primary", ())]
    assert report.waiting == 1


def test_a_former_writer_is_compared_as_it_is_and_its_orphans_are_named(lab: Lab) -> None:
    store = lab.migrated(background=False, durability="async", rejoin="manual")
    fill(store, range(5))
    lab.ship()
    store.run(put(3, 33))  # never shipped
    (tx,) = set(lab.markers("primary")) - set(lab.markers("standby"))
    lab.kill("primary")
    store.run(put(4, 44))
    lab.start("primary")
    report = store.check()
    assert report.writer == "standby"
    assert not report.exact
    causes = {each.key["id"]: (each.cause, each.tx) for each in table(report, "account").differences}
    assert causes == {3: ("orphan", tx), 4: (None, None)}
    assert any(note.startswith("both nodes say that they are the writer, standby under term 2, primary under term 1: ") for note in report.notes)
    ahead = lab.state("standby")
    fence_former(lab.nodes["primary"], Term(ahead.term_no, ahead.term_uuid))
    fenced = store.check()
    assert any(note.startswith("primary is a former writer that waits to rejoin: they were compared as they are") for note in fenced.notes)
    assert fenced.tables == report.tables
    store.rejoin()
    store.sync()
    report = store.check()
    assert report.equal
    assert (table(report, "orphan").primary, table(report, "orphan").standby) == (1, 1)


def test_a_difference_under_the_key_of_a_recorded_orphan_names_its_transaction(lab: Lab) -> None:
    store = lab.migrated(background=False)
    fill(store, range(5))
    name = table(store.check(), "account").name
    columns = "id, node, term_no, tx, maybe_acknowledged, tbl, key, recorded_at"
    lab.sql("primary", f"INSERT INTO {lab.name('orphan')} ({columns}) VALUES ('o', 'standby', 1, 'the-tx', (1 = 1), '{name}', '[3]', 'now')")
    store.sync()
    assert store.check().equal
    behind_the_guard(lab, "standby", "DELETE FROM account WHERE id IN (2, 3)", f"DELETE FROM {lab.name('orphan')}")
    report = store.check()
    assert {each.key["id"]: (each.cause, each.tx) for each in table(report, "account").differences} == {
        2: ("behind_guard", None),
        3: ("orphan", "the-tx"),
    }
    assert found(report, "orphan") == [(("o",), "missing_on_standby", ())]


def test_a_row_whose_change_was_not_captured_says_so(lab: Lab) -> None:
    store = lab.migrated(background=False)
    fill(store, range(5))
    if lab.postgresql:
        lab.sql("primary", "DROP TRIGGER replstore_capture_update ON account")
    else:
        ((trigger,),) = lab.sql("primary", "SELECT name FROM sqlite_master WHERE tbl_name = 'account' AND name LIKE 'replstore_capture_update%'")
        lab.sql("primary", f"DROP TRIGGER {trigger}")
    lab.sql("primary", "UPDATE account SET amount = 1 WHERE id = 1")
    report = store.check()
    (difference,) = table(report, "account").differences
    assert (difference.kind, difference.cause) == ("changed", "capture_missing")
    assert any("replstore migrate" in note and "account" in note for note in report.notes)


def test_chosen_tables_alone_are_compared(lab: Lab) -> None:
    store = lab.migrated(FamilyBase.metadata, background=False)
    behind_the_guard(lab, "standby", "INSERT INTO parent VALUES (1, 'x')")
    report = store.check(tables=["child"])
    assert report.equal
    assert [each.name.removeprefix("public.") for each in report.tables] == ["child"]
    assert not store.check(tables=[table(store.check(), "parent").name]).equal
    with pytest.raises(ConfigError, match=r"table nobody: no table has this name; there are .*child"):
        store.check(tables=["nobody"])


def test_a_check_changes_nothing(lab: Lab) -> None:
    store = lab.migrated(background=False, durability="async")
    fill(store, range(3))
    lab.ship()
    store.run(put(9))
    behind_the_guard(lab, "standby", "DELETE FROM account WHERE id = 1")
    before = [(lab.accounts(node), lab.state(node)) for node in NODES]
    store.check()
    assert [(lab.accounts(node), lab.state(node)) for node in NODES] == before


def test_progress_tells_the_table_and_its_rows(lab: Lab) -> None:
    store = lab.migrated(background=False)
    fill(store, range(3))
    told: list[tuple[str, int]] = []
    store.check(progress=lambda name, rows: told.append((name, rows)))
    assert [rows for name, rows in told if name.endswith("account")] == [0, 3]


def test_the_report_as_a_dictionary_is_json_and_always_the_same(lab: Lab) -> None:
    store = lab.migrated(background=False)
    fill(store, range(3))
    behind_the_guard(lab, "standby", "UPDATE account SET amount = 9 WHERE id = 1")
    facts = store.check().as_dict()
    assert json.loads(json.dumps(facts)) == facts
    assert json.dumps(facts) == json.dumps(store.check().as_dict())
    assert facts.keys() >= {"equal", "tables", "schema", "sequences"}
    (account,) = (each for each in facts["tables"] if each["name"].endswith("account"))
    assert account["rows"] == {"primary": 3, "standby": 3}
    assert account["differences"][0].items() >= {"key": {"id": 1}, "kind": "changed", "columns": ["amount"], "cause": None}.items()
