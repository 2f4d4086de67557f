"""Replay as a person sees it: a plan that changes nothing, then the lost writer's transactions, once, on both nodes."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from replstore import ConfigError, KeyReused
from tests.fix_orphans import ASYNC, Parting, customer, order, outcomes, reason, removed, together
from tests.fix_shop import Customer, Order, both, sql
from tests.fix_stores import Lab


def test_a_plan_changes_nothing_and_the_replay_does_what_it_said(parting: Parting) -> None:
    parting.shared(customer(1), customer(2))
    ids = parting.lost(order(10), together(customer(1, "one@new.org"), order(11, customer=1)), removed(Customer, 2))
    parting.back()
    before = parting.orders(), parting.customers(), parting.states(), parting.markers()
    plan = parting.store.orphans.plan()
    assert (parting.orders(), parting.customers(), parting.states(), parting.markers()) == before
    assert outcomes(plan) == ["replayed"] * 3
    done = parting.store.orphans.replay()
    assert outcomes(done) == outcomes(plan)
    assert parting.orders() == {10: "tea", 11: "tea"}
    assert parting.customers() == {1: "one@new.org"}
    assert set(parting.states().values()) == {"replayed"}
    assert {(id, "committed") for id in ids} <= set(parting.markers())
    assert parting.store.status().orphans == 0
    assert parting.store.check().equal


def test_rows_that_refer_to_one_another_across_groups_are_replayed_in_their_order(parting: Parting) -> None:
    """The second group's row refers to the first one's, which the replay itself has just written: that is no touch of the writer's."""
    parting.lost(customer(1), order(10, customer=1), order(11, customer=1), removed(Order, 11))
    parting.back()
    assert outcomes(parting.store.orphans.plan()) == ["replayed"] * 3
    assert outcomes(parting.store.orphans.replay()) == ["replayed"] * 3
    assert sql(parting.writer, "SELECT id, customer_id FROM orders") == [(10, 1)]
    assert parting.store.check().equal


def test_unique_values_that_move_on_within_a_group_find_their_order(parting: Parting) -> None:
    parting.shared(customer(1, "a@x"), customer(2, "b@x"), customer(3, "c@x"))
    parting.lost(together(removed(Customer, 3), customer(2, "c@x"), customer(1, "b@x"), customer(4, "a@x")))
    parting.back()
    assert outcomes(parting.store.orphans.replay()) == ["replayed"]
    assert parting.customers() == {1: "b@x", 2: "c@x", 4: "a@x"}


def test_a_keyed_call_that_was_replayed_has_taken_effect_for_ever(parting: Parting) -> None:
    def place(session: Session) -> int:
        order(10)(session)
        return 10

    parting.lost(place, key="order 10")
    parting.back()
    assert outcomes(parting.store.orphans.replay()) == ["replayed"]

    calls: list[int] = []

    def place_again(session: Session) -> None:
        calls.append(1)

    place_again.__module__, place_again.__qualname__ = place.__module__, place.__qualname__  # the same function, in another process
    assert parting.store.run(place_again, key="order 10") == 10
    assert not calls

    def another(session: Session) -> None:
        order(11)(session)

    with pytest.raises(KeyReused):
        parting.store.run(another, key="order 10")


def test_the_same_command_again_replays_nothing_twice(parting: Parting) -> None:
    first, second = parting.lost(order(10), order(11))
    parting.back()
    parting.store.orphans.replay([first])
    parting.store.run(order(10, "changed since"))
    assert outcomes(parting.store.orphans.replay([first, second])) == ["replayed before", "replayed"]
    assert parting.orders() == {10: "changed since", 11: "tea"}
    with pytest.raises(ConfigError, match="every one is replayed or discarded"):
        parting.store.orphans.replay()


