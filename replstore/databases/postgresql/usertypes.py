"""Types that users made, as far as tables need them: enumerations, domains, composite types and ranges."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from sqlalchemy import Connection

from replstore.databases.catalog import Table, table_id
from replstore.databases.postgresql.reading import literal, qualified, read
from replstore.errors import CannotReplicate

#: Arrays lead to their elements, domains to their base, composites to their attributes, ranges to what they range over.
EDGES = """SELECT y.oid, y.typelem AS uses FROM pg_catalog.pg_type y WHERE y.typelem <> 0
  UNION ALL SELECT y.oid, y.typbasetype FROM pg_catalog.pg_type y WHERE y.typbasetype <> 0
  UNION ALL SELECT y.oid, a.atttypid FROM pg_catalog.pg_type y JOIN pg_catalog.pg_class c ON c.oid = y.typrelid AND c.relkind = 'c'
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL SELECT r.rngtypid, r.rngsubtype FROM pg_catalog.pg_range r
  UNION ALL SELECT r.rngmultitypid, r.rngtypid FROM pg_catalog.pg_range r"""
#: The row types of the users' tables and views lead to their columns.
_ROWS = """SELECT c.reltype, a.atttypid FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND c.oid >= 16384"""
#: Each column of a table whose values travel, with every type that is in it; behind WITH RECURSIVE.
USES = f"""edges AS MATERIALIZED ({EDGES} UNION ALL {_ROWS}), uses(number, name, type, oid) AS (
  SELECT a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.atttypid
  FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid JOIN pg_attribute a ON a.attrelid = c.oid
  WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
  UNION SELECT u.number, u.name, u.type, e.uses FROM uses u JOIN edges e ON e.oid = u.oid
)"""

_CLOSURE = f"""seeds AS (
  SELECT a.atttypid AS oid FROM unnest(%(schemas)s::text[], %(names)s::text[]) w(schema, name)
    JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  UNION SELECT unnest(p.proargtypes) FROM pg_catalog.pg_proc p WHERE p.oid = ANY (%(functions)s::oid[])
  UNION SELECT p.prorettype FROM pg_catalog.pg_proc p WHERE p.oid = ANY (%(functions)s::oid[])
  UNION SELECT y.oid FROM unnest(%(type_schemas)s::text[], %(type_names)s::text[]) w(schema, name)
    JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema JOIN pg_catalog.pg_type y ON y.typnamespace = n.oid AND y.typname = w.name
), edges AS (
  {EDGES}
), reached AS (
  WITH RECURSIVE reached AS (SELECT oid FROM seeds UNION SELECT e.uses FROM reached r JOIN edges e ON e.oid = r.oid) SELECT oid FROM reached
), y AS MATERIALIZED (
  SELECT y.*, n.nspname FROM reached JOIN pg_catalog.pg_type y ON y.oid = reached.oid JOIN pg_catalog.pg_namespace n ON n.oid = y.typnamespace
  WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND (y.typtype IN ('e', 'd', 'r') OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = y.typrelid AND c.relkind = 'c'))
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.pg_type'::regclass AND e.objid = y.oid AND e.deptype = 'e')
)"""

_QUERIES = {
    "types": """
