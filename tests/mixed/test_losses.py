"""A mixed pair loses either node, and gets it back: takeover, orphans, rejoin, a copy, and what the check then finds."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from replstore.store import Token
from tests.fix_mixed import MixedLab
from tests.fix_stores import Account, insert, put, until
from tests.fix_things import Thing, ThingBase
from tests.hazards.test_22_clocks_pauses_sequences import Numbered, NumberedBase


def test_a_lost_writer_comes_back_as_the_follower_and_what_it_had_alone_is_kept(mixed_lab: MixedLab) -> None:
    store = mixed_lab.migrated(background=False)
    store.run(put(1, 10))
    store.run(put(2, 20), durability="async")
    store.run(put(1, 11), durability="async")
    mixed_lab.kill("primary")
    store.run(put(3, 30))  # the standby takes over
    assert store.status().writer == "standby"
    assert mixed_lab.accounts("standby") == {1: 10, 3: 30}

    mixed_lab.start("primary")
    assert store.rejoin() == 2
    store.sync()
    assert mixed_lab.accounts("primary") == mixed_lab.accounts("standby") == {1: 10, 3: 30}
    for node in ("primary", "standby"):
        records = mixed_lab.sql(node, f"SELECT key, former_row, writer_row FROM {mixed_lab.name('orphan', node)} ORDER BY key")
        assert [(key, former and json.loads(former), writer and json.loads(writer)) for key, former, writer in records] == [
            ("[1]", {"id": "1", "owner": "owner 1", "amount": "11"}, {"id": "1", "owner": "owner 1", "amount": "10"}),
            ("[2]", {"id": "2", "owner": "owner 2", "amount": "20"}, None),
        ]
    assert store.check().equal, store.check().as_dict()


def test_keys_given_by_a_lost_writer_are_not_given_again(mixed_lab: MixedLab) -> None:
    store = mixed_lab.migrated(background=False)
    store.run(lambda session: session.add(Account(owner="a", amount=1)))
    mixed_lab.kill("primary")
    store.run(lambda session: session.add(Account(owner="b", amount=2)))
    keys = sorted(mixed_lab.accounts("standby"))
    assert len(keys) == 2
    assert keys[0] == 1 < keys[1]


def test_keys_given_without_a_row_are_not_given_again_after_a_switchover(mixed_lab: MixedLab) -> None:
    """By the server's sequence; the counter of a file moves with its rows alone."""
    store = mixed_lab.migrated(NumberedBase.metadata, background=False)
    if mixed_lab.sqlite == "primary":
        store.switchover()
    given = mixed_lab.sql(mixed_lab.server, "SELECT nextval('numbered_id_seq') FROM generate_series(1, 7)")
    for _ in range(2):
        store.switchover()
        store.run(lambda session: session.add(Numbered(name="new")))
    assert mixed_lab.sql("primary", "SELECT id FROM numbered ORDER BY id") == [(len(given) + 1,), (len(given) + 2,)]


def test_a_former_writer_that_missed_too_much_is_copied_whole(mixed_lab: MixedLab) -> None:
    store = mixed_lab.migrated(ThingBase.metadata, background=False)
    store.run(lambda session: session.add_all([Thing(id=number, note="x", raw=b"y", ratio=0.5) for number in range(1, 50)]))
    mixed_lab.kill("primary")
    store.run(lambda session: session.add(Thing(id=100)))
    mixed_lab.start("primary")
    mixed_lab.sql("primary", f"DELETE FROM {mixed_lab.name('tick', 'primary')}")
    store.rejoin(copy=True)
    store.sync()
    assert mixed_lab.sql("primary", "SELECT count(*), max(id) FROM thing") == [(50, 100)]
    assert store.check().equal, store.check().as_dict()


def test_a_token_is_good_on_the_other_kind_of_node(mixed_lab: MixedLab) -> None:
    store = mixed_lab.migrated(background=False)
    store.run(put(1, 10), durability="async")
    token = Token.parse(str(store.token()))
    with store.read(node="follower", after=token) as session:
        assert session.get(Account, 1) is not None  # from the writer: the follower doesn't have it yet
    store.sync()
    with store.read(node="follower", after=token) as session:
        assert session.scalar(text("SELECT amount FROM account")) == 10
    store.run(put(2, 20))
    late = store.token()
    mixed_lab.kill("primary")
    store.run(put(3, 30))
    with store.read(after=late) as session:  # what stood at the takeover is known by the former writer's positions
        assert session.get(Account, 2) is not None


