"""Values as a person can compare them: what differs is marked, what is long is cut there, with the whole value at hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from replstore.reconcile.page.markup import Html, markup, tag

#: Characters of a value that are shown at once, and how many of them before the first one that differs.
CUT, BEFORE = 240, 60
#: Characters of values up to which one that differs is marked as a whole.
SHORT = 12
#: Characters of a whole value, and of all of them together, that a page carries.
LONGEST, ALL = 1 << 16, 8 << 20


class Values:
    """The values of one page; it carries no more whole ones than a browser takes."""

    def __init__(self) -> None:
        self._left = ALL

    def both(self, primary: Any, standby: Any) -> tuple[Html, Html]:
        """Two values that differ, with the part in which they do marked."""
        a, b = text_of(primary), text_of(standby)
        if a is None or b is None:
            return self.one(primary), self.one(standby)
        before = _common(min(len(a), len(b)), lambda count: a[:count] == b[:count])
        after = _common(min(len(a), len(b)) - before, lambda count: a[len(a) - count :] == b[len(b) - count :])
        if max(len(a), len(b)) <= SHORT:
            before = after = 0
        return self._shown(a, before, len(a) - after), self._shown(b, before, len(b) - after)

    def one(self, value: Any) -> Html:
        """A value by itself."""
        text = text_of(value)
        return tag("i", "NULL") if text is None else self._shown(text, 0, 0)

    def _shown(self, text: str, low: int, high: int) -> Html:
        """A text with a part of it marked."""
        if not text:
            return tag("i", "empty")
        if len(text) <= CUT:
            return _marked(text, low, high)
        start = max(0, min(low - BEFORE, len(text) - CUT))
        excerpt = markup("…" if start else "", _marked(text[start : start + CUT], low - start, high - start), "…" if start + CUT < len(text) else "")
        carried = min(len(text), LONGEST, self._left)
        self._left -= carried
        if carried < len(text):
            size = f"{len(text):,} characters; the report as JSON has all of them" + (f", here are {carried:,}" if carried else "")
        else:
            size = f"all {len(text):,} characters"
        if not carried:
            return markup(excerpt, " ", tag("small", size))
        return tag("details", tag("summary", excerpt, " ", tag("small", size)), tag("div", _marked(text[:carried], low, high), class_="whole"))


def text_of(value: Any) -> str | None:
    """A value of the report as text; None is NULL."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict) and list(value) == ["blob"]:
        return f"x'{value['blob']}'"
    return json.dumps(value, ensure_ascii=False)


def visible(text: str) -> Html:
    """A text in which every sign can be seen: those that can't be printed are named, and one that turns the direction of writing turns nothing."""
    if text.isprintable():
        return markup(text)
    parts = re.split(r"([^\x20-\x7e]+)", text)
    return markup(*(part if number % 2 == 0 else [_sign(sign) for sign in part] for number, part in enumerate(parts)))


def named(text: str) -> Html:
    """The name of a table, sequence or column; a narrow window breaks it behind a dot or a low line."""
    return markup(*([part, tag("wbr")] if part in (".", "_") else visible(part) for part in re.split(r"([._])", text)))


def _sign(sign: str) -> str:
    if sign.isprintable():
        return sign
    name = sign.encode("unicode_escape").decode()
    return markup(tag("b", name, class_="sign"), "\n" if sign == "\n" else None)


def _marked(text: str, low: int, high: int) -> Html:
    low, high = max(0, min(low, len(text))), max(0, min(high, len(text)))
    if low >= high:
        return visible(text)
    return markup(visible(text[:low]), tag("mark", visible(text[low:high])), visible(text[high:]))


def _common(most: int, same: Callable[[int], bool]) -> int:
    """The greatest count up to ``most`` for which it is the same."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if same(middle) else (low, middle - 1)
    return low
