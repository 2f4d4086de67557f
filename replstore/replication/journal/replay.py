"""Replay: what a lost writer had committed alone is done on the writer, because a person says so.  One transaction per group, all of it or nothing.

In that transaction, in this order (HAZARDS 5, 11, 27, 29, 31): is a member known by its id; decided already; has it a tombstone, was it never acknowledged,
was its key used; is the table what it was; did the writer touch a row of the group, or one that refers to it or that it refers to; is everything before it
in the former writer's commit order replayed; then the rows are written and every constraint is checked.  The transaction carries the markers of the
group's members and marks its records: whoever comes second finds both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, insert, select, update

from replstore.databases.dialect import raw
from replstore.databases.replaying import pieces
from replstore.node import Node
from replstore.replication.journal.ground import Ground, states
from replstore.replication.journal.groups import Change, Group, History, Record, State, merged, order
from replstore.replication.journal.orphans import shape
from replstore.replication.journal.putting import Withheld, put
from replstore.timestamps import now

#: Groups of which a plan says what would come of them.
REHEARSED = 1000


class Outcome(StrEnum):
    """What comes, or came, of a group."""

    REPLAYED = "replayed"
    BEFORE = "replayed before"
    WITHHELD = "withheld"
    DISCARDED = "discarded"


@dataclass(frozen=True)
class Verdict:
    """What comes, or came, of one group.

    Attributes:
        group: the group.
        outcome: what.
        reason: why, where it is withheld; a sentence without its full stop.
    """

    group: Group
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class Wish:
    """What a person asked for.

    Attributes:
        named: ids of records that were named, with all of their groups; None: everything that is open.
        out_of_order: also what comes after a withheld orphan.
        reopen: also what was discarded.
        reason: kept with the decision.
    """

    named: frozenset[str] | None = None
    out_of_order: bool = False
    reopen: bool = False
    reason: str | None = None

    def has(self, group: Group) -> bool:
        """Whether the group was named."""
        return self.named is not None and any(record.id in self.named for record in group.records)


class Replay:
    """A replay of some groups.

    Args:
        found: all groups, whatever became of them.
        wish: what a person asked for.
        unfinished: the histories of which not everything was on record when these groups were read.
    """

    def __init__(self, found: Sequence[Group], wish: Wish, unfinished: Collection[History] = ()) -> None:
        self.found, self.wish, self.unfinished = found, wish, unfinished
        chosen = [group for group in found if (wish.has(group) if wish.named is not None else group.state is State.OPEN)]
        in_order = not wish.out_of_order
        together = [group for group in chosen if in_order and (group.state is State.OPEN or wish.reopen)]
        apart = [group for group in chosen if not (in_order and (group.state is State.OPEN or wish.reopen))]
        self.work = sorted([*merged(together), *apart], key=order)
        self._states = {record.id: record.state for group in found for record in group.records}
        self._in_order: dict[History, list[Group]] = {}
        for group in sorted(found, key=order):
            if group.first is not None:
                self._in_order.setdefault(group.history, []).append(group)

    def once(self, node: Node, connection: Connection, group: Group) -> Verdict:
        """Replays one group in the caller's transaction, which is left as it was where the group is withheld."""
        with node.database.replaying().reading(connection):
            return self._try(Ground(node, connection, self._states), group)

    def committed(self, group: Group) -> None:
        """The transaction in which a group was replayed is committed."""
        self._states.update(dict.fromkeys((record.id for record in group.records), State.REPLAYED))

    def rehearse(self, node: Node, connection: Connection) -> list[Verdict]:
        """Replays all of them in the caller's transaction, which is to be rolled back: what would come of it."""
        with node.database.replaying().reading(connection):
            ground = Ground(node, connection)
            return [self._try(ground, group) for group in self.work[:REHEARSED]]

    def _try(self, ground: Ground, group: Group) -> Verdict:
        if group.now(ground.states) is State.REPLAYED:
            return Verdict(group, Outcome.BEFORE)
        try:
            with ground.connection.begin_nested():
                reason = next(filter(None, (rule(self, ground, group) for rule in RULES)), None)
                if reason is not None:
                    raise Withheld(reason)
                _decide(ground.node, ground.connection, group.records, State.REPLAYED, self.wish)
                put(ground, group)
                _mark(ground, group)
        except Withheld as withheld:
            return Verdict(group, Outcome.WITHHELD, str(withheld))
        ground.states.update(dict.fromkeys((record.id for record in group.records), State.REPLAYED))
        return Verdict(group, Outcome.REPLAYED)

    # -- the rules, in order; each says why the group is withheld, or None

    def _unfinished(self, ground: Ground, group: Group) -> str | None:
        if group.history not in self.unfinished:
            return None
        return f"not all of it is on record: {group.history[1]} was being let rejoin, and has to come to its end with that first (`replstore rejoin`)"

    def _without_transaction(self, ground: Ground, group: Group) -> str | None:
        if group.first is None:
            return "which transaction wrote it isn't known (it was found by comparing whole tables, or is a tombstone), so it may be older than what the writer has"
        return None

    def _known(self, ground: Ground, group: Group) -> str | None:
        outcomes = ground.outcomes(group.ids)
        there = next((change.tx for change in group.changes if "committed" in (outcomes.get(change.tx or ""), change.known)), None)
        return f"the writer holds transaction {there} committed" if there else None

    def _decided(self, ground: Ground, group: Group) -> str | None:
        found = {ground.states.get(record.id, record.state) for record in group.records}
        if State.DISCARDED in found and not self.wish.reopen:
            record = next((record for record in group.records if record.state is State.DISCARDED), group.records[0])
            return f"it was discarded at {record.decided_at} ({record.reason}), and only `--reopen` takes that back"
        return "a part of it was replayed" if State.REPLAYED in found else None

    def _lost(self, ground: Ground, group: Group) -> str | None:
        outcomes = ground.outcomes(group.ids)
        lost = next((change.tx for change in group.changes if "lost" in (outcomes.get(change.tx or ""), change.known)), None)
        return f"the caller of transaction {lost} was told that it did not take effect: its tombstone stands" if lost else None

    def _never_acknowledged(self, ground: Ground, group: Group) -> str | None:
        never = next((change for change in group.changes if not change.maybe_acknowledged), None)
        if never is None or self.wish.has(group):
            return None
        return f"transaction {never.tx} was never acknowledged, so its caller may have repeated it; name it to replay it all the same"

    def _key_used(self, ground: Ground, group: Group) -> str | None:
        users = ground.users([change.key for change in group.changes if change.key is not None])
        used = next((change for change in group.changes if change.key in users or change.known == "key"), None)
        return f"the key of transaction {used.tx} ({used.key}) was used by another one" if used else None

    def _defined(self, ground: Ground, group: Group) -> str | None:
        for record in group.records:
            if record.table not in ground.tables:
                return f"table {record.table} isn't there any more"
            if record.shape is None:
                return f"table {record.table} was written anew as a whole, and what it held isn't all on record"
            if record.shape != shape(ground.tables[record.table]):
                return f"the definition of table {record.table} isn't what it was on the former writer"
        return None

    def _touched(self, ground: Ground, group: Group) -> str | None:
        return ground.touched(group, lambda: self._replayed(ground, group))

    def _before(self, ground: Ground, group: Group) -> str | None:
        """Nothing after a withheld orphan: it may have read what that one wrote, and what was read is not on record (HAZARDS 31)."""
        if self.wish.out_of_order:
            return None
        inside = {record.id for record in group.records}
        in_order, passed = self._in_order.get(group.history, []), ground.passed.get(group.history, 0)
        while passed < len(in_order) and in_order[passed].now(ground.states) is State.REPLAYED:
            passed += 1
        ground.passed[group.history] = passed
        for other in in_order[passed:]:
            if other.first is None or group.last is None or other.first > group.last:
                break
            if other.records[0].id not in inside and other.now(ground.states) is not State.REPLAYED:
                return f"{other.name()} was committed before, may have been read, and is not replayed; `--out-of-order` replays it all the same"
        return None

    def _replayed(self, ground: Ground, group: Group) -> list[Record]:
        return [
            record
            for other in self.found
            if other.history == group.history
            for record in other.records
            if ground.states.get(record.id) is State.REPLAYED
        ]


