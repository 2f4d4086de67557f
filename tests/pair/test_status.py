"""Status: what each node's state means never contradicts the headline, and a lost node is watched until something can be said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from replstore.cli.status import render
from replstore.pair.decide import Reach, decide
from replstore.pair.meaning import meaning
from replstore.pair.status import Status, _next_step
from replstore.pair.view import NodeView, View
from replstore.store import Store
from tests.fix_ordinary import ordinary
from tests.fix_stores import FAST, Lab
from tests.unit.pair_rows import FOLLOWER, T2, WRITER, view


def screen(status: Status) -> str:
    """What a person sees, in one line."""
    console = Console(width=300, highlight=False)
    with console.capture() as capture:
        console.print(render(status))
    return " ".join(capture.get().split())


def looked(lab: Lab) -> Status:
    return lab.store(background=False).status()


def means(seen: View) -> dict[str, str]:
    decision = decide(seen)
    return {
        "primary": meaning(seen, decision, seen.primary, seen.standby),
        "standby": meaning(seen, decision, seen.standby, seen.primary),
        "next": _next_step(seen, decision),
    }


def test_a_healthy_pair(sqlite_lab: Lab) -> None:
    sqlite_lab.migrated(background=False).close()
    status = looked(sqlite_lab)
    assert {name: node.state for name, node in status.nodes.items()} == {"primary": "it writes", "standby": "in sync; it may take over"}
    assert str(status) == "primary writes, standby follows; primary writer (it writes); standby follower (in sync; it may take over)"
    assert status.witness is None
    assert status.healthy


def test_an_unconfirmed_writer_does_not_write_and_is_told_of_solo(sqlite_lab: Lab) -> None:
    sqlite_lab.migrated(background=False).close()
    sqlite_lab.kill("standby")
    status = looked(sqlite_lab)
    assert "No node writes now." in screen(status)
    assert status.nodes["primary"].state == "unconfirmed: it acknowledges nothing"
    assert status.next_step == "bring standby back, or, if it can't have taken over, run `replstore solo`"


def test_after_a_takeover_the_former_writer_is_no_writer(sqlite_lab: Lab) -> None:
    sqlite_lab.migrated(background=False).close()
    sqlite_lab.kill("primary")
    sqlite_lab.store(background=False).takeover("standby")
    sqlite_lab.start("primary")
    status = looked(sqlite_lab)
    assert status.nodes["primary"].state == "a former writer, not fenced yet"
    assert status.nodes["standby"].state == "it writes, and acknowledges alone"
    assert "(term 2)" not in screen(status)  # the sentence says it already
    assert str(status).endswith("standby writer (it writes, and acknowledges alone)")


def test_beside_a_solo_writer_a_living_follower_is_not_in_sync(sqlite_lab: Lab) -> None:
    store = sqlite_lab.migrated(background=False)
    store.solo()
    status = looked(sqlite_lab)
    assert status.nodes["standby"].state == "not required now; in sync again with the next batch"
    assert "A commit is acknowledged by the writer alone, until the other node is in sync." in screen(status)


def test_states_of_pairs_that_a_person_must_decide() -> None:
    two_terms = replace(FOLLOWER, term=T2)
    assert means(view(WRITER, two_terms))["standby"] == "it follows term 2, and primary writes under term 1"
    twins = means(view(WRITER, replace(WRITER, name="standby", node="B", term=replace(T2, number=1))))
    assert twins["primary"] == twins["standby"] == "it says that it writes; nothing is acknowledged before a person has decided"


def test_a_follower_that_may_not_take_over_says_why() -> None:
    restarted = means(view(replace(WRITER, reach=Reach.REFUSED), replace(FOLLOWER, boot="b1")))
    assert restarted["standby"].startswith("it follows, and may not take over: it was restarted or replaced since it was last in sync")
    assert means(view(WRITER, replace(FOLLOWER, boot="b1")))["standby"] == "it follows, and may not take over before it is in sync again"


def test_a_node_that_answers_with_a_refusal_is_mended_and_not_brought_back() -> None:
    locked = replace(WRITER, reach=Reach.LOCKED_OUT, error='password authentication failed for user "app"')
    solo = NodeView("standby", node="B", role=WRITER.role, term=T2, boot="b0", solo=True, solo_boot="b0")
    for seen in (view(locked, solo), view(locked, FOLLOWER)):
        assert means(seen)["next"] == "mend primary's URL, its password or its server"
        assert means(seen)["primary"] == "it can't be used: mend what its health says"


def test_a_frozen_writer_is_watched_until_somebody_may_take_over(postgresql_lab: Lab) -> None:
    postgresql_lab.migrated(background=False).close()
    postgresql_lab.pair.freeze("primary")  # type: ignore[attr-defined]
    status = looked(postgresql_lab)
    assert status.decision == "take over"
    assert status.nodes["primary"].health.startswith("silent: no answer for ")
    assert status.next_step == f"any running Store takes over after {FAST['detection_time']:g} s of silence; `replstore takeover` does it now"


def test_a_writer_whose_file_is_read_only_is_not_healthy(place: Path) -> None:
    urls = {"primary": f"sqlite:///{place}/a.db", "standby": f"sqlite:///{place}/b.db"}
    with ordinary():
        with Store(background=False, **urls) as store:
            store.migrate()
        (place / "a.db").chmod(0o444)
        with Store(background=False, **urls) as store:
            status = store.status()
    assert status.nodes["primary"].health == f"up: the file {place}/a.db can't be written"
    assert status.nodes["primary"].state == f"it writes; but the file {place}/a.db can't be written"
    assert not status.healthy
