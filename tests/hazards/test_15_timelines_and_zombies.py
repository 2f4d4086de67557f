"""Hazard 15: timelines that lie, servers that come back from the dead, and promotions that come too late.  Tokens, (b), are in `test_15_tokens…`."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

from replstore import NoWriter, Store
from tests.fix_native import NativeLab, Paused, ended, in_thread, refuses
from tests.fix_pairs import plain
from tests.fix_stores import FAST, Base, insert, put, until
from tests.fix_streaming import on_an_installed_server_too

# ---------------------------------------------------------------------------- (a) which timeline it is


@on_an_installed_server_too
def test_the_new_timeline_is_known_while_the_control_file_still_tells_the_old_one(native_lab: NativeLab) -> None:
    lab = native_lab
    store = lab.migrated(background=False, promote=False)
    store.run(put(1))
    store.sync()
    before = lab.state("standby").term_no
    lab.pair.stop("primary")
    standby = lab.pair.standby
    ((checkpointer,),) = standby.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
    os.kill(checkpointer, signal.SIGSTOP)  # nobody writes the control file anew
    try:
        lab.pair.promote("standby")
        ((told,),) = standby.execute("SELECT timeline_id FROM pg_control_checkpoint()")
        assert told <= before  # less, where no checkpoint has come since the promotion before this one
        store.run(put(2))
        assert (store.status().writer, store.status().term, lab.timelines("standby")[-1]) == ("standby", before + 1, before + 1)
    finally:
        os.kill(checkpointer, signal.SIGCONT)


# ---------------------------------------------------------------------------- (c) a former primary that is started again


def test_anybody_but_a_store_can_write_on_a_former_primary(native_lab: NativeLab) -> None:
    lab = native_lab
    store = lab.migrated()
    store.run(put(1))
    store.sync()
    lab.kill("primary")
    store.run(put(2))
    lab.start("primary")
    lab.sql("primary", insert(3))  # what no client can prevent, and the docs say
    until(lambda: store.pair.lead is None, "it is seen")
    with pytest.raises(NoWriter, match="both nodes write"):
        store.run(put(4))
    assert (lab.accounts("primary"), lab.accounts("standby")) == ({1: 0, 3: 0}, {1: 0, 2: 0})


# ---------------------------------------------------------------------------- (d) two histories under one number


def test_two_histories_under_one_timeline_are_refused(own_native_lab: NativeLab) -> None:
    """Both were promoted from timeline 1, and neither knew of the other one's promotion (HAZARDS 15d)."""
    lab = own_native_lab
    store = lab.migrated(takeover_timeout=1.0)
    store.run(put(1))
    store.sync()
    lab.kill("primary")
    store.run(put(2))
    (lab.pair.primary.data / "standby.signal").touch()
    lab.start("primary")  # a standby of nobody
    lab.pair.promote("primary")
    until(lambda: store.pair.lead is None, "it is seen")
    refuses(lambda: store.run(put(3)), "both nodes write, on timeline 2 of two histories")
    lab.kill("standby")
    refuses(lambda: store.run(put(4)), "primary writes on another timeline 2 than the one that this program has seen: they are two histories")


# ---------------------------------------------------------------------------- (e) who promotes, and when


def test_a_role_without_rights_writes_and_waits_for_whoever_promotes(native_lab: NativeLab) -> None:
    """It owns its database, and is shown nothing of other sessions."""
    lab = native_lab
    name = lab.pair.database
    lab.pair.primary.create_role("bare")
    lab.pair.primary.execute("REVOKE EXECUTE ON FUNCTION pg_promote(boolean, integer) FROM PUBLIC", name)
    lab.pair.primary.execute(f"ALTER DATABASE {name} OWNER TO bare")
    urls: dict[str, Any] = {node: lab.pair.server(node).url(name, "bare") for node in ("primary", "standby")}  # type: ignore[arg-type]
    with Store(**{**FAST, **urls, "takeover_timeout": 1.0}, replication="native", promote=True, durability="replicated") as store:
        store.migrate(Base.metadata)
        store.run(put(1))
        assert store.status().warnings is not None
        lab.kill("primary")
        refuses(lambda: store.run(put(2)), r"standby isn't promoted: this role may not: GRANT EXECUTE ON FUNCTION pg_promote\(boolean, integer\)")
        lab.pair.promote("standby")
        store.run(put(3), durability="server")


