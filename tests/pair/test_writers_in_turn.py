"""Both nodes write in turn, each until it is lost: whatever became of it, it follows again without a copy, no key is given twice, nothing is dropped."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

from sqlalchemy.orm import Session

from replstore import Store
from tests.fix_mixed import MixedLab
from tests.fix_stores import Lab
from tests.hazards.test_22_clocks_pauses_sequences import Numbered, NumberedBase

FAULTS = ("kill", "stop", "switchover")


def other(node: str) -> str:
    return "standby" if node == "primary" else "primary"


def write(store: Store, name: str) -> int:
    def change(session: Session) -> int:
        row = Numbered(name=name)
        session.add(row)
        session.flush()
        return row.id

    return store.run(change)


def turns(lab: Lab, number: int) -> tuple[Store, list[int], list[int]]:
    """The writer is killed, shut down in order, or hands over; what it gave last, unshipped, is an orphan if it is lost.

    Returns:
        The keys that were given and stayed, and the orphans'.
    """
    store = lab.migrated(NumberedBase.metadata, background=False, durability="async", rejoin="manual")
    store.sync()
    kept, orphans, writer = [], [], "primary"
    for turn, fault in zip(range(number), cycle(FAULTS), strict=False):
        kept.append(write(store, f"shipped in turn {turn}"))
        store.sync()
        last = write(store, f"last in turn {turn}")
        if fault == "switchover":
            store.switchover()
            kept.append(last)
        else:
            lose: Callable[[str], None] = lab.kill if fault == "kill" else lab.pair.stop  # type: ignore[assignment]
            lose(writer)
            kept.append(write(store, f"after turn {turn}"))
            kept.extend([write(store, f"alone in turn {turn}") for _ in range(3)])
            lab.start(writer)
            assert store.rejoin() == 1
            orphans.append(last)
        writer = other(writer)
        assert store.status().writer == writer
        store.sync()
        assert store.status().healthy
    return store, kept, orphans


def verify(lab: Lab, store: Store, kept: list[int], orphans: list[int], name: Callable[[str], str]) -> None:
    rows = "SELECT id FROM numbered ORDER BY id"
    assert [id for (id,) in lab.sql("primary", rows)] == [id for (id,) in lab.sql("standby", rows)] == sorted(kept)
    assert len({*kept, *orphans}) == len(kept) + len(orphans)
    for node in ("primary", "standby"):
        records = lab.sql(node, f"SELECT key FROM {name(node)} WHERE tbl LIKE '%numbered'")
        assert sorted(key for (key,) in records) == sorted(f"[{id}]" for id in orphans)
    assert store.check().equal


def test_a_node_that_was_lost_follows_again_whichever_wrote_and_however_often(lab: Lab) -> None:
    store, kept, orphans = turns(lab, 6)
    verify(lab, store, kept, orphans, lambda node: lab.name("orphan"))
    plan = store.orphans.replay(out_of_order=True, reason="wanted")  # with the keys that they had
    assert [str(verdict.outcome) for verdict in plan.verdicts] == ["replayed"] * len(orphans)
    store.sync()
    verify(lab, store, [*kept, *orphans], [], lambda node: f"(SELECT * FROM {lab.name('orphan')} WHERE state = 'open') o")


def test_the_same_with_a_file_and_a_server(mixed_lab: MixedLab) -> None:
    store, kept, orphans = turns(mixed_lab, 3)
    verify(mixed_lab, store, kept, orphans, lambda node: mixed_lab.name("orphan", node))
