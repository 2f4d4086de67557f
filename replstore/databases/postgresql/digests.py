"""Digests of a PostgreSQL table's rows, computed by the server; see ``replstore.databases.digests``.

The server's hash functions follow equality, which is not identity (HAZARDS 14): 1.0 and 1.00, 0.0 and -0.0, 5 and -5 of ``numeric``, 1 and 4294967296
of ``bigint`` have one hash.  So they are given only values for which both are the same, and of every other type the bytes of its binary form, or of its
text where the binary form says more than the value (numbers of types, a bitmap without NULLs) or other things on each server.

Every column's value is hashed by itself, with a seed of the column's own, and a digest scatters the exclusive or of these hashes: to make a row of them
and hash that takes the server much longer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

from replstore.databases.catalog import Table
from replstore.databases.dialect import raw
from replstore.databases.digests import BITS, TEXT, WHOLE, Bucket, Buckets, Cut, Digests, Forms, Piece, Recipe, Row, Told, Version
from replstore.databases.postgresql.capture import qualified, quote, text
from replstore.databases.postgresql.reading_rows import FETCH, row_of, text_of

#: By built-in type, what has the same bytes, in a binary record, for the same value ``{0}`` only; of a type that isn't here it is the text.
EXACT = {
    **dict.fromkeys(("bool", "int2", "int4", "date", "uuid", "bytea"), "{0}::pg_catalog.{1}"),
    # both zeros are equal and aren't the same; every NaN is printed alike, whatever its bits
    "float4": "float4send(CASE WHEN {0} = 'NaN' THEN 'NaN'::float4 ELSE {0} END)",
    "float8": "float8send(CASE WHEN {0} = 'NaN' THEN 'NaN'::float8 ELSE {0} END)",
    "bit": "bit_send({0})",
    "bpchar": "bpcharsend({0})",
    "char": "charsend({0})",
    "cidr": "cidr_send({0})",
    "inet": "inet_send({0})",
    "int8": "int8send({0})",
    "interval": "interval_send({0})",
    "json": "json_send({0})",
    "jsonb": "jsonb_send({0})",
    "macaddr": "macaddr_send({0})",
    "macaddr8": "macaddr8_send({0})",
    "money": "cash_send({0})",
    "name": "namesend({0})",
    "numeric": "numeric_send({0})",
    "oid": "oidsend({0})",
    "pg_lsn": "pg_lsn_send({0})",
    "text": "textsend({0})",
    "time": "time_send({0})",
    "timestamp": "timestamp_send({0})",
    "timestamptz": "timestamptz_send({0})",
    "timetz": "timetz_send({0})",
    "varbit": "varbit_send({0})",
    "varchar": "varcharsend({0})",
    "xid8": "xid8send({0})",
}
#: A number of fixed scale is known by its digits and its sign; the hash has only the digits.
SCALED = "{0}::pg_catalog.numeric, {0} < 0"
#: What hashes a value as it is, with a seed ``{1}``. A seed has 64 bits that all count; of a value of ``bigint`` they don't.
HASHED = {
    "bool": "hashint4extended({0}::pg_catalog.int4, {1})",
    "int2": "hashint2extended({0}, {1})",
    "int4": "hashint4extended({0}, {1})",
    "int8": "hashint4extended({2}, {0})",
    "oid": "hashoidextended({0}, {1})",
    "uuid": "uuid_hash_extended({0}, {1})",
    # of NaN and zero the hash is nothing but the seed, and of a power of 10,000 it differs little from that of another: scattered, they don't cancel out
    "numeric(": "hashint4extended(({0} < 0)::pg_catalog.int4, hash_numeric_extended({0}, {1}))",
}
#: Types that are hashed as their text, which is as exact as their binary form and cheaper.
TEXTS = ("json", "jsonb", "name", "text", "varchar")
#: Multiplied by a column's number, these give seeds of which no two have much in common.
_GOLDEN, _GOLDEN_32 = 0x9E3779B97F4A7C15, 0x9E3779B9
#: From this version on a server has hash functions of bytes and dates that can be called.
_CALLABLE = 180000
WHOLE_NUMBERS = ("int2", "int4", "int8")
_FORMS = """
WITH RECURSIVE b AS (
  SELECT a.attname, a.atttypid AS type, a.atttypmod AS mod FROM pg_attribute a WHERE a.attrelid = {0}::regclass AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL SELECT b.attname, y.typbasetype, CASE WHEN b.mod < 0 THEN y.typtypmod ELSE b.mod END FROM b JOIN pg_type y ON y.oid = b.type WHERE y.typtype = 'd'
)
SELECT b.attname, CASE WHEN y.typname = 'numeric' AND b.mod >= 0 THEN format_type(b.type, b.mod) ELSE y.typname END,
  y.typnamespace = 'pg_catalog'::regnamespace, {1} FROM b JOIN pg_type y ON y.oid = b.type WHERE y.typtype <> 'd'"""
#: Hashes of one value of each type that is hashed as it is: they depend on how the machine lays out its numbers.
_HASHES = (
    r"""hash_record_extended(ROW(true, 7::int2, 7::int4, 'epoch'::date, '00112233-4455-6677-8899-aabbccddeeff'::uuid, '\x0001'::bytea, 1.5), 7)"""
)
#: Bytes of a page.
_PAGE = "current_setting('block_size')::int"
_PAGES = """SELECT coalesce(max(pg_relation_size(c.oid)) / {page}, 0), coalesce(sum(pg_relation_size(c.oid)), 0)::bigint,
  coalesce(sum(c.reltuples) FILTER (WHERE c.reltuples > 0), 0)::bigint
