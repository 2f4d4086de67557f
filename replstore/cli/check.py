"""``replstore check``: are both nodes equal?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from replstore.cli.common import Options, console, print_json
from replstore.cli.opening import opened
from replstore.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from replstore.reconcile.report import Difference, Report, TableReport
    from replstore.reconcile.rows import Progress

#: Differences of a table that are shown where nobody asks for another number: a screenful, and what a program may want.
ON_SCREEN, IN_JSON = 20, 1000
#: Characters of a value that are shown.
WIDEST = 60
DIFFERENT = 1
MISSING = {"missing_on_standby": "primary only", "missing_on_primary": "standby only"}
CAUSES = {"orphan": "orphan", "capture_missing": "its changes weren't captured", None: "not known"}


def command(
    options: Options,
    tables: Annotated[list[str] | None, typer.Option("--tables", help="Compare these tables only; separated by commas.", metavar="NAMES")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=0, help=f"Differences to list of each table. [default: {ON_SCREEN}; {IN_JSON} in JSON]", metavar="N")
    ] = None,
) -> int | None:
    """Compare both nodes: schema, sequences and every row, while writes go on. Nothing is changed.

    Rows that are on their way to the follower are no differences. Exit code: 0 equal, 1 different, 2 they couldn't be compared.
    """
    names = [name.strip() for given in tables for name in given.split(",") if name.strip()] if tables else None
    if names == []:
        raise ConfigError("--tables names no table: give at least one, or leave it out to compare all")
    kept = limit if limit is not None else IN_JSON if options.json else ON_SCREEN
    with opened(options) as store, _progress() as progress:
        report = store.check(tables=names, limit=kept, progress=progress)
    if options.json:
        print_json(report.as_dict())
    else:
        show(report, console())
    return None if report.equal else DIFFERENT


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """Shows how far the check is, where somebody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn

    with Bar(SpinnerColumn(), TextColumn("{task.description}"), console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading both nodes")
        yield lambda table, rows: bar.update(task, description=f"comparing {table}: {rows:,} rows")


def show(report: Report, screen: Console) -> None:
    """Prints a report for people."""
    if report.shown:
        screen.print(_tables(report))
    for table in report.tables:
        if table.total:
            screen.print(_differences(table))
            if table.total > len(table.differences):
                screen.print(
                    f"  and {table.total - len(table.differences):,} more in {table.name}; --limit lists more, --format json the values in full"
                )
    for heading, lines in (("Schema", _schema(report)), ("Sequences", _sequences(report)), ("Notes", report.notes)):
        if lines:
            screen.print(f"\n[bold]{heading}[/bold]")
            for line in lines:
                _bullet(screen, line)
    if report.total and not any(difference.cause for table in report.tables for difference in table.differences):
        screen.print("\nWhere the differing rows come from is not known: they were written behind the guard, or while capture was off.")
    if report.shown or not report.equal:
        screen.print()
    screen.print(str(report), style="bold green" if report.equal else "bold red")


def _bullet(screen: Console, line: str) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    row = Table.grid(padding=(0, 1))
    row.add_row("-", Text(line))
    screen.print(Padding(row, (0, 0, 0, 1)))


def _tables(report: Report) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("Table", overflow="fold")
    for heading in ("Primary", "Standby", "On their way", "Different"):
        table.add_column(heading, justify="right")
    for each in report.shown:
        counts = [f"{each.primary:,}", f"{each.standby:,}"] if each.primary is not None and each.standby is not None else ["not", "compared"]
        table.add_row(Text(each.name), *counts, f"{each.waiting:,}", Text(f"{each.total:,}", style="bold red" if each.total else ""))
    return table


def _differences(each: TableReport) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(f"\n{each.name}", style="bold"), title_justify="left", title_style="", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    table.add_column("Key", overflow="fold", ratio=2)
    table.add_column("Column", overflow="fold", ratio=2)
    table.add_column("Primary", overflow="fold", ratio=3)
    table.add_column("Standby", overflow="fold", ratio=3)
    explained = any(difference.cause for difference in each.differences)
    if explained:
        table.add_column("Cause", overflow="fold", ratio=2)
    for difference in each.differences:
        for line in _lines(difference):
            table.add_row(*map(Text, line if explained else line[:-1]))
    return table


def _lines(difference: Difference) -> Iterator[tuple[str, str, str, str, str]]:
    facts = difference.as_dict()
    key = ", ".join(f"{name}={_short(value)}" for name, value in facts["key"].items())
    cause = CAUSES[difference.cause] + (f", tx {difference.tx}" if difference.tx else "")
    if difference.kind != "changed":
        rows = (_row(facts["primary"]), _row(facts["standby"]))
        yield key, f"row on {MISSING[difference.kind]}", *rows, cause
        return
    for number, name in enumerate(difference.columns):
        yield key if number == 0 else "", name, _short(facts["primary"][name]), _short(facts["standby"][name]), cause if number == 0 else ""


def _row(values: dict[str, Any] | None) -> str:
    return "no row" if values is None else _short(", ".join(f"{name}={_short(value)}" for name, value in values.items()))


def _short(value: Any) -> str:
    """A value in one line that no terminal takes for a command."""
    if value is None:
        return "NULL"
    text = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(value))
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def _schema(report: Report) -> list[str]:
    return [f"{each.table}: {each.text}" for each in report.schema]


def _sequences(report: Report) -> list[str]:
    def last(value: int | None) -> str:
        return "never used" if value is None else f"{value:,}"

    return [
        f"{each.name}: {last(each.primary)} on primary, {last(each.standby)} on standby; {each.behind} would give out values that were given before"
        for each in report.sequences
    ]
