"""Hazard 2, rules that only the exhaustive search showed to be needed (`tests/unit/test_decide_search.py`), each on real nodes.

The traces are the search's: what another program does while this one stands still happens here between two of this one's steps.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from replstore.errors import NotTheWriter, NoWriter, TakeoverRefused, TransactionLost
from replstore.node import Node, Observation
from replstore.pair import takeover
from replstore.pair.decide import Action
from replstore.pair.witness import Witness
from replstore.store import Store
from replstore.transaction.acknowledge import acknowledge
from tests.fix_markers import committed
from tests.fix_stores import Lab, put

#: A contact stays young, and silence is no loss yet, however slow the machine is.
PATIENT: dict[str, Any] = {"detection_time": 30.0}
BOTH = frozenset({"primary", "standby"})


class Died(Exception):
    """A program ended at this place."""


def test_a_takeover_from_a_refused_writer_compares_the_heartbeat_too(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between verdict and takeover the writer is back, and another program has a contact by which it may go solo later."""
    store, other = lab.migrated(background=False, **PATIENT), lab.store(background=False, **PATIENT)
    store.run(put(1))
    lab.kill("primary")
    view, decision = _look_until(store, Action.TAKE_OVER)
    monkeypatch.setattr(store.pair.watch, "again", _then(store.pair.watch.again, lambda: _comes_back(lab, other)))
    with pytest.raises(TakeoverRefused, match="somebody has reached the writer"):
        store.pair.act(view, decision)
    assert lab.state("standby").role == "follower"
    lab.kill("standby")
    other.run(put(2))  # acknowledged by the primary alone, after that contact
    assert lab.state("primary").solo
    lab.start("standby")
    store.run(put(3))
    store.sync()
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 2: 0, 3: 0}


def _comes_back(lab: Lab, other: Store) -> None:
    """The writer is back, and another program's heartbeat arrives."""
    lab.start("primary")
    view, _ = _look_until(other, Action.WRITE)
    other.pair.watch.heartbeat(view, "primary")
    assert other.pair.watch.contact is not None


def test_a_follower_found_refused_before_the_writer_was_read_is_asked_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is back and in sync by then: a solo writer and an eligible follower could both go on."""
    store = lab.migrated(background=False, **PATIENT)
    store.run(put(1))
    view, _ = store.pair.look()
    store.pair.watch.heartbeat(view, "primary")
    lab.kill("standby")
    refused = _answer_until_refused(store.pair.standby)
    lab.start("standby")
    lab.ship()  # by another program: the follower is required, has everything, and is eligible
    follower = lab.state("standby")
    assert follower.eligible_boot == follower.boot
    with monkeypatch.context() as patch:
        patch.setattr(store.pair.standby, "observe", lambda seconds: refused)
        view, decision = store.pair.look()
    assert decision.action is Action.GO_SOLO  # by an old verdict and a new reading of the writer
    with pytest.raises(NotTheWriter, match="standby was asked once more"):
        store.pair.act(view, decision)
    assert not lab.state("primary").solo
    store.run(put(2))
    lab.kill("primary")
    store.run(put(3))
    assert lab.accounts("standby") == {1: 0, 2: 0, 3: 0}


def test_a_writer_found_refused_before_the_follower_was_read_is_asked_again(sqlite_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = sqlite_lab
    store = lab.migrated(background=False, **PATIENT)
    store.run(put(1))
    lab.kill("primary")
    refused = _answer_until_refused(store.pair.primary)
    lab.start("primary")
    with monkeypatch.context() as patch:
        patch.setattr(store.pair.primary, "observe", lambda seconds: refused)
        view, decision = store.pair.look()
    assert decision.action is Action.TAKE_OVER
    with pytest.raises(NotTheWriter, match="primary was asked once more"):
        store.pair.act(view, decision)
    assert lab.state("standby").role == "follower"


def test_what_the_writer_of_a_later_term_acknowledges_alone_says_nothing_of_an_earlier_commit(sqlite_lab: Lab) -> None:
    """The commit's node lost it at a rejoin, and is the writer again, alone, when the sleeping program asks."""
    lab = sqlite_lab
    store = lab.migrated(background=False, **PATIENT)
    store.run(put(1))
    asleep, id = lab.lead(), committed(lab, "primary", 2)
    lab.kill("primary")
    store.run(put(3))
    lab.start("primary")
    store.rejoin()
    store.sync()
    lab.kill("standby")
    store.run(put(4))
    assert (lab.state("primary").role, lab.state("primary").solo) == ("writer", True)
    with pytest.raises(TransactionLost):
        acknowledge(store.pair, asleep, id, "replicated")
    assert lab.accounts("primary") == {1: 0, 3: 0, 4: 0}


