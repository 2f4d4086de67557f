"""HAZARDS 20: in a pair of SQLite and PostgreSQL a value that the other database can't hold is refused where it is written, and never altered or merged."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from replstore.errors import CommittedNotReplicated, ReplicationStopped
from replstore.store import Store
from tests.fix_mixed import MixedLab
from tests.fix_stores import Account, put
from tests.fix_things import Thing, ThingBase

#: What a file takes and PostgreSQL can't hold: column, SQL expression, what the error says.
NOT_FOR_POSTGRESQL = [
    ("number", "'twelve'", "is no whole number"),
    ("number", "1.5", "is no whole number"),
    ("number", "2147483648", "is out of the range of type integer"),
    ("small", "-32769", "is out of the range of type smallint"),
    ("big", "9223372036854775808", "is no whole number"),
    ("flag", "2", "is neither 0 nor 1"),
    ("flag", "'yes'", "is neither 0 nor 1"),
    ("ratio", "'much'", "is no number"),
    ("price", "0.30000000000000004", "is no decimal of 15 digits with 4 places"),
    ("price", "1.00001", "is no decimal of 15 digits with 4 places"),
    ("price", "1e11", "is no decimal of 15 digits with 4 places"),
    ("price", "9e999", "is no decimal of 15 digits with 4 places"),
    ("name", "'a' || char(0) || 'b'", "holds a NUL character"),
    ("name", "'01234567890'", "is longer than 10 characters"),
    ("note", "x'6162'", "is no text"),
    ("note", "char(0)", "holds a NUL character"),
    ("day", "'2023-02-29'", "is no date"),
    ("day", "'0000-01-01'", "is no date"),
    ("day", "20240101", "is no date"),
    ("at", "'2024-01-01T00:00:00'", "is no time"),
    ("at", "'2024-01-01 00:00:00+02:00'", "is no time"),
    ("at", "'2024-01-01 24:00:00'", "is no time"),
    ("at", "'0000-12-31 00:00:00'", "is no time"),
    ("at", "'2024-01-01 00:00:00.'", "is no time"),
    ("at", "'2024-01-01 00:00:00.1234567'", "is no time"),
    ("zoned", "'2024-02-30 00:00:00'", "is no time"),
    ("clock", "'24:00:00'", "is no time of day"),
    ("clock", "'noon'", "is no time of day"),
    ("doc", "'{'", "is no valid JSON"),
    ("doc", "'[NaN]'", "is no valid JSON"),
    ("doc", "'5'", "is a number alone"),
    ("raw", "'text'", "is no blob"),
    ("uid", "'12345678-1234-5678-1234-567812345678'", "is no UUID"),
    ("uid", "'1234567812345678123456781234567G'", "is no UUID"),
    ("color", "'blue'", "is none of 'red', 'green'"),
]
NOT_FOR_SQLITE = [
    ("ratio", "'NaN'", "NaN and a negative zero can't be stored by SQLite"),
    ("ratio", "'-0'", "NaN and a negative zero can't be stored by SQLite"),
    ("price", "'NaN'", "NaN can't be stored by SQLite"),
    ("day", "'infinity'", "outside of the years 1 to 9999"),
    ("day", "'0044-03-15 BC'", "outside of the years 1 to 9999"),
    ("day", "'10000-01-01'", "outside of the years 1 to 9999"),
    ("at", "'-infinity'", "outside of the years 1 to 9999"),
    ("at", "'10000-01-01'", "outside of the years 1 to 9999"),
    ("zoned", "'10000-01-01 00:00:00+00'", "outside of the years 1 to 9999"),
    ("zoned", "'9999-12-31 23:59:59-01'", "outside of the years 1 to 9999"),
    ("clock", "'24:00:00'", "24:00:00 is no time of day"),
    ("doc", "'1.50'", "a JSON value that is a number alone"),
]


def refuses(lab: MixedLab, store: Store, column: str, expression: str, sentence: str) -> None:
    """An insert and an update fail, say why, and leave everything as it was."""
    for statement in (f"INSERT INTO thing (id, touched, {column}) VALUES (2, 0, {expression})", f"UPDATE thing SET {column} = {expression}"):
        with pytest.raises(IntegrityError) as caught:
            store.run(lambda session, statement=statement: session.execute(text(statement)))  # type: ignore[misc]
        assert sentence in str(caught.value), str(caught.value)
        assert f"column {column} of table thing" in str(caught.value)
    for node in ("primary", "standby"):
        assert lab.sql(node, f"SELECT id, {column} FROM thing") == [(1, None)]


def test_a_file_refuses_what_postgresql_cannot_hold(file_first: MixedLab) -> None:
    store = file_first.migrated(ThingBase.metadata, background=False)
    store.run(lambda session: session.add(Thing(id=1)))
    for column, expression, sentence in NOT_FOR_POSTGRESQL:
        refuses(file_first, store, column, expression, sentence)


def test_a_server_refuses_what_sqlite_cannot_hold(server_first: MixedLab) -> None:
    store = server_first.migrated(ThingBase.metadata, background=False)
    store.run(lambda session: session.add(Thing(id=1)))
    for column, expression, sentence in NOT_FOR_SQLITE:
        refuses(server_first, store, column, expression, sentence)


def test_other_programs_are_refused_too_and_after_a_switchover_as_well(mixed_lab: MixedLab) -> None:
    store = mixed_lab.migrated(ThingBase.metadata, background=False)
    for _ in range(2):
        with pytest.raises(Exception, match="can't be stored by SQLite"):
            if store.status().writer != mixed_lab.server:
                store.switchover()
            mixed_lab.sql(mixed_lab.server, "INSERT INTO thing (id, touched, ratio) VALUES (1, 0, 'NaN')")
        store.switchover()
        with pytest.raises(Exception, match="PostgreSQL can't hold it"):
            mixed_lab.sql(mixed_lab.sqlite, "INSERT INTO thing (id, touched, number) VALUES (1, 0, 'twelve')")


def test_what_only_sqlalchemy_would_write_is_taken(file_first: MixedLab) -> None:
    """CURRENT_TIMESTAMP has no fraction, and a keyless call's text may be anything that is no NUL."""
    store = file_first.migrated(ThingBase.metadata, background=False)
    store.run(lambda session: session.execute(text("INSERT INTO thing (id, touched, at, clock) VALUES (1, 0, CURRENT_TIMESTAMP, '12:00:00.5')")))
    ((here,),) = file_first.sql("primary", "SELECT at FROM thing")
    ((there, clock),) = file_first.sql("standby", "SELECT to_char(at, 'YYYY-MM-DD HH24:MI:SS'), clock::text FROM thing")
    assert (here, "12:00:00.5") == (there, clock)
    assert store.check().equal


