"""How old the follower is at a steady load, in async durability."""

from __future__ import annotations

import statistics
import time

from sqlalchemy import text

from benchmarks.crew import Crew
from benchmarks.ground import KINDS
from benchmarks.measure import Figure, Section, Spread
from benchmarks.plan import Plan
from benchmarks.single import TITLES

RATE = 200


def lag(plan: Plan) -> Section:
    """From COMMIT's return until another process sees it on the follower."""
    seconds = 2 if plan.quick else 10
    figures: list[Figure] = []
    for kind, title in TITLES.items():
        with KINDS[kind]() as ground, Crew(1) as crew:
            store = ground.store("pair", durability="async")
            standby = str(store.settings.standby_url.render_as_string(hide_password=False))
            store.run(lambda session: session.execute(text("UPDATE item SET amount = 0 WHERE id = 1")))
            store.sync()
            total = RATE * seconds
            crew.tell(0, {"do": "watch", "url": standby, "id": 1, "until": total, "seconds": seconds + 20})
            crew.answer(0)
            committed, began = [], time.monotonic()
            for number in range(1, total + 1):
                store.run(lambda session, number=number: session.execute(text("UPDATE item SET amount = :n WHERE id = 1"), {"n": number}))  # type: ignore[misc]
                committed.append(time.monotonic())
                time.sleep(max(0.0, began + number / RATE - time.monotonic()))
            reached = total / (time.monotonic() - began)
            lags = _lags(committed, crew.answer(0)["seen"])
        quantiles = statistics.quantiles(lags, n=100)
        figures += [
            Figure(f"{title}: load", "1/s", Spread.of([reached])),
            Figure(f"{title}: lag, median", "ms", Spread(quantiles[49] * 1000, quantiles[24] * 1000, quantiles[74] * 1000, len(lags))),
            Figure(f"{title}: lag, 99th percentile", "ms", Spread.of([quantiles[98] * 1000])),
        ]
    about = f"{RATE} transactions a second for {seconds} s, async: from each COMMIT's return until another process sees it on the follower."
    return Section("Lag at a steady load", f"{about} Default settings: the background shipper rests 0.2 s between two batches.", figures)


def _lags(committed: list[float], seen: list[tuple[int, float]]) -> list[float]:
    """For each commit the time until a value as new was first seen; in s."""
    lags, arrivals = [], iter(seen)
    value, at = next(arrivals)
    for number, when in enumerate(committed, 1):
        while value < number:
            value, at = next(arrivals)
        lags.append(max(0.0, at - when))
    return lags
