"""The rows of a batch between two PostgreSQL servers: their values travel in their types' own binary form, so no type is ever interpreted on the way.

A few rows go as values of prepared INSERTs, many by COPY.  The two are the same bytes into the same functions of the types.  Keys travel as the JSON that
the journal holds, in pieces: neither they nor the rows are held here together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from replstore.control import MARKER_COLUMNS
from replstore.databases.carrier import Keys, Part
from replstore.databases.catalog import Column, Table, quoted
from replstore.databases.postgresql.capture import CHUNK, qualified, quote, text
from replstore.databases.postgresql.sessions import Session

#: Commit markers and tombstones travel like any table's rows.
MARKER = Table("replstore", "marker", tuple(Column(name, "text", False, None, "", None) for name in MARKER_COLUMNS), ("id",))
#: Length of the JSON of the keys that are removed by one statement.
PIECE = 1_000_000
#: Keys above which they are no array of one statement: PostgreSQL builds none above 1 GB.
ARRAY = 5_000_000
#: What a binary COPY begins with: a signature, flags, and the length of an extension.
HEADER = 19

GIVEN = "jsonb_array_elements($1::jsonb)"
UNSHIPPED = "{name}.xid >= pg_snapshot_xmin({position}) AND NOT pg_visible_in_snapshot({name}.xid, {position})"


def unshipped(name: str, position: str | None) -> str:
    """The condition that an entry of journal or marker isn't in a position, for statements without parameters."""
    return "true" if position is None else UNSHIPPED.format(name=name, position=f"{text(position)}::pg_snapshot")


def unpacked(table: Table, keys: str = "%s") -> str:
    """A SELECT that gives the keys of a JSON array of arrays as columns k0, k1, … of the key's own types."""
    columns = ", ".join(f"{_cast(table, n)} AS k{n}" for n in range(len(table.key)))
    return f"SELECT DISTINCT {columns} FROM jsonb_array_elements({keys}::jsonb) k(v)"


def _cast(table: Table, n: int) -> str:
    return f"(k.v->>{n})::{table.column(table.key[n]).type}"


def among(table: Table, keys: str, *, many: bool = False) -> str:
    """The condition that a row of ``t`` has one of these keys.

    The planner knows nothing of how many there are.  With an array it looks each of them up in the index, in order.

    Args:
        keys: what stands in FROM and gives the keys, each a JSON array.
        many: there are too many for an array.
    """
    if len(table.key) == 1 and not many:
        return f"t.{quote(table.key[0])} = ANY(ARRAY(SELECT {_cast(table, 0)} FROM {keys} k(v)))"
    values = ", ".join(_cast(table, n) for n in range(len(table.key)))
    return f"({', '.join(f't.{quote(column)}' for column in table.key)}) IN (SELECT {values} FROM {keys} k(v))"


def between(table: Table, part: Part) -> str:
    """The condition that a row of ``t`` belongs to a part."""
    columns = ", ".join(f"t.{quote(column)}" for column in table.key)
    bounds = [(">", part.after), ("<=", part.upto)]
    return " AND ".join(f"({columns}) {sign} ({_values(table, key)})" for sign, key in bounds if key is not None) or "true"


def _values(table: Table, key: str) -> str:
    return ", ".join(f"({text(key)}::jsonb->>{n})::{table.column(column).type}" for n, column in enumerate(table.key))


def unchanged(table: Table, position: str | None) -> str:
    """The condition that the journal doesn't name a row of ``t``."""
    if position is None:
        return "true"
    same = " AND ".join(f"t.{quote(column)} = j.k{n}" for n, column in enumerate(table.key))
    columns = ", ".join(f"{_cast(table, n)} AS k{n}" for n in range(len(table.key)))
    keys = f"SELECT {columns} FROM ({journal_keys(table, position)}) a(keys), jsonb_array_elements(a.keys) k(v)"
    return f"NOT EXISTS (SELECT FROM ({keys}) j WHERE {same})"


def boundary(table: Table, after: str | None, number: int) -> str:
    """The SELECT of the last key of a part."""
    columns = ", ".join(f"t.{quote(column)}" for column in table.key)
    condition = between(table, Part(after, None))
    return f"SELECT jsonb_build_array({columns})::text FROM {qualified(table)} t WHERE {condition} ORDER BY {columns} OFFSET {number - 1} LIMIT 1"


def select(table: Table, condition: str = "true") -> str:
    """The SELECT of the values that travel."""
    columns = ", ".join(f"t.{quote(column)}" for column in table.data_columns)
    return f"SELECT {columns} FROM {qualified(table)} t WHERE {condition}"


def delete(table: Table) -> str:
    """The DELETE of the keys in $1."""
    return f"DELETE FROM {qualified(table)} t WHERE {among(table, GIVEN)}"


def insert(table: Table) -> str:
    """The INSERT of one row."""
    places = ", ".join(f"${n}" for n in range(1, len(table.data_columns) + 1))
    return f"INSERT INTO {qualified(table)} ({quoted(table.data_columns)}) OVERRIDING SYSTEM VALUE VALUES ({places})"


