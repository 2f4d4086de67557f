"""Hazard 8: a partition may be named by a statement of its own, come, go, and bring rows; what is replicated is the table that it is a part of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from replstore import ReplicationStopped, local
from replstore.reconcile import check
from tests.fix_check import adopted, statements
from tests.fix_stores import PATIENT, Lab

SCHEMA = """
CREATE TABLE customer (id int PRIMARY KEY);
CREATE TABLE sale (id int, day date, region text, customer int REFERENCES customer ON DELETE CASCADE ON UPDATE CASCADE, n int DEFAULT 1,
    twice int GENERATED ALWAYS AS (n * 2) STORED, PRIMARY KEY (id, day, region)) PARTITION BY RANGE (day);
CREATE TABLE sale_24 PARTITION OF sale FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') PARTITION BY LIST (region);
CREATE TABLE "sale 24 %s:'eu" PARTITION OF sale_24 FOR VALUES IN ('eu');
CREATE TABLE sale_24_us PARTITION OF sale_24 FOR VALUES IN ('us', NULL);
CREATE TABLE sale_25 (region text NOT NULL, gone int, n int DEFAULT 25, customer int, day date NOT NULL, id int NOT NULL,
    twice int GENERATED ALWAYS AS (n * 2) STORED, CONSTRAINT few CHECK (n < 1000), PRIMARY KEY (id, day, region)) WITH (fillfactor = 80);
