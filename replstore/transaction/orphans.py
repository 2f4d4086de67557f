"""Orphans as a Store offers them: look, plan, replay, discard.

A plan is a replay that is rolled back: it says what would come of each group, constraints included, and changes nothing.  Every decision is an ordinary
transaction of the Store's, and is on both nodes before it is reported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, func, select
from sqlalchemy.orm import Session

from replstore.errors import ConfigError, NoWriter
from replstore.node import Node
from replstore.pair.pair import Pair
from replstore.replication.journal.groups import NO_TABLE, Group, History, Record, Recording, State, groups
from replstore.replication.journal.replay import REHEARSED, Outcome, Replay, Verdict, Wish, discard

Run = Callable[..., Any]
#: Records that are read at once to make groups of them; each takes about a kilobyte of memory, and two and a half while it is replayed.
MOST = 1_000_000
#: Rows in one fetch.
FETCH = 5000


@dataclass(frozen=True)
class Plan:
    """What would come, or came, of each group, in order.

    Attributes:
        verdicts: one for each group.
        applied: it was carried out.
        unknown: what can't be known, a sentence each.
    """

    verdicts: tuple[Verdict, ...]
    applied: bool
    unknown: tuple[str, ...] = ()

    def count(self, outcome: Outcome) -> int:
        """How many groups have this outcome."""
        return sum(1 for verdict in self.verdicts if verdict.outcome is outcome)

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON takes it."""
        return {"applied": self.applied, "groups": [_facts(verdict) for verdict in self.verdicts], "unknown": list(self.unknown)}


def _facts(verdict: Verdict) -> dict[str, Any]:
    group = verdict.group
    return {
        "outcome": verdict.outcome.value,
        "reason": verdict.reason,
        "node": group.records[0].node,
        "term_no": group.records[0].term_no,
        "transactions": [{"id": change.tx, "at": change.at, "maybe_acknowledged": change.maybe_acknowledged} for change in group.changes],
        "rows": [{"id": record.id, "table": record.table, "key": record.key, "change": record.what()} for record in group.records],
    }


class _Rehearsed(Exception):
    """Rolls a plan's transaction back."""