@dataclass(frozen=True)
class Statements:
    """The statements by which a few rows of a table travel.

    Attributes:
        delete: removes the keys in $1 from the follower.
        select: reads them from the writer.
        look: reads from the writer the rows that its journal names after the position $1.
        insert: writes one row.
    """

    delete: str
    select: str
    look: str
    insert: str

    @classmethod
    def of(cls, table: Table, few: int) -> Self:
        """Those of a table.

        Args:
            few: ``look`` is to read so many keys; it may be one entry's more.
        """
        return cls(delete(table), select(table, among(table, GIVEN)), select(table, among(table, few_keys(table, few))), insert(table))


def journal_keys(table: Table, position: str | None) -> str:
    """The SELECT of the journal's entries of a table, each an array of keys."""
    return f"SELECT j.keys FROM replstore.journal j WHERE j.tbl = {text(table.id)} AND j.keys IS NOT NULL AND {unshipped('j', position)}"


def few_keys(table: Table, number: int) -> str:
    """What stands in FROM and gives the journal's keys of a table that aren't in the position $1, so many at most, and more if one entry has more."""
    entries = f"j.tbl = {text(table.id)} AND j.keys IS NOT NULL AND {UNSHIPPED.format(name='j', position='$1::pg_snapshot')}"
    return f"(SELECT e.v FROM replstore.journal j, jsonb_array_elements(j.keys) e(v) WHERE {entries} LIMIT {number})"


def recorded_keys(table: Table, recorded: tuple[str, int]) -> str:
    """The same of the orphans that are on record."""
    node, term_no = recorded
    where = f"o.tbl = {text(table.id)} AND o.key <> '*' AND o.node = {text(node)} AND o.term_no = {term_no}"
    # many keys in one message, like the journal's: taking them in one by one, this process would leave the other server idle for too long (HAZARDS 9)
    numbered = f"SELECT o.key::jsonb AS key, row_number() OVER () / {CHUNK} AS piece FROM replstore.orphan o WHERE {where}"
    return f"SELECT jsonb_agg(n.key) FROM ({numbered}) n GROUP BY n.piece"


def arrays(table: Table, keys: Keys, position: str | None) -> str:
    """The SELECT of all arrays of keys of a table in a batch."""
    found = [journal_keys(table, position)] if keys.journal else []
    found += [recorded_keys(table, keys.recorded)] if keys.recorded else []
    return " UNION ALL ".join(found) or "SELECT NULL::jsonb WHERE false"


def marker_keys(position: str | None) -> str:
    """The same of the markers."""
    return f"SELECT jsonb_build_array(jsonb_build_array(m.id)) FROM replstore.marker m WHERE {unshipped('m', position)}"


def each_key(arrays: str) -> str:
    """What stands in FROM and gives each key of a SELECT of arrays."""
    return f"(SELECT e.v FROM ({arrays}) a(keys), jsonb_array_elements(a.keys) e(v))"


def remove(table: Table, arrays: str, writer: Session, follower: Session) -> None:
    """Removes from the follower the rows of a table with the keys that a SELECT of arrays on the writer gives."""
    remove_keys(table, _copied(writer.copy_out(f"COPY (SELECT a.keys::text FROM ({arrays}) a(keys)) TO STDOUT (FORMAT binary)")), follower)


def remove_keys(table: Table, arrays: Iterable[str], follower: Session) -> None:
    """The same of keys in JSON arrays."""
    for piece in _pieces(arrays):
        follower.ask(delete(table), piece)


def copy(table: Table, source: str, writer: Session, follower: Session) -> int:
    """Copies the rows that a SELECT on the writer gives, and returns how many there were."""
    into = f"COPY {qualified(table)} ({quoted(table.data_columns)}) FROM STDIN (FORMAT binary)"
    return follower.copy_in(into, writer.copy_out(f"COPY ({source}) TO STDOUT (FORMAT binary)"))


def _copied(messages: Iterable[bytes]) -> Iterator[str]:
    """The one text in each row of a binary COPY: a count of columns and a length stand before it."""
    begin = HEADER
    for message in messages:
        value = bytes(message)[begin + 6 :]
        begin = 0
        if value:
            yield value.decode("utf-8", "surrogateescape")


def _pieces(arrays: Iterable[str]) -> Iterator[str]:
    """Joins JSON arrays to fewer."""
    piece, length = [], 0
    for array in arrays:
        piece.append(array[1:-1])
        length += len(array)
        if length >= PIECE:
            yield _array(piece)
            piece, length = [], 0
    if piece:
        yield _array(piece)


def _array(elements: Iterable[str]) -> str:
    return "[" + ",".join(elements) + "]"


def joined(arrays: Iterable[str]) -> str:
    """One JSON array of the elements of several."""
    return _array(array[1:-1] for array in arrays)