def test_the_key_of_a_call_holds_no_nul(mixed_lab: MixedLab) -> None:
    store = mixed_lab.migrated(background=False)
    with pytest.raises(Exception, match=r"NUL|0x00"):
        store.run(put(1), key="a\0b")
    store.run(put(1), key="ab")
    assert mixed_lab.accounts("standby") == {1: 0}


class WordBase(DeclarativeBase):
    pass


class Word(WordBase):
    __tablename__ = "word"
    word: Mapped[str] = mapped_column(primary_key=True)
    twin: Mapped[str] = mapped_column(unique=True)


WORDS = ["a", "A", "a ", "á", "a\u0301", "ß", "ss", "", "İ", "i"]


def test_keys_that_a_collation_could_take_for_one_stay_apart(mixed_lab: MixedLab) -> None:
    store = mixed_lab.migrated(WordBase.metadata, background=False)
    store.run(lambda session: session.add_all([Word(word=word, twin=word) for word in WORDS]))
    for node in ("primary", "standby"):
        assert sorted(word for (word,) in mixed_lab.sql(node, "SELECT word FROM word")) == sorted(WORDS)
    store.run(lambda session: session.execute(text("DELETE FROM word WHERE word = 'a'")))
    store.switchover()
    store.run(lambda session: session.execute(text("DELETE FROM word WHERE word = 'A'")))
    for node in ("primary", "standby"):
        assert sorted(word for (word,) in mixed_lab.sql(node, "SELECT word FROM word")) == sorted(WORDS[2:])
    assert store.check().equal


