"""``replstore switchover``: the nodes change roles on purpose."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from replstore.cli.acting import tell
from replstore.cli.common import Options
from replstore.cli.opening import opened


def command(
    options: Options,
    timeout: Annotated[float, typer.Option("--timeout", help="How long to wait for open transactions at most.", min=0.1, metavar="S")] = 10.0,
) -> None:
    """Let writer and follower change places; no transaction fails.

    Transactions that are open end first; whoever keeps one open for longer than --timeout is named, and nothing has changed then.
    """
    began = time.monotonic()
    with opened(options) as store:
        store.switchover(timeout=timeout)
        seconds = time.monotonic() - began
        lead = store.pair.lead
        who = f"The {lead.node.name} writes now, term {lead.term.number}; the {lead.follower.name} follows" if lead else "The roles have changed"
        tell(options, store, f"{who}.", seconds=round(seconds, 3))
