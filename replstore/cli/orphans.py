"""``replstore orphans``: what a lost writer had committed alone, and what a person decides on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from replstore.cli.common import Options, console, print_json, with_options
from replstore.cli.help import CONTEXT, SectionedCommand, SectionedGroup
from replstore.cli.opening import opened
from replstore.cli.orphan_file import OrphanFile
from replstore.errors import ConfigError, NoWriter

if TYPE_CHECKING:
    from rich.table import Table

    from replstore.reconcile.export import Exported
    from replstore.transaction.orphans import Orphans, Plan

KNOWN = {
    None: "the writer doesn't know this transaction",
    "committed": "the writer holds this transaction committed",
    "lost": "its caller was told that it did not take effect",
    "key": "the writer holds another transaction with the same key",
}
SENTENCES = {
    "replayed": ("{} would be replayed", "{} replayed"),
    "replayed before": ("{} had been replayed before", "{} had been replayed before"),
    "withheld": ("{} would be withheld", "{} withheld"),
    "discarded": ("{} would be discarded", "{} discarded"),
}
STYLES = {"replayed": "green", "withheld": "yellow", "discarded": "dim"}
Ids = Annotated[
    list[str] | None, typer.Argument(help="Transactions or records, or the first letters of their ids.", metavar="ID", show_default=False)
]
Tx = Annotated[list[str] | None, typer.Option("--tx", help="The same as an ID; may be repeated.", metavar="ID")]
Apply = Annotated[bool, typer.Option("--apply", help="Carry it out. Without it the plan is shown, and nothing is changed.")]

command = typer.Typer(cls=SectionedGroup, context_settings=CONTEXT, rich_markup_mode=None, add_completion=False, invoke_without_command=True)


@command.callback()
def orphans(context: typer.Context) -> None:
    """Show what a lost writer had committed alone, row by row, and decide on it: it was recorded when the node rejoined, and nothing of it was dropped."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@command.command("list", cls=SectionedCommand)
@with_options
def list_(
    options: Options,
    limit: Annotated[int, typer.Option("--limit", help="How many rows to list; 0: all.", metavar="N", min=0)] = 200,
    after: Annotated[int, typer.Option("--after", help="How many to leave out first.", metavar="N", min=0)] = 0,
) -> None:
    """List the recorded rows, newest transaction first."""
    with looking(options) as book:
        found, count = book.records(limit=limit or None, after=after), book.count()
    if options.json:
        print_json(found)
    elif not count:
        console().print("No orphans: no row was found that only a lost writer had.")
    else:
        console().print(_table(found))
        if (shown := after + len(found)) < count:
            console().print(f"{len(found)} of {count} rows; `--after {shown}` goes on, `--limit 0` lists all.", markup=False)
        console().print(
            "`replstore orphans show ID` compares the two versions of a row; `replstore orphans replay` plans a replay.", style="dim", markup=False
        )


@command.command("show", cls=SectionedCommand)
@with_options
def show(options: Options, id: Annotated[str, typer.Argument(help="The record's id, or the first letters of it.", metavar="ID")]) -> None:
    """Show one recorded row: what the lost writer had, what the writer had then, and whether it may have been acknowledged."""
    with looking(options) as book:
        found = book.records(id, limit=2) if id else []
    if len(found) != 1:
        how_many = "several records begin" if found else "no record begins"
        raise ConfigError(f"{id}: {how_many} with that; `replstore orphans list` shows them")
    if options.json:
        print_json(found[0])
    else:
        _show(found[0])


@command.command("export", cls=SectionedCommand)
@with_options
def export(
    options: Options,
    file: Annotated[
        str | None, typer.Argument(help="The file to write. [default: orphans-NODE-TIME.json here]", metavar="FILE", show_default=False)
    ] = None,
) -> None:
    """Native replication: write what only a former primary has to a file, both versions of each row, before `replstore rejoin` throws it away.

    Runs where that node's data directory is, which the setting primary_data or standby_data names. Its server is stopped, started for this alone, reached by
    nobody else, and stopped again.
    """
    with opened(options) as store:
        if store.settings.replication != "native":
            raise ConfigError("with the journal, orphans are recorded when the node rejoins: `replstore orphans list` shows them")
        from replstore.reconcile.export import export as export_from

        place = OrphanFile(file)
        former, found, through = export_from(store.pair)
        if not found.nothing:
            place.write(found.as_dict(), found.former)
            if found.complete:
                former.remember(str(place.path), through)
    _tell_export(options, found, None if found.nothing else place.path)


@command.command("replay", cls=SectionedCommand)
@with_options
def replay(
    options: Options,
    ids: Ids = None,
    tx: Tx = None,
    apply: Apply = False,
    out_of_order: Annotated[
        bool, typer.Option("--out-of-order", help="Also what was committed after an orphan that is withheld, and may have read it.")
    ] = False,
    reopen: Annotated[bool, typer.Option("--reopen", help="Also what was discarded; takes IDs.")] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Kept with the decision.", metavar="WHY")] = None,
) -> int | None:
    """Do on the writer what a lost writer had committed alone: each group of transactions that share rows in one transaction, once.

    The plan is a trial that is rolled back. A group is withheld where the writer knows one of its transactions, where it has changed one of the group's
    rows or one that refers to them, where a constraint fails, and after another one that is withheld. Without IDs: everything that is open.
    """
    named = [*(ids or ()), *(tx or ())]
    with looking(options) as book:
        wish = {"out_of_order": out_of_order, "reopen": reopen}
        plan = book.replay(named, reason=reason, **wish) if apply else book.plan(named, **wish)
    _tell(options, plan, "`--apply` replays it")
    return 1 if plan.applied and any(verdict.outcome == "withheld" for verdict in plan.verdicts) else None


