"""Hazard 2, (a) to (g): a writer that acknowledges alone and a follower that takes over exclude each other."""

from __future__ import annotations

import dataclasses
import time
from uuid import uuid4

import pytest
from sqlalchemy import make_url, text

from replstore.errors import CommittedNotReplicated, NoWriter, SettingsDiffer, TakeoverRefused, TransactionLost
from replstore.pair.decide import Action, Term
from replstore.pair.solo import go_solo
from replstore.pair.takeover import take_over
from replstore.pair.watch import node_view
from replstore.pair.witness import Witness
from replstore.store import Store
from replstore.transaction.acknowledge import acknowledge
from tests.fix_markers import committed
from tests.fix_proxy import MakeProxy
from tests.fix_stores import FAST, Lab, Steps, insert, put, until


def test_a_in_a_partition_only_one_side_acknowledges(postgresql_lab: Lab, proxy: MakeProxy) -> None:
    lab = postgresql_lab
    lab.migrated(background=False, detection_time=1.5).close()  # longer than it takes to find a node silent: its contact is recent then
    to_primary, to_standby = proxy(lab.pair.primary_url), proxy(lab.pair.standby_url)
    one = lab.store(primary=to_primary.url, detection_time=1.5)  # will lose the writer
    other = lab.store(standby=to_standby.url, detection_time=1.5)  # will lose the follower
    one.run(put(1))
    other.run(put(2))
    to_primary.black_hole()
    to_standby.black_hole()
    outcome = _attempt(other, 3)
    until(lambda: lab.state("standby").role == "writer", "the follower takes over")
    one.run(put(4))
    assert not outcome
    assert not lab.state("primary").solo
    to_primary.restore()
    to_standby.restore()
    until(lambda: one.status().healthy, "the former writer follows")
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 2: 0, 4: 0}
    assert ("[3]",) in lab.sql("standby", f"SELECT key FROM {lab.name('orphan')}")  # kept, and never acknowledged


def test_b_a_follower_that_was_away_while_the_writer_acknowledged_alone_does_not_take_over(lab: Lab) -> None:
    store = lab.migrated()
    store.run(put(1))
    lab.kill("standby")
    store.run(put(2))  # alone
    lab.kill("primary")
    store.close()
    lab.start("standby")
    if not lab.postgresql:  # a file that is moved away and back keeps its boot identity: see the witness, below
        lab.replace("standby")
    with pytest.raises(NoWriter, match="restarted or replaced"):
        lab.store(takeover_timeout=1.0).run(put(3))
    lab.start("primary")
    late = lab.store()
    late.run(put(4))
    late.sync()
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 2: 0, 4: 0}


def test_b_with_a_witness_even_a_file_that_is_moved_away_and_back_does_not_take_over(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> None:
    witness = f"sqlite:///{tmp_path_factory.mktemp('witness') / 'witness.db'}"
    store = lab.migrated(witness=witness)
    store.run(put(1))
    lab.kill("standby")
    store.run(put(2))
    lab.kill("primary")
    store.close()
    lab.start("standby")
    with pytest.raises(NoWriter, match=r"went on without standby|restarted or replaced"):
        lab.store(witness=witness, takeover_timeout=1.0).run(put(3))


def test_c_a_former_writer_that_comes_back_alone_acknowledges_nothing(lab: Lab) -> None:
    store = lab.migrated()
    store.run(put(1))
    lab.kill("primary")
    store.run(put(2))  # at the standby, alone
    lab.kill("standby")
    lab.start("primary")
    late = lab.store(takeover_timeout=1.0)
    for tried in (store, late):
        with pytest.raises((NoWriter, CommittedNotReplicated)):
            tried.run(put(3))
    lab.start("standby")
    late.run(put(4))
    assert lab.state("standby").role == "writer"
    until(lambda: late.status().healthy, "the former writer follows")
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 2: 0, 4: 0}


