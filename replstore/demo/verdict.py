"""The verdict: what was acknowledged against what plain drivers read on each node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: What is read of each table, by plain SQL; the first column is the key.
QUERIES = {
    "customers": "SELECT id, name, placed FROM customers",
    "orders": "SELECT id, number, customer_id, line_count FROM orders",
    "order_lines": "SELECT id, order_id, item, quantity, price FROM order_lines",
}
Rows = Mapping[str, Sequence[tuple[Any, ...]]]


@dataclass(frozen=True)
class NodeVerdict:
    """One node.

    Attributes:
        found: acknowledged orders that it holds.
        lost: numbers of those that it doesn't.
        doubled: numbers of orders that it holds more than once, acknowledged or not.
        torn: numbers of orders without all their lines, names of customers whose count of orders is wrong.
    """

    found: int
    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    torn: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """What became of the orders.

    Attributes:
        acknowledged: how many orders the callers were told are safe.
        nodes: by name.
        divergences: rows that differ between the nodes, and what `replstore check` found besides.
        faults: whatever else must not be, a sentence each.
    """

    acknowledged: int
    nodes: Mapping[str, NodeVerdict]
    divergences: tuple[str, ...]
    faults: tuple[str, ...] = field(default=())

    @property
    def found(self) -> int:
        """Acknowledged orders that every node holds."""
        return self.acknowledged - len(self.lost)

    @property
    def lost(self) -> tuple[str, ...]:
        """Acknowledged orders that some node doesn't hold."""
        return tuple(sorted({number for node in self.nodes.values() for number in node.lost}))

    @property
    def doubled(self) -> tuple[str, ...]:
        """Orders that some node holds more than once."""
        return tuple(sorted({number for node in self.nodes.values() for number in node.doubled}))

    @property
    def torn(self) -> tuple[str, ...]:
        """What some node holds by half."""
        return tuple(sorted({number for node in self.nodes.values() for number in node.torn}))

    @property
    def good(self) -> bool:
        """Nothing lost, doubled or halved, both nodes equal."""
        return self.acknowledged > 0 and not (self.lost or self.doubled or self.torn or self.divergences or self.faults)


def judge(acknowledged: Sequence[str], nodes: Mapping[str, Rows], *, divergences: Sequence[str] = (), faults: Sequence[str] = ()) -> Verdict:
    """Compares.

    Args:
        acknowledged: numbers of the acknowledged orders.
        nodes: what each node holds, by its name: rows by table, as ``QUERIES`` reads them.
        divergences: those that `replstore check` found.
        faults: whatever else must not be.
    """
    verdicts = {name: _node(acknowledged, rows) for name, rows in nodes.items()}
    return Verdict(len(set(acknowledged)), verdicts, tuple(dict.fromkeys([*_differences(nodes), *divergences])), tuple(faults))


def _node(acknowledged: Sequence[str], rows: Rows) -> NodeVerdict:
    numbers = Counter(number for _, number, *_ in rows["orders"])
    lines = Counter(order for _, order, *_ in rows["order_lines"])
    placed = Counter(customer for _, _, customer, _ in rows["orders"])
    torn = [number for id, number, _, count in rows["orders"] if lines[id] != count]
    torn += [name for id, name, count in rows["customers"] if placed[id] != count]
    wanted = set(acknowledged)
    lost = wanted - set(numbers)
    return NodeVerdict(len(wanted) - len(lost), tuple(sorted(lost)), tuple(sorted(number for number, n in numbers.items() if n > 1)), tuple(torn))


def _differences(nodes: Mapping[str, Rows]) -> list[str]:
    """Rows that aren't the same on every node."""
    found: list[str] = []
    for table in QUERIES:
        held = {name: {row[0]: row for row in rows[table]} for name, rows in nodes.items()}
        keys = sorted(set().union(*held.values()))
        # named as `replstore check` names them, so that a row counts once
        found += [f"{table} {key}" for key in keys if len({rows.get(key) for rows in held.values()}) > 1]
    return found
