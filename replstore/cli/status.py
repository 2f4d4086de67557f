"""``replstore status``: who writes, how each node is, what to do next."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from replstore.cli.common import Options, console, print_json
from replstore.cli.opening import opened

if TYPE_CHECKING:
    from rich.console import RenderableType

    from replstore.pair.status import NodeStatus, Status

NOT_HEALTHY = 1
#: How commits are acknowledged, as a sentence.
ACKNOWLEDGED = {
    "replicated": "A commit is acknowledged when it is on both nodes.",
    "solo": "A commit is acknowledged by the writer alone, until the other node is in sync.",
    "alone": "A commit is acknowledged by the writer alone (durability async).",
    "none": "Nothing is acknowledged.",
}
#: What a decision that nobody has carried out yet is waiting for.
WAITS = {
    "take over": "any running Store takes over by itself; `replstore takeover` does it now",
    "go solo": "any running Store goes on alone by itself; `replstore solo` does it now",
    "finish": "any running Store finishes it by itself; `replstore sync` does it now",
    "fence": "any running Store brings it back by itself; `replstore rejoin` does it now",
    "rejoin": "any running Store brings it back by itself; `replstore rejoin` does it now",
    "resync": "any running Store brings it in sync by itself; `replstore sync` does it now",
}


def command(
    options: Options,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every second, until Ctrl-C.")] = False,
) -> int | None:
    """Show who writes, under which term, what each node's state means, and what to do next.

    The exit code is 0 if somebody writes and the other node follows in sync, else 1. With --watch and --format json, each look is one line.
    """
    with opened(options) as store:
        if watch:
            return _watch(options, store.status)
        status = store.status()
    if options.json:
        print_json(status.as_dict())
    else:
        console().print(render(status))
    return None if status.healthy else NOT_HEALTHY


def _watch(options: Options, look: object) -> int:
    from rich.live import Live

    assert callable(look)
    screen = console()
    code = 0
    try:
        with Live(console=screen, auto_refresh=False) as live:
            while True:
                status: Status = look()
                code = 0 if status.healthy else NOT_HEALTHY
                if options.json:
                    print(json.dumps(status.as_dict(), ensure_ascii=False), flush=True)
                elif screen.is_terminal:
                    live.update(render(status), refresh=True)
                else:
                    screen.print(render(status))
                time.sleep(1.0)
    except KeyboardInterrupt:
        return code


def render(status: Status) -> RenderableType:
    """The status for people: a sentence, a table with a column for each node, and what to do."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    good = status.healthy
    parts: list[RenderableType] = [Text(_sentence(status), style="bold green" if good else "bold red" if status.writer is None else "bold yellow")]
    parts.append(Text("No node writes now." if status.writer is None else _acknowledged(status)))
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    table.add_column("", style="dim", no_wrap=True)
    for node in status.nodes.values():
        table.add_column(node.name, overflow="fold")
    for label, cells in _rows(status, list(status.nodes.values())):
        table.add_row(label, *cells)
    parts.append(Padding(table, (1, 0)))
    for label, sentences, style in (
        ("Shipping", [status.stopped] if status.stopped else [], "red"),
        ("Waiting", [_waiting(status)] if status.unconfirmed else [], "yellow"),
        ("Kept", status.pinned, "yellow"),
        ("Orphans", [_orphans(status.orphans)] if status.orphans else [], "yellow"),
        ("Warning", status.warnings, "yellow"),
        ("Next", [f"{_capital(step)}."] if (step := next_step(status)) else [], "bold"),
    ):
        parts += [Text(f"{label}: ", style=style).append(sentence, style="default not bold") for sentence in sentences]
    return Group(*parts)


def next_step(status: Status) -> str:
    """What to do, or who does it; empty: nothing."""
    return status.next_step or ("" if status.healthy else WAITS.get(status.decision, ""))


def _sentence(status: Status) -> str:
    what = "timeline" if status.replication == "native" else "term"
    named = status.term is None or f"{what} {status.term}" in status.reason
    term = "" if named else f" ({what} {status.term})"
    return f"{_capital(status.reason)}{term}."


def _acknowledged(status: Status) -> str:
    """How commits are acknowledged."""
    if status.replication != "native" or status.durability != "server":
        return ACKNOWLEDGED.get(status.acknowledge, status.acknowledge)
    waits_for = next((node.waits_for for node in status.nodes.values() if node.name == status.writer), None)
    if waits_for:
        return f"A commit is acknowledged when its server says so, which waits for {waits_for} (synchronous_standby_names)."
    return "A commit is acknowledged when its server says so, which waits for no standby: a lost writer takes its last commits with it."


def _rows(status: Status, nodes: list[NodeStatus]) -> list[tuple[str, list[str]]]:
    native = status.replication == "native"
    rows = [
        ("role", [node.role or "–" for node in nodes]),
        ("health", [node.health for node in nodes]),
        ("means", [node.state for node in nodes]),
        ("timeline" if native else "term", ["–" if node.term is None else str(node.term) for node in nodes]),
        ("log up to", [node.position or "–" if native else "–" for node in nodes]),
        ("lag", [_lag(node) for node in nodes]),
        ("migrations", [_number(node.schema_no) for node in nodes]),
        ("changes to ship", [_number(node.waiting) for node in nodes]),
        ("last batch", [_moment(node.shipped_at) for node in nodes]),
        ("database", [node.url for node in nodes]),
    ]
    return [row for row in rows if any(cell != "–" for cell in row[1])]


def _lag(node: NodeStatus) -> str:
    if node.lag_bytes is None:
        return "–"
    seconds = "" if node.lag_seconds is None or not node.lag_bytes else f", {node.lag_seconds:,.1f} s at most"
    return "none" if not node.lag_bytes else f"{node.lag_bytes:,} bytes{seconds}"


def _waiting(status: Status) -> str:
    follower = next((node.name for node in status.nodes.values() if node.name != status.writer), "the other node")
    what = "1 transaction is" if status.unconfirmed == 1 else f"{status.unconfirmed:,} transactions are"
    since = f", the oldest for {status.unconfirmed_for:,.1f} s" if status.unconfirmed_for is not None else ""
    return f"{what} not known to be on {follower}{since}."


def _orphans(count: int) -> str:
    what = "1 row that only a lost writer had is" if count == 1 else f"{count} rows that only a lost writer had are"
    return f"{what} kept aside; `replstore orphans list` shows them."


def _moment(at: str | None) -> str:
    return f"{at[:19].replace('T', ' ')} UTC" if at else "–"


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