def test_a_program_that_dies_between_two_groups_is_followed_by_one_that_goes_on(parting: Parting, monkeypatch: pytest.MonkeyPatch) -> None:
    parting.lost(order(10), order(11), order(12))
    parting.back()
    orphans, groups = parting.store.orphans, []

    def dies(work: Any, group: Any) -> Any:
        groups.append(group)
        if len(groups) == 2:
            raise ConnectionError("the program died here")
        return type(orphans)._replay(orphans, work, group)

    monkeypatch.setattr(orphans, "_replay", dies)
    with pytest.raises(ConnectionError):
        orphans.replay()
    assert parting.orders() == {10: "tea"}
    assert parting.store.status().orphans == 2
    assert outcomes(parting.store.orphans.replay()) == ["replayed"] * 2
    assert parting.orders() == {10: "tea", 11: "tea", 12: "tea"}


def test_a_discarded_orphan_stays_on_record_and_is_taken_up_again_only_by_name(parting: Parting) -> None:
    first, second = parting.lost(order(10), order(11))
    parting.back()
    orphans = parting.store.orphans
    planned = orphans.discard([second], reason="placed again by telephone", dry_run=True)
    assert outcomes(planned) == ["discarded"]
    assert set(parting.states().values()) == {"open"}
    orphans.discard([second], reason="placed again by telephone")
    assert parting.states() == {"orders [10]": "open", "orders [11]": "discarded"}
    assert parting.store.status().orphans == 1
    assert outcomes(orphans.replay()) == ["replayed"]
    assert "discarded at" in reason(orphans.replay([second]))
    assert "placed again by telephone" in reason(orphans.plan([second]))
    with pytest.raises(ConfigError, match="by its id only"):
        orphans.replay(reopen=True)
    assert outcomes(orphans.replay([second], reopen=True, reason="it was not")) == ["replayed"]
    (record,) = (each for each in orphans.records() if each["tx"] == second)
    assert (record["state"], record["reason"]) == ("replayed", "it was not")
    assert (record["decided_tx"], "committed") in parting.markers()
    assert outcomes(orphans.discard([first], reason="late")) == ["replayed before"]
    assert parting.orders() == {10: "tea", 11: "tea"}


def test_decisions_are_on_both_nodes_and_survive_the_writer(parting: Parting) -> None:
    first, _ = parting.lost(order(10), order(11))
    parting.back()
    parting.store.orphans.discard([first], reason="no")
    parting.store.orphans.replay(out_of_order=True)
    known = parting.states()  # compares the nodes
    parting.store.switchover()
    assert parting.states() == known == {"orders [10]": "discarded", "orders [11]": "replayed"}


def test_bad_input_is_one_sentence_and_changes_nothing(parting: Parting) -> None:
    orphans = parting.store.orphans
    with pytest.raises(ConfigError, match="none was ever recorded"):
        orphans.plan()
    parting.lost(order(10), order(11))
    parting.back()
    for ids in (["nobody's"], [""]):
        with pytest.raises(ConfigError, match="with that; `replstore orphans list`"):
            orphans.replay(ids)
    with pytest.raises(ConfigError, match="reason"):
        orphans.discard(everything=True, reason=" ")
    for ids, everything in (([], False), (["x"], True)):
        with pytest.raises(ConfigError, match="name the orphans"):
            orphans.discard(ids, everything=everything, reason="why")
    assert set(parting.states().values()) == {"open"}


VALUES = {
    "sqlite": (
        "CREATE TABLE thing (k BLOB NOT NULL, n TEXT COLLATE NOCASE NOT NULL, a, b, c, d INTEGER GENERATED ALWAYS AS (1 + 1), PRIMARY KEY (k, n)) WITHOUT ROWID",
        "INSERT INTO thing (k, n, a, b, c) VALUES (x'00ff', 'It''s Ä', 9e999, -0.5, x''), (x'00', 'b', 1.0, CAST(x'ff41' AS TEXT), '1'), "
        "(x'01', CAST(x'61ff' AS TEXT), -9e999, 9223372036854775807, CAST(x'410042' AS TEXT))",
    ),
    "postgresql": (
        "CREATE TABLE thing (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz, f float8, n numeric, j jsonb, b bytea, x text[], i interval, "
        "g int GENERATED ALWAYS AS (1 + 1) STORED, m money, c char(4), t tstzrange, PRIMARY KEY (at, n))",
        "INSERT INTO thing (at, f, n, j, b, x, i, m, c, t) VALUES ('2020-02-29 23:59:59.123456-11', 0.1::float8 + 0.2, 1.10, '{\"a\": 1.0, \"%s\": \"''\"}', "
        "'\\x00ff', ARRAY['a,b', NULL, '\"'], '1 mon -3 days', 12.5, 'a', '[2020-01-01,)'), "
        "('infinity', 'NaN', 'NaN', 'null', NULL, '{}', NULL, NULL, '', 'empty')",
    ),
}


