"""``replstore orphans``: what a lost writer had committed alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from replstore.cli.common import Options, console, print_json, with_options
from replstore.cli.help import CONTEXT, SectionedCommand, SectionedGroup
from replstore.cli.opening import opened
from replstore.errors import ConfigError, NoWriter

if TYPE_CHECKING:
    from rich.table import Table

    from replstore.store import Store

KNOWN = {
    None: "the writer doesn't know this transaction",
    "committed": "the writer holds this transaction committed",
    "lost": "its caller was told that it did not take effect",
    "key": "the writer holds another transaction with the same key",
}

command = typer.Typer(cls=SectionedGroup, context_settings=CONTEXT, rich_markup_mode=None, add_completion=False, invoke_without_command=True)


@command.callback()
def orphans(context: typer.Context) -> None:
    """Show what a lost writer had committed alone, row by row: it was recorded when the node rejoined, and nothing of it was dropped."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@command.command("list", cls=SectionedCommand)
@with_options
def list_(options: Options) -> None:
    """List the recorded rows, newest transaction first."""
    with opened(options) as store:
        found = read(store)
    if options.json:
        print_json(found)
    elif not found:
        console().print("No orphans: no row was found that only a lost writer had.")
    else:
        console().print(_table(found))
        console().print("`replstore orphans show ID` compares the two versions of a row.", style="dim", markup=False)


@command.command("show", cls=SectionedCommand)
@with_options
def show(options: Options, id: Annotated[str, typer.Argument(help="The record's id, or the first letters of it.", metavar="ID")]) -> None:
    """Show one recorded row: what the lost writer had, what the writer had then, and whether it may have been acknowledged."""
    with opened(options) as store:
        found = [record for record in read(store) if record["id"].startswith(id)]
    if len(found) != 1:
        how_many = f"{len(found)} records begin" if found else "no record begins"
        raise ConfigError(f"{id}: {how_many} with that; `replstore orphans list` shows them")
    if options.json:
        print_json(found[0])
    else:
        _show(found[0])


def read(store: Store) -> list[dict[str, Any]]:
    """The records, from the writer; from the follower, which has them too, where no node writes.

    Raises:
        NoWriter: no node can be read.
    """
    from sqlalchemy import select

    view, decision = store.pair.look()
    up = [seen.name for seen in (view.primary, view.standby) if seen.role is not None]
    name = decision.writer if decision.writer in up else next(iter(up), None)
    if name is None:
        raise NoWriter(f"{decision.reason}; {decision.next_step}" if decision.next_step else decision.reason)
    node = store.pair.nodes[name]
    orphan = node.database.control.orphan
    with node.snapshot() as connection:
        rows = connection.execute(select(orphan).order_by(orphan.c.tx_at.desc(), orphan.c.tx, orphan.c.tbl, orphan.c.key)).mappings().all()
    return [{**row, "former_row": _row(row["former_row"]), "writer_row": _row(row["writer_row"])} for row in rows]


def _row(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _table(found: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("id", "table", "key", "from", "committed at", "acknowledged?"):
        table.add_column(title, overflow="fold")
    for record in found:
        maybe = "maybe" if record["maybe_acknowledged"] else "no"
        table.add_row(record["id"][:8], record["tbl"], record["key"], record["node"], (record["tx_at"] or "–")[:19], maybe)
    return table


def _show(record: dict[str, Any]) -> None:
    from rich.table import Table

    screen = console()
    screen.print(f"Row {record['key']} of table {record['tbl']}, committed on the {record['node']} in term {record['term_no']}.", markup=False)
    tx = f"transaction {record['tx']}, {record['tx_at'] or 'time unknown'}" if record["tx"] else "written without a Store"
    screen.print(f"{tx[0].upper()}{tx[1:]}; {KNOWN.get(record['tx_known'], record['tx_known'])}.", markup=False)
    maybe = "It may have been acknowledged." if record["maybe_acknowledged"] else "It was never acknowledged."
    screen.print(f"{maybe} Recorded at {record['recorded_at']}.\n", markup=False)
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
