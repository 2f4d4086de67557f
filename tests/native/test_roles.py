"""Which server writes, on real ones: it is their own roles, timelines and cluster that decide, and what contradicts itself is refused, loudly."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from sqlalchemy import text

from replstore import CommittedNotReplicated, NotAPair, NoWriter, local
from tests.fix_native import NativeLab, refuses
from tests.fix_proxy import MakeProxy
from tests.fix_stores import put, until


def several(lab: NativeLab, attributes: str) -> str:
    """A URL that names both servers."""
    hosts = "&".join(f"host=127.0.0.1:{lab.pair.server(name).port}" for name in ("primary", "standby"))  # type: ignore[arg-type]
    return f"postgresql://app@/{lab.pair.database}?{hosts}&target_session_attrs={attributes}"


# ---------------------------------------------------------------------------- what is no pair


def test_two_clusters_and_two_databases_are_refused_at_once(native_lab: NativeLab, postgresql_pair: local.PostgresPair) -> None:
    lab = native_lab
    elsewhere = {"standby": postgresql_pair.primary_url}
    other_database = {"standby": lab.pair.standby.url("postgres", "postgres")}
    for urls, says in ((elsewhere, "are two clusters, not one and its copy"), (other_database, "name two databases of one cluster")):
        with pytest.raises(NotAPair, match=says):
            lab.store(background=False, **urls).migrate()
    command = [
        sys.executable,
        "-m",
        "replstore",
        "migrate",
        "--replication",
        "native",
        "--primary",
        lab.pair.primary_url,
        "--standby",
        elsewhere["standby"],
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, "are two clusters" in ended.stderr) == (2, True), ended
    lab.migrated(background=False)
    for urls, says in ((elsewhere, "are two clusters, not one and its copy"), (other_database, "name two databases of one cluster")):
        with pytest.raises(NotAPair, match=says):
            lab.store(background=False, **urls)


# ---------------------------------------------------------------------------- both write, or the wrong one does


def test_while_both_servers_write_nobody_does_through_a_store(native_lab: NativeLab, caplog: pytest.LogCaptureFixture) -> None:
    lab = native_lab
    store = lab.migrated()
    store.run(put(1))
    store.sync()
    lab.pair.promote("standby")  # a person's mistake: the primary lives
    with caplog.at_level(logging.ERROR, "replstore.pair"):
        until(lambda: store.pair.decision is not None and store.pair.decision.action == "stop", "it is seen")
        with pytest.raises(
            NoWriter, match=r"both nodes write: standby was promoted to timeline \d+, and primary still writes on \d+; stop primary's server"
        ):
            store.run(put(2))
    assert "nobody may write: both nodes write" in caplog.text
    assert store.status().writer is None
    lab.pair.stop("primary")
    store.run(put(3))
    assert (store.status().writer, lab.accounts("standby")) == ("standby", {1: 0, 3: 0})


def test_a_former_primary_alone_is_written_to_only_by_who_has_never_met_the_new_one(native_lab: NativeLab, caplog: pytest.LogCaptureFixture) -> None:
    lab = native_lab
    store = lab.migrated(takeover_timeout=1.0)
    store.run(put(1))
    store.sync()
    lab.kill("primary")
    store.run(put(2))
    lab.kill("standby")
    lab.start("primary")  # as a service manager does
    refuses(lambda: store.run(put(3)), r"primary writes on timeline \d+, but timeline \d+ has begun: it is a former primary; standby is refused")
    assert lab.accounts("primary") == {1: 0}
    with caplog.at_level(logging.WARNING, "replstore.pair"):
        stranger = lab.store()
        stranger.run(put(4))  # it can't know
    assert "which this program has never met: if it was promoted, primary is a former primary" in caplog.text
    lab.start("standby")
    until(lambda: stranger.pair.lead is None, "it has met the new primary")
    with pytest.raises(NoWriter, match="both nodes write"):
        stranger.run(put(5))


def test_a_standby_on_an_older_timeline_is_named_and_not_promoted(own_native_lab: NativeLab) -> None:
    lab = own_native_lab
    store = lab.migrated(takeover_timeout=1.0)
    store.run(put(1))
    store.sync()
    lab.kill("primary")
    store.run(put(2))
    (lab.pair.primary.data / "standby.signal").touch()
    lab.start("primary")  # a standby of nobody
    until(lambda: "primary follows, and has nothing yet of timeline 2" in store.status().reason, "it is seen")
    store.run(put(3))
    lab.kill("standby")
    refuses(lambda: store.run(put(4)), "primary isn't promoted: it has nothing of timeline 2, which has begun")


# ---------------------------------------------------------------------------- the very server


def test_a_connection_that_leads_to_a_server_started_anew_is_not_written_on(native_lab: NativeLab) -> None:
    """The primary died, its standby was promoted, and it was started again, all since this program has looked."""
    lab = native_lab
    store = lab.migrated(background=False, detection_time=30.0)
    store.pair.primary.reconnect()  # no connection is there yet
    store.pair.look()
    lab.kill("primary")
    lab.pair.promote("standby")
    lab.start("primary")
    lead = store.pair.lead
    assert lead is not None
    assert store.pair.current(0.0) is lead  # as far as it knows nothing has happened
    for write in (lambda: store.run(put(1)), lambda: store.sessionmaker()().execute(text("DELETE FROM account"))):
        with pytest.raises(NoWriter, match="both nodes write"):
            write()
    assert lab.accounts("primary") == lab.accounts("standby") == {}


def test_a_primary_that_was_started_again_is_believed_only_after_its_standby_was_asked_once_more(
    native_lab: NativeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The standby answered, was promoted, and then the primary answered, all within one look."""
    lab = native_lab
    store = lab.migrated(background=False)
    store.pair.look()
    standby = store.pair.standby
    answers = [standby.observe(2.0)]
    observe = standby.observe
    lab.kill("primary")
    lab.pair.promote("standby")
    lab.start("primary")
    monkeypatch.setattr(standby, "observe", lambda seconds: answers.pop() if answers else observe(seconds))
    assert store.pair.look()[1].action == "stop"


