"""Every value of every type that crosses comes out as it went in, value by value, both ways."""

from __future__ import annotations

import datetime as dt

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


def test_the_settings_of_server_and_session_change_no_value(mixed_lab: MixedLab) -> None:
    name = mixed_lab.sql(mixed_lab.server, "SELECT current_database()")[0][0]
    settings = {
        "extra_float_digits": "-15",
        "datestyle": "'German, DMY'",
        "timezone": "'Asia/Kolkata'",
        "bytea_output": "'escape'",
        "intervalstyle": "'iso_8601'",
    }
    for setting, value in settings.items():
        mixed_lab.sql(mixed_lab.server, f"ALTER DATABASE {name} SET {setting} = {value}")
    store = mixed_lab.migrated(ThingBase.metadata, background=False)
    rows = [
        {"id": 1, "touched": 0, "ratio": 0.1 + 0.2, "zoned": dt.datetime(2024, 3, 4, tzinfo=dt.UTC), "at": dt.datetime(2024, 3, 4), "raw": b"\x00\\'"}
    ]
    store.run(lambda session: session.add_all([Thing(**row) for row in rows]))
    for _ in range(2):
        for node in (mixed_lab.sqlite,):
            assert {name: found(mixed_lab.pair.url(node))[1][name] for name in rows[0] if name != "touched"} == {
                name: value for name, value in rows[0].items() if name != "touched"
            }
        assert store.check().equal, store.check().as_dict()
        store.switchover()
        store.run(lambda session: session.execute(update(Thing).values(touched=Thing.touched + 1)))
    assert store.check().equal, store.check().as_dict()
