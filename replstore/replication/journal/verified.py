"""Up to which position each table was found equal, so that a later check needs to look only at what has changed since.

A check that compared a table as a whole leaves a *mark* of it in the settings of both nodes: the position that the follower had, and the keys that differed.
From then on the two differ elsewhere only in rows that the writer's journal names after that position, or that were written behind the guard.  A mark
counts while both nodes have it, under the term in which it was made: so it goes with a takeover, and with a node that is made anew or goes back in time.
Whoever puts rows on a follower that no journal names removes it (``databases/landing.py``, ``mirror.py``) or adds their keys (``reconcile/repair.py``).

The journal is kept from the oldest mark on, as far as it stays small enough (``retain.py``); a mark whose journal has gone counts no longer.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cmp_to_key

from sqlalchemy import Connection

from replstore.databases.base import NodeState
from replstore.databases.landing import VERIFIED
from replstore.node import Node

#: The setting of a writer that says from which position on a check that is under way will need the journal.
CHECKING = "checking"
#: Keys of a table that a mark has at most.
KEYS = 1000


@dataclass(frozen=True)
class Mark:
    """What a check left of one table.

    Attributes:
        check: the check's id.
        at: when it began, for people.
        position: of the writer, which the follower had.
        here: the follower's own position then, on which its rows were read.
        definition: digest of the table's definitions on both nodes.
        keys: of the rows that differed, or that a repair has changed since; of one that was proved to be written past the triggers: after which check, and
            on which node, if that is known.
    """

    check: str
    at: str
    position: str
    here: str
    definition: str
    keys: Mapping[str, tuple[str, str | None] | None] = field(default_factory=dict)


def read(node: Node, connection: Connection, writer: NodeState) -> dict[str, Mark]:
    """The marks that a node has of this writer and its term, by table."""
    held = node.database.control.held(connection, VERIFIED)
    found = json.loads(held) if held else {}
    if found.get("of") != _of(writer):
        return {}
    return {
        name: Mark(**{**mark, "keys": {key: proof and tuple(proof) for key, proof in mark["keys"].items()}}) for name, mark in found["tables"].items()
    }


def write(node: Node, connection: Connection, writer: NodeState, marks: Mapping[str, Mark | None]) -> None:
    """Puts marks in place of those that a node has of the same tables; None takes them away.  Those of another term go."""
    tables = {name: mark for name, mark in {**read(node, connection, writer), **marks}.items() if mark is not None}
    _hold(node, connection, {"of": _of(writer), "tables": {name: asdict(mark) for name, mark in tables.items()}})


def common(one: Mapping[str, Mark], other: Mapping[str, Mark]) -> dict[str, Mark]:
    """The marks that both nodes have; the keys are those of either."""
    same = {name: (mark, other[name]) for name, mark in one.items() if name in other}
    return {
        name: replace(here, keys={**here.keys, **there.keys})
        for name, (here, there) in same.items()
        if replace(here, keys={}) == replace(there, keys={})
    }


def forget(node: Node, connection: Connection, tables: Collection[str]) -> None:
    """Takes away a node's marks of tables whose rows come, or came, past the journal."""
    _change(node, connection, dict.fromkeys(tables))


def add_keys(node: Node, connection: Connection, keys: Iterable[tuple[str, str]]) -> None:
    """Adds rows, as table and key, that are changed past the journal, to a node's marks; a mark that would have too many goes."""
    added: dict[str, set[str]] = {}
    for name, key in keys:
        added.setdefault(name, set()).add(key)
    _change(node, connection, added)


def _change(node: Node, connection: Connection, added: Mapping[str, set[str] | None]) -> None:
    held = node.database.control.held(connection, VERIFIED)
    found = json.loads(held) if held else {"tables": {}}
    concerned = [name for name in added if name in found["tables"]]
    for name in concerned:
        more = added[name]
        keys = {**found["tables"][name]["keys"], **dict.fromkeys(sorted(more or ()))}
        if more is None or len(keys) > KEYS:
            del found["tables"][name]
        else:
            found["tables"][name]["keys"] = keys
    if concerned:
        _hold(node, connection, found)


def begin(writer: Node, connection: Connection, state: NodeState, check: str, position: str) -> None:
    """Says that a check is under way which will leave marks of this position."""
    writer.database.control.hold(connection, CHECKING, json.dumps({"of": _of(state), "check": check, "position": position}))


def end(writer: Node, connection: Connection, check: str) -> None:
    """Says that it is over; another one's stays."""
    held = writer.database.control.held(connection, CHECKING)
    if held and json.loads(held)["check"] == check:
        writer.database.control.hold(connection, CHECKING, json.dumps({"of": "", "check": "", "position": ""}))


def positions(writer: Node, connection: Connection, state: NodeState) -> list[str]:
    """From which positions on the writer's journal is wanted, the oldest first."""
    wanted = {mark.position for mark in read(writer, connection, state).values()}
    held = writer.database.control.held(connection, CHECKING)
    if held and (checking := json.loads(held))["of"] == _of(state):
        wanted.add(checking["position"])

    def later(one: str, other: str) -> int:
        return 0 if one == other else 1 if writer.database.covers(one, other) else -1

    return sorted(wanted, key=cmp_to_key(later))


def _of(writer: NodeState) -> str:
    return f"{writer.node} {writer.term_uuid}"


def _hold(node: Node, connection: Connection, value: object) -> None:
    node.database.control.hold(connection, VERIFIED, json.dumps(value))