RULES: tuple[Callable[[Replay, Ground, Group], str | None], ...] = (
    Replay._unfinished,
    Replay._without_transaction,
    Replay._known,
    Replay._decided,
    Replay._lost,
    Replay._never_acknowledged,
    Replay._key_used,
    Replay._defined,
    Replay._touched,
    Replay._before,
)


def discard(node: Node, connection: Connection, found: Collection[Group], reason: str) -> list[Verdict]:
    """Discards groups in the caller's transaction; what somebody else has decided in the meantime is left alone."""
    verdicts = []
    now_is = states(node, connection)
    for group in found:
        state = group.now(now_is)
        undecided = [record for record in group.records if now_is.get(record.id) is State.OPEN]
        if undecided and state is not State.REPLAYED:
            _decide(node, connection, undecided, State.DISCARDED, Wish(reason=reason))
        verdicts.append(Verdict(group, Outcome.BEFORE if state is State.REPLAYED else Outcome.DISCARDED))
    return verdicts


def _decide(node: Node, connection: Connection, records: Sequence[Record], state: State, wish: Wish) -> None:
    """Marks the records: the row locks keep a second program waiting, and the count tells it that it comes second."""
    orphan = node.database.control.orphan
    undecided = (State.OPEN, State.DISCARDED) if wish.reopen else (State.OPEN,)
    by_id = {record.id: record for record in records}
    hook = getattr(raw(connection.connection), "hook", None)
    values = {"state": state.value, "decided_at": now(), "decided_tx": getattr(hook, "id", None), "reason": wish.reason}
    for piece in pieces(by_id):
        of_piece = orphan.c.id.in_(piece)
        done = connection.execute(update(orphan).where(of_piece, orphan.c.state.in_([each.value for each in undecided])).values(values))
        if done.rowcount != len(piece):
            by_others = select(orphan.c.id).where(of_piece, orphan.c.decided_tx.is_distinct_from(values["decided_tx"]))
            record = by_id[next(iter(connection.execute(by_others).scalars()), piece[0])]
            raise Withheld(f"another program has decided on row {record.key} of {record.table} in the meantime")


def _mark(ground: Ground, group: Group) -> None:
    """The members' own markers: from now on each is known as committed, by its id and by its key."""
    marker = ground.node.database.control.marker
    changes: dict[str, Change] = {change.tx: change for change in group.changes if change.tx is not None}
    for id, change in changes.items():
        values = {"id": id, "outcome": "committed", "term_no": ground.state.term_no}
        of_the_call = {"key": change.key, "fn": change.fn, "result": change.result, "durability": change.durability}
        ground.connection.execute(insert(marker).values({**values, **of_the_call}))
