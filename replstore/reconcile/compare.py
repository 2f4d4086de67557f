"""The check: schema, sequences and rows of both nodes, while writes go on.

What it promises: no false alarm for rows that are on their way, and no missed difference (DESIGN: promise 6).  It changes nothing of the user's, and holds
a snapshot open on each node until it is done; then it leaves on both how far they were found equal.  Every row is read where it is; what leaves a server are
digests, and rows that differ.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from replstore.reconcile.changed import MANY, compare_changed
from replstore.reconcile.reading import Sessions, sessions
from replstore.reconcile.remembering import Memory, Since
from replstore.reconcile.report import OURS, About, Report, TableReport
from replstore.reconcile.restored import went_back
from replstore.reconcile.resuming import Log
from replstore.reconcile.rows import compare_rows
from replstore.reconcile.schema import Definitions, compare_schema, definitions, without_key
from replstore.reconcile.sequences import compare_sequences, missing_sequences, read_sequences, writer_behind
from replstore.reconcile.snapshots import ONE_OF_THEM, Both, both_nodes, together
from replstore.reconcile.wishes import Wishes
from replstore.replication.journal.verified import KEYS

if TYPE_CHECKING:
    from replstore.pair.pair import Pair


def check(pair: Pair, wishes: Wishes | None = None) -> Report:
    """Compares both nodes of a pair.

    Args:
        pair: the nodes; both must answer.
        wishes: what to compare, and how; None: everything.

    Returns:
        The report.

    Raises:
        CannotCheck: a node doesn't answer, has no control tables, or was lost meanwhile.
        NotAPair: the nodes belong to different pairs.
        ConfigError: there is no such table.
    """
    wishes, began = wishes or Wishes(), datetime.now(UTC)
    if not pair.primary.database.captures:
        from replstore.reconcile.anchored import check_anchored

        return check_anchored(pair, wishes)
    limit, wishes = wishes.limit, replace(wishes, limit=max(wishes.limit, KEYS))
    with both_nodes(pair) as both, sessions(wishes.workers) as more, _log(both, wishes).done() as log:
        both = replace(both, restored=went_back(both.writer, both.follower) if both.inexact else None)
        memory = Memory(both, began.isoformat(timespec="seconds"), whole=wishes.whole)
        found = wished(both, wishes)
        since = memory.since(found, MANY) if wishes.since else None
        memory.begin()
        report = memory.keep(compared(replace(both, marks=memory.valid(found)), found, wishes, more, log, began, since), found)
    return report.listing(limit)


def wished(both: Both, wishes: Wishes) -> Definitions:
    """The tables that were chosen.

    Raises:
        ConfigError: a name that no table has, or several have.
    """
    found = definitions(both, wishes.tables, wishes.exclude)
    if wishes.where and wishes.tables is None:  # which is about the user's tables
        found = found.without(OURS)
    return found


def compared(both: Both, found: Definitions, wishes: Wishes, more: Sessions, log: Log, began: datetime, since: Since | None = None) -> Report:
    """The same of nodes whose snapshots are open.

    Args:
        both: the nodes.
        found: the tables that were chosen.
        wishes: how to compare.
        more: further sessions.
        log: keeps what was found.
        began: when the check began.
        since: only what has changed since an earlier check; None: all rows.
    """
    standing = {side.name: standing for side, standing in zip(both.sides, together(read_sequences, both.sides), strict=True)}
    schema = compare_schema(found, both.writer.node.database)
    if wishes.tables is None:
        schema += missing_sequences(standing["primary"], standing["standby"])
    names = [name for name in found.names if name in found.primary and name in found.standby]
    if since is None:
        rows = [_table(both, found, name, wishes, more, log) for name in names]
    else:
        rows = [_changed(both, found, name, wishes, more, since) for name in names if name in found.replicated]
    chosen = wishes.tables is not None
    sequences = compare_sequences(both, found, standing[both.writer.name], chosen=chosen, settle=wishes.settle)
    sequences += writer_behind(both, found, standing[both.follower.name], chosen=chosen)
    writer = both.writer.name if both.writer.state.role == "writer" else None
    notes = (*wishes.notes(), *log.notes(), *_notes(both, found), *(since.notes() if since else ()))
    about = About.since(began, {side.name: side.node.url for side in both.sides})
    return Report(
        tuple(rows),
        tuple(schema),
        tuple(sequences),
        writer,
        not both.inexact,
        notes,
        about=about,
        since=since.at if since else None,
        restored=both.restored,
    )


def _log(both: Both, wishes: Wishes) -> Log:
    return Log(wishes.resume, wishes.identity(both.writer.state.pair))


def _table(both: Both, found: Definitions, name: str, wishes: Wishes, more: Sessions, log: Log) -> TableReport:
    if not found.comparable(name):
        return TableReport(name, None, None, (), 0, 0)
    return log.part(found, name, "", lambda: compare_rows(both, found, name, wishes, more, log if wishes.resume else None))


def _changed(both: Both, found: Definitions, name: str, wishes: Wishes, more: Sessions, since: Since) -> TableReport:
    """The rows of a table that have changed since an earlier check; all of them, if that can't be told, or doesn't pay."""
    if not found.comparable(name):
        return TableReport(name, None, None, (), 0, 0)
    keys = since.keys[name]
    return compare_rows(both, found, name, wishes, more) if keys is None else compare_changed(both, found, name, keys, wishes, more)


def _notes(both: Both, found: Definitions) -> list[str]:
    writer, follower = both.writer.state, both.follower.state
    notes = []
    if both.inexact:
        why = both.inexact.removesuffix(ONE_OF_THEM) if both.restored else both.inexact
        notes.append(f"{why}: they were compared as they are, and nothing counts as on its way")
    if both.restored:
        notes.append(str(both.restored))
    if follower.copying and not both.inexact:
        notes.append(f"{follower.name} is being copied")
    if writer.schema_no != follower.schema_no:
        notes.append(
            f"{writer.name} has had {writer.schema_no} migrations and {follower.name} {follower.schema_no}: nothing is shipped until `replstore migrate` was run"
        )
    notes += [f"{fault}: nothing is shipped until `replstore migrate` was run" for _, fault in sorted(found.faults.items())]
    notes += without_key(found)
    for name in found.names:
        if name not in found.replicated and name in found.primary and name in found.standby:
            notes.append(f"table {name} isn't replicated: run `replstore migrate`")
    return notes
