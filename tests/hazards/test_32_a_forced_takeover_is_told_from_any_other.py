"""Hazard 32: what a person forces is recorded as forced, gets a term of its own, and what it overrules is reported."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from replstore import NoWriter, TokenLost, TransactionLost
from replstore.pair.decide import Action, NodeView, Policy, Role, Term, View, decide
from replstore.pair.rejoin import fence_former
from replstore.pair.takeover import FORCED_JUMP
from replstore.store import Store
from replstore.transaction.acknowledge import acknowledge
from tests.fix_markers import committed
from tests.fix_stores import Lab, Steps, count, put

ROLES = {
    "writers": (Role.WRITER, Role.WRITER),
    "writer and follower": (Role.WRITER, Role.FOLLOWER),
    "writer and fenced": (Role.WRITER, Role.FENCED),
}


def reason(lab: Lab, node: str) -> Any:
    return lab.sql(node, f"SELECT reason FROM {lab.name('role')}")[0][0]


def orphans(lab: Lab, node: str) -> dict[tuple[str, str], tuple[Any, bool]]:
    """By table and key: how the transaction is known, may it have been acknowledged."""
    rows = lab.sql(node, f"SELECT tbl, key, tx_known, maybe_acknowledged FROM {lab.name('orphan')}")
    return {(tbl.removeprefix("public."), key): (known, bool(maybe)) for tbl, key, known, maybe in rows}


def refuses(store: Store, id: int) -> str:
    with pytest.raises(NoWriter) as refused:
        store.run(put(id))
    return str(refused.value)


# --- the term


@pytest.mark.parametrize("node", ["primary", "standby"])
def test_a_forced_takeover_is_recorded_and_its_term_is_nobody_else_s(lab: Lab, node: str) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    before = lab.state(node)
    store.takeover(node, force=True)
    state = lab.state(node)
    assert (state.role, state.term_no) == ("writer", 1 + FORCED_JUMP)
    assert state.term_uuid != before.term_uuid
    assert reason(lab, node) == "forced: a person decided"


def test_an_unforced_takeover_is_not_recorded_as_forced(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.kill("primary")
    store.takeover()
    assert lab.state("standby").term_no == 2
    assert not reason(lab, "standby").startswith("forced")


@pytest.mark.parametrize("roles", ROLES.values(), ids=ROLES)
def test_equal_numbers_under_other_uuids_stop_both(roles: tuple[Role, Role]) -> None:
    primary, standby = (
        NodeView(name, name, role=role, term=Term(7, name), boot=name) for name, role in zip(("primary", "standby"), roles, strict=True)
    )
    for durability, (one, other) in itertools.product(("replicated", "async"), ((primary, standby), (standby, primary))):
        decision = decide(View(one, other, Policy(durability=durability)))  # type: ignore[arg-type]
        assert (decision.action, decision.writer) == (Action.STOP, None)
        assert "takeover --force" in decision.next_step


def test_no_writer_is_fenced_by_a_term_that_does_not_outrank_its_own(sqlite_lab: Lab) -> None:
    lab = sqlite_lab
    store = lab.migrated(background=False)
    for term in (Term(1, "another"), Term(0, "earlier")):
        fence_former(lab.nodes["primary"], term)
        assert lab.state("primary").role == "writer"
    store.run(put(1))
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0}


def test_two_nodes_forced_apart_refuse_both_until_a_person_names_the_winner(lab: Lab) -> None:
    store = lab.migrated(background=False, takeover_timeout=0.3)
    store.run(put(1))
    lab.kill("standby")
    store.takeover("primary", force=True)
    store.run(put(2))
    lab.kill("primary")
    lab.start("standby")
    late = lab.store(background=False, takeover_timeout=0.3)
    late.takeover("standby", force=True)
    late.run(put(3))
    lab.start("primary")
    one, other = lab.state("primary"), lab.state("standby")
    assert one.term_no == other.term_no == 1 + FORCED_JUMP
    assert one.term_uuid != other.term_uuid
    with lab.store(takeover_timeout=0.3) as third:
        for tried in (store, late, third):
            tried.pair.look()
            assert "two different decisions" in refuses(tried, 4)
    assert lab.accounts("primary") == {1: 0, 2: 0}
    assert lab.accounts("standby") == {1: 0, 3: 0}
    late.takeover("standby", force=True)
    assert lab.state("standby").term_no == 1 + 2 * FORCED_JUMP
    late.run(put(5))
    assert late.rejoin(copy=True) == 1
    late.sync()
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 3: 0, 5: 0}
    assert orphans(lab, "standby") == {("account", "[2]"): (None, True)}


# --- what it overrules


def test_what_was_acknowledged_alone_before_the_follower_came_half_back_may_have_been_acknowledged(lab: Lab) -> None:
    """The writer had left solo already, and the batch that was to bring the follower in sync didn't arrive."""
    store = lab.migrated()
    store.run(put(1))
    lab.kill("standby")
    store.run(put(2))  # acknowledged by the writer alone
    store.close()
    lab.start("standby")
    shipper = lab.shipper()

    def dies() -> None:
        raise ConnectionError("the shipper's program dies")

    shipper.carrier = Steps(shipper.carrier, before={"apply": dies})
    with pytest.raises(ConnectionError):
        shipper.ship()
    assert not lab.state("primary").solo
    lab.kill("primary")
    late = lab.store(background=False)
    late.takeover("standby", force=True)
    late.run(put(3))
    lab.start("primary")
    assert late.rejoin() == 1
    assert orphans(lab, "standby") == {("account", "[2]"): (None, True)}


