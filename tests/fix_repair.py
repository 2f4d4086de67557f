"""For tests of repair: a pair whose nodes differ, and a moment between the plan and what is done."""

from __future__ import annotations

from typing import Any

from replstore.reconcile.plan import Plan, make_plan
from replstore.reconcile.repair import Outcome, carry_out
from replstore.reconcile.wishes import Wishes
from replstore.store import Store
from tests.fix_check import behind_the_guard, fill
from tests.fix_stores import Lab, insert

NODES = ("primary", "standby")


def other(node: str) -> str:
    """The name of the other node."""
    return "standby" if node == "primary" else "primary"


def filled(lab: Lab, writer: str = "primary", **settings: Any) -> Store:
    """A pair with twenty accounts on both nodes."""
    store = lab.migrated(background=False, **settings)
    fill(store, range(20))
    if writer == "standby":
        store.switchover()
    store.sync()
    return store


def spoiled(lab: Lab, node: str) -> None:
    """On one node a row is changed, one is gone, and one is there that the other lacks."""
    behind_the_guard(lab, node, "UPDATE account SET amount = 99 WHERE id = 5", "DELETE FROM account WHERE id = 7", insert(100))


def planned(store: Store, source: str = "writer", **wishes: Any) -> Plan:
    """A plan that is to be carried out later."""
    return make_plan(store.pair, Wishes(**wishes), source, None, None)


def carried_out(store: Store, plan: Plan) -> Outcome:
    """The same, now."""
    return carry_out(store.pair, store.run, plan)


def changed(outcome: Outcome) -> set[tuple[str, str, str]]:
    """Of each row that was changed: the node, the key, what was done."""
    return {(change.node, change.key, change.what) for change in outcome.done}


def left(outcome: Outcome) -> dict[str, str]:
    """By key, why a row was left alone."""
    return {each.key: each.reason for each in outcome.left}
