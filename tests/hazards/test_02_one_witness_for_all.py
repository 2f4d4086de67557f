"""Hazard 2: a witness helps only if every program asks the same one; a program that knows none, or another, acts on nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, delete
from sqlalchemy.engine import make_url

from replstore.errors import ConfigError, NotAPair, NoWriter, SettingsDiffer, TakeoverRefused
from replstore.pair.appoint import appoint
from replstore.pair.decide import Action, Reach
from replstore.pair.watch import node_view
from replstore.pair.witness import Witness, witness
from tests.fix_stores import Base, Lab, put


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Where the witness is."""
    return f"sqlite:///{tmp_path}/witness.db"


def in_sync(url: str) -> frozenset[str]:
    return Witness(make_url(url)).view().in_sync


class Dies(Exception):
    """The program that migrates dies."""


def die(*_: object) -> None:
    raise Dies


def named(lab: Lab, node: str) -> str:
    """The witness that a node knows."""
    ((identity,),) = lab.sql(node, "SELECT value FROM replstore_setting WHERE name = 'witness'")
    return str(identity)


def test_a_program_that_names_no_witness_is_refused_where_the_pair_has_one(sqlite_lab: Lab, url: str) -> None:
    sqlite_lab.migrated(background=False, witness=url)
    with pytest.raises(SettingsDiffer, match="no witness is named here, and the pair has a witness"):
        sqlite_lab.store(background=False)


def test_a_witness_that_is_added_counts_for_programs_that_were_opened_before(sqlite_lab: Lab, url: str) -> None:
    lab = sqlite_lab
    unaware = lab.migrated(background=False)
    unaware.run(put(1))
    aware = lab.store(background=False, witness=url)
    assert aware.status().witness == "silent: its file isn't there"
    aware.migrate(Base)
    assert in_sync(url) == {"primary"}
    aware.pair.look_and_act()
    aware.pair.act(*aware.pair.look())
    assert in_sync(url) == {"primary", "standby"}
    lab.kill("primary")
    view, decision = unaware.pair.look()
    assert decision.action is Action.TAKE_OVER  # by the rules of a pair without a witness
    with pytest.raises(TakeoverRefused, match="the pair has a witness"):
        unaware.pair.act(view, decision)
    assert lab.state("standby").role == "follower"
    aware.run(put(2))
    assert lab.accounts("standby") == {1: 0, 2: 0}


def test_a_program_that_knows_no_witness_does_not_let_the_writer_go_on_alone(sqlite_lab: Lab, url: str) -> None:
    lab = sqlite_lab
    unaware = lab.migrated(background=False)
    unaware.run(put(1))
    lab.store(background=False, witness=url).migrate(Base)
    unaware.pair.watch.heartbeat(unaware.pair.look()[0], "primary")
    lab.kill("standby")
    view, decision = unaware.pair.look()
    assert decision.action is Action.GO_SOLO
    with pytest.raises(TakeoverRefused, match="the pair has a witness"):
        unaware.pair.act(view, decision)
    assert not lab.state("primary").solo


def test_a_witness_of_another_pair_is_no_witness(sqlite_lab: Lab, url: str) -> None:
    store = sqlite_lab.migrated(background=False, witness=url)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(witness.update().values(pair="other"))
    engine.dispose()
    assert store.status().witness == "silent: it belongs to another pair"
    with pytest.raises(NotAPair, match="belongs to another pair: give each pair a witness of its own"):
        store.migrate(Base, replace="witness")


def test_a_lost_witness_is_replaced_only_when_a_person_says_so(sqlite_lab: Lab, url: str, tmp_path: Path) -> None:
    lab = sqlite_lab
    former = lab.migrated(background=False, witness=url)
    former.run(put(1))
    new = f"sqlite:///{tmp_path}/new.db"
    store = lab.store(background=False, witness=new)
    store.migrate(Base)
    assert Witness(make_url(new)).view().reach is not Reach.UP
    store.migrate(Base, replace="witness")
    store.pair.act(*store.pair.look())
    assert in_sync(new) == {"primary", "standby"}
    assert any("the pair has another witness than this program names" in warning for warning in former.status().warnings)
    lab.kill("primary")
    with pytest.raises(TakeoverRefused, match="the pair has another witness"):
        former.pair.act(*former.pair.look())
    store.run(put(2))
    assert lab.state("standby").role == "writer"


