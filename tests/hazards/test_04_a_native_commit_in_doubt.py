"""Hazard 4, native: a COMMIT that waits for a standby is visible to nobody, waits on when its client is gone, and, once ended, is committed here alone."""

from __future__ import annotations

import pytest

from replstore import CommittedNotReplicated
from tests.fix_native import NativeLab
from tests.fix_proxy import MakeProxy
from tests.fix_stores import Account, put


@pytest.mark.parametrize("standby", ["comes back", "stays away"])
def test_a_commit_that_waits_for_a_standby_when_its_client_is_cut_off_is_never_repeated(
    native_lab: NativeLab, proxy: MakeProxy, standby: str
) -> None:
    lab = native_lab
    way = proxy(lab.pair.primary_url)
    store = lab.migrated(primary=way.url)
    store.run(put(1))
    lab.pair.synchronous()
    store.pair.look()
    calls = 0

    def add(session) -> None:  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        session.get(Account, 1).amount += 1
        session.flush()
        way.cut_after(b"COMMIT", forward=True)

    if standby == "comes back":
        lab.pair.freeze("standby")
        way_back = lab.pair.thaw
        with pytest.MonkeyPatch.context() as patch:  # when the client has been cut off
            doubt = store.pair.doubt
            patch.setattr(store.pair, "doubt", lambda lead: (way_back("standby"), doubt(lead)))
            store.run(add)
        assert lab.accounts("standby") == {1: 1}
    else:
        with lab.cut_receiver():
            with pytest.raises(CommittedNotReplicated, match="was not seen on standby"):
                store.run(add)
            assert lab.accounts("standby") == {1: 0}
            assert lab.sql("primary", "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == [(0,)]
            lab.pair.synchronous(False)
    assert calls == 1
    assert lab.accounts("primary") == {1: 1}
