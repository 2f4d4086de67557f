"""Sequences on PostgreSQL: where they stand, moving them forward, and the jump at takeover.

``nextval`` is not transactional, so a value read here can be of a transaction that never commits: harmless, because a sequence is only
ever moved forward.  Read them after the snapshot that is shipped (HAZARDS 22).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from replstore.control import Control
from replstore.databases.catalog import Table, quote, split_id, table_id
from replstore.databases.counting import Taken
from replstore.databases.postgresql.reading import USER_SCHEMA, literal, qualified

#: Those that this role may read, or also set: another one's, in another schema say, must not keep a follower from taking over.
_LIST = f"""
SELECT n.nspname, c.relname, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcycle
FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE {USER_SCHEMA} AND n.nspname <> %(control)s AND c.relpersistence <> 't'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
  AND (%(schemas)s::text[] IS NULL OR (n.nspname, c.relname) IN (SELECT * FROM unnest(%(schemas)s::text[], %(names)s::text[])))
  AND has_schema_privilege(n.oid, 'USAGE')
  AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT') AND (NOT %(set)s OR has_sequence_privilege(c.oid, 'UPDATE')) END
ORDER BY 1, 2"""

#: Columns of whole numbers that a sequence belongs to, or whose default takes its values.
_COLUMNS = """
SELECT DISTINCT n.nspname, c.relname, a.attname, EXISTS (
    SELECT FROM pg_catalog.pg_index i
    WHERE i.indrelid = c.oid AND i.indisunique AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum AND i.indpred IS NULL) FROM (
    SELECT d.refobjid, d.refobjsubid FROM pg_catalog.pg_depend d
    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = {sequence} AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.deptype IN ('a', 'i')
    UNION ALL SELECT f.adrelid, f.adnum FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attrdef f ON f.oid = d.objid
    WHERE d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = {sequence}
  ) u (relation, number) JOIN pg_catalog.pg_attribute a ON a.attrelid = u.relation AND a.attnum = u.number
  JOIN pg_catalog.pg_class c ON c.oid = u.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype) ORDER BY 1, 2, 3"""

_MOST = 1000  # calls in one statement: PostgreSQL takes 1664 columns


@dataclass(frozen=True)
class _Sequence:
    schema: str
    name: str
    start: int
    increment: int
    lowest: int
    highest: int
    cycles: bool
    value: int | None = None

    @property
    def id(self) -> str:
        return table_id(self.schema, self.name)

    @property
    def here(self) -> int:
        """Where it stands: the value before the next one."""
        return self.start - self.increment if self.value is None else self.value

    def is_ahead(self, value: int) -> bool:
        """Whether a value lies further in this sequence's direction than where it stands."""
        return value > self.here if self.increment > 0 else value < self.here

    def setval(self, value: int) -> str:
        """The call after which ``value`` counts as handed out, or the sequence's end if that lies before it."""
        before = self.lowest - self.increment if self.increment > 0 else self.highest - self.increment
        value = min(max(value, before), self.highest) if self.increment > 0 else max(min(value, before), self.lowest)
        called = self.lowest <= value <= self.highest
        return f"pg_catalog.setval({self.regclass}, {value if called else value + self.increment}, {str(called).lower()})"

    @property
    def regclass(self) -> str:
        return f"{literal(qualified(self.schema, self.name))}::regclass"


def sequences(connection: Connection, control: Control, tables: Collection[Table] | None = None) -> dict[str, int | None]:
    """Where the user's sequences stand.

    Those of which this role has no right to select are left out. Two statements for all of them.

    Args:
        connection: of the node.
        control: which sequences are replstore's own.
        tables: only the sequences of these tables; None takes every user sequence.

    Returns:
        By id, the value before the next one: the last that was handed out, or, after a restart or ``setval(…, false)``, the one that
        would come before the next; None while nothing was ever handed out.
    """
    only = None if tables is None else sorted({id for table in tables for id in table.sequences})
    return {sequence.id: sequence.value for sequence in _read(connection, control.schema, only)}


def advance_sequences(connection: Connection, values: Mapping[str, int | None]) -> None:
    """Moves sequences forward to the given values, never back; a sequence that this node lacks is left out.

    Args:
        connection: of the node whose sequences move.
        values: as ``sequences`` reads them from the other node.
    """
    known = {id: value for id, value in values.items() if value is not None}
    behind = [(each, known[each.id]) for each in _read(connection, None, list(known), set=True) if each.is_ahead(known[each.id])]
    _set(connection, [sequence.setval(value) for sequence, value in behind])


