"""The user's tables on PostgreSQL, read exactly from pg_catalog, and which of them can be replicated.

``ddl.py`` makes them anew elsewhere, ``sequences.py`` reads and moves their sequences.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from replstore.control import Control
from replstore.databases.catalog import MAX_KEY_COLUMNS, TRIGGER_PREFIX, Column, ForeignKey, Table, quote, quoted, split_id, table_id
from replstore.databases.postgresql.ddl import create_statements, drop_statements, label_statements, left_out
from replstore.databases.postgresql.reading import USER_SCHEMA, qualified, read
from replstore.databases.postgresql.refused_types import refused_type
from replstore.databases.postgresql.sequences import advance_sequences, jump_sequences, sequences

__all__ = [
    "advance_sequences",
    "create_statements",
    "drop_statements",
    "jump_sequences",
    "label_statements",
    "left_out",
    "refusal",
    "refusal_here",
    "sequences",
    "table_ids",
    "tables",
]

# Partitions come with the table that they are a part of, and are asked for by its name.
_TABLES = f"""t AS MATERIALIZED (
  WITH RECURSIVE m(oid, root, parent, depth) AS (
    SELECT c.oid, c.oid, 0::oid, 0 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't' AND NOT c.relispartition AND {USER_SCHEMA} AND n.nspname <> %(control)s
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
      AND (%(schemas)s::text[] IS NULL OR (n.nspname, c.relname) IN (SELECT * FROM unnest(%(schemas)s::text[], %(names)s::text[])))
    UNION ALL
    SELECT i.inhrelid, m.root, m.oid, m.depth + 1 FROM m JOIN pg_catalog.pg_class c ON c.oid = m.oid AND c.relkind = 'p'
      JOIN pg_catalog.pg_inherits i ON i.inhparent = m.oid AND NOT i.inhdetachpending
  )
  SELECT c.oid, m.root, m.parent, m.depth, n.nspname, c.relname, c.relkind, c.relpersistence, c.relpartbound, c.reloptions, a.amname
  FROM m JOIN pg_catalog.pg_class c ON c.oid = m.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
)"""

_QUERIES = {
    "tables": """
SELECT t.oid::bigint AS oid, t.root::bigint AS root, nspname AS schema, relname AS name, relkind AS kind, relpersistence AS persistence,
  (SELECT json_build_array(p.nspname, p.relname) FROM t p WHERE p.oid = t.parent) AS parent, pg_get_expr(relpartbound, t.oid) AS bound,
  CASE WHEN relkind = 'p' THEN pg_get_partkeydef(t.oid) END AS partition_by,
  depth = 0 AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = t.oid) AS child,
  relkind <> 'p' AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = t.oid) AS inherited,
  EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = t.oid) AS rules,
  EXISTS (SELECT FROM pg_subscription_rel s WHERE s.srrelid = t.oid) AS subscribed, reloptions AS options, amname AS method
FROM t ORDER BY depth, nspname, relname""",
    "columns": """
SELECT a.attrelid::bigint AS oid, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, pg_get_expr(d.adbin, d.adrelid) AS "default",
  NOT a.attnotnull OR EXISTS (SELECT FROM pg_constraint k
    WHERE k.conrelid = t.oid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum] AND NOT k.convalidated) AS nullable,
  a.attidentity AS identity, a.attgenerated AS generated,
  CASE WHEN a.attcollation <> y.typcollation THEN a.attcollation::regcollation::text END AS collation
FROM t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped JOIN pg_type y ON y.oid = a.atttypid
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
ORDER BY a.attrelid, a.attnum""",
    "constraints": """
SELECT k.conrelid::bigint AS oid, k.conname AS name, k.contype AS kind, pg_get_constraintdef(k.oid) AS definition,
  n.nspname AS ref_schema, r.relname AS ref_name,
  (SELECT json_agg(a.attname ORDER BY u.o) FROM unnest(k.conkey) WITH ORDINALITY u(n, o)
    JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n) AS columns,
  (SELECT json_agg(a.attname ORDER BY u.o) FROM unnest(k.confkey) WITH ORDINALITY u(n, o)
    JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n) AS ref_columns
