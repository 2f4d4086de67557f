"""Hazard 15: until a Store has recorded a timeline, a standby on it looks as if it were on the one before, only further."""

from __future__ import annotations

import uuid

import pytest

from replstore import NotTheWriter, StaleRead
from tests.fix_native import NativeLab
from tests.fix_proxy import MakeProxy
from tests.fix_stores import put
from tests.native.standby import stop_sending


def test_a_place_on_it_is_no_proof_of_a_transaction(native_lab: NativeLab) -> None:
    store = native_lab.migrated()
    store.run(put(1))
    node = store.pair.primary
    assert store.pair.ship_from(node, None).term_no == store.status().term  # all that was committed is there
    with pytest.raises(NotTheWriter, match="doesn't have the transaction"):
        store.pair.ship_from(node, None, str(uuid.uuid4()))


def test_a_token_of_lost_commits_is_not_satisfied_by_it(native_lab: NativeLab, proxy: MakeProxy) -> None:
    lab = native_lab
    store = lab.migrated()
    store.run(put(1), durability="replicated")
    stop_sending(lab)
    store.run(put(2))
    token = store.token()
    store.close()
    lab.kill("primary")
    lab.pair.promote("standby")
    assert lab.pair.follow("primary")
    new = lab.pair.standby
    new.execute("SELECT pg_logical_emit_message(false, 'filler', repeat('x', 200000), true) FROM generate_series(1, 3)")
    lab.pair.catch_up()
    away = proxy(lab.pair.standby_url)
    away.black_hole()
    reader = lab.store(standby=away.url, background=False, promote=False, takeover_timeout=1.0)
    with pytest.raises(StaleRead), reader.read(node="follower", after=token):
        pass
