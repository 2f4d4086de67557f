"""Hazard 12: a follower always equals the writer at some snapshot, or is neither read nor lets itself be made the writer."""

from __future__ import annotations

import random
import threading

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from replstore.errors import NoWriter, TakeoverRefused
from replstore.replication.mirror import mirror
from tests.fix_stores import Lab, Steps, count, insert, put


def test_a_follower_that_is_killed_while_a_batch_is_written_has_all_of_it_or_nothing(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    lab.sql("primary", insert(2), insert(3))
    shipper = lab.shipper()
    landed = shipper.carrier._land if lab.postgresql else shipper.carrier._advance_sequences  # type: ignore[attr-defined]

    def die(*arguments: object) -> None:
        """All rows have been written, nothing is committed."""
        lab.kill("standby")
        landed(*arguments)

    setattr(shipper.carrier, landed.__name__, die)
    if lab.postgresql:
        with pytest.raises(Exception, match="connection"):
            shipper.ship()
        lab.start("standby")
        assert lab.accounts("standby").keys() == {1}
    else:
        shipper.ship()  # into the file that was moved away
        lab.start("standby")
        assert lab.accounts("standby").keys() == {1, 2, 3}
    shipper.close()
    lab.ship()
    assert lab.accounts("standby").keys() == {1, 2, 3}


def test_a_reader_of_the_follower_never_sees_half_a_transaction(lab: Lab) -> None:
    store = lab.migrated(background=False)
    with store.begin() as session:
        for id in range(1, 11):
            put(id, 100)(session)
    store.sync()
    over, sums = threading.Event(), set()

    def read() -> None:
        connection = lab.connect("standby")
        while not over.is_set():
            sums.add(connection.execute("SELECT sum(amount) FROM account").fetchone())
            if lab.postgresql:
                connection.commit()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(40):
            store.run(_transfer)
    finally:
        over.set()
        reader.join()
    assert sums == {(1000,)}


def _transfer(session: Session) -> None:
    one, other = random.sample(range(1, 11), 2)
    session.execute(text("UPDATE account SET amount = amount - 7 WHERE id = :id"), {"id": one})
    session.execute(text("UPDATE account SET amount = amount + 7 WHERE id = :id"), {"id": other})


def test_what_is_committed_while_a_batch_is_under_way_is_not_in_it(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1, 10))
    lab.sql("primary", "UPDATE account SET amount = 11 WHERE id = 1")
    shipper = lab.shipper()
    # changes a row of the batch, and one that isn't in it
    both = lambda: lab.sql("primary", "UPDATE account SET amount = 12 WHERE id = 1", insert(2, 12))  # noqa: E731
    shipper.carrier = Steps(shipper.carrier, after={"snapshot": both})
    shipper.ship()
    assert lab.accounts("standby") == {1: 11}
    shipper.ship()
    assert lab.accounts("standby") == {1: 12, 2: 12}


def test_a_follower_that_is_being_copied_is_not_read_and_does_not_take_over(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    (name,) = (name for name in _replicated(lab) if name.endswith("account"))
    mirror(lab.nodes["primary"], lab.nodes["standby"], copy=[name])
    assert lab.state("standby").copying
    with store.read(node="follower") as session:  # served by the writer
        session.execute(text("SELECT 1"))
        assert session.get_bind().engine is store.pair.primary.engine  # type: ignore[union-attr]
    lab.kill("primary")
    store.close()
    late = lab.store(background=False, takeover_timeout=1.0)
    with pytest.raises(NoWriter, match="not eligible"):
        late.run(put(2))
    with pytest.raises(TakeoverRefused, match="copied"):
        late.takeover()
    lab.start("primary")
    lab.ship()
    assert not lab.state("standby").copying
    assert lab.accounts("standby") == {1: 0}


def test_a_copied_table_arrives_whole_with_the_batch(lab: Lab) -> None:
    store = lab.migrated(background=False)
    store.run(put(1))
    (name,) = (name for name in _replicated(lab) if name.endswith("account"))
    mirror(lab.nodes["primary"], lab.nodes["standby"], copy=[name])
    lab.sql("primary", insert(2))
    store.sync()
    with store.read(node="follower", max_lag=10) as session:
        assert count(session) == 2


def _replicated(lab: Lab) -> list[str]:
    return [name for (name,) in lab.sql("primary", f"SELECT tbl FROM {lab.name('replicated')}")]