FROM t JOIN pg_constraint k ON k.conrelid = t.oid LEFT JOIN pg_class r ON r.oid = k.confrelid LEFT JOIN pg_namespace n ON n.oid = r.relnamespace
WHERE k.contype IN ('p', 'u', 'c', 'x', 'f') AND k.conparentid = 0 AND NOT (t.depth > 0 AND k.coninhcount > 0) ORDER BY k.conrelid, k.conname""",
    "indexes": """
SELECT i.indrelid::bigint AS oid, c.relname AS name, pg_get_indexdef(i.indexrelid) AS definition, i.indisprimary AS "primary",
  i.indisunique AND i.indisready AS "unique", i.indisvalid AS valid, i.indpred IS NOT NULL AS partial,
  EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')) AS "constraint",
  0 = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) AS expression,
  (SELECT json_agg(a.attname ORDER BY u.o) FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY u(n, o)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.n) AS columns
FROM t JOIN pg_index i ON i.indrelid = t.oid JOIN pg_class c ON c.oid = i.indexrelid AND NOT c.relispartition ORDER BY i.indrelid, c.relname""",
    "triggers": """
SELECT g.tgrelid::bigint AS oid, g.tgname AS name, pg_get_triggerdef(g.oid) AS definition
FROM t JOIN pg_trigger g ON g.tgrelid = t.oid
WHERE NOT g.tgisinternal AND g.tgparentid = 0 AND NOT starts_with(g.tgname, %(prefix)s) ORDER BY g.tgrelid, g.tgname""",
    "sequences": """
SELECT DISTINCT t.oid::bigint AS oid, s.nspname AS schema, s.relname AS name
FROM t CROSS JOIN LATERAL (
    SELECT d.objid FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid
      AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
    UNION ALL SELECT d.refobjid FROM pg_attrdef a JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid
    WHERE a.adrelid = t.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'n'
  ) u CROSS JOIN LATERAL (
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = u.objid AND c.relkind = 'S' OFFSET 0
  ) s
