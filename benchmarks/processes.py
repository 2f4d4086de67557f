"""Replicated durability next to PostgreSQL's own synchronous replication, with several client processes."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from benchmarks.crew import Crew, server_time
from benchmarks.ground import Postgresql
from benchmarks.measure import Rounds, Section, Variant, interleave
from benchmarks.model import ROWS, Base, fill
from benchmarks.plan import Plan
from replstore import Store
from replstore.local import PostgresServer


def processes(plan: Plan) -> list[Section]:
    """1 and 8 processes (4 in a quick run): plain, replicated by the journal, replicated by the server (remote_apply)."""
    counts = (1, 4) if plan.quick else (1, 8)
    with Postgresql() as ground, Crew(max(counts)) as crew:
        pair = ground.pair_urls("replicated")
        _prepare_pair(pair)
        plain = str(ground.plain("plain").url)
        primary, standby = ground.streaming()
        engine = create_engine(primary.url())
        Base.metadata.create_all(engine)
        with Session(engine) as session, session.begin():
            fill(session)
        engine.dispose()
        sections = []
        for count in counts:
            variants = [
                _turn(crew, count, "plain", [plain], [ground.other], plan),
                _turn(crew, count, "replicated", pair, ground.nodes, plan),
                _turn(crew, count, "remote_apply", [primary.url()], [primary, standby], plan),
            ]
            sections.append(_section(count, interleave(variants, seconds=plan.seconds(22), least=plan.rounds)))
    return sections


def _prepare_pair(urls: tuple[str, str]) -> None:
    store = Store(primary=urls[0], standby=urls[1])
    store.migrate(Base.metadata)
    store.run(fill)
    store.sync()
    store.close()


def _turn(crew: Crew, count: int, name: str, urls: Sequence[str], servers: Sequence[PostgresServer], plan: Plan) -> Variant:
    own, seconds = ROWS // count, 0.5 if plan.quick else 1.5

    def turn() -> dict[str, float]:
        crew.all({"do": "open", "urls": list(urls), "first": 1 + number * own, "count": own} for number in range(count))
        before = server_time(servers)
        done = crew.all([{"do": "run", "seconds": seconds}] * count)
        spent = server_time(servers) - before
        crew.all([{"do": "close"}] * count)
        rate = sum(each["rate"] for each in done)
        return {
            name: rate,
            f"{name}, client": sum(each["cpu"] * each["rate"] for each in done) / rate * 1000,
            f"{name}, servers": spent / (rate * seconds) * 1000,
        }

    return turn


def _section(count: int, rounds: Rounds) -> Section:
    names = ("plain", "replicated", "remote_apply")
    section = Section(
        f"Replicated durability, PostgreSQL, {count} process{'es' if count > 1 else ''}",
        "The ORM transaction of above, `store.run`, each process with its own Store and rows. `remote_apply`: plain SQLAlchemy on a server whose streaming "
        "standby must have applied each commit. `client`, `servers`: processor time of a transaction, in the client processes and in both servers.",
        [*rounds.figures("1/s", names), *rounds.figures("ms", [f"{name}, {where}" for name in names for where in ("client", "servers")])],
    )
    target = 1.0 if count > 1 else None
    section.ratios.append(rounds.ratio("replicated to `remote_apply`", "replicated", "remote_apply", target=target))
    section.ratios.append(rounds.ratio("replicated to plain", "replicated", "plain"))
    section.ratios.append(rounds.ratio("`remote_apply` to plain", "remote_apply", "plain"))
    section.ratios.append(rounds.difference("processor time added in the client, ms", "replicated, client", "plain, client", target=0.3))
    section.ratios.append(rounds.difference("processor time added in the servers, ms", "replicated, servers", "plain, servers"))
    section.ratios.append(rounds.difference("the same for `remote_apply`, ms", "remote_apply, servers", "plain, servers"))
    return section
