"""``replstore takeover``: the follower becomes the writer by a person's word."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from replstore.cli.acting import tell
from replstore.cli.common import Options
from replstore.cli.opening import opened


def command(
    options: Options,
    node: Annotated[
        Literal["primary", "standby"] | None,
        typer.Argument(help="The node to become the writer; by default the follower.", metavar="NODE", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Even where the rules forbid it: it may lose acknowledged transactions. Recorded.")] = False,
) -> None:
    """Make the follower the writer, because the writer is lost.

    With takeover = "auto" every running Store does this by itself when it is safe; this is for the rest. If both nodes are there and well, use
    `replstore switchover`.
    """
    with opened(options) as store:
        store.takeover(node, force=force)
        status = store.status()
        term = "timeline" if store.settings.replication == "native" else "term"
        who = f"The {status.writer} writes now, {term} {status.term}." if status.writer else "The takeover is done."
        tell(options, store, who, forced=force)