ORDER BY 1, 2, 3""",
}
_GENERATED = {"s": "stored", "v": "virtual", "a": "identity always", "d": "identity by default", "": ""}


def tables(connection: Connection, control: Control, *, only: Collection[str] | None = None) -> list[Table]:
    """The user's tables, in one statement for all of them.

    Temporary tables, views, members of extensions and the control tables are no user tables.

    Args:
        connection: of the node.
        control: which tables are replstore's own.
        only: ids of the tables to read; None reads all.

    Returns:
        In the order of schema and name.
    """
    wanted = None if only is None else [split_id(id) for id in only]
    parameters = {
        "control": control.schema or "",
        "schemas": None if wanted is None else [schema for schema, _ in wanted],
        "names": None if wanted is None else [name for _, name in wanted],
        "prefix": TRIGGER_PREFIX,
    }
    found = read(connection, _QUERIES, parameters, _TABLES)
    parts: dict[str, dict[int, list[Any]]] = {name: defaultdict(list) for name in found}
    for name, rows in found.items():
        for row in rows:
            parts[name][row["oid"]].append(row)
    made = [(row, _table(row, {name: by_table[row["oid"]] for name, by_table in parts.items()})) for row in found["tables"]]
    partitions: dict[int, list[Table]] = defaultdict(list)
    for row, table in made:
        if row["oid"] != row["root"]:
            partitions[row["root"]].append(table)
    return [replace(table, partitions=tuple(partitions[row["oid"]])) for row, table in made if row["oid"] == row["root"]]


def table_ids(connection: Connection, control: Control) -> list[str]:
    """See ``Database.table_ids``."""
    statement = f"WITH {_TABLES} SELECT nspname, relname FROM t WHERE depth = 0 ORDER BY nspname, relname"
    rows = connection.exec_driver_sql(statement, {"control": control.schema or "", "schemas": None, "names": None})
    return [table_id(schema, name) for schema, name in rows]


def _table(row: dict[str, Any], parts: dict[str, list[dict[str, Any]]]) -> Table:
    constraints = parts["constraints"]
    unique = [index for index in parts["indexes"] if index["unique"] and not index["primary"]]
    plain = [index for index in unique if not index["expression"]]
    return Table(
        schema=row["schema"],
        name=row["name"],
        columns=tuple(_column(column) for column in parts["columns"]),
        key=next((tuple(constraint["columns"]) for constraint in constraints if constraint["kind"] == "p"), ()),
        kind=_kind(row),
        options=_options(row),
        unique=tuple(tuple(index["columns"]) for index in plain if not index["partial"]),
        partial_unique=tuple(tuple(index["columns"]) for index in plain if index["partial"]),
        expression_unique=tuple(index["name"] for index in unique if index["expression"]),
        constraints=tuple(f"CONSTRAINT {quote(each['name'])} {each['definition']}" for each in constraints if each["kind"] != "f"),
        indexes=tuple(index["definition"] for index in parts["indexes"] if index["valid"] and not index["constraint"]),
        foreign_keys=tuple(_foreign_key(each) for each in constraints if each["kind"] == "f"),
        triggers=tuple((trigger["name"], trigger["definition"]) for trigger in parts["triggers"]),
        sequences=tuple(table_id(sequence["schema"], sequence["name"]) for sequence in parts["sequences"]),
        partition_by=row["partition_by"] or "",
        parent=table_id(*row["parent"]) if row["parent"] else "",
        bound=row["bound"] or "",
    )


def _kind(row: dict[str, Any]) -> str:
    if row["kind"] == "f":
        return "foreign"
    if row["kind"] == "p":
        return "partitioned"
    if row["child"]:
        return "inheritance child"
    if row["inherited"]:
        return "inheritance parent"
    return "unlogged" if row["persistence"] == "u" else "ordinary"


def _options(row: dict[str, Any]) -> tuple[str, ...]:
    method = [f"using {row['method']}"] if row["method"] not in (None, "heap") else []
    return (*sorted(row["options"] or []), *method, *(name for name in ("rules", "subscribed") if row[name]))


def _column(row: dict[str, Any]) -> Column:
    generated = _GENERATED[(row["generated"] or row["identity"]).strip()]
    return Column(row["name"], row["type"], row["nullable"], row["default"], generated, row["collation"])


def _foreign_key(row: dict[str, Any]) -> ForeignKey:
    return ForeignKey(
        name=row["name"],
        columns=tuple(row["columns"]),
        ref_table=table_id(row["ref_schema"], row["ref_name"]),
        ref_columns=tuple(row["ref_columns"]),
        definition=row["definition"],
    )


_REFUSED_KINDS = {
    "unlogged": "is unlogged, so a crash empties it on one node only: make it a logged one by ALTER TABLE {table} SET LOGGED",
    "foreign": "is a foreign table: its rows are not in this database, so leave it out",
    "inheritance child": "inherits from another table, which can't be replicated yet: leave it out, or ALTER TABLE {table} NO INHERIT its parent",
    "inheritance parent": "is inherited from, which can't be replicated yet: leave it out, or ALTER TABLE … NO INHERIT {table} each of its children",
}


def refusal(table: Table) -> str | None:
    """Why a table can't be replicated by journal, as one sentence that says what to change; None when it can."""
    quoted_name = qualified(table.schema, table.name)
    for member in table.members:
        what = f"table {table.id}" if member is table else f"table {table.id} has the partition {member.id}, which"
        if member.kind in _REFUSED_KINDS:
            return f"{what} {_REFUSED_KINDS[member.kind].format(table=qualified(member.schema, member.name))}"
        if "rules" in member.options:
            return f"{what} has rewrite rules, which would act on shipped rows too: turn them into triggers"
        if "subscribed" in member.options:
            return f"{what} is filled by a subscription, whose changes fire no trigger that could record them: leave it out of the subscription"
    if not table.key:
        return f"table {table.id} has no primary key: add one, e.g. ALTER TABLE {quoted_name} ADD PRIMARY KEY ({_candidate(table)})"
    if len(table.key) > MAX_KEY_COLUMNS:
        return f"table {table.id} has a primary key of {len(table.key)} columns: at most {MAX_KEY_COLUMNS} can be replicated"
    computed = [name for name in table.key if name not in table.data_columns]
    if computed:
        return f"table {table.id} has a generated column in its primary key ({', '.join(computed)}): make it an ordinary column"
    if any(text.endswith("WITHOUT OVERLAPS)") and " PRIMARY KEY " in text for text in table.constraints):
        return f"table {table.id} has a temporal primary key (WITHOUT OVERLAPS), which can't be replicated yet: add an ordinary one"
    return None