def test_d_a_follower_whose_heartbeat_goes_on_is_not_made_the_writer_compare_heartbeat(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    store = lab.migrated(background=False)
    store.run(put(1))
    seen = node_view(lab.state("standby"), "standby")
    lab.sql("standby", f"UPDATE {lab.name('heartbeat')} SET no = no + 1")  # another program has just reached the writer
    with pytest.raises(TakeoverRefused, match="somebody has reached the writer"):
        take_over(lab.nodes["standby"], seen, reason="silent", compare_heartbeat=True, writer="primary")
    assert lab.state("standby").role == "follower"


def test_e_the_new_writer_goes_on_alone_even_where_the_policy_is_to_block(lab: Lab) -> None:
    store = lab.migrated(on_follower_down="block")
    store.run(put(1))
    lab.kill("primary")
    store.run(put(2))
    assert lab.accounts("standby") == {1: 0, 2: 0}


def test_f_one_program_s_firewall_is_no_proof_of_death(postgresql_lab: Lab, proxy: MakeProxy) -> None:
    lab = postgresql_lab
    store = lab.migrated(refused_means_dead=False)
    way = proxy(lab.pair.standby_url)
    behind = lab.store(standby=way.url)
    behind.run(put(1))
    way.refuse()
    with pytest.raises(CommittedNotReplicated):
        behind.run(put(2))
    assert not lab.state("primary").solo
    store.run(put(3))
    assert lab.accounts("standby") == {1: 0, 2: 0, 3: 0}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("durability", "async"),
        ("takeover", "manual"),
        ("on_follower_down", "block"),
        ("rejoin", "manual"),
        ("refused_means_dead", False),
        ("detection_time", 0.7),
    ],
)
def test_g_a_store_with_other_settings_is_refused_with_both_values(sqlite_lab: Lab, name: str, value: object) -> None:
    held = (
        FAST.get(name)
        or {"durability": "replicated", "takeover": "auto", "on_follower_down": "solo", "rejoin": "auto", "refused_means_dead": "true"}[name]
    )
    sqlite_lab.migrated(background=False).close()
    with pytest.raises(SettingsDiffer, match=f"{name} is {str(value).lower()} here and {held}"):
        sqlite_lab.store(**{name: value})


def test_an_acknowledgement_counts_only_under_the_term_of_the_commit(lab: Lab) -> None:
    """The commit's writer loses it at a rejoin and is the writer again when the sleeping program asks."""
    store = lab.migrated(background=False)
    store.run(put(1))
    asleep, id = lab.lead(), committed(lab, "primary", 2)
    lab.kill("primary")
    store.run(put(3))
    lab.start("primary")
    store.rejoin()
    store.switchover()
    assert lab.state("primary").role == "writer"
    with pytest.raises(TransactionLost):
        acknowledge(store.pair, asleep, id, "replicated")
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 3: 0}


def test_solo_needs_a_recent_contact(lab: Lab) -> None:
    store = lab.migrated(background=False, takeover_timeout=1.0)
    store.run(put(1))
    view, _ = store.pair.look()
    store.pair.watch.heartbeat(view, "primary")
    lab.kill("standby")
    time.sleep(2 * FAST["detection_time"])  # in between the follower may have taken over and died
    view, decision = store.pair.look()
    assert decision.action is Action.WAIT
    assert "old" in decision.reason
    with pytest.raises(CommittedNotReplicated):
        store.run(put(2))
    assert not lab.state("primary").solo


