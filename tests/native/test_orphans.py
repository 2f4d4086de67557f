"""What only a former primary has is exported before a rewind throws it away, and nothing of it goes by."""

from __future__ import annotations

import json
from typing import Any

import pytest

from replstore import OrphansNotExported
from replstore.reconcile.export import export
from replstore.store import Store
from tests.fix_native import NativeLab
from tests.fix_stores import insert, put
from tests.fix_streaming import on_an_installed_server_too


def parted(lab: NativeLab, *alone: Any, **settings: Any) -> Store:
    """The primary commits alone, dies, and the standby is promoted: what was committed alone is lost.

    Args:
        alone: statements, or functions that get the Store.
    """
    store = lab.migrated(background=False, promote=False, **{**lab.here(), **settings})
    for id in (1, 2, 3, 4):
        store.run(put(id))
    store.sync()
    lab.kill("standby")
    for each in alone:
        each(store) if callable(each) else lab.sql("primary", each)
    lab.kill("primary")
    lab.start("standby")
    store.takeover("standby", force=True)
    return store


@on_an_installed_server_too
def test_every_row_of_a_lost_transaction_is_exported_with_both_versions(native_lab: NativeLab) -> None:
    def lost(store: Store) -> None:
        store.run(put(10, amount=1), key="order-10")

    store = parted(
        native_lab,
        lost,
        "BEGIN; SAVEPOINT one; UPDATE account SET amount = 77 WHERE id = 2; COMMIT",
        "DELETE FROM account WHERE id = 3",
        "UPDATE account SET id = 40 WHERE id = 4",
        "BEGIN; INSERT INTO account VALUES (50, 'nobody', 0); ROLLBACK",
        "ANALYZE account",
    )
    store.run(put(20))
    store.run(put(1, amount=5))
    _, found, _ = export(store.pair)
    rows = {
        row["key"]["id"]: (row["kind"], row["former"] and row["former"]["amount"], row["writer"] and row["writer"]["amount"])
        for row in found.tables["public.account"]
    }
    assert rows == {
        10: ("only_on_former", "1", None),
        2: ("changed", "77", "0"),
        3: ("only_on_writer", None, "0"),
        40: ("only_on_former", "0", None),
        4: ("only_on_writer", None, "0"),
    }
    assert all(row["transaction"] for row in found.tables["public.account"] if row["kind"] != "only_on_writer")
    (keyed,) = (each for each in found.transactions if each["key"] == "order-10")
    (row,) = (row for row in found.tables["public.account"] if row["key"]["id"] == 10)
    assert row["transaction"] == keyed["transaction"]
    assert (keyed["durability"], keyed["known_by_writer"], len(found.transactions)) == ("server", None, 4)
    assert found.complete
    json.dumps(found.as_dict())


def test_a_former_primary_is_not_rewound_before_its_orphans_are_exported(native_lab: NativeLab) -> None:
    store = parted(native_lab, insert(10))
    with pytest.raises(OrphansNotExported, match=r"primary has 1 transaction that standby lacks.*orphans export"):
        store.rejoin()
    assert native_lab.accounts("standby").keys() == {1, 2, 3, 4}
    former, _, through = export(store.pair)
    former.remember("a file", through)
    # it comes back by itself, as the primary that it was, and somebody writes there: that isn't in the export
    native_lab.start("primary")
    native_lab.sql("primary", insert(11))
    native_lab.end("primary")
    with pytest.raises(OrphansNotExported, match="2 transactions"):
        store.rejoin()
    former, _, through = export(store.pair)
    former.remember("a file", through)
    assert store.rejoin() == 2
    store.sync()
    assert native_lab.accounts("primary") == native_lab.accounts("standby") == dict.fromkeys((1, 2, 3, 4), 0)
