"""Whether a commit may be acknowledged: the rows of `may_acknowledge`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replstore.pair.decide import NodeView, Reach, Role, Term, may_acknowledge
from tests.unit.pair_rows import T1, T2, T3, WRITER


@pytest.mark.parametrize(
    ("durability", "pair", "term", "writer", "held", "expected"),
    [
        ("replicated", None, T1, WRITER, True, True),
        ("replicated", None, T1, WRITER, False, False),
        ("replicated", None, T1, replace(WRITER, solo=True, solo_boot="a0"), False, True),
        ("replicated", None, T1, replace(WRITER, solo=True, solo_boot="older"), False, False),
        ("replicated", None, T1, replace(WRITER, solo=True, solo_boot="older"), True, True),
        ("replicated", None, T1, replace(WRITER, term=T3, solo=True, solo_boot="a0"), False, False),
        ("replicated", None, T1, replace(WRITER, term=T3), True, False),
        ("replicated", None, T1, replace(WRITER, term=Term(1, "other")), True, False),
        ("replicated", None, T1, replace(WRITER, role=Role.FENCED, solo=True, solo_boot="a0"), False, False),
        ("replicated", None, T1, replace(WRITER, reach=Reach.SILENT, solo=True, solo_boot="a0"), False, False),
        ("replicated", "async", T1, replace(WRITER, solo=True, solo_boot="a0"), False, False),
        ("replicated", "async", T1, replace(WRITER, solo=True, solo_boot="a0"), True, True),
        ("async", None, T1, WRITER, False, True),
        ("async", None, T1, replace(WRITER, term=T2), False, False),
    ],
)
def test_may_acknowledge(durability: str, pair: str | None, term: Term, writer: NodeView, held: bool, expected: bool) -> None:
    assert may_acknowledge(durability=durability, commit_term=term, writer=writer, held_by_follower=held, pair_durability=pair) is expected
