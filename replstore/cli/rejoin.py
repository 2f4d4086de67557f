"""``replstore rejoin``: a former writer comes back as the follower."""

from __future__ import annotations

from typing import Annotated

import typer

from replstore.cli.acting import tell
from replstore.cli.common import Options
from replstore.cli.opening import opened


def command(
    options: Options,
    copy: Annotated[bool, typer.Option("--copy", help="Copy every table, where the node's history doesn't continue the writer's.")] = False,
) -> None:
    """Bring a former writer back as the follower.

    With rejoin = "auto" every running Store does this by itself. Rows that only the former writer has are recorded first (`replstore orphans`).
    """
    with opened(options) as store:
        recorded = store.rejoin(copy=copy)
        lead = store.pair.lead
        who = f"The {lead.follower.name} follows again" if lead else "The node follows again"
        kept = f"; {recorded} row{'s' if recorded != 1 else ''} that only it had: `replstore orphans list`" if recorded else ""
        tell(options, store, f"{who}{kept}.", recorded=recorded)