def test_a_witness_is_dismissed_on_both_nodes_or_not_at_all(sqlite_lab: Lab, url: str) -> None:
    lab = sqlite_lab
    store = lab.migrated(background=False, witness=url)
    lab.kill("standby")
    with pytest.raises(ConfigError, match="dismissed while both nodes are there"):
        store.migrate(Base, drop_witness=True)
    lab.start("standby")
    store.migrate(Base, drop_witness=True)
    assert any("the pair has no witness, and this program names one" in warning for warning in store.status().warnings)
    lab.store(background=False).run(put(1))


def test_a_witness_is_dismissed_by_a_program_that_was_opened_before_the_pair_had_it(sqlite_lab: Lab, url: str) -> None:
    unaware = sqlite_lab.migrated(background=False)
    sqlite_lab.store(background=False, witness=url).migrate(Base)
    unaware.migrate(Base, drop_witness=True)
    sqlite_lab.store(background=False).run(put(1))


def test_another_witness_is_made_only_by_a_program_that_names_it(sqlite_lab: Lab) -> None:
    store = sqlite_lab.migrated(background=False)
    with pytest.raises(ConfigError, match="no witness is named in the settings"):
        store.migrate(Base, replace="witness")


def test_a_node_that_is_made_anew_knows_the_pair_s_witness_from_the_beginning(sqlite_lab: Lab, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = sqlite_lab.migrated(background=False, witness=url)
    sqlite_lab.kill("standby")
    with monkeypatch.context() as patch, pytest.raises(Dies):
        patch.setattr("replstore.migrate._arrange_witness", die)
        store.migrate(Base, replace="standby")
    assert named(sqlite_lab, "standby") == named(sqlite_lab, "primary") != ""


def test_a_pair_whose_making_broke_off_before_its_witness_gets_it_with_the_next_migration(sqlite_lab: Lab, url: str, tmp_path: Path) -> None:
    store = sqlite_lab.migrated(background=False, witness=url)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(delete(witness))
    engine.dispose()
    for node in ("primary", "standby"):
        sqlite_lab.sql(node, "UPDATE replstore_setting SET value = '' WHERE name = 'witness'")
    assert store.status().witness.startswith(
        "silent: it knows no pair; `replstore migrate` makes it this one's, or `replstore migrate --replace witness`"
    )
    store.migrate(Base)
    assert store.status().witness == "up"


def test_a_making_that_broke_off_between_the_nodes_is_finished_by_the_next_migration(sqlite_lab: Lab, url: str) -> None:
    store = sqlite_lab.migrated(background=False, witness=url)
    sqlite_lab.sql("standby", "UPDATE replstore_setting SET value = '' WHERE name = 'witness'")
    store.migrate(Base)
    assert named(sqlite_lab, "primary") == named(sqlite_lab, "standby") != ""


def test_a_witness_that_is_taken_up_again_knows_nothing_of_before(sqlite_lab: Lab, url: str) -> None:
    store = sqlite_lab.migrated(background=False, witness=url)
    store.pair.act(*store.pair.look())
    assert in_sync(url) == {"primary", "standby"}
    store.migrate(Base, drop_witness=True)
    with sqlite_lab.store(background=False) as unaware:
        unaware.solo()
    appoint(store.pair.nodes, {node: sqlite_lab.state(node) for node in ("primary", "standby")}, Witness(make_url(url)))
    assert in_sync(url) == {"primary"}


def test_a_takeover_that_was_forced_without_the_witness_is_told_to_it_when_it_is_back(sqlite_lab: Lab, url: str, tmp_path: Path) -> None:
    lab = sqlite_lab
    store = lab.migrated(background=False, witness=url)
    store.run(put(1))
    lab.kill("primary")
    (tmp_path / "witness.db").rename(tmp_path / "away.db")
    with pytest.raises(NoWriter):
        lab.store(background=False, witness=url, takeover_timeout=0.5).run(put(2))
    store.takeover("standby", force=True)
    store.run(put(3))
    (tmp_path / "away.db").rename(tmp_path / "witness.db")
    lab.start("primary")
    store.rejoin()
    store.migrate(Base)
    seen = Witness(make_url(url)).view()
    assert (seen.writer, seen.term.number) == ("standby", lab.state("standby").term_no)


def test_nobody_goes_on_alone_by_hand_where_the_witness_has_given_the_pair_away(sqlite_lab: Lab, url: str) -> None:
    lab = sqlite_lab
    store = lab.migrated(background=False, witness=url)
    store.run(put(1))
    seen = Witness(make_url(url))
    state = node_view(lab.state("primary"), "primary")
    assert state.term is not None
    assert seen.grant_takeover(state.term, "primary", seen.view(), type(state.term)(2, "theirs"), "standby")
    with pytest.raises(NoWriter, match="the witness has given the pair to standby under term 2: primary must not acknowledge alone"):
        store.solo()


def test_a_store_that_was_opened_before_its_pair_was_made_compares_the_settings_when_it_meets_it(sqlite_lab: Lab, url: str) -> None:
    early = sqlite_lab.store(background=False, witness=url, durability="async")
    silent = sqlite_lab.store(background=False, witness=url)
    unaware = sqlite_lab.store(background=False)
    sqlite_lab.store(background=False, witness=url, on_follower_down="block").migrate(Base)
    with pytest.raises(SettingsDiffer, match="no witness is named here"):
        unaware.run(put(1))
    with pytest.raises(SettingsDiffer, match="durability is async here and replicated in the pair's"):
        early.run(put(1))
    with pytest.raises(SettingsDiffer, match="the pair has been made by another program, with on_follower_down block: open the Store anew"):
        silent.run(put(1))


def test_a_program_that_dies_before_both_nodes_name_the_witness_leaves_one_that_does_not_count(
    sqlite_lab: Lab, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite_lab.migrated(background=False)
    store = sqlite_lab.store(background=False, witness=url)
    with monkeypatch.context() as patch, pytest.raises(Dies):
        patch.setattr("replstore.pair.appoint._set", die)
        store.migrate(Base)
    assert any("the pair has no witness, and this program names one" in warning for warning in store.status().warnings)
    store.migrate(Base)
    assert store.status().witness == "up"
    assert not any("witness" in warning for warning in store.status().warnings)


def test_an_empty_database_in_a_witness_s_place_is_told_with_the_command_that_makes_it_one(
    sqlite_lab: Lab, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be a lost one's, or a wrong URL: a person decides."""
    store = sqlite_lab.migrated(background=False, witness=url)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(delete(witness))
    engine.dispose()
    store.migrate(Base)
    assert "run `replstore migrate --replace witness`" in caplog.text
    store.migrate(Base, replace="witness")
    assert in_sync(url) == {"primary"}


def test_a_batch_that_has_landed_has_landed_though_the_witness_cannot_be_told(sqlite_lab: Lab, url: str, caplog: pytest.LogCaptureFixture) -> None:
    lab = sqlite_lab
    store = lab.migrated(background=False, witness=url)
    store.pair.look_and_act()
    store.run(put(1))
    lab.sql("standby", "UPDATE replstore_position SET eligible_boot = NULL")
    file = Path(make_url(url).database or "")
    file.rename(file.with_suffix(".away"))
    store.run(put(2))
    assert lab.accounts("standby") == {1: 0, 2: 0}
    assert "the witness can't be told that standby is in sync" in caplog.text
    file.with_suffix(".away").rename(file)
    store.run(put(3))
    assert lab.accounts("standby") == {1: 0, 2: 0, 3: 0}