def jump_sequences(connection: Connection, control: Control, margin: int) -> None:
    """Moves every user sequence forward, so that what the lost writer may have handed out isn't handed out again.

    A sequence near its end moves by half of what is left of it: it must not run out because of the jump.

    Args:
        connection: of the node that becomes the writer.
        control: which sequences are replstore's own.
        margin: values to skip in each.
    """
    calls = []
    for each in _read(connection, control.schema, None, set=True):
        left = ((each.highest if each.increment > 0 else each.lowest) - each.here) // each.increment
        calls.append(each.setval(each.here + min(margin, left // 2) * each.increment))
    _set(connection, calls)


def lagging(connection: Connection, values: Mapping[str, int | None]) -> dict[str, bool | None]:
    """Which sequences stand before the given values here; one that this node lacks is left out.

    Args:
        connection: of the node.
        values: as ``sequences`` reads them from the other node.

    Returns:
        By id, whether rows here hold values which the sequence would give again; None: no column takes its values from it.
    """
    known = {id: value for id, value in values.items() if value is not None}
    behind = [(each, known[each.id]) for each in _read(connection, None, list(known)) if each.is_ahead(known[each.id])]
    return {each.id: _used(connection, each, value) for each, value in behind}


def _used(connection: Connection, sequence: _Sequence, there: int) -> bool | None:
    """Whether some row holds a value between where the sequence stands and ``there``."""
    columns = _columns(connection, sequence)
    if not columns:
        return None
    for schema, table, column, _ in columns:
        rows = f"SELECT EXISTS (SELECT FROM {qualified(schema, table)} WHERE {_between(sequence, column, sequence.here, there)})"
        if connection.exec_driver_sql(rows, execution_options={"no_parameters": True}).scalar():
            return True
    return False


def next_value(connection: Connection, id: str) -> int | None:
    """What the next row gets; None: the sequence has come to its end, or isn't this role's to read."""
    found = _read(connection, None, [id])
    value = found[0].here + found[0].increment if found else None
    return value if value is not None and found[0].lowest <= value <= found[0].highest else None


def taken(connection: Connection, id: str, after: int | None, through: int) -> Taken | None:
    """The first row that holds a value of a sequence after ``after`` and no later than ``through``; of one that cycles, none: it gives all of them again."""
    for sequence in _read(connection, None, [id]):
        if sequence.cycles:
            continue
        start = sequence.start - sequence.increment if after is None else after
        first = "min" if sequence.increment > 0 else "max"
        for schema, table, column, refused in _columns(connection, sequence):
            rows = f"SELECT {first}({quote(column)}) FROM {qualified(schema, table)} WHERE {_between(sequence, column, start, through)}"
            value = connection.exec_driver_sql(rows, execution_options={"no_parameters": True}).scalar()
            if value is not None:
                return Taken(table_id(schema, table), column, int(value), "refused" if refused else "twice")
    return None


def _columns(connection: Connection, sequence: _Sequence) -> list[tuple[str, str, str, bool]]:
    """The columns that take their values from it: schema, table, column, and whether an index refuses a value twice."""
    found = connection.exec_driver_sql(_COLUMNS.format(sequence=sequence.regclass), execution_options={"no_parameters": True})
    return [(row[0], row[1], row[2], row[3]) for row in found]


def _between(sequence: _Sequence, column: str, here: int, there: int) -> str:
    """The condition for a value that comes after ``here`` and no later than ``there``."""
    after, until = (">", "<=") if sequence.increment > 0 else ("<", ">=")
    return f"{quote(column)} {after} {here} AND {quote(column)} {until} {there}"


def _read(connection: Connection, control: str | None, only: Collection[str] | None, *, set: bool = False) -> list[_Sequence]:
    wanted = None if only is None else [split_id(id) for id in only]
    parameters: dict[str, Any] = {
        "control": control or "",
        "set": set,
        "schemas": None if wanted is None else [schema for schema, _ in wanted],
        "names": None if wanted is None else [name for _, name in wanted],
    }
    found = [_Sequence(*row) for row in connection.exec_driver_sql(_LIST, parameters)]
    if not found:
        return []
    each = (f"SELECT {number}, last_value, is_called FROM {qualified(sequence.schema, sequence.name)}" for number, sequence in enumerate(found))
    rows = connection.exec_driver_sql(" UNION ALL ".join(each), execution_options={"no_parameters": True}).all()
    return [_with_value(found[number], last, called) for number, last, called in rows]


def _with_value(sequence: _Sequence, last: int, called: bool) -> _Sequence:
    value = last if called else None if last == sequence.start else last - sequence.increment
    return replace(sequence, value=value)


def _set(connection: Connection, calls: list[str]) -> None:
    for start in range(0, len(calls), _MOST):
        connection.exec_driver_sql("SELECT " + ", ".join(calls[start : start + _MOST]), execution_options={"no_parameters": True})