@command.command("discard", cls=SectionedCommand)
@with_options
def discard(
    options: Options,
    ids: Ids = None,
    tx: Tx = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are open, instead of IDs.")] = False,
    apply: Apply = False,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the decision.", metavar="WHY")] = "",
) -> None:
    """Decide that orphans are not to be replayed. The records stay."""
    with looking(options) as book:
        plan = book.discard([*(ids or ()), *(tx or ())], reason=reason, everything=everything, dry_run=not apply)
    _tell(options, plan, "`--apply` discards it")


def _tell_export(options: Options, found: Exported, file: Path | None) -> None:
    if options.json:
        print_json({"file": None if file is None else str(file), "rows": found.rows, **found.summary()})
        return
    screen = console()
    if file is None:
        screen.print(f"The {found.former} has nothing that the {found.writer} lacks; `replstore rejoin` lets it follow.", markup=False)
        return
    counts = f"{_count(len(found.transactions), 'transaction')} and {_count(found.rows, 'row')}"
    screen.print(f"{counts} that only the {found.former} has: {file}", markup=False)
    for note in found.notes:
        screen.print(f"Note: {note}.", markup=False)
    step = "" if found.complete else " --discard"
    screen.print(f"Its server is stopped. `replstore rejoin{step}` lets it follow, and throws them away there.", markup=False)


@contextmanager
def looking(options: Options) -> Iterator[Orphans]:
    """The orphans of the command's pair; without a writer there is nothing to decide on, which is no failure of the command."""
    with opened(options) as store:
        if store.settings.replication == "native":
            raise ConfigError("native replication records no orphans: `replstore orphans export` writes what only a former primary has to a file")
        try:
            yield store.orphans
        except NoWriter as error:
            raise ConfigError(f"no node writes now: {error}") from error


def _tell(options: Options, plan: Plan, remedy: str) -> None:
    if options.json:
        print_json(plan.as_dict())
        return
    screen = console()
    screen.print(_plan(plan))
    for number, verdict in enumerate(plan.verdicts, 1):
        if verdict.reason:
            screen.print(f"{number}: {verdict.reason}.", markup=False)
    for sentence in plan.unknown:
        screen.print(sentence, style="dim", markup=False)
    counts = {outcome: sum(1 for verdict in plan.verdicts if verdict.outcome == outcome) for outcome in SENTENCES}
    said = ", ".join(SENTENCES[outcome][plan.applied].format(_groups(count)) for outcome, count in counts.items() if count)
    done = f"Nothing was changed; {remedy}." if not plan.applied else "It is on both nodes." if counts["replayed"] or counts["discarded"] else ""
    screen.print(f"{said[:1].upper()}{said[1:]}. {done}".rstrip(), markup=False)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number != 1 else ''}"


def _groups(count: int) -> str:
    return f"{count} group{'s' if count != 1 else ''}"


def _plan(plan: Plan) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("group", "", "committed at", "transaction", "rows"):
        table.add_column(title, overflow="fold")
    for number, verdict in enumerate(plan.verdicts, 1):
        group = verdict.group
        rows = [f"{record.what()} {record.table} {record.key}" for record in group.records[:5]]
        rows += [f"and {len(group.records) - 5} more"] if len(group.records) > 5 else []
        ids = [id[:8] for id in group.ids[:5]] + ([f"and {len(group.ids) - 5} more"] if len(group.ids) > 5 else [])
        at = group.changes[0].at if group.changes else None
        cells = (str(number), str(verdict.outcome), (at or "–")[:19], "\n".join(ids) or "–", "\n".join(rows))
        table.add_row(*(Text(cell, style=STYLES.get(str(verdict.outcome), "") if place == 1 else "") for place, cell in enumerate(cells)))
    return table


def _table(found: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("id", "table", "key", "from", "committed at", "acknowledged?", "state"):
        table.add_column(title, overflow="fold")
    for record in found:
        maybe = "maybe" if record["maybe_acknowledged"] else "no"
        table.add_row(record["id"][:8], record["tbl"], record["key"], record["node"], (record["tx_at"] or "–")[:19], maybe, record["state"])
    return table


def _show(record: dict[str, Any]) -> None:
    from rich.table import Table

    screen = console()
    screen.print(f"Row {record['key']} of table {record['tbl']}, committed on the {record['node']} in term {record['term_no']}.", markup=False)
    tx = f"transaction {record['tx']}, {record['tx_at'] or 'time unknown'}" if record["tx"] else "written without a Store"
    screen.print(f"{tx[0].upper()}{tx[1:]}; {KNOWN.get(record['tx_known'], record['tx_known'])}.", markup=False)
    maybe = "It may have been acknowledged." if record["maybe_acknowledged"] else "It was never acknowledged."
    screen.print(f"{maybe} Recorded at {record['recorded_at']}.", markup=False)
    decided = f"It was {record['state']} at {record['decided_at']}" if record["decided_at"] else "Nobody has decided on it"
    screen.print(f"{decided}{': ' + record['reason'] if record['reason'] else ''}.\n", markup=False)
    former, writer = record["former_row"], record["writer_row"]
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    for title in ("column", f"the lost writer ({record['node']})", "the writer then"):
        table.add_column(title, overflow="fold")
    for column in dict.fromkeys([*(former or {}), *(writer or {})]):
        mine, theirs = _cell(former, column), _cell(writer, column)
        style = "bold yellow" if mine != theirs else None
        table.add_row(column, mine, theirs, style=style)
    screen.print(table if former or writer else "Neither had the row: it was deleted on both.")


def _cell(row: dict[str, Any] | None, column: str) -> str:
    if row is None:
        return "(no row)"
    value = row.get(column)
    return "NULL" if value is None else str(value)
