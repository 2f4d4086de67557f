"""Rows that have changed since an earlier check, looked up by their keys on both nodes: what that costs follows the changes, and not the table."""

from __future__ import annotations

from collections.abc import Collection

from replstore.databases.replaying import pieces
from replstore.reconcile.causes import causes
from replstore.reconcile.pairing import Differing
from replstore.reconcile.reading import Meter, Sessions, at_once
from replstore.reconcile.report import Kind, TableReport, Values
from replstore.reconcile.rows import difference, forms_of, readers_of, texts_of, values_in, waiting_keys_of
from replstore.reconcile.schema import Definitions
from replstore.reconcile.snapshots import Both
from replstore.reconcile.wishes import Wishes

#: Keys of a table beyond which reading all of it is quicker than looking each of them up.
MANY = 100_000
#: Keys that are looked up in one statement.
AT_ONCE = 500


def compare_changed(both: Both, tables: Definitions, name: str, keys: Collection[str], wishes: Wishes, sessions: Sessions) -> TableReport:
    """Compares the rows of a table that have these keys.

    Args:
        both: the nodes.
        tables: the definitions on both.
        name: the table's id.
        keys: as a journal, or a difference, names them.
        wishes: what to compare, and how.
        sessions: of the check.

    Raises:
        CannotCheck: a node was lost.
    """
    meter = Meter(name, wishes.progress, wishes.expected, wishes.max_load)
    meter.expect(len(keys))
    if not keys:
        return TableReport(name, 0, 0, (), 0, 0, changed=0)
    readers = readers_of(both, tables, name, wishes, sessions)
    waiting_keys = waiting_keys_of(both, tables, name)
    numbered = readers[0].recipe.numbered  # then a key has one form
    found = list[tuple[Differing, Values | None, Values | None]]()
    counts, total, waiting, seen = {"primary": 0, "standby": 0}, 0, 0, set[str]()
    for piece in pieces(keys, AT_ONCE):
        forms = (set(piece) if numbered else forms_of(both, tables, name, piece)) - seen
        seen |= forms
        rows = at_once(readers, sessions, lambda reader, forms=forms: texts_of(reader, forms))  # type: ignore[misc]
        primary, standby = (dict(reversed(some)) for some in rows)  # of two rows under one key, the first
        counts["primary"] += len(primary.keys() & forms)
        counts["standby"] += len(standby.keys() & forms)
        for key in sorted((primary.keys() | standby.keys()) & forms):
            if primary.get(key) == standby.get(key):
                continue
            mine, theirs = (values_in(row, readers[0].recipe) if row is not None else None for row in (primary.get(key), standby.get(key)))
            if mine == theirs:
                continue
            if waiting_keys is None or key in waiting_keys:
                waiting += 1
                continue
            total += 1
            if len(found) < wishes.limit:
                found.append((Differing(key, _kind(mine, theirs), 0), mine, theirs))
        meter.add(len(piece))
    known = causes(both, tables, name, [each for each, _, _ in found])
    found.sort(key=lambda each: (len(each[0].key), each[0].key))
    kept = tuple(difference(each, readers[0].recipe, mine, theirs, known) for each, mine, theirs in found)
    return TableReport(name, counts["primary"], counts["standby"], kept, total, waiting, changed=len(keys))


def _kind(primary: Values | None, standby: Values | None) -> Kind:
    return "changed" if primary is not None and standby is not None else "missing_on_standby" if primary is not None else "missing_on_primary"