def test_every_value_comes_back_exactly(parting: Parting) -> None:
    kind = parting.store.pair.primary.database.name
    table, rows = VALUES[kind]
    sql(parting.writer, table)
    parting.store.migrate()
    parting.store.sync()
    parting.lost(lambda session: session.connection().exec_driver_sql(rows, execution_options={"no_parameters": True}))
    parting.pair.start("primary")
    lost = content(parting, "primary")
    parting.store.rejoin()
    parting.store.sync()
    assert content(parting, "standby") == []
    assert outcomes(parting.store.orphans.replay()) == ["replayed"]
    assert content(parting, "primary") == content(parting, "standby") == lost
    assert parting.store.check().equal


def content(parting: Parting, name: str) -> list[Any]:
    node = parting.store.pair.nodes[name]
    with node.snapshot() as connection:
        (table,) = (table for table in node.database.tables(connection) if table.name == "thing")
        return sorted(node.database.rows(connection, table))


def test_an_emptied_table_is_emptied_again(postgresql_parting: Parting) -> None:
    """SQLite has no TRUNCATE: it deletes row by row."""
    parting = postgresql_parting
    parting.shared(order(1), order(2), order(3, "stays as it is"))

    def emptied(session: Session) -> None:
        session.execute(text("TRUNCATE orders"))
        session.add_all([Order(id=3, item="stays as it is"), Order(id=4, item="new")])

    parting.lost(order(1, "changed before"), emptied, order(5))
    parting.back()
    assert parting.orders() == {1: "tea", 2: "tea", 3: "stays as it is"}
    assert outcomes(parting.store.orphans.replay()) == ["replayed"]  # all of them changed the table: one group
    assert parting.orders() == {3: "stays as it is", 4: "new", 5: "tea"}


def test_a_table_of_any_name_is_emptied_again(postgresql_lab: Lab) -> None:
    lab, name = postgresql_lab, '"100% ""of"" it"'
    lab.sql("primary", f"CREATE TABLE {name} (id integer PRIMARY KEY)", f"INSERT INTO {name} VALUES (1)")
    store = lab.store(**ASYNC)
    store.migrate()
    store.run(lambda session: session.connection().exec_driver_sql(f"TRUNCATE {name}", execution_options={"no_parameters": True}))
    lab.kill("primary")
    store.takeover("standby")
    lab.start("primary")
    store.rejoin()
    assert outcomes(store.orphans.replay()) == ["replayed"]
    store.sync()
    assert lab.sql("primary", f"SELECT * FROM {name}") == lab.sql("standby", f"SELECT * FROM {name}") == []


def test_a_table_that_was_rewritten_as_a_whole_is_not_taken_for_an_emptied_one(parting: Parting) -> None:
    parting.shared(order(1), order(2))
    node = parting.store.pair.primary
    with node.begin() as connection:
        node.database.journal_whole(connection, [table for table in node.database.tables(connection) if table.name == "orders"])
    parting.lost(order(3))
    parting.back()
    assert "isn't all on record" in reason(parting.store.orphans.replay())
    assert parting.orders() == {1: "tea", 2: "tea"}


def test_what_was_found_by_comparing_whole_tables_is_never_replayed(parting: Parting) -> None:
    parting.shared(order(1))
    parting.lost(order(2))
    with parting.store.pair.standby.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {parting.name('role')} SET former_tick = 'another'")
    parting.pair.start("primary")
    parting.store.rejoin(copy=True)
    parting.store.sync()
    assert "found by comparing whole tables" in reason(parting.store.orphans.replay())
    assert outcomes(parting.store.orphans.discard(everything=True, reason="copied")) == ["discarded"]
    assert both(parting.pair, "SELECT id FROM orders") == ([(1,)], [(1,)])
