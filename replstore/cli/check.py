"""``replstore check``: are both nodes equal?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from replstore.cli.common import Options, console, print_json
from replstore.cli.opening import opened
from replstore.cli.page_file import PageFile
from replstore.cli.progress import Bar
from replstore.cli.quick import importing
from replstore.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from replstore.reconcile.report import Difference, Report, TableReport

#: Differences of a table that are shown where nobody asks for another number: a screenful, and what a program may want.
ON_SCREEN, IN_JSON = 20, 1000
#: Characters of a value that are shown.
WIDEST = 60
DIFFERENT = 1
MISSING = {"missing_on_standby": "primary only", "missing_on_primary": "standby only"}


def command(
    options: Options,
    one: Annotated[
        str | None, typer.Argument(metavar="URL", help="A database, instead of a pair; it needs no replstore.", show_default=False)
    ] = None,
    other: Annotated[str | None, typer.Argument(metavar="OTHER", help="The other database.", show_default=False)] = None,
    tables: Annotated[list[str] | None, typer.Option("--tables", help="Compare these tables only; separated by commas.", metavar="NAMES")] = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", help="Leave these tables out; separated by commas.", metavar="NAMES")] = None,
    where: Annotated[str, typer.Option("--where", help="SQL condition for the rows to compare, for both databases.", metavar="SQL")] = "",
    sample: Annotated[
        float, typer.Option("--sample", help="Percent of the rows to compare, in ranges of keys chosen by chance.", metavar="PERCENT")
    ] = 100.0,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=0, help=f"Differences to list of each table. [default: {ON_SCREEN}; {IN_JSON} in JSON and HTML]", metavar="N"),
    ] = None,
    settle: Annotated[float, typer.Option("--settle", min=0.0, help="Seconds after which what may only be late is read again.", metavar="S")] = 1.0,
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=8, help="Sessions of each server that read a large table at once.", metavar="N")
    ] = 2,
    max_load: Annotated[
        float, typer.Option("--max-load", help="Percent of the time in which a session may keep its database busy.", metavar="PERCENT")
    ] = 100.0,
    resume: Annotated[str, typer.Option("--resume", help="Keep what was found in this file, and go on from it after a break.", metavar="FILE")] = "",
    since: Annotated[
        str | None, typer.Option("--since", help="last: compare only rows that changed since the last check.", metavar="last", show_default=False)
    ] = None,
    html: Annotated[str, typer.Option("--html", help="Also write the report to this file, as a page for the browser.", metavar="FILE")] = "",
) -> int | None:
    """Compare both nodes: schema, sequences and every row, while writes go on. Nothing is changed.

    Rows that are on their way to the follower are no differences. Two URLs compare any two databases: there, rows that differ are read again after a
    while, and count if they still do. Exit code: 0 equal, 1 different, 2 they couldn't be compared.
    """
    wanted = {
        "tables": names_of("--tables", tables, "leave it out to compare all"),
        "exclude": names_of("--exclude", exclude, "leave it out") or (),
        "where": where,
        "sample": _share("--sample", sample),
        "limit": limit if limit is not None else IN_JSON if options.json or html else ON_SCREEN,
        "settle": settle,
        "workers": workers,
        "max_load": _share("--max-load", max_load),
        "resume": resume,
        "since": since,
    }
    page = PageFile(html)
    with Bar() as bar:
        report = _check(options, one, other, {**wanted, **bar.callbacks})
    if options.json:
        print_json(report.as_dict())
    else:
        show(report if limit is not None else report.listing(ON_SCREEN), console())
    page.write(report)
    return None if report.equal else DIFFERENT


def _check(options: Options, one: str | None, other: str | None, wanted: dict[str, Any]) -> Report:
    if one is not None:
        if other is None or options.primary or options.standby:
            raise ConfigError("check takes two URLs, or a pair's settings: `replstore check URL URL`, or --primary URL --standby URL")
        with ExitStack() as stack:
            with importing():
                from replstore.reconcile.strangers import are_a_pair, check_nodes, strangers
                from replstore.reconcile.wishes import Wishes

                nodes = stack.enter_context(strangers(one, other))
            if not are_a_pair(nodes):
                return check_nodes(nodes, Wishes(**wanted))
        options = replace(options, primary=one, standby=other)
    with opened(options) as store:
        return store.check(**wanted)


def names_of(option: str, given: list[str] | None, otherwise: str) -> list[str] | None:
    """The names that an option gives, separated by commas; None where it isn't given."""
    if given is None:
        return None
    names = [name.strip() for each in given for name in each.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"{option} names no table: give at least one, or {otherwise}")
    return names


def _share(option: str, percent: float) -> float:
    if not 0 < percent <= 100:
        raise ConfigError(f"{option}: {percent:g} is no percentage above 0 and up to 100")
    return percent / 100


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
    if report.total and report.pair and not any(difference.cause for table in report.tables for difference in table.differences):
        screen.print(
            f"\nWhere the differing rows come from is not known: {'they were ' if not report.physical else ''}{report.unexplained}.", markup=False
        )
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
    for heading in ("Primary", "Standby", "On their way" if report.pair else "Late", "Different"):
        table.add_column(heading, justify="right")
    for each in report.shown:
        counts = [f"{each.primary:,}", f"{each.standby:,}"] if each.primary is not None and each.standby is not None else ["not", "compared"]
        late = each.waiting if report.pair else each.settled
        table.add_row(Text(each.name), *counts, f"{late:,}", Text(f"{each.total:,}", style="bold red" if each.total else ""))
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
    explained = any(difference.cause or difference.origin.last for difference in each.differences)
    if explained:
        table.add_column("Cause", overflow="fold", ratio=2)
    for difference in each.differences:
        for line in _lines(difference):
            table.add_row(*map(Text, line if explained else line[:-1]))
    return table


def _lines(difference: Difference) -> Iterator[tuple[str, str, str, str, str]]:
    facts = difference.as_dict()
    key = ", ".join(f"{name}={short(value)}" for name, value in facts["key"].items())
    cause = short(difference.origin.sentence, None)
    if difference.kind != "changed":
        rows = (_row(facts["primary"]), _row(facts["standby"]))
        yield key, f"row on {MISSING[difference.kind]}", *rows, cause
        return
    for number, name in enumerate(difference.columns):
        yield key if number == 0 else "", name, short(facts["primary"][name]), short(facts["standby"][name]), cause if number == 0 else ""


def _row(values: dict[str, Any] | None) -> str:
    return "no row" if values is None else short(", ".join(f"{name}={short(value)}" for name, value in values.items()))


def short(value: Any, widest: int | None = WIDEST) -> str:
    """A value in one line that no terminal takes for a command; of no more than so many characters."""
    if value is None:
        return "NULL"
    text = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(value))
    return text if widest is None or len(text) <= widest else f"{text[: widest - 1]}…"


def _schema(report: Report) -> list[str]:
    return [f"{each.table}: {each.text}" for each in report.schema]


def _sequences(report: Report) -> list[str]:
    def last(value: int | None) -> str:
        return "never used" if value is None else f"{value:,}"

    return [f"{each.name}: {last(each.primary)} on primary, {last(each.standby)} on standby; {each.sentence}" for each in report.sequences]
