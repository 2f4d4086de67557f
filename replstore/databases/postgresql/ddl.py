"""Making tables anew on another PostgreSQL node, exactly as they are on this one.

The statements name everything with its schema, so the other session's search path doesn't matter.  Extensions, languages, roles, collations
and tablespaces are not made: where one is missing, the statement that needs it fails with the server's own error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from replstore.databases.catalog import TRIGGER_PREFIX, Column, Table, differences, quote
from replstore.databases.postgresql import parts
from replstore.databases.postgresql.reading import literal, qualified, read
from replstore.databases.postgresql.usertypes import Closure, type_statements
from replstore.errors import CannotReplicate

Row = dict[str, Any]

# Of the session that runs the statements: functions may come before the tables that they use, and constants are read as they were printed.
_SESSION = ["SET LOCAL check_function_bodies TO off", "SET LOCAL intervalstyle TO postgres", "SET LOCAL standard_conforming_strings TO on"]


def create_statements(tables: Collection[Table], connection: Connection, *, target: Connection | None = None) -> list[str]:
    """What makes these tables, and what they stand on, on another node; to be executed in order in one transaction.

    Schemas, types, functions, sequences and tables come first, then constraints and indexes, then foreign keys, then triggers.

    Args:
        tables: ordinary and partitioned tables of this node; those they refer to must be among them or exist on the other node.
        connection: of the node that has the tables.
        target: of the node that is to get them.  Types and shared sequences that it has already are then not made again (labels that its
            enumerations lack are added, see ``label_statements``); without it, nothing may exist there but schemas and functions.

    Raises:
        CannotReplicate: a table is of another kind, or the other node has a type of the same name with another definition.
    """
    return _create(tables, {member.id: member for table in tables for member in table.members}, connection, target)


def partition_statements(wanted: Table, present: Table, fresh: Collection[str], connection: Connection, *, target: Connection) -> list[str] | None:
    """What gives a table the partitions that it has on this node, the new ones empty, and takes off others with their rows; for the other node.

    Args:
        wanted: the table on this node.
        present: the same on the other one.
        fresh: ids of the new partitions; what the other node has under their names is not what is meant.
        connection: of this node.
        target: of the other node.

    Returns:
        None: the table differs in more than that.
    """
    there = {member.id for member in present.partitions}
    kept = {member.id for member in wanted.partitions if member.id in there and member.id not in fresh}
    added = {member.id: member for member in wanted.partitions if member.id not in kept}
    whole = {wanted.id, *kept}
    here, other = (replace(table, partitions=tuple(each for each in table.partitions if each.id in kept)) for table in (wanted, present))
    torn = any(member.id in kept and member.parent not in whole for table in (wanted, present) for member in table.partitions)
    if torn or not set(added) <= set(fresh) or differences(here, other):
        return None
    tops = [member for member in present.partitions if member.id not in kept and member.parent in whole]  # their own partitions go with them
    parents = {member.id: member for member in present.members}
    # a partition that is referred to can't be dropped, but it can be taken off if no row refers to one of its own
    drops = [f"ALTER TABLE {_name(parents[member.parent])} DETACH PARTITION {_name(member)}; DROP TABLE {_name(member)}" for member in tops]
    return [*drops, *(_create([wanted], added, connection, target) if added else [])]


def _create(tables: Collection[Table], made: Mapping[str, Table], connection: Connection, target: Connection | None) -> list[str]:
    """What makes some members, by id, of these tables."""
    if not tables:
        return []
    for table in tables:
        for member in table.members:
            if member.kind not in ("ordinary", "partitioned"):
                raise CannotReplicate(f"table {table.id} can't be made on another node: {member.id} is of kind {member.kind}")
    members = list(made.values())
    parents = {each.id: each for table in tables for each in table.members}
    found = read(connection, parts.QUERIES, {**_names(members), "prefix": TRIGGER_PREFIX}, parts.COMMON)
    closure = Closure.of(connection, tables, found["functions"])
    types = type_statements(closure, target)
    shared = _present_sequences(found["sequences"], members, target)
    schemas = dict.fromkeys(
        [*(member.schema for member in members), *closure.schemas, *(row["schema"] for name in ("functions", "sequences") for row in found[name])]
    )
    details = {(row["schema"], row["table"], row["name"]): row for row in found["columns"]}
    return [
        *_SESSION,
        *(f"CREATE SCHEMA IF NOT EXISTS {quote(schema)}" for schema in schemas if schema),
        *types,
        *(row["definition"] for row in found["functions"] if row["before"]),
        *(_create_sequence(row) for row in found["sequences"] if (row["schema"], row["name"]) not in shared),
        *(_create_table(member, details, parents.get(member.parent)) for member in members),
        *(statement for member in members if member.parent for statement in _alter_partition(member, parents[member.parent], details)),
        *(statement for row in found["columns"] for statement in _alter_column(row)),
        *_own_sequences(found["sequences"], members),
        *_constraints(members),
        *(row["statement"] for row in found["indexes"]),
        *(row["statement"] for row in found["settings"]),
        *(f"ALTER TABLE {_name(table)} ADD CONSTRAINT {quote(key.name)} {key.definition}" for table in members for key in table.foreign_keys),
        *(row["definition"] for row in found["functions"] if not row["before"]),
        *(definition for table in members for _, definition in table.triggers),
        *(row["statement"] for row in found["triggers"]),
        *(row["statement"] for row in found["policies"]),
        *(row["statement"] for row in found["comments"]),
    ]


def label_statements(tables: Collection[Table], connection: Connection, target: Connection) -> list[str]:
    """What adds the labels that enumerations lack on the other node; to be committed there before ``create_statements`` is executed.

    PostgreSQL refuses a label that its own transaction has added to an older type, in an index or a check for example.
    """
    if not tables:
        return []
    found = read(connection, {"functions": parts.QUERIES["functions"]}, {**_names(_members(tables)), "prefix": TRIGGER_PREFIX}, parts.COMMON)
    return [statement for statement in type_statements(Closure.of(connection, tables, found["functions"]), target) if " ADD VALUE " in statement]


def drop_statements(tables: Iterable[Table]) -> list[str]:
    """What removes these tables with the sequences they own, in one transaction; nothing else goes with them.

    Foreign keys go first, so that the order of the tables doesn't matter.  A view, or another table's foreign key, that depends on one of
    them makes its statement fail.
    """
    tables = list(tables)
    return [
        *(
            f"ALTER TABLE IF EXISTS {_name(member)} DROP CONSTRAINT IF EXISTS {quote(key.name)}"
            for member in reversed(_members(tables))
            for key in reversed(member.foreign_keys)
        ),
        *(f"DROP TABLE IF EXISTS {_name(table)}" for table in reversed(tables)),
    ]


def left_out(tables: Collection[Table], connection: Connection) -> list[str]:
    """What hangs on these tables and is not made on another node, one sentence each: views, rights, publications."""
    if not tables:
        return []
    found = read(connection, parts.LEFT_OUT, _names(_members(tables)), parts.COMMON)
    return [row["sentence"] for rows in found.values() for row in rows]


def _members(tables: Iterable[Table]) -> list[Table]:
    return [member for table in tables for member in table.members]


def _names(tables: Iterable[Table]) -> dict[str, list[str]]:
    tables = list(tables)
    return {"schemas": [table.schema or "" for table in tables], "names": [table.name for table in tables]}


def _name(table: Table) -> str:
    return qualified(table.schema, table.name)


def _create_table(table: Table, details: Mapping[tuple[str, str, str], Row], parent: Table | None) -> str:
    method = "".join(f" {option.replace('using ', 'USING ', 1)}" for option in table.options if option.startswith("using "))
    storage = [_storage(option) for option in table.options if "=" in option]
    end = (f" PARTITION BY {table.partition_by}" if table.partition_by else "") + method + (f" WITH ({', '.join(storage)})" if storage else "")
    if parent is not None:
        return f"CREATE TABLE {_name(table)} PARTITION OF {_name(parent)} {table.bound}{end}"
    columns = ",\n  ".join(_column(column, details[table.schema or "", table.name, column.name]) for column in table.columns)
    return f"CREATE TABLE {_name(table)} (\n  {columns}\n){end}"


def _alter_partition(table: Table, parent: Table, details: Mapping[tuple[str, str, str], Row]) -> Iterator[str]:
    """What columns of a partition have otherwise than those of the table that it is a part of."""
    for column in table.columns:
        alter, above = f"ALTER TABLE {_name(table)}", parent.column(column.name)
        if column.default != above.default and not column.generated:
            default = "DROP DEFAULT" if column.default is None else f"SET DEFAULT {column.default}"
            yield f"{alter} ALTER COLUMN {quote(column.name)} {default}"
        if above.nullable and not column.nullable:
            name = details[table.schema or "", table.name, column.name]["not_null"]
            yield (
                f"{alter} ADD CONSTRAINT {quote(name)} NOT NULL {quote(column.name)}"
                if name
                else f"{alter} ALTER COLUMN {quote(column.name)} SET NOT NULL"
            )


def _storage(option: str) -> str:
    """A storage parameter as CREATE TABLE takes it: the catalog keeps its value without quotes."""
    name, _, value = option.partition("=")
    return f"{'.'.join(quote(part) for part in name.split('.'))} = {literal(value)}"


def _column(column: Column, detail: Row) -> str:
    words = [quote(column.name), column.type]
    if column.collation:
        words.append(f"COLLATE {column.collation}")
    if column.generated in ("stored", "virtual"):
        words.append(f"GENERATED ALWAYS AS ({column.default}) {column.generated.upper()}")
    elif column.generated:
        sequence = f"SEQUENCE NAME {qualified(detail['sequence_schema'], detail['sequence'])} {_sequence_options(detail)}"
        words.append(f"GENERATED {column.generated.removeprefix('identity ').upper()} AS IDENTITY ({sequence})")
    elif column.default is not None:
        words.append(f"DEFAULT {column.default}")
    if not column.nullable:
        # PostgreSQL 18 gives the constraint a name
        words.append((f"CONSTRAINT {quote(detail['not_null'])} " if detail["not_null"] else "") + "NOT NULL" + detail["not_null_suffix"])
    return " ".join(words)


def _alter_column(row: Row) -> list[str]:
    alter = f"ALTER TABLE {qualified(row['schema'], row['table'])} ALTER COLUMN {quote(row['name'])} SET"
    statements = []
    if row["storage"]:
        statements.append(f"{alter} STORAGE {row['storage']}")
    if row["compression"]:
        statements.append(f"{alter} COMPRESSION {row['compression']}")
    if row["statistics"] is not None:
        statements.append(f"{alter} STATISTICS {row['statistics']}")
    if row["unchecked"]:  # NOT NULL that existing rows need not fulfil
        statements.append(f"ALTER TABLE {qualified(row['schema'], row['table'])} ADD {row['unchecked']}")
    return statements


def _sequence_options(row: Row) -> str:
    cycle = "CYCLE" if row["cycle"] else "NO CYCLE"
    return (
        f"START WITH {row['start']} INCREMENT BY {row['increment']} MINVALUE {row['lowest']} MAXVALUE {row['highest']} CACHE {row['cache']} {cycle}"
    )


def _create_sequence(row: Row) -> str:
    return f"CREATE SEQUENCE {qualified(row['schema'], row['name'])} AS {row['type']} {_sequence_options(row)}"


def _own_sequences(rows: list[Row], tables: Iterable[Table]) -> list[str]:
    made = {(table.schema, table.name) for table in tables}
    return [
        f"ALTER SEQUENCE {qualified(row['schema'], row['name'])} OWNED BY {qualified(row['owner_schema'], row['owner'])}.{quote(row['owner_column'])}"
        for row in rows
        if (row["owner_schema"], row["owner"]) in made
    ]


def _present_sequences(rows: list[Row], tables: Iterable[Table], target: Connection | None) -> set[tuple[str, str]]:
    """Sequences that the other node has and that don't go and come with the tables."""
    made = {(table.schema, table.name) for table in tables}
    shared = [row for row in rows if (row["owner_schema"], row["owner"]) not in made]
    if target is None or not shared:
        return set()
    names = {"schemas": [row["schema"] for row in shared], "names": [row["name"] for row in shared]}
    present = read(target, {"sequences": "SELECT schema, name FROM t"}, names, parts.COMMON)["sequences"]
    return {(row["schema"], row["name"]) for row in present}


def _constraints(tables: Iterable[Table]) -> list[str]:
    """Primary keys first: a check never needs one, an index of the same name never comes before."""
    found = [(f"ALTER TABLE {_name(table)} ADD ", text) for table in tables for text in table.constraints]
    keys = [alter + text for alter, text in found if " PRIMARY KEY " in text]
    return keys + [statement for alter, text in found if (statement := alter + text) not in keys]