ALTER TABLE sale_25 DROP COLUMN gone;
ALTER TABLE sale ATTACH PARTITION sale_25 FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE sale_rest PARTITION OF sale DEFAULT;
CREATE INDEX by_n ON sale (n);
CREATE INDEX rest_by_n ON sale_rest (n) WHERE n > 5;
CREATE TABLE item (id int PRIMARY KEY, sale int, day date, region text,
    FOREIGN KEY (sale, day, region) REFERENCES sale ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE tally (word text PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY) PARTITION BY HASH (word);
CREATE TABLE tally_0 PARTITION OF tally FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE tally_1 PARTITION OF tally FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE FUNCTION busy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.n := NEW.n + 100; RETURN NEW; END $$;
CREATE TRIGGER busy BEFORE INSERT ON sale_rest FOR EACH ROW EXECUTE FUNCTION busy();
INSERT INTO customer SELECT generate_series(1, 4)
"""
ROWS = """
TRUNCATE sale, item, tally; DELETE FROM customer; INSERT INTO customer SELECT generate_series(1, 4);
INSERT INTO sale (id, day, region, customer) VALUES (1, '2024-01-01', 'eu', 1), (2, '2024-02-29', 'us', 2), (3, '2025-05-05', 'eu', 3), (4, '1999-09-09', 'x', 1);
INSERT INTO item VALUES (1, 1, '2024-01-01', 'eu'), (2, 2, '2024-02-29', 'us'), (3, 3, '2025-05-05', 'eu');
INSERT INTO tally (word) SELECT 'word ' || n FROM generate_series(1, 20) n
"""
MEMBERS = ("sale", "sale_24", '"sale 24 %s:\'eu"', "sale_24_us", "sale_25", "sale_rest", "tally", "tally_0", "tally_1")


class Shop:
    """A pair with partitioned tables; other programs change them."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.store = adopted(lab, *statements(SCHEMA), *ROWS.strip().split("; "), **PATIENT)

    def rows(self, node: str) -> dict[str, list[Any]]:
        """All rows, with the partition that each is in."""
        tables = [name for (name,) in self.lab.sql(node, "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace "
                                                   "AND relkind IN ('r', 'p') AND NOT relispartition")]  # fmt: skip
        return {table: sorted(self.lab.sql(node, f"SELECT tableoid::regclass::text, to_jsonb(t)::text FROM {table} t")) for table in tables}

    def ship(self) -> dict[str, list[Any]]:
        """What both nodes hold after a batch, by plain SQL and by the check."""
        self.store.sync()
        rows = self.rows("primary")
        assert self.rows("standby") == rows
        report = check(self.store.pair)
        assert report.equal, report
        return rows

    def changed(self, *script: str) -> dict[str, list[Any]]:
        before = self.rows("primary")
        self.lab.sql("primary", *script)
        after = self.ship()
        assert after != before, "the statements change something"
        return after

    def migrated(self) -> tuple[str, ...]:
        """Shipping has stopped, migrate mends it; the tables that were copied whole."""
        with pytest.raises(ReplicationStopped, match=r"capture_missing: table public\.(sale|tally) .*replstore migrate"):
            self.store.sync()
        copied = self.store.migrate().copied
        self.ship()
        return tuple(copied)


@pytest.fixture(scope="module")
def shared(postgresql_servers: local.PostgresPair) -> Iterator[Shop]:
    with postgresql_servers.fresh("partitions") as pair, closing(Lab(pair)) as lab:
        yield Shop(lab)


@pytest.fixture
def calm(shared: Shop) -> Shop:
    """For tests that change rows only."""
    shared.lab.sql("primary", *ROWS.strip().split("; "))
    shared.store.sync()
    return shared


@pytest.fixture
def shop(postgresql_pair: local.PostgresPair) -> Iterator[Shop]:
    with closing(Lab(postgresql_pair)) as lab:
        yield Shop(lab)


@pytest.mark.parametrize(
    "script",
    [
        "INSERT INTO sale VALUES (9, '2024-12-31', 'us', 4)",
        "INSERT INTO sale_24 VALUES (9, '2024-12-31', 'us', 4)",
        "INSERT INTO sale_25 (id, day, region) SELECT i, '2025-12-31', 'nowhere' FROM generate_series(10, 40) i",
        "INSERT INTO sale_rest (id, day, region) VALUES (9, 'infinity', 'rest')",
        "UPDATE sale SET n = n + 1",
        'UPDATE "sale 24 %s:\'eu" SET id = id + 100',
        "UPDATE sale SET day = day + 366",
        "UPDATE sale_24 SET region = CASE region WHEN 'eu' THEN 'us' ELSE 'eu' END",
        "DELETE FROM sale_25",
        "DELETE FROM sale WHERE region = 'us'",
        "DELETE FROM customer WHERE id = 1",
        "UPDATE customer SET id = id + 10",
        "TRUNCATE sale_24_us CASCADE",
        "TRUNCATE sale_24 CASCADE",
        "TRUNCATE tally",
        "TRUNCATE tally_1",
        "UPDATE tally SET word = word || '!'",
        "INSERT INTO sale VALUES (1, '2024-01-01', 'eu'), (5, '2024-01-01', 'eu') ON CONFLICT (id, day, region) DO UPDATE SET n = 77",
        "WITH moved AS (DELETE FROM sale_25 RETURNING id, region) INSERT INTO sale SELECT id, '2024-06-06', region FROM moved",
        "BEGIN; SAVEPOINT a; UPDATE sale SET day = '2024-01-01', region = 'eu'; ROLLBACK TO a; DELETE FROM sale_rest; COMMIT",
    ],
)
def test_a_change_through_the_table_or_any_partition_is_shipped(calm: Shop, script: str) -> None:
    calm.changed(script)


@pytest.mark.parametrize("target", ["sale", "sale_24"])
@pytest.mark.parametrize("also", ["", " WHEN NOT MATCHED THEN INSERT (id, day, region) VALUES (v.id, v.day, v.region)"], ids=["", "and inserts"])
def test_rows_that_merge_moves_to_another_partition_are_shipped(calm: Shop, target: str, also: str) -> None:
    calm.changed(
        f"MERGE INTO {target} s USING (VALUES (1, '2024-01-01'::date, 'eu'), (8, '2024-08-08', 'us')) v(id, day, region) "
        f"ON s.id = v.id AND s.day = v.day AND s.region = v.region WHEN MATCHED THEN UPDATE SET region = 'us', n = 5{also}"
    )


def test_copy_into_a_table_and_into_partitions_is_shipped(calm: Shop) -> None:
    connection = calm.lab.connect("primary")
    for table, day in (("sale", "2024-07-07"), ("sale_24", "2024-07-08"), ("sale_25", "2025-07-07")):
        with connection.cursor() as cursor, cursor.copy(f"COPY {table} (id, day, region) FROM STDIN") as rows:
            for number in range(50):
                rows.write_row((number, day, "eu"))
    connection.commit()
    assert len(calm.ship()["sale"]) == 4 + 150


def test_a_statement_is_journaled_once_whatever_it_names(calm: Shop) -> None:
    for statement in (
        "INSERT INTO sale VALUES (50, '2024-01-01', 'eu'), (50, '2025-01-01', 'us')",
        "INSERT INTO sale_25 VALUES ('us', 51, NULL, '2025-01-01', 51)",
        "UPDATE sale SET n = 2",
        "DELETE FROM sale_24",
    ):
        calm.lab.sql("primary", statement)
        (xids,) = calm.lab.sql("primary", "SELECT count(*), count(DISTINCT xid) FROM replstore.journal WHERE tbl = 'public.sale' AND xid = "
                               "(SELECT max(xid) FROM replstore.journal WHERE tbl = 'public.sale')")  # fmt: skip
        assert xids == (1, 1), statement


@pytest.mark.parametrize("member", MEMBERS)
def test_every_member_refuses_changes_on_the_follower(calm: Shop, member: str) -> None:
    before = calm.rows("standby")
    column = "n" if member.strip('"').startswith("sale") else "word"
    for statement in (
        f"INSERT INTO {member} DEFAULT VALUES",
        f"UPDATE {member} SET {column} = {column}",
        f"DELETE FROM {member}",
        f"TRUNCATE {member} CASCADE",
    ):
        with pytest.raises(psycopg.Error, match="not the writer"):
            calm.lab.sql("standby", statement)
    assert calm.rows("standby") == before


def test_a_partition_made_by_hand_is_guarded_and_captured_at_once(shop: Shop) -> None:
    new = "CREATE TABLE sale_26 PARTITION OF sale FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')"
    shop.lab.sql("standby", new)
    with pytest.raises(psycopg.Error, match="not the writer"):
        shop.lab.sql("standby", "INSERT INTO sale_26 (id, day, region) VALUES (1, '2026-01-01', 'eu')")
    shop.lab.sql("primary", new, "INSERT INTO sale_26 (id, day, region) VALUES (1, '2026-01-01', 'eu')", "UPDATE sale_26 SET id = 2")
    keys = {key for (key,) in shop.lab.sql("primary", "SELECT k->>0 FROM replstore.journal, jsonb_array_elements(keys) k WHERE k->>1 LIKE '2026%'")}
    assert keys == {"1", "2"}
    assert "public.sale" not in shop.migrated()
    shop.changed("INSERT INTO sale_26 (id, day, region) VALUES (3, '2026-01-01', 'eu')")
    shop.changed("TRUNCATE sale_26 CASCADE")


def test_a_table_that_is_attached_with_its_rows_brings_them(shop: Shop) -> None:
    lab = shop.lab
    lab.sql(
        "primary",
        "CREATE TABLE late (LIKE sale INCLUDING ALL)",
        "INSERT INTO late (id, day, region) VALUES (1, '2026-02-02', 'a'), (2, '2026-02-02', 'b')",
    )
    shop.store.migrate()
    shop.ship()
    lab.sql("primary", "ALTER TABLE sale ATTACH PARTITION late FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')")
    lab.sql("primary", "DELETE FROM late WHERE id = 1", "INSERT INTO sale VALUES (3, '2026-03-03', 'c')")
    assert not set(shop.migrated()) & {"public.sale", "public.tally"}
    assert len(shop.ship()["sale"]) == 6
    shop.changed("UPDATE late SET n = 9")


def test_a_partition_that_is_detached_takes_its_rows_along(shop: Shop) -> None:
    lab = shop.lab
    shop.changed("DELETE FROM item")
    lab.sql("primary", "ALTER TABLE sale DETACH PARTITION sale_24", "INSERT INTO sale_24 (id, day, region) VALUES (7, '2024-07-07', 'eu')")
    assert shop.migrated() == ("public.sale_24",)
    rows = shop.ship()
    assert (len(rows["sale"]), len(rows["sale_24"])) == (2, 3)
    shop.changed("UPDATE sale_24_us SET n = 8")
    lab.sql(
        "primary", "DELETE FROM sale_24 WHERE id = 7", "ALTER TABLE sale ATTACH PARTITION sale_24 FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')"
    )
    shop.migrated()
    assert len(shop.changed("UPDATE sale_24_us SET n = 9")["sale"]) == 4


def test_a_partition_that_is_dropped_goes_alone(shop: Shop) -> None:
    shop.changed("DELETE FROM item WHERE id = 3")
    shop.lab.sql("primary", "ALTER TABLE sale DETACH PARTITION sale_25", "DROP TABLE sale_25")
    assert shop.migrated() == ()
    assert len(shop.ship()["sale"]) == 3


def test_a_partition_that_went_and_came_back_while_the_follower_was_away_is_not_taken_for_the_old_one(shop: Shop) -> None:
    lab, attach = shop.lab, "ALTER TABLE sale ATTACH PARTITION sale_25 FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')"
    lab.sql("primary", "DELETE FROM item")
    shop.ship()
    lab.kill("standby")
    lab.sql("primary", "ALTER TABLE sale DETACH PARTITION sale_25")
    assert shop.store.migrate().behind == "standby"
    lab.sql("primary", "DELETE FROM sale_25", "INSERT INTO sale_25 (id, day, region) VALUES (77, '2025-05-05', 'eu')", attach)
    assert shop.store.migrate().behind == "standby"
    lab.start("standby")
    shop.store.migrate()
    assert next(row for row in shop.ship()["sale"] if row[0] == "sale_25")[1].startswith('{"n": 25, "id": 77')


def test_rows_that_stand_in_the_way_of_a_new_partition_on_the_follower_dont_stop_it(shop: Shop) -> None:
    row = "(4, '1999-09-09', 'x')"
    shop.lab.sql("primary", f"DELETE FROM sale WHERE (id, day, region) = {row}", "CREATE TABLE old PARTITION OF sale "
                 "FOR VALUES FROM ('1999-01-01') TO ('2000-01-01')", f"INSERT INTO sale (id, day, region) VALUES {row}")  # fmt: skip
    shop.migrated()
    assert ("old",) in {row[:1] for row in shop.ship()["sale"]}


def test_capture_that_one_partition_lost_stops_the_shipping(shop: Shop) -> None:
    shop.lab.sql("primary", "ALTER TABLE sale_24_us DISABLE TRIGGER USER", "UPDATE sale_24_us SET n = 55")
    assert "public.sale" in shop.migrated()
    shop.changed("UPDATE sale_24_us SET n = 56")


def test_a_former_follower_writes_to_partitions_and_the_former_writer_follows(shop: Shop) -> None:
    shop.store.switchover()
    shop.lab.sql("standby", "UPDATE sale SET day = day + 366", "INSERT INTO sale_rest (id, day, region) VALUES (9, '1900-01-01', 'x')")
    assert any('"n": 101' in row for _, row in shop.ship()["sale"]), "the partition's own trigger acts"


def test_without_the_right_to_switch_triggers_off_partitions_are_followed_too(ordinary_postgresql_pair: local.PostgresPair) -> None:
    with closing(Lab(ordinary_postgresql_pair)) as lab:
        shop = Shop(lab)
        lab.sql("primary", "DELETE FROM item")
        row = "INSERT INTO sale_rest (id, day, region) VALUES ({}, '1900-01-01', 'x')"
        shop.changed("UPDATE sale SET day = day + 366", row.format(9))
        lab.sql("primary", "CREATE TRIGGER busy BEFORE INSERT ON sale_25 FOR EACH ROW EXECUTE FUNCTION busy()")
        shop.store.migrate()
        shop.changed("INSERT INTO sale_25 (id, day, region) VALUES (9, '2025-01-01', 'x')")
        lab.sql("primary", "ALTER TABLE sale DETACH PARTITION sale_25", "DROP TABLE sale_25")
        assert shop.migrated() == ()
        shop.store.switchover()
        lab.sql("standby", row.format(10))
        assert next(text for _, text in shop.ship()["sale"] if '"id": 10,' in text).startswith('{"n": 101,')
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            lab.sql("standby", "INSERT INTO sale VALUES (11, '2024-01-01', 'eu', 99)")
