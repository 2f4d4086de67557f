"""Hazard 11: a replay overwrites nothing that the new writer has touched, takes no other row along, breaks no constraint and fires no trigger again."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from tests.fix_orphans import Parting, customer, order, outcomes, reason, removed
from tests.fix_shop import Customer, Order, both, sql


def withheld(parting: Parting, why: str) -> None:
    """The only group is withheld, in the plan and when it is carried out, and nothing is changed."""
    before = both(parting.pair, "SELECT * FROM orders ORDER BY id"), both(parting.pair, "SELECT * FROM customer ORDER BY id")
    assert why in reason(parting.store.orphans.plan())
    assert why in reason(parting.store.orphans.replay())
    assert (both(parting.pair, "SELECT * FROM orders ORDER BY id"), both(parting.pair, "SELECT * FROM customer ORDER BY id")) == before
    assert set(parting.states().values()) == {"open"}


# -- touched


def test_a_row_that_the_new_writer_has_changed_is_not_overwritten(parting: Parting) -> None:
    parting.shared(order(1))
    parting.lost(order(1, "of the lost writer"))
    parting.store.run(order(1, "of the new one"))
    parting.back()
    withheld(parting, "the writer had changed row [1]")


def test_nor_one_that_it_changed_after_the_orphan_was_recorded(parting: Parting) -> None:
    parting.shared(order(1))
    parting.lost(order(1, "of the lost writer"))
    parting.back()
    parting.store.run(order(1, "of the new one"))
    withheld(parting, "the writer has changed row [1]")


def test_nor_one_that_it_changed_and_changed_back(parting: Parting) -> None:
    parting.shared(order(1))
    parting.lost(order(1, "of the lost writer"))
    parting.back()
    for item in ("something else", "tea"):
        parting.store.run(order(1, item))
    withheld(parting, "the writer has changed row [1]")


def test_nor_one_that_it_made_and_removed_again(parting: Parting) -> None:
    parting.lost(order(1, "of the lost writer"))
    parting.store.run(order(1, "of the new one"))
    parting.store.run(removed(Order, 1))
    parting.back()
    withheld(parting, "the writer had changed row [1]")


def test_an_orphan_whose_parent_the_new_writer_has_changed(parting: Parting) -> None:
    parting.shared(customer(1))
    parting.lost(order(10, customer=1))
    parting.back()
    parting.store.run(customer(1, "moved@example.org"))
    withheld(parting, "row [1]")


def test_an_orphan_whose_child_the_new_writer_has_changed(parting: Parting) -> None:
    parting.shared(customer(1), order(10, customer=1))
    parting.lost(customer(1, "of@the.lost"))
    parting.store.run(order(10, "coffee", customer=1))
    parting.back()
    withheld(parting, "row [10]")


# -- cascades and constraints


@pytest.mark.parametrize("new", [False, True], ids=["old", "acknowledged by the new writer"])
def test_a_replayed_delete_takes_no_child_along(parting: Parting, new: bool) -> None:
    """The table cascades: the lost writer deleted the customer when it had no order."""
    parting.shared(customer(1), *(() if new else (order(10, customer=None),)))
    if not new:  # one that only a program which bypasses the journal could make
        parting.lost(removed(Customer, 1))
        parting.back()
        behind = {"postgresql": "SET replstore.mark = 'apply'", "sqlite": "UPDATE replstore_mark SET mark = 'apply'"}
        node = parting.store.pair.standby
        with node.begin() as connection:
            connection.exec_driver_sql(behind[node.database.name])
            connection.exec_driver_sql(
                "UPDATE public.orders SET customer_id = 1" if node.database.name == "postgresql" else "UPDATE orders SET customer_id = 1"
            )
            node.database.mark(connection, None)
        assert "refers to a row of" in reason(parting.store.orphans.replay())
        assert sql(parting.writer, "SELECT id, customer_id FROM orders") == [(10, 1)]
        return
    parting.lost(removed(Customer, 1))
    parting.store.run(order(10, customer=1))
    parting.back()
    withheld(parting, "row [10]")


def test_a_parent_that_is_not_there(parting: Parting) -> None:
    """Not even where nothing enforces the foreign key, as on SQLite."""
    parting.shared(customer(1))
    parting.lost(order(10, customer=1))
    parting.store.run(removed(Customer, 1))
    parting.back()
    plan = parting.store.orphans.replay()
    assert "isn't there" in reason(plan) or "foreign key" in reason(plan)
    assert parting.orders() == {}


def test_a_unique_value_that_the_new_writer_has_given_elsewhere(parting: Parting) -> None:
    parting.lost(customer(1, "the@same"))
    parting.store.run(customer(2, "the@same"))
    parting.back()
    plan = parting.store.orphans.replay()
    assert "unique" in reason(plan).lower()
    assert parting.customers() == {2: "the@same"}


def test_one_that_fails_does_not_keep_the_others(parting: Parting) -> None:
    parting.lost(order(1), customer(1, "the@same"), order(2))
    parting.store.run(customer(2, "the@same"))
    parting.back()
    assert outcomes(parting.store.orphans.replay(out_of_order=True)) == ["replayed", "withheld", "replayed"]
    assert parting.orders() == {1: "tea", 2: "tea"}
    assert parting.customers() == {2: "the@same"}
    assert parting.store.check().equal


# -- triggers


AUDIT = {
    "sqlite": (
        "CREATE TABLE audit (id INTEGER PRIMARY KEY, item TEXT NOT NULL)",
        "CREATE TRIGGER audited AFTER INSERT ON orders BEGIN INSERT INTO audit (item) VALUES (NEW.item); END",
    ),
    "postgresql": (
        "CREATE TABLE audit (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text NOT NULL)",
        "CREATE FUNCTION audited() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.audit (item) VALUES (NEW.item); RETURN NULL; END $$",
        "CREATE TRIGGER audited AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION audited()",
    ),
}


def test_a_trigger_that_fired_on_the_lost_writer_does_not_fire_again(parting: Parting) -> None:
    """What it wrote there is an orphan as well; afterwards it is there as it was, for everybody."""
    for statement in AUDIT[parting.store.pair.primary.database.name]:
        sql(parting.writer, statement)
    parting.store.migrate()
    parting.store.sync()
    parting.lost(order(1))
    parting.back()
    assert outcomes(parting.store.orphans.replay()) == ["replayed"]
    assert both(parting.pair, "SELECT item FROM audit") == ([("tea",)], [("tea",)])
    parting.store.run(order(2, "coffee"))
    parting.store.sync()
    assert both(parting.pair, "SELECT item FROM audit ORDER BY item") == ([("coffee",), ("tea",)],) * 2
    assert parting.store.check().equal


def test_each_trigger_is_left_in_the_state_that_it_had(postgresql_parting: Parting) -> None:
    parting = postgresql_parting
    sql(parting.writer, AUDIT["postgresql"][0])
    sql(parting.writer, AUDIT["postgresql"][1])
    for state in ("ENABLE", "ENABLE ALWAYS", "ENABLE REPLICA", "DISABLE"):
        name = state.lower().replace(" ", "_")
        sql(parting.writer, f"CREATE TRIGGER {name} AFTER UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION audited()")
        sql(parting.writer, f"ALTER TABLE orders {state} TRIGGER {name}")
    parting.store.migrate()
    parting.store.sync()
    parting.lost(order(1))
    parting.back()
    states = "SELECT tgname, tgenabled::text FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal ORDER BY 1"
    before = sql(parting.writer, states)
    assert {state for _, state in before} == {"O", "A", "R", "D"}
    assert outcomes(parting.store.orphans.replay()) == ["replayed"]
    assert sql(parting.writer, states) == before
    assert parting.store.check().equal


def test_a_rule_that_would_change_another_row_is_found(postgresql_parting: Parting) -> None:
    """Not every effect is a trigger's: whatever else the transaction has changed is in its own journal entries."""
    parting = postgresql_parting
    parting.shared(customer(9, "counts@orders"))
    parting.lost(order(1))
    parting.back()
    counting = "CREATE RULE counting AS ON INSERT TO orders DO ALSO UPDATE customer SET email = email || '.' WHERE id = 9"
    sql(parting.writer, counting)
    assert "it would also change row [9]" in reason(parting.store.orphans.replay())
    sql(parting.writer, "DROP RULE counting ON orders")
    assert outcomes(parting.store.orphans.replay()) == ["replayed"]


