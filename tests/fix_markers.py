"""What a program commits with its marker, behind replstore's back: a Store that fell asleep right after its COMMIT."""

from __future__ import annotations

from uuid import uuid4

from tests.fix_stores import Lab, commit_as_store, insert


def committed(lab: Lab, node: str, id: int) -> str:
    """A transaction with its marker, committed on a node and shipped by nobody; its marker's id."""
    marker, program = str(uuid4()), lab.connect(node)
    if not lab.postgresql:
        program.execute("BEGIN IMMEDIATE")
    values = f"'{marker}', 'committed', 'replicated', {lab.state(node).term_no}"
    program.execute(f"INSERT INTO {lab.name('marker')} (id, outcome, durability, term_no) VALUES ({values})")
    program.execute(insert(id))
    commit_as_store(program, marker)
    return marker