# -- with a witness


@pytest.fixture
def witness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the witness is."""
    return tmp_path_factory.mktemp("witness") / "witness.db"


def test_the_witness_stores_the_req_of_every_solo(sqlite_lab: Lab, witness: Path) -> None:
    """A resync whose program stands still before it tells the witness is outrun by the next solo."""
    lab, url = sqlite_lab, f"sqlite:///{witness}"
    store = lab.migrated(background=False, witness=url)
    store.run(put(1))
    lab.kill("standby")
    store.run(put(2))  # solo
    lab.start("standby")
    resync = lab.shipper().ship()  # by a program that then stands still
    assert resync.resynced
    lab.kill("standby")
    store.run(put(3))  # solo again; the witness has the writer alone already
    assert lab.state("primary").req == resync.req
    late = Witness(make_url(url))
    assert not late.grant_resync(lab.lead().term, "primary", BOTH, resync.req)
    assert late.view().in_sync == {"primary"}
    late.close()
    lab.kill("primary")
    lab.start("standby")  # the same file: only the witness knows that it was left behind
    with pytest.raises(NoWriter, match="went on without standby"):
        lab.store(background=False, witness=url, takeover_timeout=0.5).run(put(4))
    lab.start("primary")
    store.run(put(5))
    store.sync()
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 2: 0, 3: 0, 5: 0}


@pytest.mark.parametrize("former", ["dead", "alive"])
def test_a_takeover_granted_by_the_witness_needs_no_eligibility_any_more(
    sqlite_lab: Lab, witness: Path, monkeypatch: pytest.MonkeyPatch, former: str
) -> None:
    """The program that was granted it died, and the follower restarted: since the grant the old writer can't have gone on alone."""
    lab, url = sqlite_lab, f"sqlite:///{witness}"
    store = lab.migrated(background=False, witness=url)
    store.run(put(1))
    lab.kill("primary")
    view, decision = _look_until(store, Action.TAKE_OVER)

    def dies(*_: Any, **__: Any) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(takeover, "under_role_lock", dies)
        with pytest.raises(Died):
            store.pair.act(view, decision)
    store.close()
    lab.replace("standby")
    standby = lab.state("standby")
    assert (standby.role, standby.eligible_boot == standby.boot) == ("follower", False)
    if former == "alive":
        lab.start("primary")
    late = lab.store(background=False, witness=url)
    late.run(put(2))
    granted = Witness(make_url(url))
    assert (lab.state("standby").role, lab.state("standby").term_uuid) == ("writer", granted.view().term.uuid)
    granted.close()
    if former == "dead":
        lab.start("primary")
    late.rejoin()
    late.sync()
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 2: 0}


# -- helpers


def _then(run: Callable[..., Any], meanwhile: Callable[[], Any]) -> Callable[..., Any]:
    """Does the same, and then something else happens."""

    def both(*arguments: Any) -> Any:
        result = run(*arguments)
        meanwhile()
        return result

    return both


def _look_until(store: Store, action: Action) -> Any:
    """Old connections die first; then the node says how it is."""
    for _ in range(100):
        view, decision = store.pair.look()
        if decision.action is action:
            return view, decision
    raise AssertionError(f"not {action}: {decision.reason}")


def _answer_until_refused(node: Node) -> Observation:
    for _ in range(100):
        seen = node.observe(2.0)
        if str(seen.fault) == "refused":
            return seen
    raise AssertionError(f"{node.name} is not refused: {seen}")
