"""Every value of every type that crosses comes out as it went in, value by value, both ways."""

from __future__ import annotations

from sqlalchemy import update
from sqlalchemy.orm import Session

from tests.fix_mixed import MixedLab
from tests.fix_things import Thing, ThingBase, found, things


def test_every_value_crosses_there_and_back(mixed_lab: MixedLab) -> None:
    store = mixed_lab.migrated(ThingBase.metadata, background=False)
    rows = things()
    store.run(lambda session: session.add_all([Thing(**row) for row in rows]))
    here, there = found(mixed_lab.pair.url("primary")), found(mixed_lab.pair.url("standby"))
    for row in rows:
        for column, value in row.items():
            assert here[row["id"]][column] == there[row["id"]][column] == value, (column, value)
    assert here == there
    assert store.check().equal, store.check().as_dict()

    def touch(session: Session) -> None:
        session.execute(update(Thing).values(touched=1))

    store.switchover()
    store.run(touch)  # so that the row goes back as the other database holds it
    assert found(mixed_lab.pair.url("primary")) == found(mixed_lab.pair.url("standby")) == {id: {**row, "touched": 1} for id, row in here.items()}
    assert store.check().equal, store.check().as_dict()
