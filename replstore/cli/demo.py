"""``replstore demo``: a throw-away pair loses its primary in the middle of the work."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Annotated, Literal

import typer

from replstore.cli.common import console, print_json
from replstore.errors import ConfigError

FAILED = 1


def command(
    database: Annotated[
        Literal["sqlite", "postgresql"] | None,
        typer.Option("--database", help="What the two nodes are. [default: sqlite]", metavar="KIND", show_default=False),
    ] = None,
    native: Annotated[bool, typer.Option("--native", help="A PostgreSQL primary with its own streaming standby.")] = False,
    seconds: Annotated[float, typer.Option("--seconds", help="How long orders are written.", min=1.0, max=600.0, metavar="S")] = 8.0,
    workers: Annotated[int, typer.Option("--workers", help="How many processes write.", min=1, max=32, metavar="N")] = 4,
    seed: Annotated[int | None, typer.Option("--seed", help="For chance: the same orders again.", metavar="N")] = None,
    format: Annotated[Literal["table", "json"], typer.Option("--format", help="Print the outcome as a table or as json.", metavar="FORM")] = "table",
) -> int | None:
    """Watch a pair lose its primary in the middle of the work, and go on.

    Two SQLite files, or two real PostgreSQL servers (sqlite or postgresql), made for the demo and removed afterwards. Several processes write orders; the
    primary is killed, the standby takes over, the primary comes back and the nodes change roles again. Then every acknowledged order is looked for on both
    nodes. The exit code is 1 if one is missing or doubled, or the nodes differ.

    With --native PostgreSQL's own streaming replication copies: the standby is promoted, and acknowledges again once the former primary, rewound, follows it.
    """
    import random

    from replstore.demo.run import Demo, Plan
    from replstore.demo.screen import Screen
    from replstore.demo.summary import facts, show

    if native and database == "sqlite":
        raise ConfigError("--native is PostgreSQL's own replication, which SQLite has not: leave --database sqlite out")
    kind = "native" if native else database or "sqlite"
    signal.signal(signal.SIGTERM, _end)
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    screen = Screen(console(), quiet=format == "json")
    outcome = Demo(Plan(kind, seconds, workers, seed), screen).run()
    if format == "json":
        print_json({"database": kind, "workers": workers, "seed": seed, **facts(outcome)})
    else:
        show(console(), outcome)
    return None if outcome.verdict.good else FAILED


def _end(number: int, frame: FrameType | None) -> None:
    """A polite kill tidies up as Ctrl-C does."""
    raise KeyboardInterrupt
