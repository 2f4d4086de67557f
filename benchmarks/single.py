"""Single-row ORM transactions and reads, one thread."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sqlalchemy.orm import sessionmaker

from benchmarks.ground import KINDS
from benchmarks.measure import Section, Variant, interleave, rate
from benchmarks.model import ROWS, WAYS, Item, Transaction, plainly
from benchmarks.plan import Plan
from replstore import Store
from replstore.store import ReadFrom

TITLES = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}


def _turn(name: str, transaction: Transaction, seconds: float, after: Callable[[], object] = lambda: None) -> Variant:
    """One turn of a variant; ``after`` isn't part of what is measured."""

    def turn() -> dict[str, float]:
        measured = rate(transaction, seconds)
        after()
        return {name: measured}

    rate(transaction, seconds / 2)  # caches fill
    after()
    return turn


def writing(kind: str, plan: Plan) -> Section:
    """Get a row, change it, commit: plain, through a Store, and written twice by hand."""
    with KINDS[kind]() as ground:
        first, second = ground.plain("plain"), ground.plain("plain2", 1)
        asynchronous = ground.store("asynchronous", durability="async")
        replicated = ground.store("replicated", durability="replicated")
        turn = partial(_turn, seconds=0.15 if plan.quick else 0.5)
        variants = [turn("plain", plainly(first)), turn("double write", plainly(first, second))]
        for way, through in WAYS.items():
            # what is left to ship after a turn must not weigh on the next variant's
            variants.append(turn(f"async, {way}", through(asynchronous), after=asynchronous.sync))
            variants.append(turn(f"replicated, {way}", through(replicated)))
        rounds = interleave(variants, seconds=plan.seconds(35))
    section = Section(
        f"Single-row transactions, {TITLES[kind]}, 1 thread",
        "An ORM transaction (get, change, commit), transactions a second. `plain`: SQLAlchemy on a database without replstore, commits as durable as the "
        "Store's. `double write`: the same transaction on two plain databases, one after the other. `run`, `begin`, `sessionmaker`: the Store's method.",
        rounds.figures("1/s"),
    )
    for way in WAYS:
        section.ratios.append(rounds.ratio(f"async, `{way}`, to plain", f"async, {way}", "plain", target=0.80))
        section.ratios.append(rounds.ratio(f"replicated, `{way}`, to plain", f"replicated, {way}", "plain", target=0.55))
    section.ratios.append(rounds.ratio("double write to plain", "double write", "plain"))
    section.ratios.append(rounds.ratio("replicated, `run`, to double write", "replicated, run", "double write"))
    return section


def reading(kind: str, plan: Plan) -> Section:
    """Get one row, or ten: plain, and from the Store's nodes."""
    with KINDS[kind]() as ground:
        factory = sessionmaker(ground.plain("plain"))
        store = ground.store("replicated")

        def plain(count: int) -> None:
            with factory() as session:
                for id in range(1, count + 1):
                    session.get_one(Item, id)

        turn = partial(_turn, seconds=0.1 if plan.quick else 0.4)
        variants: list[Variant] = []
        for count in (1, 10):
            variants.append(turn(f"plain, {count}", partial(plain, count)))
            variants.extend(turn(f"{node}, {count}", partial(_read, store, node, count)) for node in ("writer", "follower"))
        rounds = interleave(variants, seconds=plan.seconds(14))
    section = Section(
        f"Reads, {TITLES[kind]}, 1 thread",
        f"One Session that gets 1 or 10 of {ROWS} rows, Sessions a second. `writer` and `follower`: `store.read(node=…)`.",
        rounds.figures("1/s"),
    )
    for count in (1, 10):
        section.ratios.append(rounds.ratio(f"follower, {count} rows, to plain", f"follower, {count}", f"plain, {count}", target=0.97))
        section.ratios.append(rounds.ratio(f"writer, {count} rows, to plain", f"writer, {count}", f"plain, {count}"))
    return section


def _read(store: Store, node: ReadFrom, count: int) -> None:
    with store.read(node=node) as session:
        for id in range(1, count + 1):
            session.get_one(Item, id)
