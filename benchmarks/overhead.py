"""What a Store costs over native replication: writes, reads, a network with a delay, replicated durability; cases of ``benchmarks.native``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from sqlalchemy.orm import sessionmaker

from benchmarks.crew import Crew, server_time
from benchmarks.measure import Figure, Rounds, Section, Variant, interleave
from benchmarks.model import ROWS, WAYS, Item, Transaction, plainly
from benchmarks.plan import Plan
from benchmarks.streaming import Relay, Streaming
from replstore import Store

#: s that each round trip takes longer in ``delayed``.
DELAY = 0.001
CLIENT = "`client`: processor time of the thread for each of them."
ORM = "An ORM transaction (get, change, commit), transactions a second, one thread."


def _turn(name: str, transaction: Transaction, plan: Plan) -> Variant:
    """One turn of a variant: its rate, and the processor time of the thread for each transaction, which other programs disturb less.

    Turns are short and many: what else the machine does then hits all of a round alike.
    """
    seconds = 0.05 if plan.quick else 0.1

    def turn() -> dict[str, float]:
        done, began, before = 0, time.perf_counter(), time.thread_time()
        while (lasted := time.perf_counter() - began) < seconds:
            transaction()
            done += 1
        return {name: done / lasted, f"{name}, client": (time.thread_time() - before) / done * 1000}

    for _ in range(30):  # caches fill, statements are prepared
        transaction()
    return turn


def _figures(rounds: Rounds, names: Sequence[str]) -> list[Figure]:
    return [*rounds.figures("1/s", names), *rounds.figures("ms", [f"{name}, client" for name in names])]


def writing(plan: Plan) -> Section:
    """Single-row transactions on loopback."""
    with Streaming() as ground:
        store, unmarked = ground.store(), ground.store(commit_marker=False)
        variants = [_turn("plain", plainly(ground.plain()), plan)]
        variants += [_turn(way, through(store), plan) for way, through in WAYS.items()]
        variants += [_turn(f"{way}, no marker", through(unmarked), plan) for way, through in WAYS.items()]
        wrapped = {"wrapper": ground.wrapped(None), "wrapper, no plugins": ground.wrapped("")}
        variants += [_turn(name, plainly(engine), plan) for name, engine in wrapped.items() if engine is not None]
        rounds = interleave(variants, seconds=plan.seconds(50))
    section = Section(
        "Single-row transactions, loopback",
        f'{ORM} `plain`: SQLAlchemy on the same database. `run`, `begin`, `sessionmaker`: the Store\'s method, durability "server"; `no marker`: with '
        "`commit_marker=False`. `wrapper`: SQLAlchemy through aws-advanced-python-wrapper, with its default plugins and with none. "
        f"{CLIENT}",
        _figures(rounds, [name for name in rounds.values if not name.endswith(", client")]),
    )
    for way in WAYS:
        section.ratios.append(rounds.ratio(f"`{way}` to plain", way, "plain", target=0.95))
    for way in WAYS:
        section.ratios.append(rounds.ratio(f"`{way}`, no marker, to plain", f"{way}, no marker", "plain", target=0.99))
    others = [name for name, engine in wrapped.items() if engine is not None]
    section.ratios += [rounds.ratio(f"{name} to plain", name, "plain") for name in others]
    for name in (*WAYS, *(f"{way}, no marker" for way in WAYS), *others):
        section.ratios.append(rounds.ratio(f"client's processor time: {name} to plain", f"{name}, client", "plain, client"))
    return section


def reading(plan: Plan) -> Section:
    """Reads on the follower."""
    with Streaming() as ground:
        store, factory = ground.store(), sessionmaker(ground.plain(ground.urls[1]))

        def plain(count: int) -> None:
            with factory() as session:
                for id in range(1, count + 1):
                    session.get_one(Item, id)

        variants = []
        for count in (1, 10):
            variants.append(_turn(f"plain, {count}", partial(plain, count), plan))
            variants.append(_turn(f"follower, {count}", partial(_read, store, count, None), plan))
            variants.append(_turn(f"follower within 1 s, {count}", partial(_read, store, count, 1.0), plan))
        rounds = interleave(variants, seconds=plan.seconds(25))
    section = Section(
        "Reads on the follower, loopback",
        f'One Session that gets 1 or 10 of {ROWS} rows, Sessions a second. `plain`: SQLAlchemy on the standby. `follower`: `store.read(node="follower")`; '
        "`within 1 s`: with `max_lag=1`. "
        f"{CLIENT}",
        _figures(rounds, [name for name in rounds.values if not name.endswith(", client")]),
    )
    for count in (1, 10):
        for way in ("follower", "follower within 1 s"):
            section.ratios.append(rounds.ratio(f"{way}, {count} rows, to plain", f"{way}, {count}", f"plain, {count}", target=0.97))
    for count in (1, 10):
        name = f"follower, {count}"
        section.ratios.append(rounds.ratio(f"client's processor time: {name} rows, to plain", f"{name}, client", f"plain, {count}, client"))
    return section


def _read(store: Store, count: int, max_lag: float | None) -> None:
    with store.read(node="follower", max_lag=max_lag) as session:
        for id in range(1, count + 1):
            session.get_one(Item, id)


def delayed(plan: Plan) -> Section:
    """Single-row transactions over a network in which a round trip takes 1 ms longer."""
    with Streaming() as ground, Relay(ground.urls[0], DELAY) as relay:
        store = ground.store(primary=relay.url)
        variants = [_turn("plain", plainly(ground.plain(relay.url)), plan)]
        variants += [_turn(way, through(store), plan) for way, through in WAYS.items()]
        rounds = interleave(variants, seconds=plan.seconds(25))
    section = Section(
        "Single-row transactions, 1 ms away",
        f"{ORM} A proxy holds what it forwards for {DELAY * 500:g} ms in each direction, so that a round trip takes {DELAY * 1000:g} ms longer. `run` and "
        "`sessionmaker` send BEGIN, marker and first statement in one round trip; `begin` has BEGIN and marker answered before its block, so that it can "
        "fail over, and takes as many round trips as plain.",
        rounds.figures("1/s", ["plain", *WAYS]),
    )
    for way, target in (("run", 1.10), ("sessionmaker", 1.10), ("begin", None)):
        section.ratios.append(rounds.ratio(f"`{way}` to plain", way, "plain", target=target))
    return section


def replicated(plan: Plan) -> list[Section]:
    """Replicated durability next to remote_apply, 1 and 8 processes (4 in a quick run)."""
    counts = (1, 4) if plan.quick else (1, 8)
    proved = partial(Streaming, durability="replicated")
    with proved() as loose, proved(synchronous=True) as strict, Crew(max(counts)) as crew:
        sections = []
        for count in counts:
            turn = partial(_crew_turn, crew, count, plan=plan)
            variants = [
                turn("plain", loose, loose.urls[:1]),
                turn("replicated", loose, loose.urls, durability="replicated"),
                turn("remote_apply", strict, strict.urls[:1]),
                turn("both", strict, strict.urls, durability="replicated"),
            ]
            rounds = interleave(variants, seconds=plan.seconds(22), least=plan.rounds)
            names = ("plain", "replicated", "remote_apply", "both")
            section = Section(
                f"Replicated durability, {count} process{'es' if count > 1 else ''}",
                'The ORM transaction of above, each process with its own rows. `replicated`: `store.run` with durability "replicated", on servers whose own '
                "settings wait for nobody. `remote_apply`: SQLAlchemy alone, where the server waits until its standby has applied each commit. `both`: "
                '`store.run` with durability "replicated" there. `client`, `servers`: processor time of a transaction, in the client processes and in both servers.',
                [*rounds.figures("1/s", names), *rounds.figures("ms", [f"{name}, {where}" for name in names for where in ("client", "servers")])],
            )
            section.ratios.append(rounds.ratio("replicated to `remote_apply`", "replicated", "remote_apply"))
            section.ratios.append(rounds.ratio("both to `remote_apply`", "both", "remote_apply"))
            section.ratios.append(rounds.ratio("replicated to plain", "replicated", "plain"))
            section.ratios.append(rounds.ratio("`remote_apply` to plain", "remote_apply", "plain"))
            sections.append(section)
    return sections


def _crew_turn(crew: Crew, count: int, name: str, ground: Streaming, urls: list[str], *, plan: Plan, durability: str | None = None) -> Variant:
    own, seconds = ROWS // count, 0.3 if plan.quick else 1.0
    servers = (ground.pair.primary, ground.pair.standby)
    settings = {"replication": "native", "durability": durability} if durability else {}

    def turn() -> dict[str, float]:
        crew.all({"do": "open", "urls": urls, "first": 1 + number * own, "count": own, "settings": settings} for number in range(count))
        before = server_time(servers)
        done = crew.all([{"do": "run", "seconds": seconds}] * count)
        spent = server_time(servers) - before
        crew.all([{"do": "close"}] * count)
        made = sum(each["rate"] for each in done)
        client = sum(each["cpu"] * each["rate"] for each in done) / made
        return {name: made, f"{name}, client": client * 1000, f"{name}, servers": spent / (made * seconds) * 1000}

    return turn