SELECT y.oid::bigint AS oid, y.nspname AS schema, y.typname AS name, y.typtype AS kind, format_type(y.typbasetype, y.typtypmod) AS base,
  CASE WHEN y.typtype = 'd' AND y.typcollation <> b.typcollation THEN y.typcollation::regcollation::text END AS collation,
  pg_get_expr(y.typdefaultbin, 0) AS "default",
  (SELECT json_agg(l.enumlabel ORDER BY l.enumsortorder) FROM pg_enum l WHERE l.enumtypid = y.oid) AS labels,
  (SELECT json_agg(json_build_object('name', k.conname, 'definition', pg_get_constraintdef(k.oid)) ORDER BY k.contype = 'n' DESC, k.conname)
    FROM pg_constraint k WHERE k.contypid = y.oid) AS constraints,
  y.typnotnull AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.contypid = y.oid AND k.contype = 'n') AS not_null,
  (SELECT json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
      'collation', CASE WHEN a.attcollation <> z.typcollation THEN a.attcollation::regcollation::text END) ORDER BY a.attnum)
    FROM pg_attribute a JOIN pg_type z ON z.oid = a.atttypid WHERE a.attrelid = y.typrelid AND a.attnum > 0 AND NOT a.attisdropped) AS attributes,
  (SELECT json_build_object('subtype', format_type(r.rngsubtype, NULL), 'canonical', nullif(r.rngcanonical, 0)::regproc::text,
      'difference', nullif(r.rngsubdiff, 0)::regproc::text, 'opclass', format('%%I.%%I', cn.nspname, c.opcname),
      'collation', CASE WHEN r.rngcollation <> s.typcollation THEN r.rngcollation::regcollation::text END,
      'multirange', format('%%I.%%I', y.nspname, m.typname))
    FROM pg_range r JOIN pg_type s ON s.oid = r.rngsubtype JOIN pg_type m ON m.oid = r.rngmultitypid
      JOIN pg_opclass c ON c.oid = r.rngsubopc JOIN pg_namespace cn ON cn.oid = c.opcnamespace WHERE r.rngtypid = y.oid) AS range,
  obj_description(y.oid, 'pg_type') AS comment
FROM y LEFT JOIN pg_type b ON b.oid = y.typbasetype ORDER BY y.oid""",
    "edges": "WITH RECURSIVE p(oid, uses) AS (SELECT e.oid, e.uses FROM edges e JOIN y ON y.oid = e.oid UNION "
    "SELECT p.oid, e.uses FROM p JOIN edges e ON e.oid = p.uses) SELECT p.oid::bigint AS oid, p.uses::bigint AS uses FROM p",
    "functions": """
SELECT DISTINCT p.oid::bigint AS oid, n.nspname AS schema, pg_get_functiondef(p.oid) AS definition
FROM y JOIN pg_constraint k ON k.contypid = y.oid JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
  JOIN pg_proc p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid AND p.prokind = 'f' JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname !~ '^pg_' AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')
