"""A report as one page of HTML that needs nothing else: no script, no font, no picture from anywhere, so it can be kept and sent."""

from __future__ import annotations

from importlib.resources import files

from replstore.reconcile.page.markup import Html, markup, tag
from replstore.reconcile.page.rows import table_section
from replstore.reconcile.page.summary import sections
from replstore.reconcile.page.values import Values
from replstore.reconcile.report import Difference, Report

__all__ = ["page"]

#: Differences on a page: beyond, browsers become slow.
MOST = 20_000
#: What a browser may do with the page: show it. A value that got past the escaping would still not run.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(report: Report) -> str:
    """The page.

    Args:
        report: of a check; the page lists the differences that it has, up to 20,000.
    """
    differing = {f"table-{number}": each for number, each in enumerate(report.tables, 1) if each.total}
    listed = _listed(report)
    values = Values()
    tables = [table_section(report, table, listed[table.name], values, name) for name, table in differing.items()]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{report} – replstore check"),
        tag("style", Html(files(__package__).joinpath("page.css").read_text(encoding="utf-8"))),
    )
    body = tag("body", sections(report, {table.name: name for name, table in differing.items()}), tag("main", *tables) if tables else None)
    return "<!doctype html>\n" + markup(tag("html", head, body, lang="en")) + "\n"


def _listed(report: Report) -> dict[str, tuple[Difference, ...]]:
    """The differences that the page lists, by table."""
    left, found = MOST, {}
    for table in report.tables:
        found[table.name] = table.differences[:left]
        left -= len(found[table.name])
    return found
