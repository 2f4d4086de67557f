"""Repair: rows that differ become equal, because a person says which node has the right ones.

In chunks, each a transaction of its own: rows that go first, children before their parents; then the others, parents before their children.  What a
constraint refuses is tried again after the rest, then all of it at once (tables that refer to one another in a circle, values that change places), then row
by row: so one row that can't be written keeps no other.  Sequences are set forward at last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from replstore.errors import CannotRepair, ConfigError, RepairBrokeOff
from replstore.node import Node, one_line
from replstore.reconcile.plan import Change, Left, Plan, as_dict, make_plan
from replstore.reconcile.report import Report
from replstore.reconcile.saved import Numbered, Repair, repairs, require_table, save, to_undo, undone
from replstore.reconcile.wishes import Wishes
from replstore.reconcile.writing import Hand, Refused
from replstore.replication.journal.verified import add_keys

if TYPE_CHECKING:
    from replstore.pair.pair import Pair

Run = Callable[..., Any]
#: Rows in a transaction; up to how many are tried all at once, and one by one, where a constraint refuses some.
CHUNK, AT_ONCE, ONE_BY_ONE = 500, 10_000, 1000


@dataclass(frozen=True)
class Outcome:
    """What a repair would do, or has done.

    Attributes:
        plan: what it is to change.
        applied: it was carried out.
        id: under which the rows are kept as they were; None: none was changed.
        done: the changes that took effect.
        left: rows that were left as they are.
    """

    plan: Plan
    applied: bool
    id: str | None = None
    done: tuple[Change, ...] = ()
    left: tuple[Left, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing is left to be done."""
        return not (self.left or self.plan.more) and (self.applied or self.plan.empty)

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON takes it."""
        return {
            "applied": self.applied,
            "complete": self.complete,
            "id": self.id,
            "source": self.plan.source,
            "writer": self.plan.writer,
            "changes": [as_dict(change) for change in (self.done if self.applied else self.plan.changes)],
            "left": [{"table": each.table, "key": each.key, "reason": each.reason} for each in self.left],
            "sequences": dict(self.plan.sequences),
            "sequences_of_writer": dict(self.plan.of_writer),
            "not_listed": dict(self.plan.more),
        }


def repair_pair(pair: Pair, run: Run, wishes: Wishes, source: str, column: str | None, report: Report | None, *, dry_run: bool) -> Outcome:
    """Plans a repair, and carries it out unless it is a dry run; ``Store.repair`` says it of each argument."""
    _refuse_copies(pair)
    plan = make_plan(pair, wishes, source, column, report)
    if dry_run:
        return Outcome(plan, applied=False, left=plan.left)
    return carry_out(pair, run, plan)


def _refuse_copies(pair: Pair) -> None:
    if not pair.primary.database.captures:
        raise CannotRepair(
            "a standby of native replication is a physical copy, in which no row can be written by itself: make it anew with `replstore rejoin --copy`; "
            "where the writer's row is the wrong one, change it there"
        )


def carry_out(pair: Pair, run: Run, plan: Plan) -> Outcome:
    """Carries a plan out; rows that have changed since it was made are left as they are.

    Raises:
        CannotRepair: the roles have changed, or what keeps the rows isn't there; nothing was changed.
        RepairBrokeOff: a node was lost, or the roles have changed, after some rows; what was repaired stays, and can be undone.
        NoWriter, CommitUnknown, CommittedNotReplicated: with the first rows.
    """
    for node in pair.nodes.values():
        with node.snapshot() as connection:
            require_table(node, connection)
    id = str(uuid4())

    def keep(node: Node, connection: Connection, changes: Sequence[Numbered]) -> None:
        save(node, connection, id, plan.source, changes)
        _mark(node, connection, changes)

    hand = Hand(pair, run, plan.writer, keep)
    numbered = list(enumerate(plan.changes))
    done: list[Numbered] = []
    with _whole(f"repair {id}", id, done, f"the same command goes on, and `replstore repair --undo {id}` brings back what it changed"):
        left = _carry_out(hand, pair, numbered, done)
        _advance(pair, run, plan, done)
    done.sort(key=_number)
    return Outcome(plan, True, id if done else None, tuple(change for _, change in done), (*plan.left, *left))


def undo(pair: Pair, run: Run, id: str) -> Outcome:
    """Gives each row that a repair changed back what it was, on the node where it was.

    A row of the writer's is shipped, as any change of it is.  A row of the follower's differs from the writer's again.

    Args:
        id: of the repair, or its first letters.

    Raises:
        ConfigError: there is no such repair, or nothing of it is left to be undone.
        CannotRepair: as for a repair.
    """
    found = _one(pair, id)
    lead = pair.look()[1].writer
    numbered = [each for name in pair.nodes for each in to_undo(pair.nodes[name], found.id)]
    if not numbered:
        raise ConfigError(f"repair {found.id} was undone already")
    if lead is None:
        raise ConfigError("no node writes now: `replstore status` says what to do next")
    plan = Plan(found.source, lead, tuple(change for _, change in numbered), (), {}, {})

    def keep(node: Node, connection: Connection, changes: Sequence[Numbered]) -> None:
        undone(node, connection, found.id, [no for no, _ in changes])
        _mark(node, connection, changes)

    hand = Hand(pair, run, lead, keep, beside=False)
    done: list[Numbered] = []
    with _whole(f"the undo of repair {found.id}", found.id, done, "the same command goes on"):
        left = _carry_out(hand, pair, numbered, done)
    done.sort(key=_number)
    return Outcome(plan, True, found.id, tuple(change for _, change in done), tuple(left))


def _mark(node: Node, connection: Connection, changes: Sequence[Numbered]) -> None:
    """Lets the next check look at rows that change on a follower, where no journal names them."""
    add_keys(node, connection, ((change.table, change.key) for _, change in changes))


def _one(pair: Pair, id: str) -> Repair:
    found = {each.id: each for each in listed(pair) if id and each.id.startswith(id)}
    if len(found) != 1:
        raise ConfigError(f"{id}: {'several repairs begin' if found else 'no repair begins'} with that; `replstore repair --list` shows them")
    return next(iter(found.values()))


def listed(pair: Pair) -> list[Repair]:
    """The repairs that both nodes have on record, the newest first."""
    return sorted((each for node in pair.nodes.values() for each in repairs(node)), key=lambda each: (each.at, each.id), reverse=True)


# -- in which order


@contextmanager
def _whole(what: str, id: str, done: Sequence[Numbered], further: str) -> Iterator[None]:
    """An error after the first rows says what became of them, and how to go on."""
    try:
        yield
    except Exception as error:
        if not done:
            raise
        node = getattr(error, "replstore_node", "")
        reason = f"{node} answers: {one_line(error)}" if node else one_line(error)
        rows = f"{len(done):,} row{'' if len(done) == 1 else 's'}"
        raise RepairBrokeOff(
            f"{what} broke off after {rows} ({reason}): these stay, each kept as it was; {further}", id=id, rows=len(done)
        ) from error


def _number(change: Numbered) -> int:
    return change[0]


def _carry_out(hand: Hand, pair: Pair, changes: Sequence[Numbered], done: list[Numbered]) -> list[Left]:
    """Makes the changes; those that took effect are added to ``done`` as they do, the others are returned."""
    left: list[Left] = []
    follower = "standby" if hand.writer == "primary" else "primary"
    for name in (hand.writer, follower):
        mine = _in_order(pair, hand.writer, [each for each in changes if each[1].node == name])
        left += _write(partial(hand.write, name), mine, done)
    return left


def _in_order(pair: Pair, writer: str, changes: Sequence[Numbered]) -> list[Numbered]:
    """Rows that go, children first; then the others, parents first."""
    names = {change.table for _, change in changes}
    if not names:
        return []
    node = pair.nodes[writer]
    with node.snapshot() as connection:
        tables = [table for table in node.database.tables(connection) if table.id in names]
    references = {name: set[str]() for name in sorted(names)}
    references.update({table.id: {key.ref_table for key in table.foreign_keys if key.ref_table in names} - {table.id} for table in tables})
    try:
        parents_first = list(TopologicalSorter(references).static_order())
    except CycleError:
        parents_first = list(references)
    place = {name: number for number, name in enumerate(parents_first)}
    going = sorted((each for each in changes if each[1].after is None), key=lambda each: -place[each[1].table])
    return going + sorted((each for each in changes if each[1].after is not None), key=lambda each: place[each[1].table])


def _write(write: Callable[[Sequence[Numbered]], Any], changes: Sequence[Numbered], done: list[Numbered]) -> list[Left]:
    left: list[Left] = []
    rest, reasons = list(changes), dict[int, str]()
    for size, again in ((CHUNK, True), (AT_ONCE, False), (1, True)):
        if size == 1 and len(rest) > ONE_BY_ONE:
            break
        before = -1
        while rest and (before == -1 or (again and len(rest) < before)):
            before, refused = len(rest), list[Numbered]()
            for chunk in _chunks(rest, size):
                try:
                    written = write(chunk)
                except Refused as error:
                    refused += chunk
                    reasons.update((no, str(error)) for no, _ in chunk)
                    continue
                done += [each for each in chunk if each[0] not in written.left]
                left += [Left(change.table, change.key, written.left[no]) for no, change in chunk if no in written.left]
            rest = refused
    return left + [Left(change.table, change.key, reasons[no]) for no, change in rest]


def _chunks(changes: Sequence[Numbered], size: int) -> Iterator[Sequence[Numbered]]:
    for start in range(0, len(changes), size):
        yield changes[start : start + size]


# -- sequences


def _advance(pair: Pair, run: Run, plan: Plan, done: Sequence[Numbered]) -> None:
    """Sets the follower's sequences forward to the writer's, as a batch does, and the writer's where they would give again the keys of rows."""
    writer, follower = pair.nodes[plan.writer], pair.nodes["standby" if plan.writer == "primary" else "primary"]
    if plan.of_writer or any(change.node == writer.name and change.what == "insert" for _, change in done):
        with follower.snapshot() as connection:
            there = follower.database.sequences(connection)

        def forward(session: Session) -> None:
            connection = session.connection()
            if connection.engine is writer.engine:
                behind = writer.database.lagging_sequences(connection, there)
                writer.database.advance_sequences(connection, {id: there[id] for id, used in behind.items() if used or id in plan.of_writer})

        run(forward)
    if plan.sequences or done:
        with writer.snapshot() as connection:
            ahead = writer.database.sequences(connection)
        with follower.begin() as connection:
            state = follower.database.state(connection)
            if state is not None and state.role == "follower":
                follower.database.advance_sequences(connection, ahead)