ORDER BY oid""",
}


@dataclass(frozen=True)
class UserType:
    """A type with the statements that make it."""

    schema: str
    name: str
    kind: str
    statements: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def id(self) -> str:
        return table_id(self.schema, self.name)


@dataclass(frozen=True)
class Closure:
    """Types that some tables and functions need, each after those it is made of, and the functions that domains check values with."""

    types: tuple[UserType, ...]
    functions: tuple[str, ...]
    schemas: tuple[str, ...]

    @classmethod
    def of(cls, connection: Connection, tables: Collection[Table], functions: Collection[dict[str, Any]]) -> Closure:
        """What these tables, and the functions they use, need on their node."""
        found = _read(connection, tables=[(table.schema or "", table.name) for table in tables], functions=[row["oid"] for row in functions])
        by_oid = {row["oid"]: row for row in found["types"]}
        order: TopologicalSorter[int] = TopologicalSorter(dict.fromkeys(by_oid, ()))
        for edge in found["edges"]:
            if edge["oid"] in by_oid and edge["uses"] in by_oid:
                order.add(edge["oid"], edge["uses"])
        types = tuple(_user_type(by_oid[oid]) for oid in order.static_order())
        schemas = dict.fromkeys([*(each.schema for each in types), *(row["schema"] for row in found["functions"])])
        return cls(types, tuple(row["definition"] for row in found["functions"]), tuple(schemas))


def type_statements(closure: Closure, target: Connection | None) -> list[str]:
    """What makes the types, in order; with ``target``, only what that node lacks.

    Raises:
        CannotReplicate: the other node has a type of the same name with another definition.
    """
    present: dict[str, UserType] = {}
    if target is not None and closure.types:
        rows = _read(target, types=[(each.schema, each.name) for each in closure.types])["types"]
        present = {each.id: each for each in map(_user_type, rows)}
    statements = [statement for each in closure.types for statement in _missing(each, present.get(each.id))]
    return [*closure.functions, *statements]


def _missing(type: UserType, there: UserType | None) -> Iterator[str]:
    if there is None:
        yield from type.statements
    elif type.kind == "e" == there.kind and there.labels == tuple(label for label in type.labels if label in there.labels):
        yield from _add_labels(type, there)
    elif type.statements != there.statements:
        raise CannotReplicate(f"type {type.id} has another definition on the other node: make both alike, or drop it there")


def _add_labels(type: UserType, there: UserType) -> Iterator[str]:
    for number, label in enumerate(type.labels):
        if label not in there.labels:
            place = f" AFTER {literal(type.labels[number - 1])}" if number else f" BEFORE {literal(there.labels[0])}" if there.labels else ""
            yield f"ALTER TYPE {qualified(type.schema, type.name)} ADD VALUE {literal(label)}{place}"


def _read(
    connection: Connection,
    tables: Collection[tuple[str, str]] = (),
    functions: Collection[int] = (),
    types: Collection[tuple[str, str]] = (),
) -> dict[str, list[Any]]:
    parameters = {
        "schemas": [schema for schema, _ in tables],
        "names": [name for _, name in tables],
        "functions": [str(oid) for oid in functions],
        "type_schemas": [schema for schema, _ in types],
        "type_names": [name for _, name in types],
    }
    return read(connection, _QUERIES, parameters, _CLOSURE)


def _user_type(row: dict[str, Any]) -> UserType:
    name = qualified(row["schema"], row["name"])
    make = {"e": _enumeration, "d": _domain, "c": _composite, "r": _range}[row["kind"]]
    statements = list(make(name, row))
    if row["comment"] is not None:
        statements.append(f"COMMENT ON {'DOMAIN' if row['kind'] == 'd' else 'TYPE'} {name} IS {literal(row['comment'])}")
    return UserType(row["schema"], row["name"], row["kind"], tuple(statements), tuple(row["labels"] or ()))


def _enumeration(name: str, row: dict[str, Any]) -> Iterator[str]:
    yield f"CREATE TYPE {name} AS ENUM ({', '.join(literal(label) for label in row['labels'] or ())})"


def _domain(name: str, row: dict[str, Any]) -> Iterator[str]:
    words = [f"CREATE DOMAIN {name} AS {row['base']}"]
    if row["collation"]:
        words.append(f"COLLATE {row['collation']}")
    if row["default"] is not None:
        words.append(f"DEFAULT {row['default']}")
    if row["not_null"]:
        words.append("NOT NULL")
    yield " ".join(words)
    for constraint in row["constraints"] or ():
        yield f"ALTER DOMAIN {name} ADD CONSTRAINT {qualified(None, constraint['name'])} {constraint['definition']}"


def _composite(name: str, row: dict[str, Any]) -> Iterator[str]:
    attributes = (
        f"{qualified(None, each['name'])} {each['type']}" + (f" COLLATE {each['collation']}" if each["collation"] else "")
        for each in row["attributes"] or ()
    )
    yield f"CREATE TYPE {name} AS ({', '.join(attributes)})"


def _range(name: str, row: dict[str, Any]) -> Iterator[str]:
    range = row["range"]
    if range["canonical"]:
        raise CannotReplicate(f"range type {name} has a canonical function, so it can't be made here: make it on the other node first")
    parts = {
        "SUBTYPE": range["subtype"],
        "SUBTYPE_OPCLASS": range["opclass"],
        "COLLATION": range["collation"],
        "SUBTYPE_DIFF": range["difference"],
        "MULTIRANGE_TYPE_NAME": range["multirange"],
    }
    yield f"CREATE TYPE {name} AS RANGE ({', '.join(f'{key} = {value}' for key, value in parts.items() if value)})"
