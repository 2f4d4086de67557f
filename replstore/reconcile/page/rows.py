"""The rows that differ, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from replstore.reconcile.origin import Change
from replstore.reconcile.page.drawing import maps, telling
from replstore.reconcile.page.markup import Html, markup, tag
from replstore.reconcile.page.values import Values, text_of, visible
from replstore.reconcile.page.words import KINDS, cause, count, rows_of
from replstore.reconcile.report import Difference, Report, TableReport

#: Differences that are shown at once, and in each fold after them.
OPEN, FOLD = 50, 250
#: Columns of a row that are shown at once: where it differs, and where the other node lacks it.
COLUMNS = 12
#: Differences from which on a kind can be hidden.
MANY = 20
#: Characters of a key in the heading of a fold.
KEY = 60


def table_section(report: Report, table: TableReport, listed: Sequence[Difference], values: Values, name: str) -> Html:
    """All that is known of the differences of one table.

    Args:
        report: the report it is of.
        table: the table.
        listed: those of its differences that the page lists.
        values: of the page.
        name: of the section.
    """
    map = telling(table)
    kinds = table.map.kinds if table.map else Counter(each.kind for each in listed)
    said = ", ".join(f"{number:,} {KINDS[kind]}" for kind, number in kinds.items() if number)
    return tag(
        "section",
        tag("h2", tag("span", "Table ", class_="quiet"), visible(table.name), id=name),
        tag("p", f"{table.total:,} of {count(rows_of(table), 'row', 'rows')} {'differs' if table.total == 1 else 'differ'}: {said}."),
        maps(map, ", ".join(listed[0].key) or "key" if listed else "key") if map else None,
        _tallies(report, listed, table.total),
        _rows(table, listed, values),
        class_="of-table",
        aria_labelledby=name,
    )


def _tallies(report: Report, listed: Sequence[Difference], total: int) -> Html | None:
    """Which columns differ, and what is known of the causes."""
    columns = Counter(name for each in listed for name in each.columns)
    causes = Counter(each.cause for each in listed)
    unknown = causes.pop(None, 0)
    found = []
    if columns:
        found += [tag("dt", "Columns that differ"), tag("dd", _chips([(visible(name), number) for name, number in columns.most_common(12)]))]
        if len(columns) > 12:
            found.append(tag("dd", f"and {count(len(columns) - 12, 'column', 'columns')} more", class_="quiet"))
    if causes or (report.pair and unknown):
        known = [(markup(cause(str(name))), number) for name, number in causes.most_common()]
        rest = [(markup(f"not known: {report.unexplained}"), unknown)] if unknown else []
        found += [tag("dt", "Causes"), tag("dd", _chips([*known, *rest]))]
    if not found:
        return None
    if len(listed) < total:
        found.append(tag("dd", f"of the {count(len(listed), 'row', 'rows')} that are listed", class_="quiet"))
    return tag("dl", *found, class_="tallies")


def _chips(counts: Sequence[tuple[Html, int]]) -> Html:
    return tag("ul", *(tag("li", name, " ", tag("b", f"{number:,}")) for name, number in counts), class_="chips")


def _rows(table: TableReport, listed: Sequence[Difference], values: Values) -> Html:
    heading = tag("h3", "Rows side by side")
    missing = table.total - len(listed)
    more = (
        tag("p", f"{count(missing, 'row', 'rows')} more {'differs and is' if missing == 1 else 'differ and are'} not listed here: "
            "--limit N lists more of each table.", class_="notice")
        if missing
        else None
    )  # fmt: skip
    if not listed:
        return markup(heading, more)
    first = _listing(listed[:OPEN], values)
    folds = []
    for start in range(OPEN, len(listed), FOLD):
        part = listed[start : start + FOLD]
        title = f"Rows {start + 1:,} to {start + len(part):,}"
        keys = tag("span", _short_key(part[0]), " to ", _short_key(part[-1]), class_="quiet") if part[0].key else None
        folds.append(tag("details", tag("summary", title, " ", keys), _listing(part, values), class_="fold"))
    return markup(heading, more, _filter(listed), first, *folds)


def _filter(listed: Sequence[Difference]) -> Html | None:
    """Boxes that hide a kind, without a script."""
    kinds = Counter[str](each.kind for each in listed)
    if len(listed) <= MANY or len(kinds) < 2:
        return None
    boxes = [
        tag("label", tag("input", type="checkbox", checked=True, class_=f"show-{kind}"), f" {KINDS[kind]} ({kinds[kind]:,})")
        for kind in KINDS
        if kinds[kind]
    ]
    return tag("fieldset", tag("legend", "Show"), *boxes, class_="filter")


def _listing(listed: Sequence[Difference], values: Values) -> Html:
    head = tag("tr", *(tag("th", name, scope="col") for name in ("Column", "Primary", "Standby")))
    columns = (tag("col", class_="name"), tag("col"), tag("col"))
    return tag("table", tag("colgroup", *columns), tag("thead", head), *(_difference(each, values) for each in listed), class_="rows")


def _difference(difference: Difference, values: Values) -> Html:
    facts = difference.as_dict()
    about = [tag("span", KINDS[difference.kind], class_=f"badge {difference.kind}")]
    origin = difference.origin
    if origin.cause in ("behind_guard", "conversion", "restored"):
        about.append(tag("span", visible(str(origin)), class_="cause"))
    elif origin.cause:
        about.append(tag("span", cause(origin.cause), *([": ", *_change(origin.change)] if origin.change else []), class_="cause"))
    if origin.last:
        about.append(tag("span", "last captured change: ", *_change(origin.last), class_="cause last"))
    heading = tag("tr", tag("th", tag("span", _key(facts["key"], values), class_="key"), " ", *about, colspan=3, scope="rowgroup"), class_="head")
    lines = _changed(difference, facts, values) if difference.kind == "changed" else _missing(facts, values)
    return tag("tbody", heading, *lines, class_=difference.kind)


def _change(change: Change) -> Iterator[Html | str]:
    if change.tx:
        yield markup("transaction ", tag("code", visible(change.tx)), " ")
    if change.at:
        yield markup("at ", visible(change.at), " ")
    if change.node:
        yield f"on {change.node}"


def _key(key: dict[str, Any], values: Values) -> Html:
    if not key:
        return markup("a row of a table without a key")
    return markup(*([", " if number else "", visible(name), " = ", values.one(value)] for number, (name, value) in enumerate(key.items())))


def _short_key(difference: Difference) -> Html:
    text = ", ".join(f"{name} = {text_of(value) or 'NULL'}" for name, value in difference.as_dict()["key"].items())
    return visible(text if len(text) <= KEY else f"{text[: KEY - 1]}…")


def _changed(difference: Difference, facts: dict[str, Any], values: Values) -> Iterator[Html]:
    for name in difference.columns[:COLUMNS]:
        primary, standby = values.both(facts["primary"].get(name), facts["standby"].get(name))
        yield tag("tr", tag("th", visible(name), scope="row"), tag("td", primary), tag("td", standby), class_="differs")
    if len(difference.columns) > COLUMNS:
        rest = difference.columns[COLUMNS:]
        pairs = {name: values.both(facts["primary"].get(name), facts["standby"].get(name)) for name in rest}
        yield _folded(
            f"{count(len(rest), 'more column', 'more columns')} differ",
            {name: markup(a, " on primary, ", b, " on standby") for name, (a, b) in pairs.items()},
        )
    if difference.common:
        same = {name: values.one(value) for name, value in difference.common.items()}
        yield _folded(f"{count(len(same), 'column is', 'columns are')} the same on both", same)
    if not difference.columns:
        yield tag("tr", tag("td", "The values can't be read by this key.", colspan=3))


def _missing(facts: dict[str, Any], values: Values) -> Iterator[Html]:
    here = facts["primary"] if facts["kind"] == "missing_on_standby" else facts["standby"]
    shown = [(name, value) for name, value in here.items() if name not in facts["key"]] or list(here.items())
    row = tag("dl", *(tag("div", tag("dt", visible(name)), tag("dd", values.one(value))) for name, value in shown[:COLUMNS]))
    cells = [tag("td", row, class_="row"), tag("td", "no row", class_="absent")]
    yield tag("tr", tag("th", "the row", scope="row"), *(cells if facts["kind"] == "missing_on_standby" else reversed(cells)))
    if len(shown) > COLUMNS:
        rest = {name: values.one(value) for name, value in shown[COLUMNS:]}
        yield _folded(count(len(rest), "more column", "more columns"), rest)


def _folded(title: str, found: dict[str, Html]) -> Html:
    entries = [tag("div", tag("dt", visible(name)), tag("dd", value)) for name, value in found.items()]
    return tag("tr", tag("td", tag("details", tag("summary", title), tag("dl", *entries)), colspan=3), class_="rest")
