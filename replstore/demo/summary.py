"""The table at the end."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from replstore.demo.run import Outcome
from replstore.demo.tally import Pause

#: How many numbers of lost or doubled orders are named.
NAMED = 5


def facts(outcome: Outcome) -> dict[str, Any]:
    """Everything, for programs."""
    verdict = outcome.verdict
    return {
        "good": verdict.good,
        "acknowledged": verdict.acknowledged,
        "found": verdict.found,
        "lost": list(verdict.lost),
        "doubled": list(verdict.doubled),
        "torn": list(verdict.torn),
        "divergences": list(verdict.divergences),
        "orphans": outcome.orphans,
        "pause_ms": _pause(outcome.kill),
        "switchover_pause_ms": _pause(outcome.switchover),
        "not_acknowledged": {name: count for name, (count, _) in outcome.troubles.items()},
        "faults": list(verdict.faults),
        "seconds": round(outcome.seconds, 1),
    }


def _pause(pause: Pause | None) -> dict[str, float] | None:
    return None if pause is None else {"overall": round(pause.overall, 1), "longest_of_one_process": round(pause.longest, 1)}


def show(console: Console, outcome: Outcome) -> None:
    """Prints the table and the verdict."""
    verdict = outcome.verdict
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    table.add_row("writes acknowledged", f"{verdict.acknowledged:,}", "orders whose call returned")
    table.add_row("found", f"{verdict.found:,}", "on both nodes, by a plain driver")
    table.add_row("lost", *_counted(verdict.lost, "acknowledged, and missing on a node"))
    table.add_row("doubled", *_counted(verdict.doubled, "written more than once"))
    table.add_row("half written", *_counted(verdict.torn, "lines or customer's count missing"))
    table.add_row("pause in ms", *_paused(outcome.kill, "after the kill"))
    table.add_row("", *_paused(outcome.switchover, "at the switchover back"))
    table.add_row("divergences", *_counted(verdict.divergences, "rows that differ between the nodes"))
    table.add_row("orphans", f"{outcome.orphans:,}", outcome.fate)
    for name, (count, note) in outcome.troubles.items():
        table.add_row("not acknowledged", f"{count:,}", f"{name}: {note}")
    console.print()
    console.print(table)
    console.print()
    for fault in verdict.faults:
        console.print(f"[red]✗[/red] {fault}", markup=True)
    if verdict.good:
        console.print(f"[bold green]Nothing lost, nothing doubled, both nodes equal[/bold green] ({outcome.seconds:.0f} s).")
    else:
        console.print("[bold red]This must not be: please report it, with the lines above.[/bold red]")


def _counted(names: tuple[str, ...], remark: str) -> tuple[str, str]:
    named = ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
    return (f"[red]{len(names):,}[/red]", f"{remark}: {named}") if names else ("[green]0[/green]", remark)


def _paused(pause: Pause | None, when: str) -> tuple[str, str]:
    if pause is None:
        return "–", f"{when}: it didn't come to it"
    return f"{pause.overall:,.0f}", f"{when}; at most {pause.longest:,.0f} for one process"
