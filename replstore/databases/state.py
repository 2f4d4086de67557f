"""One statement that reads all that a node's control tables say of its role."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from replstore.control import Control
from replstore.databases.base import NodeState

FIELDS = (
    "n.node, r.role, r.term_no, r.term_uuid, {boot}, a.solo, a.boot, a.req, r.fenced_by_no, r.fenced_by_uuid, s.no, r.basis, r.former_node, "
    "r.former_position, r.former_tick, n.pair, n.name, p.source, p.term_no, p.term_uuid, p.position, p.tick, p.batch, p.eligible_boot, "
    "p.copying, h.no, p.shipped_at, {guard_open}"
)


def select_state(control: Control, boot: str, guard_open: str, prefix: str = "") -> str:
    """The SELECT.

    Args:
        boot: SQL expression of the boot identity.
        guard_open: SQL expression: does the guard let changes pass?
        prefix: put before each table's name (an attached database).
    """
    names = {table: prefix + control.name(table) for table in ("node", "role", "acknowledge", "schema_no", "heartbeat", "position")}
    return (
        f"SELECT {FIELDS.format(boot=boot, guard_open=guard_open)} FROM {names['node']} n CROSS JOIN {names['role']} r "
        f"CROSS JOIN {names['acknowledge']} a CROSS JOIN {names['schema_no']} s CROSS JOIN {names['heartbeat']} h LEFT JOIN {names['position']} p ON p.id = n.id"
    )


def node_state(row: Sequence[Any]) -> NodeState:
    """The state from a row of :func:`select_state`."""
    values = list(row)
    values[5], values[24], values[27] = bool(values[5]), bool(values[24]), bool(values[27])
    return NodeState(*values)
