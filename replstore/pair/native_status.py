"""What status says of a pair of native replication: what each server is to the other one, and what stands in a promotion's way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replstore.databases.native.state import lsn
from replstore.pair.meaning import AWAY
from replstore.pair.view import Action, Decision, NodeView, Reach, Role, View

if TYPE_CHECKING:
    from replstore.pair.pair import Pair

#: ms for which a standby may wait before it asks for more log.  A promotion right after the primary's death waits this out; 5000 is PostgreSQL's default.
RETRY = 1000


@dataclass(frozen=True)
class Standing:
    """How a node stands in the write-ahead log.

    Attributes:
        position: how far it has written, or replayed, as the server writes it.
        lag_bytes: of a follower: bytes of the writer's log that it hasn't replayed; None: not known.
        lag_seconds: s for which it has lacked something, at most; None: not known.
        receiving: of a follower: it is connected to a server that sends.
        waits_for: of a writer: the standbys that a COMMIT waits for (``synchronous_standby_names``); empty: none.
    """

    position: str | None = None
    lag_bytes: int | None = None
    lag_seconds: float | None = None
    receiving: bool | None = None
    waits_for: str | None = None


def standing(pair: Pair, seen: NodeView, other: NodeView) -> Standing:
    """How a node stands, beside its counterpart."""
    if seen.reach is not Reach.UP or seen.stream is None:
        return Standing()
    position = lsn(seen.stream.place)
    if seen.role is Role.WRITER:
        return Standing(position, waits_for=seen.stream.synchronous)
    if other.reach is not Reach.UP or other.role is not Role.WRITER or other.stream is None or other.term != seen.term:
        return Standing(position, receiving=seen.stream.receiving)
    behind = max(0, other.stream.flushed - seen.stream.place)
    return Standing(position, behind, _seconds(pair, seen, behind), seen.stream.receiving)


def _seconds(pair: Pair, seen: NodeView, behind: int) -> float | None:
    answer = pair.watch.states.get(seen.name)
    if behind == 0:
        return 0.0
    age = pair.shipping.age(answer.state) if answer is not None and answer.state is not None else math.inf
    return round(age, 3) if math.isfinite(age) else None


def native_meaning(view: View, decision: Decision, seen: NodeView, other: NodeView) -> str:
    """A sentence on one node; see ``meaning.meaning``."""
    if seen.reach is not Reach.UP:
        return AWAY[seen.reach]
    if seen.role is Role.WRITER:
        return _writer(decision, seen, other)
    return _follower(seen, other)


def _writer(decision: Decision, seen: NodeView, other: NodeView) -> str:
    if decision.writer == seen.name:
        return "it writes" if decision.action is not Action.FINISH else "it was promoted, which is recorded first"
    both = other.reach is Reach.UP and other.role is Role.WRITER
    if both and _timeline(seen) < _timeline(other):
        return f"a former primary that takes writes of others: stop its server; {other.name} has replaced it"
    if both:
        return f"it takes writes, and so does {other.name}: no Store writes to either before a person has decided"
    return "it takes writes of others: no Store writes to it, because another timeline is known that it isn't on"


def _follower(seen: NodeView, other: NodeView) -> str:
    assert seen.stream is not None
    if other.reach is Reach.UP and other.role is Role.WRITER and other.term != seen.term:
        return f"a standby that has nothing of {other.name}'s timeline {_timeline(other)}; `replstore rejoin` lets it follow"
    if not seen.stream.receiving:
        away = f": it isn't connected to {other.name}" if other.reach is Reach.UP else ""
        return f"a standby that receives nothing{away}"
    return "it follows"


def _timeline(seen: NodeView) -> int:
    return (seen.stream.timeline if seen.stream is not None else None) or (seen.term.number if seen.term is not None else 0)


def native_warnings(view: View) -> list[str]:
    """What a person should change before a failover shows it, a sentence each."""
    found = []
    for seen in (view.primary, view.standby):
        if seen.reach is not Reach.UP or seen.role is not Role.FOLLOWER or seen.stream is None:
            continue
        if view.policy.promote and not seen.stream.may_promote:
            found.append(
                f"{seen.name}: promote is set, and this role may not promote it: GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO it, in its "
                "database on the primary"
            )
        if seen.stream.retry_ms > RETRY:
            found.append(
                f"{seen.name}: wal_retrieve_retry_interval is {seen.stream.retry_ms / 1000:g} s, for which a promotion right after the primary's death may wait: "
                "set it to 100ms"
            )
    return found
