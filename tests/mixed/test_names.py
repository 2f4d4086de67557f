"""Names and keys that try the quoting."""

from __future__ import annotations

from sqlalchemy import Column, LargeBinary, MetaData, String, Table, Uuid, types

from tests.fix_mixed import MixedLab

metadata = MetaData()
odd = Table(
    'Odd "table" %s?',
    metadata,
    Column("select", types.Integer, primary_key=True, autoincrement=False),
    Column("größe % 1", String(20), primary_key=True),
    Column('quo"te', LargeBinary, primary_key=True),
    Column("uid", Uuid, primary_key=True),
    Column("day", types.Date, primary_key=True),
    Column("at", types.DateTime, primary_key=True),
    Column("zoned", types.DateTime(timezone=True), primary_key=True),
    Column("flag", types.Boolean, primary_key=True),
    Column("price", types.Numeric(8, 3), primary_key=True),
    Column("value %", types.Text),
)


def test_keys_of_every_type_and_names_of_every_sort(mixed_lab: MixedLab) -> None:
    import datetime as dt
    from decimal import Decimal
    from uuid import UUID

    def row(number: int) -> dict[str, object]:
        at = dt.datetime(2024, 1, number + 1, 2, 3, 4, number)
        key = [number, f"ä'\\{number}", bytes([0, 255, number]), UUID(int=number), at.date(), at, at.replace(tzinfo=dt.UTC), bool(number % 2)]
        return dict(zip(odd.columns.keys(), [*key, Decimal(number) / 8, "first"], strict=True))

    store = mixed_lab.migrated(metadata, background=False)
    store.run(lambda session: session.execute(odd.insert(), [row(number) for number in range(5)]))
    for gone in (1, 3):
        store.run(lambda session, gone=gone: session.execute(odd.delete().where(odd.c.select == gone)))  # type: ignore[misc]
        store.run(lambda session: session.execute(odd.update().values({"value %": "second"})))
        store.run(lambda session, gone=gone: session.execute(odd.update().where(odd.c.select == gone - 1).values(select=gone + 10)))  # type: ignore[misc]
        report = store.check()
        assert report.equal, report.as_dict()
        assert {table.name: table.primary for table in report.tables if "Odd" in table.name} == {'public."Odd ""table"" %s?"': 4 if gone == 1 else 3}
        store.switchover()
    assert store.check().equal