def test_solo_needs_a_writer_that_has_not_restarted_since(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    view, _ = store.pair.look()
    store.pair.watch.heartbeat(view, "primary")
    lab.kill("standby")
    lab.replace("primary")
    until(lambda: store.pair.look()[0].primary.reach == "up", "the writer answers")
    _, decision = store.pair.look()
    assert decision.action is Action.WAIT
    assert "unconfirmed" in decision.reason


def test_leaving_solo_first_requires_the_follower_then_ships_then_makes_it_eligible(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    _, before = store.pair.look()[0], lab.state("primary")
    lab.replace("standby")
    assert go_solo(lab.nodes["primary"], node_view(lab.state("primary"), "primary"), reason="a test")
    alone = lab.state("primary")
    assert alone.solo
    lab.sql("primary", insert(2))
    shipper, seen = lab.shipper(), []
    shipper.carrier = Steps(shipper.carrier, before={"apply": lambda: seen.append((lab.state("primary"), lab.state("standby")))})
    shipper.ship()
    ((writer, follower),) = seen
    assert not writer.solo
    assert writer.req == alone.req + 1 == before.req + 1
    assert follower.eligible_boot != follower.boot
    follower = lab.state("standby")
    assert follower.eligible_boot == follower.boot
    assert lab.accounts("standby") == {1: 0, 2: 0}


def test_a_follower_that_was_left_behind_without_a_restart_is_disowned_before_it_is_required_again(lab: Lab) -> None:
    """A person's solo while the follower was silent: its boot identity is still the one that was eligible."""
    store = lab.migrated(background=False)
    store.run(put(1))
    store.solo()
    lab.sql("primary", insert(2))
    shipper, seen = lab.shipper(), []
    require = shipper.require_follower
    shipper.require_follower = lambda state: (seen.append(lab.state("standby").eligible_boot), require(state))  # type: ignore[assignment,func-returns-value]
    shipper.ship()
    assert seen == [None]
    follower = lab.state("standby")
    assert follower.eligible_boot == follower.boot
    assert lab.accounts("standby") == {1: 0, 2: 0}


def test_a_solo_decision_that_comes_after_the_resync_is_void(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    decided = node_view(lab.state("primary"), "primary")
    lab.shipper().require_follower(lab.state("primary"))
    assert not go_solo(lab.nodes["primary"], decided, reason="a late program")
    assert not lab.state("primary").solo


def test_of_solo_and_takeover_the_witness_lets_exactly_one_win(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> None:
    url = f"sqlite:///{tmp_path_factory.mktemp('witness') / 'witness.db'}"
    store = lab.migrated(background=False, witness=url)
    store.run(put(1))
    witness = Witness(make_url(url))
    seen = witness.view()
    assert seen.in_sync == {"primary", "standby"}
    primary, standby = (node_view(lab.state(name), name) for name in ("primary", "standby"))
    assert primary.term is not None
    both = frozenset({"primary", "standby"})
    assert go_solo(lab.nodes["primary"], primary, reason="a test", witness=witness, both=both)
    with pytest.raises(TakeoverRefused, match="witness"):
        take_over(lab.nodes["standby"], standby, reason="a test", compare_heartbeat=False, witness=witness, granted=seen, writer="primary")
    assert lab.state("standby").role == "follower"
    lab.ship()  # leaves solo
    store.sync()
    assert witness.grant_resync(primary.term, "primary", both, lab.state("primary").req) or witness.view().in_sync == both
    seen, primary, standby = witness.view(), node_view(lab.state("primary"), "primary"), node_view(lab.state("standby"), "standby")
    new = take_over(lab.nodes["standby"], standby, reason="a test", compare_heartbeat=False, witness=witness, granted=seen, writer="primary")
    assert not go_solo(lab.nodes["primary"], primary, reason="a test", witness=witness, both=both)
    assert not lab.state("primary").solo
    assert witness.view().term == new
    witness.close()


def test_the_witness_takes_a_resync_back_only_if_the_follower_was_required_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    witness = Witness(make_url(f"sqlite:///{tmp_path_factory.mktemp('witness') / 'witness.db'}"))
    term, both = Term(1, str(uuid4())), frozenset({"primary", "standby"})
    witness.create("pair", term, "primary")
    assert witness.grant_resync(term, "primary", both, req=4)
    assert witness.grant_solo(term, "primary", both, req=5)
    assert not witness.grant_resync(term, "primary", both, req=5)  # shipped before the solo
    assert witness.view().in_sync == {"primary"}
    assert witness.grant_resync(term, "primary", both, req=6)
    assert witness.view().in_sync == both
    witness.close()


def test_what_a_follower_s_takeover_compares(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    seen = node_view(lab.state("standby"), "standby")
    other_term = dataclasses.replace(seen, term=Term(1, str(uuid4())))
    with pytest.raises(TakeoverRefused, match="its term has changed"):
        take_over(lab.nodes["standby"], other_term, reason="a test", compare_heartbeat=False)
    lab.sql("standby", f"UPDATE {lab.name('position')} SET eligible_boot = 'another'")
    with pytest.raises(TakeoverRefused, match="restarted or replaced"):
        take_over(lab.nodes["standby"], seen, reason="a test", compare_heartbeat=False)
    lab.sql("standby", f"UPDATE {lab.name('position')} SET eligible_boot = '{seen.boot}'")
    assert take_over(lab.nodes["standby"], seen, reason="a test", compare_heartbeat=False).number == 2
    lab.sql("standby", insert(2))


def _attempt(store: Store, id: int) -> bool:
    """Whether a transaction is acknowledged."""
    try:
        with store.begin() as session:
            session.execute(text(insert(id)))
    except (CommittedNotReplicated, TransactionLost, NoWriter):
        return False
    return True