def test_a_virtual_address_is_followed_to_the_new_primary(native_lab: NativeLab, proxy: MakeProxy) -> None:
    lab = native_lab
    address = proxy(lab.pair.primary_url)
    store = lab.migrated(primary=address.url, promote=False, refused_means_dead=False)
    store.run(put(1))
    store.sync()
    address.target = ("127.0.0.1", lab.pair.standby.port)
    lab.pair.stop("primary")
    lab.pair.promote("standby")
    store.run(put(2))
    until(lambda: "both URLs lead to one server" in store.status().reason, "both are seen")
    store.run(put(3))
    assert lab.accounts("standby") == {1: 0, 2: 0, 3: 0}


def test_urls_with_several_hosts_find_primary_and_standby_wherever_they_are(native_lab: NativeLab) -> None:
    lab = native_lab
    urls = {"primary": several(lab, "primary"), "standby": several(lab, "prefer-standby")}
    store = lab.migrated(**urls)
    store.run(put(1))
    store.sync()
    assert "primary writes, standby follows" in store.status().reason
    lab.kill("primary")
    store.run(put(2))  # no server of the primary's URL is one, so the standby is promoted
    assert len(lab.timelines("standby")) == 2
    lab.pair.follow("primary")
    until(
        lambda: store.status().reason == "primary writes, standby follows", "the former primary is the standby"
    )  # the URLs' names stay with the roles
    store.run(put(3))
    assert lab.accounts("standby") == {1: 0, 2: 0, 3: 0}


def test_a_url_that_takes_the_standby_for_the_lost_primary_promotes_nobody(native_lab: NativeLab) -> None:
    lab = native_lab
    store = lab.migrated(primary=several(lab, "any"), takeover_timeout=1.0)
    store.run(put(1))
    lab.kill("primary")
    refuses(lambda: store.run(put(2)), "both URLs lead to one server, a standby: nobody writes, and which server is lost isn't known")
    assert len(lab.timelines("standby")) == 1


def test_a_commit_found_by_the_other_url_on_the_same_server_is_not_on_both(native_lab: NativeLab, proxy: MakeProxy) -> None:
    native_lab.migrated()
    network = proxy(native_lab.pair.primary_url)
    store = native_lab.store(primary=network.url, standby=several(native_lab, "primary"), promote=False, ack_timeout=0.5, background=False)
    store.run(put(1))
    network.cut_after(b"COMMIT", forward=True, then="refuse")
    with pytest.raises(CommittedNotReplicated):
        store.run(put(2), durability="replicated")
    assert native_lab.accounts("primary").keys() == {1, 2}