class Orphans:
    """What lost writers had committed alone.

    Args:
        pair: the pair.
        run: ``Store.run``.
    """

    def __init__(self, pair: Pair, run: Run) -> None:
        self._pair, self._run = pair, run

    def records(self, id: str = "", *, limit: int | None = None, after: int = 0) -> list[dict[str, Any]]:
        """The recorded rows, newest transaction first, from the writer; from the follower, which has them too, where no node writes.

        Args:
            id: only records whose id begins with this.
            limit: how many at most; None: all, which can be as many as the rows of the largest transaction that was lost.
            after: how many to leave out first.

        Raises:
            NoWriter: no node can be read.
        """
        with self._reading() as (orphan, connection):
            begins = orphan.c.id.startswith(id, autoescape=True) if id else orphan.c.tbl != NO_TABLE
            chosen = select(orphan).where(orphan.c.tbl != NO_TABLE, begins).order_by(*_newest_first(orphan)).limit(limit).offset(after)
            rows = [dict(row) for row in connection.execute(chosen).mappings()]
        return [{**row, **{name: _parsed(row[name]) for name in ("former_row", "writer_row", "changed_by")}} for row in rows]

    def count(self) -> int:
        """How many rows are recorded, whatever became of them.

        Raises:
            NoWriter: no node can be read.
        """
        with self._reading() as (orphan, connection):
            return int(connection.execute(select(func.count()).select_from(orphan).where(orphan.c.tbl != NO_TABLE)).scalar_one())

    def plan(self, ids: Sequence[str] = (), *, out_of_order: bool = False, reopen: bool = False) -> Plan:
        """Says what a replay would do, and changes nothing.

        Args:
            ids: of transactions or records, or the beginnings of them; by default everything that nobody has decided on. A group comes along whole.
            out_of_order: also what was committed after something that is withheld.
            reopen: also what was discarded.

        Raises:
            ConfigError: an id isn't known, or nothing is open.
            NoWriter.
        """
        work = self._work(ids, Wish(out_of_order=out_of_order, reopen=reopen))
        verdicts: list[Verdict] = []

        def rehearse(session: Session) -> None:
            verdicts[:] = work.rehearse(*self._on(session))
            raise _Rehearsed

        with suppress(_Rehearsed):
            self._run(rehearse, isolation="SERIALIZABLE")
        return Plan(tuple(verdicts), applied=False, unknown=_unknown(out_of_order, len(work.work) - len(verdicts)))

    def replay(self, ids: Sequence[str] = (), *, out_of_order: bool = False, reopen: bool = False, reason: str | None = None) -> Plan:
        """Replays, group by group; a group that is withheld is left as it is.  Repeated after a crash, it goes on.

        Args:
            ids, out_of_order, reopen: as for ``plan``.
            reason: kept with the decision.

        Returns:
            What came of each group; all of it is on both nodes.

        Raises:
            ConfigError: an id isn't known, or nothing is open.
            NoWriter, CommitUnknown, CommittedNotReplicated: what was replayed before stays.
        """
        work = self._work(ids, Wish(out_of_order=out_of_order, reopen=reopen, reason=reason))
        verdicts = [self._replay(work, group) for group in work.work]
        return Plan(tuple(verdicts), applied=True, unknown=_unknown(out_of_order))

    def discard(self, ids: Sequence[str] = (), *, reason: str, everything: bool = False, dry_run: bool = False) -> Plan:
        """Decides that orphans are not to be replayed; the records stay.

        Args:
            ids: as for ``plan``.
            reason: kept with the decision.
            everything: all that are open, instead of ids.
            dry_run: only say which.

        Raises:
            ConfigError: an id isn't known, nothing is open, or there is no reason.
            NoWriter, CommitUnknown, CommittedNotReplicated.
        """
        if not reason.strip():
            raise ConfigError("a reason is needed to discard: it is kept with the record")
        if bool(ids) is everything:
            raise ConfigError("name the orphans to discard by their ids, or discard everything that is open")
        chosen = self._work(ids, Wish(out_of_order=True), discard=True).work
        if dry_run:
            outcomes = {State.OPEN: Outcome.DISCARDED, State.DISCARDED: Outcome.DISCARDED, State.REPLAYED: Outcome.BEFORE}
            return Plan(tuple(Verdict(group, outcomes[group.state]) for group in chosen), applied=False)
        verdicts: list[Verdict] = self._run(
            lambda session: discard(*self._on(session), chosen, reason), isolation="SERIALIZABLE", durability="replicated"
        )
        return Plan(tuple(verdicts), applied=True)

    def _replay(self, work: Replay, group: Group) -> Verdict:
        withheld: list[Verdict] = []

        def once(session: Session) -> Verdict:
            verdict = work.once(*self._on(session), group)
            if verdict.outcome is not Outcome.REPLAYED:
                withheld[:] = [verdict]
                raise _Rehearsed
            return verdict

        try:
            verdict: Verdict = self._run(once, isolation="SERIALIZABLE", durability="replicated")
        except _Rehearsed:
            return withheld[0]
        work.committed(group)
        return verdict

    def _on(self, session: Session) -> tuple[Node, Connection]:
        connection = session.connection()
        return next(node for node in self._pair.nodes.values() if node.engine is connection.engine), connection

    def _work(self, ids: Sequence[str], wish: Wish, *, discard: bool = False) -> Replay:
        if wish.reopen and not ids:
            raise ConfigError("what was discarded is taken up again by its id only")
        records, unfinished = self._decidable()
        found = groups(records)
        named = [_one(id, records, found) for id in ids]
        if not ids and not any(group.undecided if discard else group.state is State.OPEN for group in found):
            raise ConfigError("there are no orphans to decide on: " + ("every one is replayed or discarded" if found else "none was ever recorded"))
        if discard and not ids:
            named = [group for group in found if group.undecided]
        chosen = frozenset(record.id for group in named for record in group.records) if named else None
        return Replay(found, Wish(chosen, wish.out_of_order, wish.reopen, wish.reason), unfinished)

    def _decidable(self) -> tuple[list[Record], frozenset[History]]:
        """Every record, and the histories of which not all is on record yet, as one snapshot of the writer has them."""
        with self._reading(writer=True) as (orphan, connection):
            count = int(connection.execute(select(func.count()).select_from(orphan)).scalar_one())
            if count > MOST:
                raise ConfigError(
                    f"{count} orphans are on record, and no more than {MOST} can be replayed or discarded by this command: decide on them in the table "
                    f"{orphan.fullname} (column state), or take rows from there by a program of your own"
                )
            marks = connection.execute(select(orphan.c.term_no, orphan.c.node).where(orphan.c.state == Recording.UNDER_WAY.value))
            unfinished = frozenset((row.term_no, row.node) for row in marks)
            rows = connection.execution_options(yield_per=FETCH).execute(
                select(orphan).where(orphan.c.tbl != NO_TABLE).order_by(*_newest_first(orphan))
            )
            return [Record.of(dict(row)) for row in rows.mappings()], unfinished

    @contextmanager
    def _reading(self, *, writer: bool = False) -> Iterator[tuple[Table, Connection]]:
        """The table of orphans in a snapshot of the writer, or of another node that can be read."""
        view, decision = self._pair.look()
        up = [seen.name for seen in (view.primary, view.standby) if seen.role is not None]
        name = decision.writer if decision.writer in up else None if writer else next(iter(up), None)
        if name is None:
            raise NoWriter(f"{decision.reason}; {decision.next_step}" if decision.next_step else decision.reason)
        node = self._pair.nodes[name]
        with node.snapshot() as connection:
            yield node.database.control.orphan, connection


def _newest_first(orphan: Table) -> tuple[Any, ...]:
    return orphan.c.tx_at.desc(), orphan.c.tx, orphan.c.tbl, orphan.c.key


def _parsed(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _one(id: str, records: Sequence[Record], found: Sequence[Group]) -> Group:
    """The group that an id, or the beginning of one, names.

    Raises:
        ConfigError: none, or several.
    """
    named = [group for group in found if any(_begins(id, record) for record in group.records)]
    if len(named) != 1 or not id:
        how_many = "orphans of several groups begin" if named else "no record and no transaction begins"
        raise ConfigError(f"{id}: {how_many} with that; `replstore orphans list` shows them")
    return named[0]


def _begins(id: str, record: Record) -> bool:
    return record.id.startswith(id) or any(change.tx is not None and change.tx.startswith(id) for change in record.changes)


def _unknown(out_of_order: bool, left_out: int = 0) -> tuple[str, ...]:
    known = ["What the writer's transactions have read since is not on record: one that decided by what a replayed row was before is not found."]
    if out_of_order:
        known.append("What an orphan had read is not on record: one that is replayed may rest on a row that only a withheld one wrote.")
    if left_out:
        known.append(f"Only the first {REHEARSED} groups were tried; {left_out} more come after them.")
    return tuple(known)
