"""What a read from the writer is worth: whether another node can have become the writer by now."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replstore.pair.alone import is_uncontested
from replstore.pair.decide import NodeView, Reach, View
from tests.unit.pair_rows import CONTACT, FOLLOWER, FOLLOWER_REFUSED, FOLLOWER_SILENT, T1, T2, WITNESS, WRITER, D, view

OLD = replace(CONTACT, age=D)
SOLO = replace(WRITER, solo=True, solo_boot=WRITER.boot)


@pytest.mark.parametrize(
    ("known", "uncontested"),
    [
        (view(WRITER, FOLLOWER), True),
        (view(WRITER, replace(FOLLOWER, term=T2)), False),
        (view(WRITER, FOLLOWER_SILENT, contact=CONTACT), True),
        (view(WRITER, FOLLOWER_SILENT, contact=OLD), False),
        (view(WRITER, FOLLOWER_SILENT, contact=None), False),
        (view(WRITER, FOLLOWER_SILENT, contact=replace(CONTACT, term=T2)), False),
        (view(WRITER, FOLLOWER_SILENT, contact=replace(CONTACT, writer_boot="before")), False),
        (view(WRITER, FOLLOWER_REFUSED, contact=OLD), False),
        (view(SOLO, FOLLOWER_SILENT, contact=None), True),
        (view(replace(SOLO, solo_boot="before"), FOLLOWER_SILENT, contact=None), False),
        (view(WRITER, FOLLOWER_SILENT, contact=None, witness=WITNESS), True),
        (view(WRITER, FOLLOWER_SILENT, contact=CONTACT, witness=replace(WITNESS, term=T2, writer="standby")), False),
        (view(WRITER, FOLLOWER_SILENT, contact=OLD, witness=replace(WITNESS, reach=Reach.SILENT)), False),
        (view(WRITER, FOLLOWER_SILENT, contact=CONTACT, witness=replace(WITNESS, reach=Reach.SILENT)), True),
    ],
)
def test_a_writer_is_uncontested_by_contact_solo_witness_or_the_other_node_itself(known: View, uncontested: bool) -> None:
    writer: NodeView = known.primary
    assert writer.term == T1
    assert is_uncontested(known, writer, known.standby) is uncontested
