"""The page of a report: whatever is in the rows is shown and never run, nothing is fetched, and it can be read by all, however much differs."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

import replstore.reconcile.page as pages
from replstore.reconcile.causes import NOTHING
from replstore.reconcile.keymap import drawn
from replstore.reconcile.origin import Batch, Change, Origin, Restored
from replstore.reconcile.page import page
from replstore.reconcile.page import rows as listing
from replstore.reconcile.page.markup import VOID, markup, tag
from replstore.reconcile.page.values import ALL, CUT, LONGEST, Values
from replstore.reconcile.report import About, Difference, Report, SchemaDifference, SequenceDifference, TableReport

HOSTILE = "</td></table><script>alert(\"1\")</script><img src=x onerror='alert(2)'>&amp;"
CSS = Path(pages.__file__).with_name("page.css").read_text(encoding="utf-8")


class Page(HTMLParser):
    """A page, taken apart.

    Args:
        html: the page; every element must be closed in order.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((tuple(self._open), data))

    def of(self, element: str, **attributes: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a name that have these."""
        return [given for name, given in self.elements if name == element and attributes.items() <= given.items()]

    def text(self, *within: str) -> str:
        """What can be read, inside of these elements."""
        return "".join(text for path, text in self.texts if set(within) <= set(path) and "style" not in path)


def changed(key: Any, primary: Any, standby: Any, same: dict[str, str | None] | None = None, **more: Any) -> Difference:
    given = {"origin": NOTHING, "position": 0, **more}
    return Difference({"id": key}, "changed", ("v",), primary={"v": primary}, standby={"v": standby}, same=same or {}, **given)


def table(name: str, *differences: Difference, total: int | None = None, rows: int = 1_000_000) -> TableReport:
    """A table with a row under each key from 1 on."""
    map = drawn(1, rows, rows.bit_length(), {}, {}, ordered=True).marked((each.position, each.kind) for each in differences)
    return TableReport(name, rows, rows, differences, len(differences) if total is None else total, 0, map=map if differences else None)


def report(*tables: TableReport, **more: Any) -> Report:
    about = About({"primary": "postgresql://a/shop", "standby": "sqlite:///b.db"}, datetime(2026, 11, 30, 10, 0, tzinfo=UTC), 2.5)
    given: dict[str, Any] = {"schema": (), "sequences": (), "writer": "primary", "exact": True, "notes": (), "about": about, **more}
    return Report(tables, **given)


def many(number: int) -> tuple[Difference, ...]:
    return tuple(changed(each, f"value {each}", f"value {each}!", position=each) for each in range(1, number + 1))


BACK = Origin(
    "restored", Change(None, None, "primary"), restored=Restored("primary", Batch(41, "2026-11-30T09:00:00"), Batch(44, "2026-11-30T09:30:00"))
)
WHOLE = report(
    table(
        "public.item",
        changed(1, "abc", "abd", {"id": "1", "w": HOSTILE}),
        Difference(
            {"id": 2},
            "missing_on_standby",
            (),
            Origin("orphan", Change("0198-tx", "2026-01-01 12:00", "standby")),
            {"id": "2", "v": "x"},
            None,
            position=2,
        ),
        Difference(
            {"id": 3}, "missing_on_primary", (), Origin("capture_missing"), None, {"id": "3", **{f"c{n}": str(n) for n in range(20)}}, position=3
        ),
    ),
    table("public.older", changed(7, "old", "new", origin=BACK)),
    TableReport("public.same", 5, 5, (), 0, 2),
    TableReport("public.unlike", None, None, (), 0, 0),
    schema=(SchemaDifference("public.unlike", "column note: on standby only"),),
    sequences=(SequenceDifference("item_id_seq", 1000, None, "standby", 1, 4, "the next row there gets 1, and once it comes to 4 …"),),
    notes=("standby is being copied",),
)


def test_the_page_says_all_that_the_report_says() -> None:
    text = Page(page(WHOLE)).text()
    for words in (
        str(WHOLE), "postgresql://a/shop", "sqlite:///b.db", "2026-11-30 10:00:00 UTC", "2.5 s", "Standby is being copied.", "writer", "follower",
        "column note: on standby only", "item_id_seq", "1,000", "never used", "standby is behind: the next row there gets 1, and once it comes to 4",
        "primary went back in time, as of batch 41 of 2026-11-30 09:00:00 UTC, and no journal has named the row since",
        "since a node went back in time", "not compared: see the schema", "0198-tx",
        "orphan", "its changes weren't captured", "1 changed, 1 only on primary, 1 only on standby", "no row", "8 more columns",
    ):  # fmt: skip
        assert words in text, words


def test_a_long_name_breaks_where_a_person_would_break_it_and_reads_as_it_is() -> None:
    html = page(report(schema=(SchemaDifference("public.order_line", "x"),)))
    assert "public.<wbr>order_<wbr>line" in html
    assert "public.order_line" in Page(html).text("th")


def test_in_a_narrow_window_a_value_says_what_it_is() -> None:
    html = Page(page(WHOLE))
    assert [given["data-label"] for given in html.of("td") if "data-label" in given] == ["last on primary: ", "last on standby: "]
    assert "attr(data-label)" in CSS.partition("@media (max-width")[2]


def test_an_orphan_s_transaction_and_the_last_change_are_told_apart() -> None:
    orphan = Origin("orphan", Change("tx-1", "12:00", "standby"), last=Change("tx-2", "13:00", "primary"))
    html = page(report(table("t", changed(1, "a", "b", origin=orphan))))
    assert 'not copied: transaction <code>tx-1</code> at 12:00 on standby</span><span class="cause last">last captured change: ' in html


def test_an_equal_pair_is_said_to_be_equal() -> None:
    html = Page(page(report(TableReport("item", 3, 3, (), 0, 1))))
    assert "Equal: 3 rows in 1 table; 1 row is on the way to the follower." in html.text("h1")
    assert html.of("svg") == []
    assert html.of("main") == []


@pytest.mark.parametrize(
    "hostile",
    [
        report(table(HOSTILE, changed(HOSTILE, HOSTILE, "x", {"w": HOSTILE}))),
        report(
            table(
                "t",
                Difference(
                    {HOSTILE: 1},
                    "changed",
                    (HOSTILE,),
                    Origin("orphan", Change(HOSTILE, HOSTILE, HOSTILE), last=Change(HOSTILE, HOSTILE, "primary")),
                    {HOSTILE: "a"},
                    {HOSTILE: None},
                    same={HOSTILE: "y"},
                ),
            )
        ),
        report(table("t", Difference({}, "missing_on_standby", (), NOTHING, {HOSTILE: HOSTILE}, None))),
        report(schema=(SchemaDifference(HOSTILE, HOSTILE),)),
        report(sequences=(SequenceDifference(HOSTILE, 1, 2, HOSTILE),)),
        report(notes=(HOSTILE,), about=About({"primary": HOSTILE, "standby": HOSTILE})),
        report(table("t", changed(1, HOSTILE + "x" * 1000, "x" * 1000 + HOSTILE))),
        report(table("t", *(changed(f"{number}{HOSTILE}", "a", "b") for number in range(80)))),
    ],
)
def test_what_is_in_the_rows_is_shown_and_never_run(hostile: Report) -> None:
    html = Page(page(hostile))
    assert {name for name, _ in html.elements}.isdisjoint({"script", "img", "iframe", "object", "link", "base", "form"})
    assert not [name for _, given in html.elements for name in given if name.startswith("on")]
    assert '<script>alert("1")</script>' in html.text()


def test_nothing_is_fetched_from_anywhere_and_no_script_may_run() -> None:
    html = Page(page(WHOLE))
    (policy,) = html.of("meta", **{"http-equiv": "Content-Security-Policy"})
    assert "default-src 'none'" in str(policy["content"])
    assert "script-src" not in str(policy["content"])
    assert not re.search(r"url\(|@import", CSS)
    places = [value for _, given in html.elements for name, value in given.items() if name in ("src", "href", "srcset", "action", "data", "poster")]
    assert all(str(place).startswith("#table-") for place in places)
    assert {str(place)[1:] for place in places} == {given["id"] for given in html.of("h2") if str(given.get("id")).startswith("table-")}


def test_signs_that_cannot_be_seen_are_named() -> None:
    html = Page(page(report(table("t", changed(1, "a\x1b[31m\u202eb\nc\x00", "a\u00a0b")))))
    for sign in ("\\x1b", "\\u202e", "\\n", "\\x00", "\\xa0"):
        assert sign in html.text("b")
    assert {"\x1b", "\u202e", "\x00"}.isdisjoint(html.html)


def test_null_is_not_taken_for_a_text() -> None:
    for value, shown in ((None, "NULL"), ("", "empty")):
        assert Page(Values().one(value)).text("i") == shown
    assert Page(Values().one("NULL")).text("i") == ""


@pytest.mark.parametrize(
    ("primary", "standby", "marked"),
    [
        ("the quick brown fox", "the quick green fox", ["brow", "gree"]),
        ("abcdefghijklmnop", "abcdefghijklmnopq", ["q"]),
        ("a" * 20, "a" * 22, ["aa"]),
        ("100", "1000", ["100", "1000"]),
        ("x", None, []),
    ],
)
def test_what_differs_in_a_value_is_marked(primary: Any, standby: Any, marked: list[str]) -> None:
    both = Values().both(primary, standby)
    assert [text for each in both for text in re.findall("<mark>(.*?)</mark>", each)] == marked
    assert [Page(each).text() for each in both] == [primary, "NULL" if standby is None else standby]


def test_a_long_value_is_cut_where_it_differs_and_is_whole_at_hand() -> None:
    long = "".join(f"{number}, " for number in range(2000))
    primary, _ = Values().both(long, long.replace("1500,", "!500,"))
    html = Page(primary)
    excerpt = html.text("summary")
    assert "1500" in html.text("summary", "mark") or "1" in html.text("summary", "mark")
    assert "1499, 1500, 1501" in excerpt
    assert len(excerpt) < CUT + 60
    assert f"all {len(long):,} characters" in excerpt
    assert html.text("div") == long


def test_a_value_that_is_too_long_for_a_page_is_said_to_be() -> None:
    text = Page(Values().one("x" * (LONGEST + 1))).text()
    assert f"{LONGEST + 1:,} characters; the report as JSON has all of them, here are {LONGEST:,}" in text


def test_many_long_values_are_cut_before_a_browser_gives_up() -> None:
    values = Values()
    sizes = [len(values.one("x" * LONGEST)) for _ in range(ALL // LONGEST + 10)]
    assert sizes[0] > LONGEST
    assert sizes[-1] < 2 * CUT
    assert "the report as JSON has all of them" in values.one("x" * LONGEST)


def test_ten_thousand_differences_are_folded() -> None:
    html = Page(page(report(table("item", *many(10_000)))))
    assert len(html.of("tbody", **{"class": "changed"})) == 10_000
    folds = html.of("details", **{"class": "fold"})
    assert len(folds) == -(-(10_000 - listing.OPEN) // listing.FOLD)
    assert f"Rows {listing.OPEN + 1} to {listing.OPEN + listing.FOLD} id = {listing.OPEN + 1} to id = {listing.OPEN + listing.FOLD}" in html.text(
        "summary"
    )
    assert all("open" not in fold for fold in folds)
    assert len(html.html) < 20_000_000


def test_what_is_not_listed_is_said() -> None:
    text = Page(page(report(table("item", *many(3), total=12_345)))).text()
    assert "12,342 rows more differ and are not listed here: --limit N lists more of each table." in text
    assert "12,345 of 1,000,000 rows differ" in text
    assert "of the 3 rows that are listed" in text
    assert "not listed" not in Page(page(report(table("item", *many(3))))).text()


def test_a_page_lists_no_more_than_a_browser_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST", 5)
    html = Page(page(report(table("a", *many(3)), table("b", *many(4)), table("c", *many(1)))))
    assert len(html.of("tbody", **{"class": "changed"})) == 5
    assert "2 rows more differ" in html.text()
    assert "1 row more differs and is not listed" in html.text()


def test_equal_tables_are_folded_where_others_differ() -> None:
    equal = [TableReport(f"equal_{number}", 1, 1, (), 0, 0) for number in range(30)]
    html = Page(page(report(*equal, table("item", *many(1)))))
    assert "30 equal tables" in html.text("summary")
    assert html.of("summary") != []
    assert "equal tables" not in Page(page(report(*equal))).text("summary")


def test_the_map_has_a_place_for_each_range_and_a_description() -> None:
    found = [changed(key, "a", "b", position=key) for key in (*range(500_000, 500_200), 500_900)]
    html = Page(page(report(table("item", *found))))
    pictures = html.of("svg", role="img")
    assert [str(each["aria-label"]).partition(". ")[0] for each in pictures] == [
        "Where rows differ: id 1 to 1,000,000",
        "The part that differs, closer: id 500,000 to 500,900",
    ]
    assert "500,000 to 500,015: 16 changed" in html.text("title")
    assert "2 ranges of keys with differences" in html.text("summary")
    assert re.search(r"500000\s*500199\s*200", re.sub(r"<[^>]+>", " ", html.html))


def test_of_hashes_no_key_is_said() -> None:
    differences = (Difference({"a": "x", "b": 1}, "changed", ("v",), NOTHING, {"v": "1"}, {"v": "2"}),)
    map = drawn(-(1 << 63), (1 << 63) - 1, 57, {}, {}, ordered=False).marked([(0, "changed")])
    html = Page(page(report(TableReport("item", 1000, 1000, differences, 1, 0, map=map))))
    assert "neighbours here are no neighbours in the table" in html.text()
    assert "least hash" in html.text()
    assert "ranges of keys" not in html.text()
    assert Page(page(report(TableReport("item", 100, 100, differences, 1, 0, map=map)))).of("svg") == []


@pytest.mark.parametrize("found", [WHOLE, report(table("item", *many(300)), notes=("a", "b"))])
def test_the_page_is_in_order_for_those_who_hear_it(found: Report) -> None:
    html = Page(page(found))
    levels = [int(name[1]) for name, _ in html.elements if name in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert html.of("html") == [{"lang": "en"}]
    assert all(given.get("scope") for given in html.of("th"))
    assert len(html.of("thead")) == len(html.of("table"))
    assert all(given.get("aria-label") for given in html.of("div", role="region"))
    ids = Counter(given["id"] for _, given in html.elements if given.get("id"))
    assert set(ids.values()) == {1}
    assert all(given["aria-labelledby"] in ids for _, given in html.elements if "aria-labelledby" in given)
    assert all(given.get("role") or given.get("aria-hidden") for given in html.of("svg"))


def colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, "contrast ratio"."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
def test_every_colour_of_text_can_be_read(scheme: int) -> None:
    have = colours(re.findall(r":root \{(.*?)\}", CSS, re.S)[scheme])
    pairs = [(text, ground) for text in ("text", "quiet", "link", "changed", "primary", "standby", "good", "bad") for ground in ("ground", "panel")]
    pairs += [("quiet", "differs"), ("quiet", "bad-ground"), ("bad", "bad-ground"), ("good", "good-ground"), ("text", "mark"), ("text", "notice")]
    pairs += [("text", "differs"), ("changed", "differs")]
    faint = {
        f"{text} on {ground}": round(contrast(have[text], have[ground]), 2) for text, ground in pairs if contrast(have[text], have[ground]) < 4.5
    }
    assert faint == {}
    assert all(contrast(have[fill], have["band"]) >= 3 for fill in ("changed", "primary", "standby"))


def test_both_schemes_have_every_colour() -> None:
    light, dark, printed = (colours(block) for block in re.findall(r":root \{(.*?)\}", CSS, re.S))
    assert light.keys() == dark.keys()
    assert printed == light
    assert set(re.findall(r"var\(--([a-z-]+)\)", CSS)) <= light.keys()


def test_no_password_is_on_the_page() -> None:
    urls = {"primary": make_url("postgresql+psycopg://u:geheim@a/shop"), "standby": make_url("postgresql://b/shop?user=u&password=geheim")}
    html = page(report(about=About.since(datetime.now(UTC), urls)))
    assert "a/shop" in html
    assert "geheim" not in html


def test_text_becomes_markup_by_no_other_way_than_a_tag() -> None:
    assert markup("<b>", ["&", None, tag("i", "<")]) == "&lt;b&gt;&amp;<i>&lt;</i>"
    assert tag("a", class_='"x"', aria_label="<", hidden=True, open=False, id=None) == '<a class="&quot;x&quot;" aria-label="&lt;" hidden></a>'
    assert tag("br") == "<br>"
