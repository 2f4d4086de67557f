"""``replstore repair``: rows that differ become equal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from replstore.cli.check import names_of, short
from replstore.cli.common import Options, console, print_json
from replstore.cli.opening import opened
from replstore.errors import ConfigError, NoWriter

if TYPE_CHECKING:
    from rich.table import Table

    from replstore.reconcile import Outcome, Repair
    from replstore.reconcile.plan import Change
    from replstore.store import Store

#: Rows that are shown; JSON has all of them.
ON_SCREEN = 50
LEFT = 1
STYLES = {"insert": "green", "update": "yellow", "delete": "red"}


def command(
    options: Options,
    more: Annotated[
        list[str] | None, typer.Argument(metavar="COLUMN", help="With --from newest: what says which of two rows is newer.", show_default=False)
    ] = None,
    source: Annotated[
        Literal["writer", "primary", "standby", "newest"],
        typer.Option("--from", help="Whose rows are right: a node's, or of each row the newest by COLUMN.", metavar="WHOSE"),
    ] = "writer",
    apply: Annotated[bool, typer.Option("--apply", help="Carry it out. Without it the plan is shown, and nothing is changed.")] = False,
    tables: Annotated[list[str] | None, typer.Option("--tables", help="Repair these tables only; separated by commas.", metavar="NAMES")] = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", help="Leave these tables out; separated by commas.", metavar="NAMES")] = None,
    where: Annotated[str, typer.Option("--where", help="SQL condition for the rows to repair, for both databases.", metavar="SQL")] = "",
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Rows of each table to repair at most; they are held in memory.", metavar="N")
    ] = 100_000,
    undo: Annotated[str | None, typer.Option("--undo", help="Bring back what a repair changed, at once.", metavar="ID")] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the repairs, newest first.")] = False,
) -> int | None:
    """Make rows that differ equal. The plan is shown first; --apply carries it out, and keeps each row as it was.

    Rows on their way to the follower are left alone, and so is one that has changed since it was compared. Exit code: 0 done, or only planned;
    1 some rows were left as they are; 2 nothing could be repaired.
    """
    urls, column = _given(source, more or [])
    if (undo is not None) + listing + (apply and undo is None) > 1:
        raise ConfigError("--list, --undo and --apply are three things: give one of them")
    with _pair(options, urls) as store:
        if listing:
            _tell_repairs(options, store.repairs())
            return None
        if undo is not None:
            outcome = store.undo_repair(undo)
        else:
            outcome = store.repair(
                source=source,
                column=column,
                dry_run=not apply,
                tables=names_of("--tables", tables, "leave it out to repair all"),
                exclude=names_of("--exclude", exclude, "leave it out") or (),
                where=where,
                limit=limit,
            )
    if options.json:
        print_json(outcome.as_dict())
    else:
        _tell(outcome, undo=undo is not None)
    return LEFT if outcome.applied and not outcome.complete else None


def _given(source: str, more: list[str]) -> tuple[list[str], str | None]:
    """URLs and column of what stands without an option's name."""
    urls, columns = [each for each in more if "://" in each], [each for each in more if "://" not in each]
    if source == "newest" and len(columns) != 1:
        raise ConfigError("--from newest needs the one column that says which of two rows is newer: `replstore repair --from newest COLUMN`")
    if source != "newest" and columns:
        raise ConfigError(f"{columns[0]}: only `--from newest` takes a column")
    if len(urls) not in (0, 2):
        raise ConfigError("repair takes a pair's settings, or both of its URLs")
    return urls, next(iter(columns), None)


@contextmanager
def _pair(options: Options, urls: list[str]) -> Iterator[Store]:
    if urls:
        from replstore.reconcile.strangers import are_a_pair, strangers

        if options.primary or options.standby:
            raise ConfigError("repair takes a pair's settings, or both of its URLs, not the two at once")
        with strangers(*urls) as nodes:
            if not are_a_pair(nodes):
                raise ConfigError(
                    "these two databases are no pair, and only a pair can be repaired: nothing would tell a row that differs from one that is late"
                )
        options = replace(options, primary=urls[0], standby=urls[1])
    with opened(options) as store:
        try:
            yield store
        except NoWriter as error:
            raise ConfigError(f"no node writes now: {error}") from error


def _tell(outcome: Outcome, *, undo: bool) -> None:
    screen = console()
    changes = outcome.done if outcome.applied else outcome.plan.changes
    if changes:
        screen.print(_changes(changes[:ON_SCREEN]))
    if len(changes) > ON_SCREEN:
        screen.print(f"and {len(changes) - ON_SCREEN:,} more; --format json lists all.")
    for each in outcome.left[:ON_SCREEN]:
        screen.print(f"Left as it is: row {short(each.key)} of {each.table}: {each.reason}.", markup=False)
    if len(outcome.left) > ON_SCREEN:
        screen.print(f"and {len(outcome.left) - ON_SCREEN:,} more that are left as they are.")
    for node, sequences in (("follower", outcome.plan.sequences), ("writer", outcome.plan.of_writer)):
        for name, value in sequences.items():
            screen.print(f"Sequence {name} {'was' if outcome.applied else 'would be'} set forward to {value} on the {node}.", markup=False)
    for name, count in outcome.plan.more.items():
        screen.print(f"{count:,} more rows of {name} differ: repeat it, or raise --limit.", markup=False)
    screen.print(_sentence(outcome, undo=undo), markup=False)


def _sentence(outcome: Outcome, *, undo: bool) -> str:
    changes = outcome.done if outcome.applied else outcome.plan.changes
    rows = f"{len(changes):,} row{'' if len(changes) == 1 else 's'}"
    if not outcome.applied:
        if outcome.plan.empty:
            return "There is nothing to repair." if not outcome.left else "Nothing can be repaired, and nothing was changed."
        return f"{rows} would be changed. Nothing was changed; `--apply` repairs it."
    if undo:
        return f"{rows} brought back; `replstore check` says how the nodes compare now."
    if outcome.id is None:
        return "No row was changed."
    return f"{rows} changed, and kept as they were: `replstore repair --undo {outcome.id}` brings them back."


def _changes(changes: tuple[Change, ...]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("table", "key", "on", "", "from", "to"):
        table.add_column(title, overflow="fold")
    for change in changes:
        before, after = _shown(change, change.before), _shown(change, change.after)
        table.add_row(
            Text(change.table), Text(short(change.key)), change.node, Text(change.what, style=STYLES[change.what]), Text(before), Text(after)
        )
    return table


def _shown(change: Change, row: dict[str, Any] | None) -> str:
    if row is None:
        return "no row"
    return short(", ".join(f"{name}={short(row.get(name))}" for name in change.columns or row))


def _tell_repairs(options: Options, found: list[Repair]) -> None:
    if options.json:
        print_json([vars(each) for each in found])
        return
    if not found:
        console().print("No repair is on record.")
        return
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("id", "at", "from", "on", "rows", "brought back"):
        table.add_column(title, overflow="fold")
    for each in found:
        table.add_row(each.id, each.at[:19], each.source, each.node, f"{each.rows:,}", f"{each.undone:,}")
    console().print(table)
