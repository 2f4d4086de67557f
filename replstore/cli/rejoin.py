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
    discard: Annotated[bool, typer.Option("--discard", help="Native replication: throw away what only that node has, without an export.")] = False,
) -> None:
    """Bring a former writer back as the follower.

    With rejoin = "auto" every running Store does this by itself. Rows that only the former writer has are recorded first (`replstore orphans`).

    Native replication: the server in primary_data or standby_data is stopped, rewound or copied anew, and started; where the settings don't name that
    directory, the commands are printed. What only it has must have been exported (`replstore orphans export`), or --discard be given.
    """
    from replstore.pair.former import follows_already

    with opened(options) as store:
        if (
            not copy
            and store.settings.replication == "native"
            and store.pair.lead is not None
            and follows_already(store.pair, store.pair.lead.follower)
        ):
            tell(options, store, f"The {store.pair.lead.follower.name} follows already.", discarded=0)
            return
        recorded = store.rejoin(copy=copy, discard=discard)
        lead = store.pair.lead
        who = f"The {lead.follower.name} follows again" if lead else "The node follows again"
        if store.settings.replication == "native":
            gone = (
                f"; {recorded} transaction{'s' if recorded != 1 else ''} that only it had {'are' if recorded != 1 else 'is'} gone from it"
                if recorded
                else ""
            )
            tell(options, store, f"{who}{gone}.", discarded=recorded)
            return
        kept = f"; {recorded} row{'s' if recorded != 1 else ''} that only it had: `replstore orphans list`" if recorded else ""
        tell(options, store, f"{who}{kept}.", recorded=recorded)
