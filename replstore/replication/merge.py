"""Two ordered streams of rows become one stream of pairs, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

Values = tuple[str | None, ...]
Row = tuple[Any, str, Values]


def merge(left: Iterable[Row], right: Iterable[Row]) -> Iterator[tuple[str, Values | None, Values | None]]:
    """Joins rows by their sort keys.

    Args:
        left, right: rows as ``Database.stream`` gives them: sort key, key as JSON, values.

    Yields:
        (key, values on the left, values on the right); None where the side lacks the row.
    """
    lefts, rights = iter(left), iter(right)
    a, b = next(lefts, None), next(rights, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a[0] < b[0]):
            assert a is not None
            yield a[1], a[2], None
            a = next(lefts, None)
        elif a is None or b[0] < a[0]:
            yield b[1], None, b[2]
            b = next(rights, None)
        else:
            yield a[1], a[2], b[2]
            a, b = next(lefts, None), next(rights, None)
