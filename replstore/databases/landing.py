"""What a batch writes on the follower besides rows: the comparison with what it began from, and the new position."""

from __future__ import annotations

import json
from typing import Any

from replstore.control import Control
from replstore.databases.carrier import Landing
from replstore.timestamps import now

#: The setting of a follower that says which tables are still to be copied, and how far each has come.
TO_COPY = "copying"
#: The setting of a node that says up to which position each table was found equal (``replication/journal/verified.py``).
VERIFIED = "verified"
Statement = tuple[str, tuple[Any, ...], str | None]


def journal_seen(control: Control) -> str:
    """SQL expression of the journal's state: how many entries, and the last one's number."""
    number = "id" if control.schema else "seq"
    return f"(SELECT count(*) || ':' || coalesce(max({number}), 0) FROM {control.name('journal')})"


def landing_statements(control: Control, landing: Landing) -> list[Statement]:
    """The statements, in order, for the end of the follower's transaction.

    Returns:
        Each with its values (places marked ``?``) and, where it must touch exactly one row, what it means if it doesn't.
    """
    base, writer = landing.base, landing.writer
    position, role = control.name("position"), control.name("role")
    eligible = base.boot if landing.eligible else None if landing.rejoin else base.eligible_boot
    copying = landing.to_copy is not None
    landed = (
        writer.node, writer.term_no, writer.term_uuid, landing.position, landing.tick, (base.batch or 0) + 1, eligible, copying, writer.schema_no, now()
    )  # fmt: skip
    columns = ("source", "term_no", "term_uuid", "position", "tick", "batch", "eligible_boot", "copying", "schema_no", "shipped_at")
    follows = f"EXISTS (SELECT 1 FROM {role} WHERE role = 'follower' AND term_no = ? AND term_uuid = ?)"
    statements: list[Statement] = []
    if landing.rejoin:
        statements += [
            (
                f"UPDATE {role} SET role = 'follower', term_no = ?, term_uuid = ?, fenced_by_no = NULL, fenced_by_uuid = NULL, basis = NULL, "
                "reason = ?, since = ? WHERE role = ? AND term_no = ? AND term_uuid = ? "
                f"AND {journal_seen(control)} = ?",
                (writer.term_no, writer.term_uuid, "rejoined as the follower", now(), base.role, base.term_no, base.term_uuid, landing.journal_seen),
                "the node is no longer what it was when its orphans were read, or its journal grew",
            ),
            (f"DELETE FROM {position}", (), None),
            (f"DELETE FROM {control.name('journal')}", (), None),
            (f"DELETE FROM {control.name('tick')}", (), None),  # nobody holds a tick of a writer that follows now
            (f"UPDATE {control.name('retention')} SET pruned_through = NULL", (), None),
        ]
    if base.position is None or landing.rejoin:
        places = ", ".join("?" * len(columns))
        insert = f"INSERT INTO {position} (id, {', '.join(columns)}) SELECT 1, {places} WHERE NOT EXISTS (SELECT 1 FROM {position}) AND {follows}"
        statements.append((insert, (*landed, writer.term_no, writer.term_uuid), "another shipper was the first, or the node is no longer a follower"))
    else:
        sets = ", ".join(f"{column} = ?" for column in columns)
        # the batch's number: whoever gave the follower something to copy in the meantime has counted it up
        same = f"position = ? AND tick = ? AND batch = ? AND (SELECT no FROM {control.name('schema_no')}) = ?"
        update = f"UPDATE {position} SET {sets} WHERE {same} AND {follows}"
        compared: tuple[Any, ...] = (base.position, base.tick, base.batch, base.schema_no, writer.term_no, writer.term_uuid)
        if base.eligible_boot is not None:  # whoever left it behind has taken that away
            update += " AND eligible_boot = ?"
            compared += (base.eligible_boot,)
        if landing.left is not None:
            update += f" AND (SELECT value FROM {control.name('setting')} WHERE name = ?) = ?"
            compared += (TO_COPY, json.dumps(landing.left))
        statements.append((update, (*landed, *compared), "the follower's role, term or position moved since the batch began"))
    setting = control.name("setting")
    if copying or landing.rejoin:  # rows come that no journal names
        statements.append((f"DELETE FROM {setting} WHERE name = ?", (VERIFIED,), None))
    if copying:
        statements += [
            (f"DELETE FROM {setting} WHERE name = ?", (TO_COPY,), None),
            (f"INSERT INTO {setting} (name, value) VALUES (?, ?)", (TO_COPY, json.dumps(landing.to_copy)), None),
        ]
    return statements
