"""``replstore switchover``: the nodes change roles on purpose."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from replstore.cli.acting import tell
from replstore.cli.common import Options, console
from replstore.cli.opening import opened


def command(
    options: Options,
    timeout: Annotated[float, typer.Option("--timeout", help="How long to wait for open transactions at most.", min=0.1, metavar="S")] = 10.0,
    wait: Annotated[
        bool, typer.Option("--wait", help="Native replication, servers run by others: say what to run, and wait for it, --timeout at most.")
    ] = False,
) -> None:
    """Let writer and follower change places; no transaction fails.

    Transactions that are open end first; whoever keeps one open for longer than --timeout is named, and nothing has changed then.

    Native replication: where primary_data and standby_data name both data directories, the servers are stopped, promoted and rewound; else the commands for
    whoever runs them are printed.
    """
    began = time.monotonic()
    with opened(options) as store:
        store.switchover(timeout=timeout, told=_tell_steps if wait else None)
        seconds = time.monotonic() - began
        lead = store.pair.lead
        term = "timeline" if store.settings.replication == "native" else "term"
        who = f"The {lead.node.name} writes now, {term} {lead.term.number}; the {lead.follower.name} follows" if lead else "The roles have changed"
        tell(options, store, f"{who}.", seconds=round(seconds, 3))


def _tell_steps(steps: str) -> None:
    console(stderr=True).print(f"To be run: {steps}. Waiting for it.", markup=False)
