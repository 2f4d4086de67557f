"""What a person wants to know first: equal or not, of what, when, and in which tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from replstore.reconcile.page.drawing import strip, telling
from replstore.reconcile.page.markup import Html, markup, tag
from replstore.reconcile.page.values import named, visible
from replstore.reconcile.page.words import KINDS, count, late, rows_of, seconds
from replstore.reconcile.report import Report, TableReport

NODES = ("primary", "standby")
#: Equal tables that are shown at once, where there are others.
FEW = 8


def sections(report: Report, names: Mapping[str, str]) -> Html:
    """Everything but the differing rows.

    Args:
        report: the report.
        names: by table, the name of its section.
    """
    verdict = tag("span", "=" if report.equal else "≠", class_="sign-of", aria_hidden="true")
    return markup(
        tag(
            "header",
            tag("p", "replstore check", class_="brand"),
            tag("h1", verdict, tag("span", str(report)), class_="equal" if report.equal else "different"),
            _when(report),
            _figures(report),
            _nodes(report),
        ),
        _list("Notes", "notes", [visible(_sentence(note)) for note in report.notes]),
        _tables(report, names),
        _schema(report),
        _sequences(report),
    )


def _when(report: Report) -> Html | None:
    about, rows = report.about, sum(map(rows_of, report.shown))
    if about.began is None or about.seconds is None:
        return None
    text = f"{about.began:%Y-%m-%d %H:%M:%S} UTC"
    rate = f", {rows / about.seconds:,.0f} rows/s" if about.seconds >= 0.1 and rows else ""
    began = tag("time", text, datetime=about.began.isoformat(timespec="seconds"))
    return tag("p", "Begun ", began, f", done after {seconds(about.seconds)}{rate}.", class_="quiet")


def _figures(report: Report) -> Html:
    different = sum(1 for each in report.shown if each.total)
    compared = [each for each in report.shown if each.primary is not None]
    late_rows = sum(late(report, each) for each in report.tables)
    figures = [
        (report.total, f"of {sum(map(rows_of, compared)):,} rows differ", report.total > 0),
        (different, f"of {count(len(report.shown), 'table differs', 'tables differ')} in rows", different > 0),
        (len(report.schema), "differences of the schema" if len(report.schema) != 1 else "difference of the schema", bool(report.schema)),
        (len(report.sequences), "sequences behind" if len(report.sequences) != 1 else "sequence behind", bool(report.sequences)),
        (late_rows, "rows on their way, which is no difference" if report.pair else "rows were only late, which is no difference", False),
    ]
    return tag(
        "ul", *(tag("li", tag("b", f"{number:,}"), " ", text, class_="bad" if bad else None) for number, text, bad in figures), class_="figures"
    )


def _nodes(report: Report) -> Html | None:
    if not report.about.urls:
        return None
    role = {True: "writer", False: "follower" if report.exact else "not the writer"}
    rows = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            tag("td", role[name == report.writer] if report.writer else "no writer") if report.pair else None,
            tag("td", tag("code", visible(report.about.urls.get(name, "")))),
        )
        for name in NODES
    ]
    head = ["Node", *(["Role"] if report.pair else []), "Database"]
    return _scrolled("Nodes", tag("table", _head(head), tag("tbody", *rows), class_="nodes stacked"))


def _tables(report: Report, names: Mapping[str, str]) -> Html | None:
    if not report.shown:
        return None
    equal = [each for each in report.shown if not each.total and each.primary is not None]
    others = [each for each in report.shown if each.total or each.primary is None]
    fold = bool(others) and len(equal) > FEW
    shown = others if fold else sorted([*others, *equal], key=lambda each: (not each.total, each.primary is not None, each.name))
    parts = [tag("h2", "Tables", id="tables"), _overview(report, shown, names, "Tables")]
    if fold:
        parts.append(
            tag("details", tag("summary", count(len(equal), "equal table", "equal tables")), _overview(report, equal, names, "Equal tables"))
        )
    return tag("section", *parts, aria_labelledby="tables")


def _overview(report: Report, tables: Sequence[TableReport], names: Mapping[str, str], what: str) -> Html:
    drawn = any(map(telling, tables))
    head = ["Table", "Different", *(f"Rows on {name}" for name in NODES), "On their way" if report.pair else "Late", *(["Where"] if drawn else [])]
    kinds = tag("tr", *(tag("th", name, scope="col", class_="number" if 0 < place < 5 else None) for place, name in enumerate(head)))
    return _scrolled(
        what, tag("table", tag("thead", kinds), tag("tbody", *(_table(report, each, names, drawn=drawn) for each in tables)), class_="overview")
    )


def _table(report: Report, table: TableReport, names: Mapping[str, str], *, drawn: bool) -> Html:
    counts = (
        [tag("td", f"{number:,}", class_="number") for number in (table.primary, table.standby, late(report, table))]
        if table.primary is not None and table.standby is not None
        else [tag("td", "not compared: see the schema", colspan=3, class_="quiet")]
    )
    name = named(table.name)
    kinds = ", ".join(f"{number:,} {KINDS[kind]}" for kind, number in table.map.kinds.items() if number) if table.map and table.total else ""
    map = telling(table)
    state = "quiet" if table.primary is None else "bad" if table.total else "good"
    total = "–" if table.primary is None else f"{table.total:,}" if table.total else "equal"
    return tag(
        "tr",
        tag("th", tag("a", name, href=f"#{names[table.name]}") if table.name in names else name, scope="row"),
        tag(
            "td",
            tag("b", total) if table.total else total,
            tag("small", kinds) if kinds else None,
            class_=f"number {state}",
        ),
        *counts,
        tag("td", strip(map) if map else None, class_="where") if drawn else None,
    )


def _schema(report: Report) -> Html | None:
    rows = [tag("tr", tag("th", named(each.table), scope="row"), tag("td", visible(each.text))) for each in report.schema]
    return _section("Schema", "schema", _head(["Table", "Difference"]), rows)


def _sequences(report: Report) -> Html | None:
    def last(node: str, value: int | None) -> Html:
        return tag("td", "never used" if value is None else f"{value:,}", class_="number", data_label=f"last on {node}: ")

    rows = [
        tag(
            "tr",
            tag("th", named(each.name), scope="row"),
            last("primary", each.primary),
            last("standby", each.standby),
            tag("td", visible(each.sentence)),
        )
        for each in report.sequences
    ]
    return _section("Sequences", "sequences", _head(["Sequence", "Last on primary", "Last on standby", "Difference"]), rows)


def _section(heading: str, name: str, head: Html, rows: Sequence[Html]) -> Html | None:
    if not rows:
        return None
    return tag(
        "section", tag("h2", heading, id=name), _scrolled(heading, tag("table", head, tag("tbody", *rows), class_="stacked")), aria_labelledby=name
    )


def _list(heading: str, name: str, lines: Sequence[Html]) -> Html | None:
    if not lines:
        return None
    return tag("section", tag("h2", heading, id=name), tag("ul", *(tag("li", line) for line in lines), class_="notice"), aria_labelledby=name)


def _head(names: Sequence[str]) -> Html:
    return tag("thead", tag("tr", *(tag("th", name, scope="col") for name in names)))


def _scrolled(what: str, table: Html) -> Html:
    """A table that may be wider than the page; the keyboard can scroll it as well."""
    return tag("div", table, class_="scroll", role="region", aria_label=what, tabindex="0")


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:]}."
