"""HTML that is escaped because nothing else can be written: text becomes markup only through ``tag``."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

#: Elements that have no end.
VOID = {"br", "col", "input", "meta", "wbr"}


class Html(str):
    """Markup; any other string is text."""

    __slots__ = ()


Child: TypeAlias = "str | Iterable[Child] | None"


def markup(*children: Child) -> Html:
    """Text and markup, one after the other; None is nothing."""
    return Html("".join(map(_written, children)))


def tag(element: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """An element.

    Args:
        element: its name.
        children: what is in it; text is escaped.
        attributes: ``class_`` is ``class``, ``aria_label`` is ``aria-label``; True stands without a value, None and False aren't there.
    """
    given = (
        "".join(
            f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
            for name, value in attributes.items()
            if value is not None and value is not False
        )
        if attributes
        else ""
    )
    return Html(f"<{element}{given}>") if element in VOID else Html(f"<{element}{given}>{markup(*children)}</{element}>")


def _written(child: Child) -> str:
    if isinstance(child, Html):
        return child
    if isinstance(child, str):
        return escape(child)
    return "" if child is None else "".join(map(_written, child))