# -- what isn't known


def test_a_table_whose_definition_has_changed(parting: Parting) -> None:
    parting.lost(order(1))
    parting.back()
    sql(parting.writer, "ALTER TABLE orders ADD COLUMN note TEXT")
    parting.store.migrate()
    parting.store.sync()
    withheld(parting, "the definition of table")


def test_a_journal_that_no_longer_reaches_back(parting: Parting) -> None:
    """Rows themselves can still be compared; rows that refer to them can't, so such groups are withheld."""
    parting.shared(customer(1))
    parting.lost(order(10, customer=1))
    parting.back()
    node = parting.store.pair.current(0.0).node
    with node.begin() as connection:
        node.database.prune(connection, node.database.position(connection))
    withheld(parting, "its journal begins later")


def test_a_table_without_references_is_replayed_under_another_term_if_its_rows_are_as_they_were(parting: Parting) -> None:
    sql(parting.writer, "CREATE TABLE lone (id INTEGER PRIMARY KEY, item TEXT NOT NULL)")
    parting.store.migrate()
    parting.store.sync()

    def lone(id: int, item: str) -> None:
        parting.store.run(lambda session: session.execute(text(f"INSERT INTO lone VALUES ({id}, '{item}')")))

    def lost(session: Session) -> None:
        session.execute(text("INSERT INTO lone VALUES (1, 'one')"))

    def lost_too(session: Session) -> None:
        session.execute(text("INSERT INTO lone VALUES (2, 'two')"))

    parting.lost(lost, lost_too)
    parting.back()
    parting.store.switchover()
    lone(2, "of the writer")
    assert outcomes(parting.store.orphans.replay()) == ["replayed", "withheld"]
    parting.store.sync()
    assert both(parting.pair, "SELECT id, item FROM lone ORDER BY id") == ([(1, "one"), (2, "of the writer")],) * 2