@on_an_installed_server_too
def test_of_two_programs_that_lose_the_primary_one_promotes_and_both_go_on(native_lab: NativeLab) -> None:
    lab = native_lab
    stores = [lab.migrated(background=False), lab.store(background=False)]
    for number, store in enumerate(stores):
        store.run(put(number))
    stores[0].sync()
    for store in stores:
        store.pair.look()
    before = lab.timelines("standby")
    lab.kill("primary")
    threads = [in_thread(lambda store=store, number=number: store.run(put(10 + number))) for number, store in enumerate(stores)]
    ended(*(thread for thread, _ in threads))
    assert [results for _, results in threads] == [[None], [None]]
    assert len(lab.timelines("standby")) == len(before) + 1
    assert sorted(lab.accounts("standby")) == [0, 1, 10, 11]
    assert len({store.pair.lead.term for store in stores if store.pair.lead}) == 1


@pytest.mark.parametrize("came_back", ["heard of", "unheard of", "as a standby"])
def test_a_late_promotion_does_nothing_if_the_primary_came_back(native_lab: NativeLab, monkeypatch: pytest.MonkeyPatch, came_back: str) -> None:
    lab = native_lab
    store = lab.migrated(background=False)
    store.run(put(1))
    store.sync()
    store.pair.look()
    paused = Paused(monkeypatch, within=None if came_back == "unheard of" else 60.0)
    if came_back == "unheard of":
        with lab.cut_receiver():
            late, other = _lost_and_back(lab, store, paused)
            time.sleep(3 * store.settings.probe_timeout)
            paused.woken.set()
            until(lambda: paused.refusals, "it was refused")
        says = "this program stood still in between"
    elif came_back == "heard of":
        late, other = _lost_and_back(lab, store, paused)
        other.sync()
        paused.woken.set()
        says = "it has received more in the meantime|connected to a primary that sends"
    else:
        lab.kill("primary")
        late, _ = in_thread(lambda: store.run(put(2)))
        assert paused.decided.wait(10)
        lab.pair.promote("standby")
        lab.pair.follow("primary")
        other = lab.store(background=False)
        other.run(put(3))
        paused.woken.set()
        says = "it is no standby any more"
    ended(late)
    assert paused.refusals
    assert any(word in paused.refusals[0] for word in says.split("|")), paused.refusals
    writer = "standby" if came_back == "as a standby" else "primary"
    assert lab.accounts(writer) == {1: 0, 2: 0, 3: 0}
    assert len(lab.timelines(writer)) == (2 if writer == "standby" else 1)


def _lost_and_back(lab: NativeLab, store: Store, paused: Paused) -> tuple[threading.Thread, Store]:
    lab.kill("primary")
    late, _ = in_thread(lambda: store.run(put(2)))
    assert paused.decided.wait(10)
    lab.start("primary")
    other = lab.store(background=False, promote=False)
    other.run(put(3))
    return late, other


# ---------------------------------------------------------------------------- (f) how far behind the standby is


def test_how_much_a_standby_lacks_only_those_know_who_have_seen_the_primary(native_lab: NativeLab) -> None:
    lab = native_lab
    lab.migrated(background=False, promote=False).run(put(1))
    lab.pair.primary.create_role("bare")
    lab.pair.catch_up()
    with plain(lab.pair.standby.url(lab.pair.database, "bare")) as ordinary:  # it sees that something is received, and not what
        assert ordinary.execute("SELECT pid IS NOT NULL, latest_end_lsn, last_msg_receipt_time FROM pg_stat_wal_receiver").fetchone() == (
            True,
            None,
            None,
        )
    lab.kill("primary")
    late = lab.store(takeover_timeout=1.0)
    refuses(lambda: late.run(put(2)), "standby isn't promoted: this program hasn't seen primary")
    assert len(lab.timelines("standby")) == 1