#: Columns of a key whose JSON doesn't cast back to the value: rows, arrays, what is JSON or becomes it by a cast of its own, money (which its locale prints).
_SHAPED = """
SELECT string_agg(format('%%s %%s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ')
FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid JOIN pg_attribute a ON a.attrelid = c.oid CROSS JOIN LATERAL (
    WITH RECURSIVE b(oid) AS (SELECT a.atttypid UNION ALL SELECT y.typbasetype FROM b JOIN pg_type y ON y.oid = b.oid AND y.typtype = 'd')
    SELECT y.* FROM b JOIN pg_type y ON y.oid = b.oid AND y.typtype <> 'd'
  ) y
WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND a.attname = ANY (%(key)s::text[])
  AND (y.typtype = 'c' OR y.typcategory = 'A' OR y.oid IN ('json'::regtype, 'jsonb'::regtype, 'money'::regtype)
    OR EXISTS (SELECT FROM pg_cast k WHERE k.castsource = y.oid AND k.casttarget IN ('json'::regtype, 'jsonb'::regtype) AND k.castmethod = 'f'))"""
_HIDDEN = """
SELECT row_security_active(c.oid) AND NOT (SELECT rolbypassrls OR rolsuper FROM pg_roles WHERE rolname = current_user)
FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid WHERE n.nspname = %(schema)s AND c.relname = %(name)s"""

#: The owner of a table that this role can't replicate: only an owner takes off what would act on a follower, unless the role may switch triggers off.
_ANOTHER_S = """
SELECT pg_get_userbyid(c.relowner), current_user FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND NOT pg_has_role(c.relowner, 'USAGE') AND NOT (
    has_schema_privilege(n.oid, 'USAGE') AND has_parameter_privilege('session_replication_role', 'SET')
    AND (SELECT bool_and(has_table_privilege(c.oid, r)) FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRIGGER']) r))"""


def refusal_here(connection: Connection, table: Table) -> str | None:
    """Why this role can't replicate a table, or why nobody can because of what its key's types are; None when it can."""
    names = {"schema": table.schema or "", "name": table.name}
    if roles := connection.exec_driver_sql(_ANOTHER_S, names).first():
        owner, role = (quote(name) for name in roles)
        name = qualified(table.schema, table.name)
        return f"table {table.id} belongs to {owner}: to replicate it {role} must own it too; GRANT {owner} TO {role}, or ALTER TABLE {name} OWNER TO {role}"
    if connection.exec_driver_sql(_HIDDEN, names).scalar():  # rows that the shipper can't see would count as deleted (HAZARDS 13)
        return f"table {table.id} has row level security in force for this role: replicating it needs a role with BYPASSRLS"
    if shaped := connection.exec_driver_sql(_SHAPED, {**names, "key": list(table.key)}).scalar():
        return f"table {table.id} has a primary key of a composed type ({shaped}): it can't be replicated yet; give it a key of a simple type"
    return refused_type(connection, table)


def _candidate(table: Table) -> str:
    """The columns of a unique constraint that would do as a key, else an ellipsis."""
    required = {column.name for column in table.columns if not column.nullable}
    return next((quoted(columns) for columns in table.unique if required.issuperset(columns)), "…")
