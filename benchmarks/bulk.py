"""Large transactions: what capture costs, how fast they are shipped, and how much memory that takes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, insert, text
from sqlalchemy.orm import Session

from benchmarks.crew import Crew
from benchmarks.ground import KINDS, Ground, Postgresql
from benchmarks.measure import Figure, Section, Spread, Variant, interleave, timed
from benchmarks.model import Base, Item, rows
from benchmarks.plan import Plan
from benchmarks.single import TITLES
from replstore import Store

MANY = 200_000
#: A driver that sends row by row takes seconds for these already.
FEWER = 20_000
UPDATE = text("UPDATE item SET amount = amount + 1 WHERE id BETWEEN :first AND :last")

#: Makes a transaction's body for the rows from a number on; making it isn't measured.
Make = Callable[[int], Callable[[Session], object]]


def capture(kind: str, plan: Plan) -> Section:
    """Inserts with and without capture."""
    with KINDS[kind]() as ground:
        engine, store = ground.plain("plain"), ground.store("pair", durability="async", background=False)
        # the same ids on both sides, new ones in each turn
        variants: list[Variant] = []
        for number, (name, make) in enumerate(_bodies(ground).items(), 1):
            variants.append(_plain_insert(f"{name}, plain", engine, make, itertools.count(number * 100_000_000, MANY)))
            variants.append(_captured_insert(f"{name}, captured", store, make, itertools.count(number * 100_000_000, MANY)))
        rounds = interleave(variants, seconds=plan.seconds(12 if kind == "sqlite" else 25), least=plan.rounds)
    section = Section(
        f"Inserts with capture, {TITLES[kind]}",
        f"One transaction, async, s from BEGIN to COMMIT. `one statement`: INSERT … SELECT of {MANY:,} rows. `executemany`: {FEWER:,} rows in SQLAlchemy's ORM."
        + (f" `copy`: COPY of {MANY:,} rows." if kind == "postgresql" else ""),
        rounds.figures("s"),
    )
    for name in _bodies(ground):
        target = 1.4 if name == "one statement" else None
        section.ratios.append(rounds.ratio(f"{name}: captured to plain", f"{name}, captured", f"{name}, plain", target=target, at_most=True))
    return section


def _bodies(ground: Ground) -> dict[str, Make]:
    def statement(first: int) -> Callable[[Session], object]:
        return lambda session: session.execute(text(ground.insert_many), {"first": first, "last": first + MANY - 1})

    def many(first: int) -> Callable[[Session], object]:
        values = rows(first, FEWER)
        return lambda session: session.execute(insert(Item), values)

    def copy(first: int) -> Callable[[Session], object]:
        data = "".join(f"{id}\titem {id}\t{id}\n" for id in range(first, first + MANY))

        def body(session: Session) -> None:
            driver: Any = session.connection().connection.dbapi_connection
            with driver.cursor() as cursor, cursor.copy("COPY item (id, name, amount) FROM STDIN") as into:
                into.write(data)

        return body

    bodies: dict[str, Make] = {"one statement": statement, "executemany": many}
    return {**bodies, "copy": copy} if isinstance(ground, Postgresql) else bodies


def _plain_insert(name: str, engine: Engine, make: Make, numbers: itertools.count[int]) -> Variant:
    def turn() -> dict[str, float]:
        body = make(next(numbers))

        def transaction() -> None:
            with Session(engine) as session, session.begin():
                body(session)

        return {name: timed(transaction)}

    return turn


def _captured_insert(name: str, store: Store, make: Make, numbers: itertools.count[int]) -> Variant:
    def turn() -> dict[str, float]:
        body = make(next(numbers))
        measured = timed(lambda: store.run(body))
        store.sync()
        return {name: measured}

    return turn


def shipping(plan: Plan) -> Section:
    """The follower has a large transaction: by the journal, and by logical replication."""
    with Postgresql() as ground:
        store = ground.store("pair", durability="async", background=False)
        publisher, subscriber = ground.logical()
        variants = [_ship(ground, store, itertools.count(1_000_000, MANY)), _logical(ground, publisher, subscriber, itertools.count(1_000_000, MANY))]
        rounds = interleave(variants, seconds=plan.seconds(35), least=plan.rounds)
    section = Section(
        "Shipping a large transaction, PostgreSQL",
        f"An INSERT, then an UPDATE, of {MANY:,} rows, each one transaction: s from its COMMIT until the follower has it. `journal`: `store.sync()`. `logical`: "
        "PostgreSQL's logical replication between two servers of the same settings.",
        rounds.figures("s"),
    )
    for what in ("insert", "update"):
        section.ratios.append(
            rounds.ratio(f"{what}: the journal's rate to logical replication's", f"logical, {what}", f"journal, {what}", target=1.0)
        )
    return section


def shipping_sqlite(plan: Plan) -> Section:
    """The same between two files; the measure is the transaction itself."""
    with KINDS["sqlite"]() as ground:
        store = ground.store("pair", durability="async", background=False)
        rounds = interleave([_ship(ground, store, itertools.count(1_000_000, MANY))], seconds=plan.seconds(10), least=plan.rounds)
    section = Section(
        "Shipping a large transaction, SQLite",
        f"The same between two files; next to it the time of the captured transaction itself, {MANY:,} rows.",
        rounds.figures("s"),
    )
    for what in ("insert", "update"):
        section.ratios.append(rounds.ratio(f"{what}: shipping to the transaction itself", f"journal, {what}", f"{what} itself"))
    return section


def _ship(ground: Ground, store: Store, numbers: itertools.count[int]) -> Variant:
    def turn() -> dict[str, float]:
        first = next(numbers)
        measured: dict[str, float] = {}
        for what, statement in (("insert", text(ground.insert_many)), ("update", UPDATE)):
            values = {"first": first, "last": first + MANY - 1}
            itself = timed(lambda statement=statement, values=values: store.run(lambda session: session.execute(statement, values)))  # type: ignore[misc]
            measured[f"journal, {what}"] = timed(store.sync)
            if ground.kind == "sqlite":
                measured[f"{what} itself"] = itself
        return measured

    return turn


def _logical(ground: Ground, publisher: Engine, subscriber: Engine, numbers: itertools.count[int]) -> Variant:
    def turn() -> dict[str, float]:
        first = next(numbers)
        values = {"first": first, "last": first + MANY - 1}
        measured = {}
        for number, (what, statement) in enumerate((("insert", text(ground.insert_many)), ("update", UPDATE))):
            with publisher.begin() as connection:
                connection.execute(statement, values)
            began = time.perf_counter()
            _await(subscriber, values["last"], values["last"] + number)
            measured[f"logical, {what}"] = time.perf_counter() - began
        return measured

    return turn


def _await(engine: Engine, id: int, amount: int) -> None:
    deadline = time.monotonic() + 120
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while connection.scalar(text("SELECT amount FROM item WHERE id = :id"), {"id": id}) != amount:
            if time.monotonic() > deadline:
                raise TimeoutError("logical replication has not carried the transaction in 120 s")
            time.sleep(0.005)


def memory(plan: Plan) -> Section:
    """How much memory a process needs that ships a transaction of very many rows."""
    count = 100_000 if plan.quick else 5_000_000 if plan.large else 1_000_000
    figures = []
    for kind, title in TITLES.items():
        with KINDS[kind]() as ground, Crew(1) as crew:
            urls = ground.pair_urls("pair")
            store = Store(primary=urls[0], standby=urls[1], durability="async", background=False)
            store.migrate(Base.metadata)
            store.close()
            (told,) = crew.all([{"do": "carry", "urls": urls, "statement": ground.insert_many, "first": 1, "last": count}])
        figures += [
            Figure(f"{title}: most memory before", "MB", Spread.of([told["before"]])),
            Figure(f"{title}: most memory in the end", "MB", Spread.of([told["peak"]])),
            Figure(f"{title}: shipping", "s", Spread.of([told["seconds"]])),
        ]
    return Section("Memory of the shipping process", f"One INSERT of {count:,} rows, shipped by a process of its own; once.", figures)