FROM (SELECT {table}::regclass AS oid UNION SELECT relid FROM pg_partition_tree({table}::regclass) WHERE isleaf) l JOIN pg_class c ON c.oid = l.oid"""
#: Bytes of a row where nobody has counted the rows.
_ROW = 100


def forms(connection: Connection, table: Table) -> Forms:
    """See ``Database.forms``."""
    with raw(connection.connection).cursor() as cursor:
        cursor.execute(_FORMS.format(text(qualified(table)), _HASHES))
        rows = cursor.fetchall()
    found = {row[0]: row[1] if row[2] and (row[1] in EXACT or row[1].startswith("numeric(")) else TEXT for row in rows}
    own = dict.fromkeys((*table.data_columns, *table.key))
    numbered = len(table.key) == 1 and found[table.key[0]] in WHOLE_NUMBERS
    return Forms({name: found[name] for name in own}, numbered, str(rows[0][3]))


class PostgreSQLDigests(Digests):
    """See :class:`replstore.databases.digests.Digests`."""

    def __init__(self, connection: Connection, table: Table, recipe: Recipe) -> None:
        self._driver: Any = raw(connection.connection)
        self._connection, self._table, self._recipe = connection, table, recipe
        self._name = qualified(table)
        self._sizes: tuple[int, int, int] | None = None
        info = self._driver.info
        self._utf8, self._callable = info.parameter_status("server_encoding") == "UTF8", info.server_version >= _CALLABLE

    def bounds(self) -> tuple[int, int] | None:
        key = f"t.{quote(self._recipe.key[0])}"
        low, high = self._all(f"SELECT min({key}), max({key}) FROM {self._name} t{self._where()}")[0]
        return None if low is None else (low, high)

    def estimate(self) -> int:
        _, size, rows = self._size()
        return int(rows or size // _ROW)

    def pieces(self, size: int) -> list[Piece]:
        pages, whole, _ = self._size()
        if self._table.kind not in ("ordinary", "partitioned") or whole <= size or not pages:
            return [WHOLE]
        step = -(-pages // -(-whole // size))  # all of one size: several sessions read them
        return [Piece(low, low + step if low + step < pages else None) for low in range(0, pages, step)]

    def buckets(self, cut: Cut, piece: Piece, told: Told) -> Buckets:
        rows = (
            f"SELECT {self._position()} >> {cut.shift} AS b, {self._digest()} AS h FROM {self._source(cut)}{self._where(*self._within(cut, piece))}"
        )
        # without OFFSET 0 each aggregate would compute the digest again, and rows be sorted for the buckets that the planner expects
        found = self._all(
            f"SELECT b, count(*), {', '.join(self._added())} FROM ({rows} OFFSET 0) s GROUP BY b",
            few=cut.within is not None and self._recipe.numbered,
        )
        buckets = {number: Bucket(count, int(sum), xor) for number, count, sum, xor in found}
        told(sum(bucket.rows for bucket in buckets.values()))
        return buckets

    def listed(self, cut: Cut, piece: Piece) -> list[Row]:
        return list(map(Row._make, self._all(self._selected(cut, piece), few=self._recipe.numbered)))

    def rows(self, cut: Cut) -> Iterator[Row]:
        with self._driver.cursor("replstore_rows") as cursor:
            cursor.itersize = FETCH
            with self._index_first(self._recipe.numbered):
                cursor.execute(f"{self._selected(cut, WHOLE)} ORDER BY 1")
            yield from map(Row._make, cursor)

    def values(self, keys: Collection[str]) -> list[tuple[str, str]]:
        return self._looked_up(keys, "")

    def versions(self, keys: Collection[str]) -> list[Version]:
        found = self._looked_up(keys, ", t.xmin::text::bigint, t.xmax::text::bigint, t.tableoid || ' ' || t.ctid")
        return [Version(*row) for row in found]

    def _looked_up(self, keys: Collection[str], more: str) -> list[Any]:
        cast = ", ".join(f"(e.v->>{number})::{self._table.column(name).type} AS k{number}" for number, name in enumerate(self._recipe.key))
        given = f"SELECT DISTINCT {cast} FROM jsonb_array_elements({text('[' + ','.join(keys) + ']')}::jsonb) e(v)"
        on = " AND ".join(f"t.{quote(name)} = j.k{number}" for number, name in enumerate(self._recipe.key))
        return self._all(f"SELECT {self._key()}, {row_of(list(self._recipe.columns))}{more} FROM {self._name} t JOIN ({given}) j ON {on}", few=True)

    def _all(self, statement: str, *, few: bool = False) -> list[Any]:
        with self._index_first(few), self._driver.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    @contextmanager
    def _index_first(self, few: bool) -> Iterator[None]:
        """Ranges of a key are looked up in its index, whatever the planner believes of a table that nobody has analyzed."""
        if few:
            self._driver.execute("SET LOCAL enable_seqscan = off")
        yield
        if few:
            self._driver.execute("SET LOCAL enable_seqscan = on")

    def _size(self) -> tuple[int, int, int]:
        """Pages of the largest part, bytes of all, rows as they were counted last (0: never)."""
        if self._sizes is None:
            self._sizes = tuple(self._all(_PAGES.format(page=_PAGE, table=text(self._name)))[0])
        return self._sizes

    # -- parts of statements

    def _selected(self, cut: Cut, piece: Piece) -> str:
        rows = f"SELECT {self._position()} AS p, {self._key()} AS k, {self._digest()} AS h FROM {self._source(cut)}{self._where(*self._within(cut, piece))}"
        count, group = ("1", "") if self._recipe.key else ("count(*)", " GROUP BY 1, 2, 3")
        return f"SELECT p, k, h, {count} FROM ({rows} OFFSET 0) s{group}"

    def _key(self) -> str:
        if not self._recipe.key:
            return row_of(list(self._recipe.columns))
        # what JSON has a form of its own for can't be read back from it; everything else whose form is its text is a string in JSON anyway
        parts = (text_of(name) if self._recipe.columns[name] in (TEXT, "json", "jsonb") else f"t.{quote(name)}" for name in self._recipe.key)
        return f"jsonb_build_array({', '.join(parts)})::text"

    def _added(self) -> tuple[str, str]:
        """A bucket's sum, and exclusive or; only what has no key can be there twice, and needs a sum."""
        return "0" if self._recipe.key else "sum(h)::text", "bit_xor(h)"

    def _position(self) -> str:
        if self._recipe.numbered:
            return f"t.{quote(self._recipe.key[0])}::bigint"
        return self._hash(self._recipe.key or tuple(self._recipe.columns))

    def _digest(self) -> str:
        return self._hash(tuple(self._recipe.columns))

    def _hash(self, columns: Sequence[str]) -> str:
        if self._recipe.portable:
            row = ", ".join(_exact(name, self._recipe.columns[name]) for name in columns)
            return f"('x' || substr(md5(record_send(ROW({row}))), 1, 16))::bit(64)::bigint"
        hashes = [self._hashed(name, self._recipe.columns[name], number) for number, name in enumerate(columns, 1)]
        # scattered, because values that rows have exchanged would take one another out of a bucket's digest
        return hashes[0] if len(hashes) == 1 else f"hashint4extended(0, {_xor(hashes)})"

    def _hashed(self, column: str, form: str, number: int) -> str:
        """The hash of a column's value; 0 of NULL."""
        name, seed = f"t.{quote(column)}", _signed(number * _GOLDEN)
        text = text_of(column) if form == TEXT else f"{name}::pg_catalog.text" if form in TEXTS else ""
        if text and self._utf8:
            hashed = f'hashtextextended(({text}) COLLATE pg_catalog."C", {seed})'
        elif (kind := form.partition("(")[0] + "(" * ("(" in form)) in HASHED:
            hashed = HASHED[kind].format(name, seed, number * _GOLDEN_32 & 0x7FFFFFFF)
        else:
            given = f"textsend({text})" if text else EXACT[form].format(name, form)
            by_name = "hashdateextended" if form == "date" else "hashbyteaextended"
            hashed = f"{by_name}({given}, {seed})" if self._callable else f"hash_record_extended(ROW({given}), {seed})"
        return f"coalesce({hashed}, 0)"

    def _source(self, cut: Cut) -> str:
        if cut.within is None or not self._recipe.numbered:
            return f"{self._name} t"
        ranges = cut.ranges()
        low, high = (", ".join(str(each[end]) for each in ranges) for end in (0, 1))
        lookup = f"SELECT * FROM {self._name} t WHERE t.{quote(self._recipe.key[0])} BETWEEN r.low AND r.high OFFSET 0"
        return f"unnest(ARRAY[{low}]::bigint[], ARRAY[{high}]::bigint[]) r(low, high) CROSS JOIN LATERAL ({lookup}) t"

    def _within(self, cut: Cut, piece: Piece) -> list[str]:
        found = []
        if cut.within is not None and not self._recipe.numbered:
            shift, numbers = cut.within
            found.append(f"({self._position()}) >> {shift} = ANY (ARRAY[{', '.join(map(str, sorted(numbers)))}]::bigint[])")
        if piece.low:
            found.append(f"t.ctid >= '({piece.low},0)'::tid")
        if piece.high is not None:
            found.append(f"t.ctid < '({piece.high},0)'::tid")
        return found

    def _where(self, *conditions: str) -> str:
        given = [*conditions, *([f"({self._recipe.where})"] if self._recipe.where else [])]
        return f" WHERE {' AND '.join(given)}" if given else ""


def _exact(column: str, form: str) -> str:
    """What has a column's value in a binary record: one expression, or two."""
    name = f"t.{quote(column)}"
    if form == TEXT:
        return f"textsend({text_of(column)})"
    return SCALED.format(name) if form.startswith("numeric(") else EXACT[form].format(name, form)


def _xor(terms: Sequence[str]) -> str:
    """The exclusive or of many; in halves, for a parser goes down into each operand."""
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return f"({_xor(terms[:half])} # {_xor(terms[half:])})"


def _signed(number: int) -> int:
    """The lowest 64 bits as the server's ``bigint``."""
    return ((number + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63)


assert BITS == 64  # a bigint's