@pytest.mark.parametrize(
    ("column", "on_file", "on_server"),
    [
        ("small", "2", "3"),
        ("big", "9007199254740993", "9007199254740992"),
        ("flag", "1", "false"),
        ("ratio", "0.1", "0.10000000000000002"),
        ("price", "0.1", "0.1001"),
        ("name", "'a'", "'A'"),
        ("note", "'e' || char(769)", "'é'"),
        ("note", "''", "NULL"),
        ("day", "'2024-01-01'", "'2024-01-02'"),
        ("at", "'2024-01-01 00:00:00.000001'", "'2024-01-01 00:00:00'"),
        ("zoned", "'2024-01-01 00:00:00'", "'2024-01-01 00:00:00+01'"),
        ("clock", "'00:00:00.1'", "'00:00:00.01'"),
        ("doc", "'{\"a\": 1}'", "'{\"a\":1}'"),
        ("raw", "x'00'", "'\\x0000'"),
        ("uid", "'12345678123456781234567812345678'", "'12345678-1234-5678-1234-567812345679'"),
        ("color", "'red'", "'green'"),
    ],
)
def test_each_difference_of_a_value_is_found(file_pair_with_things: MixedLab, column: str, on_file: str, on_server: str) -> None:
    lab = file_pair_with_things
    store = lab.store(background=False)
    lab.sql(lab.sqlite, "UPDATE replstore_mark SET mark = 'apply'", f"UPDATE thing SET {column} = {on_file}", "UPDATE replstore_mark SET mark = NULL")
    lab.sql(lab.server, "SET replstore.mark = 'apply'", f"UPDATE thing SET {column} = {on_server}")
    (table,) = [each for each in store.check().tables if each.name == "public.thing"]
    assert [(each.key, each.kind, each.columns) for each in table.differences] == [({"id": 1}, "changed", (column,))]


@pytest.fixture
def file_pair_with_things(file_first: MixedLab) -> MixedLab:
    with file_first.migrated(ThingBase.metadata, background=False) as store:
        store.run(lambda session: session.add(Thing(id=1)))
    return file_first


def test_equal_values_in_another_form_are_no_difference(file_pair_with_things: MixedLab) -> None:
    lab = file_pair_with_things
    lab.sql(
        lab.sqlite,
        "UPDATE replstore_mark SET mark = 'apply'",
        "UPDATE thing SET at = '2024-01-01 00:00:00', zoned = '2024-01-01 00:00:00.1', clock = '00:00:01', price = 5, ratio = 3",
        "UPDATE replstore_mark SET mark = NULL",
    )
    lab.sql(
        lab.server,
        "SET replstore.mark = 'apply'",
        "UPDATE thing SET at = '2024-01-01', zoned = '2024-01-01 01:00:00.1+01', clock = '00:00:01.000', price = 5.0000, ratio = 3",
    )
    report = lab.store(background=False).check()
    assert report.equal, report.as_dict()


def test_what_another_program_writes_is_on_its_way_and_then_there(mixed_lab: MixedLab) -> None:
    store = mixed_lab.migrated(background=True)
    store.run(put(1, 10))
    mixed_lab.sql("primary", insert(2, 20))
    until(lambda: mixed_lab.accounts("standby") == {1: 10, 2: 20}, "the background shipper carries it")
    until(lambda: store.check().equal, "both are equal")
    with pytest.raises(Exception, match="not the writer"):
        mixed_lab.sql("standby", insert(3, 30))


def test_a_batch_larger_than_its_pieces(mixed_lab: MixedLab) -> None:
    store = mixed_lab.migrated(background=False, ack_timeout=30.0)
    count = 7001
    accounts = [{"id": number, "owner": str(number), "amount": number} for number in range(1, count + 1)]
    for node in ("primary", "standby"):
        store.run(lambda session: session.execute(text("DELETE FROM account")))
        store.run(lambda session: session.execute(Account.__table__.insert(), accounts))
        store.run(lambda session: session.execute(text("UPDATE account SET owner = owner || 'x', amount = -amount")))
        assert mixed_lab.sql(node, "SELECT count(*), sum(amount), count(DISTINCT owner) FROM account") == [(count, -count * (count + 1) // 2, count)]
        assert store.check().equal
        store.switchover()


def test_heartbeats_do_not_hold_a_long_batch_up(server_first: MixedLab) -> None:
    """The follower's file is written to while the rows are still on their way to it."""
    store = server_first.migrated(background=True, probe_interval=0.02, ack_timeout=30.0)
    accounts = [{"id": number, "owner": str(number), "amount": number} for number in range(1, 20_001)]
    store.run(lambda session: session.execute(Account.__table__.insert(), accounts))
    assert server_first.sql("standby", "SELECT count(*) FROM account") == [(20_000,)]