def test_what_only_waited_for_its_follower_was_never_acknowledged(lab: Lab) -> None:
    """The counterpart: no force, no solo, a replicated transaction."""
    store = lab.migrated(background=False)
    store.run(put(1))
    committed(lab, "primary", 2)
    lab.kill("primary")
    store.run(put(3))
    lab.start("primary")
    assert store.rejoin() == 1
    assert orphans(lab, "standby") == {("account", "[2]"): (None, False)}


def test_a_tombstone_that_the_forced_node_contradicts_is_reported(lab: Lab) -> None:
    """A caller was told on the standby that it is lost; the node that a person names holds it committed."""
    store = lab.migrated(background=False, takeover_timeout=0.3)
    store.run(put(1))
    asleep, id = lab.lead(), committed(lab, "primary", 2)
    lab.kill("primary")
    with pytest.raises(TransactionLost):
        acknowledge(store.pair, asleep, id, "replicated")
    lab.kill("standby")
    lab.start("primary")
    late = lab.store(background=False, takeover_timeout=0.3)
    late.takeover("primary", force=True)
    assert lab.accounts("primary") == {1: 0, 2: 0}
    lab.start("standby")
    late.rejoin(copy=True)
    late.sync()
    (found,) = [known for (tbl, key), known in orphans(lab, "primary").items() if tbl.endswith("marker") and id in key]
    assert found == ("committed", True)
    assert lab.markers("primary")[id] == lab.markers("standby")[id] == "committed"


def test_a_takeover_that_is_forced_once_more_forgets_nothing_of_the_former_writer(lab: Lab) -> None:
    """A person repeats the command, as one does whose program died in it: the former writer still comes back without a copy, and tokens hold."""
    store = lab.migrated(background=False, durability="async", rejoin="manual")
    store.run(put(1))
    store.sync()
    shared = store.token()
    store.run(put(2))
    lost = store.token()
    lab.kill("primary")
    store.takeover("standby", force=True)
    store.run(put(3))
    between = store.token()
    store.takeover("standby", force=True)
    assert lab.state("standby").term_no == 1 + 2 * FORCED_JUMP
    store.run(put(4))
    for token in (shared, between, store.token()):
        with store.read(after=token) as session:
            assert count(session) == 3
    with pytest.raises(TokenLost), store.read(after=lost):
        pass
    lab.start("primary")
    assert store.rejoin() == 1
    store.sync()
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 3: 0, 4: 0}
    assert orphans(lab, "standby") == {("account", "[2]"): (None, True)}