def test_what_no_trigger_can_see_stops_the_pair_with_table_key_and_remedy(file_first: MixedLab) -> None:
    """SQLite has no test for text that is no UTF-8."""
    store = file_first.migrated(ThingBase.metadata, background=False)
    store.run(lambda session: session.add(Thing(id=1)))
    with pytest.raises(CommittedNotReplicated) as caught:
        store.run(lambda session: session.execute(text("INSERT INTO thing (id, touched, note) VALUES (2, 0, CAST(x'ff' AS TEXT))")))
    sentence = "table thing, key [2], column note: is no valid UTF-8; change or delete that row on primary"
    assert sentence in str(caught.value)
    with pytest.raises(ReplicationStopped, match="cannot_cross"):
        store.sync()
    with pytest.raises(CommittedNotReplicated):  # and nothing else is acknowledged meanwhile
        store.run(lambda session: session.add(Thing(id=3)))
    assert file_first.sql("standby", "SELECT id FROM thing") == [(1,)]

    store.run(lambda session: session.execute(text("UPDATE thing SET note = 'f' WHERE id = 2")))
    assert file_first.sql("standby", "SELECT id FROM thing ORDER BY id") == [(1,), (2,), (3,)]
    assert store.check().equal


def test_a_row_that_vanishes_on_the_follower_stops_the_batch(mixed_lab: MixedLab) -> None:
    """Rows applied are rows read, else nothing is."""
    store = mixed_lab.migrated(background=False)
    store.run(put(1, 10))
    if mixed_lab.server == "standby":
        mixed_lab.sql(
            "standby",
            "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN NEW.id = 2 THEN NULL ELSE NEW END; END $$",
            "CREATE TRIGGER swallow BEFORE INSERT ON account FOR EACH ROW EXECUTE FUNCTION swallow()",
            "ALTER TABLE account ENABLE ALWAYS TRIGGER swallow",
        )
    else:
        mixed_lab.sql("standby", "CREATE TRIGGER swallow BEFORE INSERT ON account WHEN NEW.id = 2 BEGIN SELECT RAISE(IGNORE); END")
    with pytest.raises(CommittedNotReplicated, match="1 rows were read and 0 written"):
        store.run(put(2, 20))
    with pytest.raises(CommittedNotReplicated):
        store.run(put(1, 11))
    assert mixed_lab.accounts("standby") == {1: 10}


def test_rows_that_only_the_follower_takes_for_one_are_not_merged(mixed_lab: MixedLab) -> None:
    store = mixed_lab.migrated(background=False)
    mixed_lab.sql("standby", "CREATE UNIQUE INDEX behind_the_back ON account (amount)")
    with pytest.raises(CommittedNotReplicated, match=r"cannot_cross: .*table account.*(UNIQUE|unique)"):
        store.run(lambda session: session.add_all([Account(id=number, owner=str(number), amount=1) for number in (1, 2)]))
    assert mixed_lab.accounts("standby") == {}
    mixed_lab.sql("standby", "DROP INDEX behind_the_back")
    store.sync()
    assert mixed_lab.accounts("standby") == {1: 1, 2: 1}


def test_rows_from_before_are_named_when_they_cannot_cross(file_first: MixedLab) -> None:
    """An adopted file may hold anything; its first copy stops at the row, and goes on when it is mended."""
    file_first.sql("primary", "CREATE TABLE old (id INTEGER PRIMARY KEY, n INTEGER, s TEXT)", "INSERT INTO old VALUES (1, 1, 'a'), (2, 'two', 'b')")
    store = file_first.store(background=False)
    with pytest.raises(ReplicationStopped, match=r"table old, key \[2\], column n: is no whole number"):
        store.migrate()
    file_first.sql("primary", "UPDATE old SET n = 2 WHERE id = 2")
    store.migrate()
    assert file_first.sql("standby", "SELECT id, n, s FROM old ORDER BY id") == [(1, 1, "a"), (2, 2, "b")]
    assert store.check().equal, json.dumps(store.check().as_dict())
