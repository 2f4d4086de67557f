"""The map of a table's keys, drawn: how many rows differ in each range of keys, and below how many rows are there."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from replstore.reconcile.keymap import KINDS, Cell, KeyMap
from replstore.reconcile.page.markup import Html, tag
from replstore.reconcile.page.words import KINDS as NAMES
from replstore.reconcile.page.words import count
from replstore.reconcile.report import TableReport

#: The drawing's own units; a browser stretches them to the width it has.
WIDTH, HEIGHT, STRIP = 1000, 100, 9
#: The least height of a bar: one row among millions must be seen.
LEAST = 7.0
#: Rows of a table from which on hashes of their keys are drawn; keys from which on a part of them is drawn once more.
FEW, CLOSE = 256, 32
#: Ranges of keys that are listed.
LISTED = 100


def telling(table: TableReport) -> KeyMap | None:
    """A table's map, if it tells anything: hashes of a few keys lie anywhere."""
    map = table.map if table.total else None
    return map if map and (map.ordered or max(table.primary or 0, table.standby or 0) >= FEW) else None


def maps(map: KeyMap, key: str) -> Html:
    """The maps of a table, with what they show as a table.

    Args:
        map: where its rows differ.
        key: name of the key's column.
    """
    cells, closer = map.cells(), map.closer()
    if closer and closer[-1].high - closer[0].low < CLOSE:
        closer = []
    what = f"{key} {map.low:,} to {map.high:,}" if map.ordered else "all hashes of the key, in order"
    caption = f"Where rows differ: {what}"
    figures = [_figure(cells, caption, ordered=map.ordered)]
    if closer:
        figures.append(_figure(closer, f"The part that differs, closer: {key} {closer[0].low:,} to {closer[-1].high:,}", ordered=True))
    hashed = tag("p", "No whole number is the key, so rows lie by a hash of it: neighbours here are no neighbours in the table.", class_="quiet")
    return tag("div", *figures, _runs(map.runs()) if map.ordered else hashed, class_="maps")


def strip(map: KeyMap) -> Html:
    """Where rows differ, in a line."""
    cells = map.cells()
    width = WIDTH / len(cells)
    marks = [_rect(place * width, 0, max(width, 12), 10, "bad") for place, each in enumerate(cells) if each.differing]
    return tag(
        "svg", _rect(0, 4, WIDTH, 2, "line"), *marks, viewBox=f"0 0 {WIDTH} 10", preserveAspectRatio="none", class_="strip", aria_hidden="true"
    )


def _figure(cells: Sequence[Cell], caption: str, *, ordered: bool) -> Html:
    most = max(each.differing for each in cells)
    fullest = max((each.rows or 0 for each in cells), default=0)
    known = cells[0].rows is not None
    width = WIDTH / len(cells)
    drawn = [_cell(each, place * width, width, most, fullest, ordered=ordered) for place, each in enumerate(cells)]
    used = sum(1 for each in cells if each.differing)
    said = f"{caption}. Rows differ in {used} of {count(len(cells), 'range', 'ranges')}, in the worst one {count(most, 'row', 'rows')}."
    height = HEIGHT + (STRIP + 3 if known else 0)
    picture = tag("svg", *drawn, viewBox=f"0 0 {WIDTH} {height}", preserveAspectRatio="none", role="img", aria_label=said, class_="map")
    ends = [f"{cells[0].low:,}", f"{cells[len(cells) // 2].low:,}", f"{cells[-1].high:,}"] if ordered else ["least hash", "", "greatest hash"]
    legend = [tag("span", tag("span", class_=f"swatch {kind}"), NAMES[kind]) for kind in KINDS if any(getattr(each, kind) for each in cells)]
    if known:
        legend.append(tag("span", tag("span", class_="swatch density"), "all rows, paler where there are fewer"))
    top = tag("p", f"tallest: {count(most, 'row', 'rows')} of a range; heights by square root", class_="quiet top")
    return tag(
        "figure",
        tag("figcaption", caption),
        top,
        picture,
        tag("div", *(tag("span", end) for end in ends), class_="axis", aria_hidden="true"),
        tag("p", *legend, class_="legend"),
    )


def _cell(cell: Cell, x: float, width: float, most: int, fullest: int, *, ordered: bool) -> Html:
    gap = width * 0.08
    parts = []
    if cell.differing:
        parts.append(_rect(x, 0, width, HEIGHT, "band"))
        height = max(LEAST, HEIGHT * sqrt(cell.differing / most))
        y = float(HEIGHT)
        for kind in KINDS:
            part = height * getattr(cell, kind) / cell.differing
            if part:
                y -= part
                parts.append(_rect(x + gap, y, width - 2 * gap, part, kind))
    else:
        parts.append(_rect(x, 0, width, HEIGHT, "clear"))
    if cell.rows:
        parts.append(_rect(x, HEIGHT + 3, width, STRIP, "density", opacity=f"{0.25 + 0.75 * cell.rows / fullest:.2f}"))
    return tag("g", tag("title", _said(cell, ordered=ordered)), *parts)


def _said(cell: Cell, *, ordered: bool) -> str:
    kinds = ", ".join(f"{getattr(cell, kind):,} {NAMES[kind]}" for kind in KINDS if getattr(cell, kind))
    rows = "" if cell.rows is None else f"{count(cell.rows, 'row', 'rows')}; "
    return f"{f'{cell.low:,} to {cell.high:,}: ' if ordered else ''}{rows}{kinds or 'none differs'}"


def _rect(x: float, y: float, width: float, height: float, kind: str, **more: str) -> Html:
    return tag("rect", x=f"{x:.2f}", y=f"{y:.2f}", width=f"{width:.2f}", height=f"{height:.2f}", class_=kind, **more)


def _runs(cells: Sequence[Cell]) -> Html:
    """The same as text: for those who don't see the drawing, and to copy from."""
    worst = sorted(sorted(cells, key=lambda each: -each.differing)[:LISTED])
    head = tag("tr", *(tag("th", name, scope="col", class_="number") for name in ("From", "To", *(NAMES[kind].capitalize() for kind in KINDS))))
    rows = [
        tag(
            "tr",
            tag("th", f"{each.low}", scope="row", class_="number"),
            tag("td", f"{each.high}", class_="number"),
            *(tag("td", f"{getattr(each, kind):,}", class_="number") for kind in KINDS),
        )
        for each in worst
    ]
    table = tag("table", tag("thead", head), tag("tbody", *rows))
    title = f"{count(len(cells), 'range', 'ranges')} of keys with differences" + (f"; the {LISTED} worst" if len(worst) < len(cells) else "")
    return tag("details", tag("summary", title), tag("div", table, class_="scroll", role="region", aria_label="Ranges of keys", tabindex="0"))
