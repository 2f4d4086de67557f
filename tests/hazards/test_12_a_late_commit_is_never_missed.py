"""Hazard 12 among hundreds of transactions at once: each batch is a snapshot, and what commits many batches after it began arrives as well."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

from tests.fix_check import adopted
from tests.fix_stores import Lab

THREADS, EACH, ACCOUNTS, BATCHES = 12, 40, 20, 15
SCHEMA = (
    "CREATE TABLE account (id int PRIMARY KEY, amount int NOT NULL)",
    # who reads it knows which transactions a snapshot shows, and what they came to
    "CREATE TABLE entry (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, xid text NOT NULL DEFAULT pg_current_xact_id(), account int, amount int)",
    f"INSERT INTO account SELECT n, 0 FROM generate_series(1, {ACCOUNTS}) n",
)


def book(connection: Any, account: int, amount: int) -> None:
    connection.execute("INSERT INTO entry (account, amount) VALUES (%s, %s)", (account, amount))
    connection.execute("UPDATE account SET amount = amount + %s WHERE id = %s", (amount, account))


def many(lab: Lab, seed: int, enough: Event) -> None:
    """The transactions of one program, as long as batches go on; some are rolled back."""
    connection, dice, done = lab.connect("primary"), random.Random(seed), 0
    while done < EACH or not enough.is_set():
        done += 1
        accounts = sorted(dice.sample(range(3, ACCOUNTS + 1), 2))  # in order: nobody deadlocks
        for account in accounts:
            book(connection, account, dice.randint(1, 9))
        if dice.random() < 0.8:
            connection.commit()
        else:
            connection.rollback()


def test_each_of_many_batches_among_hundreds_of_transactions_is_a_snapshot_and_late_commits_arrive(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    adopted(lab, *SCHEMA).sync()
    long, prepared = lab.connect("primary"), lab.connect("primary")
    book(long, 1, 100)
    book(prepared, 2, 200)
    prepared.execute("PREPARE TRANSACTION 'late'")
    reader, shipper, seen = lab.connect("standby"), lab.shipper(), {}

    def batch() -> None:
        shipper.ship()
        entries = {id for (id,) in reader.execute("SELECT id FROM entry").fetchall()}
        sums = dict(reader.execute("SELECT id, amount FROM account").fetchall())
        ((position,),) = reader.execute("SELECT position FROM replstore.position").fetchall()
        reader.commit()
        seen[position] = entries, sums

    enough = Event()
    with ThreadPoolExecutor(THREADS) as pool:
        running = [pool.submit(many, lab, seed, enough) for seed in range(THREADS)]
        try:
            for _ in range(BATCHES):
                batch()
        finally:
            enough.set()
        for each in running:
            each.result()
    batch()
    before = len(seen)
    lab.sql("primary", "COMMIT PREPARED 'late'")
    batch()
    long.commit()
    batch()
    assert before > 10
    assert seen.popitem()[1][1] == dict(lab.sql("primary", "SELECT id, amount FROM account"))
    for position, (entries, sums) in seen.items():
        shown = lab.sql("primary", f"SELECT id, account, amount FROM entry WHERE pg_visible_in_snapshot(xid::xid8, '{position}')")
        assert entries == {id for id, _, _ in shown}
        assert sums == {id: sum(amount for _, account, amount in shown if account == id) for id in range(1, ACCOUNTS + 1)}
