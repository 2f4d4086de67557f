"""What runs inside PostgreSQL: journal, marker, guard and the triggers that capture which keys a statement changed.

- The **journal** has one row per statement and table: the keys as a JSON array of arrays (null: the whole table, after TRUNCATE) and the
  transaction's xid8.  JSON text of a value casts back to the very value for every key type, whatever the session's settings.  A statement that changes
  more than ``CHUNK`` rows has several: PostgreSQL builds no JSON array above 256 MB, and the statement is the user's.
- The **guard** is a shared advisory lock plus a sequence's value, which is not under MVCC: a snapshot older than a switchover can't slip past it
  (HAZARDS 3).  Its value is ``2 * term + 1`` on the writer and even elsewhere.  It sits on the marker too, so it is a transaction's first act.
- A **partition** is part of its table, and may be named by a statement of its own: guard and capture are on every member.  Partitions that come later
  get row triggers by themselves, whose condition is false for those that are known.
- Any role may set the mark ``replstore.mark``: it is a mark, not a right.  replstore sets it with SET LOCAL only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from hashlib import sha256

from replstore.databases.catalog import Table

#: Classid of replstore's advisory locks ('repl' in ASCII); 1 is the guard, 2 the shipper's turn, 3 a migration's transaction, 4 a whole migration.
LOCK_CLASS = 0x7265706C
GUARD, TURN, MIGRATION, ONE_MIGRATION = 1, 2, 3, 4
NOT_THE_WRITER = "RS001"
#: Keys in one row of the journal; a key can be 2.7 kB long.
CHUNK = 20_000
#: Types whose JSON doesn't depend on the settings of the session that writes it, or is read back exactly whatever they are.
_PLAIN_TYPES = re.compile(
    r"(smallint|integer|bigint|oid|numeric|boolean|uuid|bytea|text|name|character|character varying|date|timestamp|time)"
    r"(\(\d+(,-?\d+)?\))?( with(out)? time zone)?"
)
#: Of these, those of which two values that are equal are one and the same, so that UNION merges nothing else.
_SAME_IS_SAME = re.compile(r"smallint|integer|bigint|oid|boolean|uuid|bytea|date")
_PINNED = " SET extra_float_digits = 3 SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres' SET timezone = 'UTC' SET bytea_output = 'hex'"
#: Triggers that a table has beside SQLite only (``databases/mixed``); they go when it has another partner.
CHECKS = ("replstore_check_insert", "replstore_check_update")
EVENTS = {
    "insert": "NEW TABLE AS new_rows",
    "update": "OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "delete": "OLD TABLE AS old_rows",
    "truncate": "",
}

_CHECK_WRITER = f"""IF coalesce(current_setting('replstore.mark', true), '') = '' THEN
            PERFORM pg_advisory_xact_lock_shared({LOCK_CLASS}, {GUARD});
            IF (SELECT last_value FROM replstore.guard) % 2 = 0 THEN
                RAISE EXCEPTION 'replstore: this node is not the writer, table %.% can''t be changed here', TG_TABLE_SCHEMA, TG_TABLE_NAME
                    USING ERRCODE = '{NOT_THE_WRITER}', HINT = 'Ask `replstore status` which node is the writer.';
            END IF;
        END IF;"""

CONTROL_STATEMENTS = [
    """CREATE TABLE replstore.journal (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, xid xid8 NOT NULL DEFAULT pg_current_xact_id(), tbl text NOT NULL, keys jsonb,
        at timestamptz NOT NULL DEFAULT clock_timestamp())""",
    "CREATE INDEX journal_xid ON replstore.journal (xid)",
    """CREATE TABLE replstore.marker (
        id text PRIMARY KEY, key text UNIQUE, fn text, outcome text NOT NULL CHECK (outcome IN ('committed', 'lost')), result text,
        durability text NOT NULL, term_no bigint NOT NULL, at timestamptz NOT NULL DEFAULT now(), xid xid8 NOT NULL DEFAULT pg_current_xact_id())""",
    "CREATE INDEX marker_xid ON replstore.marker (xid)",
    "CREATE SEQUENCE replstore.guard MINVALUE 0 START 0",
    f"""CREATE FUNCTION replstore.guard() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        {_CHECK_WRITER}
        RETURN NULL;
    END $$""",
    f"""CREATE FUNCTION replstore.guard_marker() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        IF coalesce(current_setting('replstore.mark', true), '') <> '' THEN RETURN NEW; END IF;
        PERFORM pg_advisory_xact_lock_shared({LOCK_CLASS}, {GUARD});
        IF (SELECT last_value FROM replstore.guard) <> NEW.term_no * 2 + 1 THEN
            RAISE EXCEPTION 'replstore: this node is not the writer of term %', NEW.term_no
                USING ERRCODE = '{NOT_THE_WRITER}', HINT = 'Ask `replstore status` which node is the writer.';
        END IF;
        RETURN NEW;
    END $$""",
    "CREATE TRIGGER replstore_guard BEFORE INSERT ON replstore.marker FOR EACH ROW EXECUTE FUNCTION replstore.guard_marker()",
]


def quote(name: str) -> str:
    """An identifier, quoted."""
    return '"' + name.replace('"', '""') + '"'


def qualified(table: Table) -> str:
    """A table's name with its schema, quoted."""
    return f"{quote(table.schema or 'public')}.{quote(table.name)}"


def text(value: str) -> str:
    """A string literal for statements that take no parameters."""
    return "'" + value.replace("'", "''") + "'"


def capture_function(table: Table) -> str:
    """The name of a table's capture function: names can be 63 bytes long, so a hash stands for the table's."""
    return f"replstore.capture_{_digest(table)}"


def _digest(table: Table) -> str:
    return sha256(table.id.encode()).hexdigest()[:16]


def install_statements(table: Table) -> list[str]:
    """The statements that put guard and capture on a table and its partitions, replacing older ones."""
    return [
        *(f"DROP TRIGGER IF EXISTS {name} ON {qualified(table)}" for name in CHECKS),
        _capture_function(table),
        *(statement for member in table.members for statement in _statement_triggers(table, member)),
        *(_partition_triggers(table) if table.partition_by else ()),
    ]


def _keys(table: Table, row: str) -> str:
    return f"jsonb_build_array({', '.join(f'{row}.{quote(column)}' for column in table.key)})"


def _capture_function(table: Table) -> str:
    def record(rows: str, *, plain: bool) -> str:
        # an array of arrays makes the same JSON in half the time, where the key is one value that can be an array's
        keys = "to_jsonb(array_agg(ARRAY[r.k]))" if plain else "jsonb_agg(r.k)"
        return (
            f"INSERT INTO replstore.journal (tbl, keys) SELECT {text(table.id)}, {keys} "
            f"FROM (SELECT q.k, (row_number() OVER () - 1) / {CHUNK} AS chunk FROM ({rows}) q(k)) r GROUP BY r.chunk;"
        )

    types = [table.column(key).type for key in table.key]
    one = len(types) == 1 and bool(_PLAIN_TYPES.fullmatch(types[0]))
    both = one and bool(_SAME_IS_SAME.fullmatch(types[0]))
    new, old = (f"SELECT {f'r.{quote(table.key[0])}' if one else _keys(table, 'r')} FROM {rows} r" for rows in ("new_rows", "old_rows"))
    changed = f"{new} UNION {old}" if both else f"SELECT {_keys(table, 'r')} FROM new_rows r UNION SELECT {_keys(table, 'r')} FROM old_rows r"
    body = f"""
    BEGIN
        IF current_setting('replstore.mark', true) = 'apply' THEN RETURN NULL; END IF;
        {_for_partitions(table) if table.partition_by else ""}
        IF TG_OP = 'INSERT' THEN {record(new, plain=one)}
        ELSIF TG_OP = 'UPDATE' THEN {record(changed, plain=both)}
        ELSIF TG_OP = 'DELETE' THEN {record(old, plain=one)}
        ELSE INSERT INTO replstore.journal (tbl, keys) VALUES ({text(table.id)}, NULL);
        END IF;
        RETURN NULL;
    END"""
    pinned = "" if all(map(_PLAIN_TYPES.fullmatch, types)) else _PINNED
    return (
        f"CREATE OR REPLACE FUNCTION {capture_function(table)}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
        f"SET search_path = pg_catalog, pg_temp{pinned} AS {text(body)}"
    )


def _statement_triggers(table: Table, member: Table) -> Iterator[str]:
    name, function = qualified(member), capture_function(table)
    yield f"CREATE OR REPLACE TRIGGER replstore_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {name} FOR EACH STATEMENT EXECUTE FUNCTION replstore.guard()"
    for event, rows in EVENTS.items():
        referencing = f"REFERENCING {rows} " if rows else ""
        yield f"CREATE OR REPLACE TRIGGER replstore_capture_{event} AFTER {event.upper()} ON {name} {referencing}FOR EACH STATEMENT EXECUTE FUNCTION {function}()"


# -- partitions


def _moving(table: Table) -> str:
    """The setting that counts the UPDATE and MERGE statements which are moving rows between partitions just now."""
    return f"replstore.moving_{_digest(table)}"


def _for_partitions(table: Table) -> str:
    """What the capture function of a partitioned table does besides.

    MERGE takes a row that it moves to another partition for a deleted and an inserted one, and then fires no trigger for either: these rows are
    captured one by one.
    """
    count = f"coalesce(nullif(current_setting({text(_moving(table))}, true), ''), '0')::int"
    one = f"INSERT INTO replstore.journal (tbl, keys) VALUES ({text(table.id)}, jsonb_build_array({{}}));"
    return f"""IF TG_LEVEL = 'ROW' THEN
            {_CHECK_WRITER}
            IF TG_OP <> 'INSERT' THEN {one.format(_keys(table, "OLD"))} END IF;
            IF TG_OP <> 'DELETE' THEN {one.format(_keys(table, "NEW"))} END IF;
            RETURN NULL;
        ELSIF TG_OP = 'UPDATE' AND TG_WHEN = 'BEFORE' THEN
            PERFORM set_config({text(_moving(table))}, ({count} + 1)::text, true);
            RETURN NULL;
        ELSIF TG_OP = 'UPDATE' THEN
            PERFORM set_config({text(_moving(table))}, greatest({count} - 1, 0)::text, true);
        END IF;"""


def _partition_triggers(table: Table) -> Iterator[str]:
    """Row triggers, which every partition has that is made or attached later, and which fire for the rows of those and for rows that MERGE moves."""
    for member in table.members:
        if member.partition_by:
            for event in ("insert", "update", "delete"):  # older ones, and its own of the time before it became a partition
                yield f"DROP TRIGGER IF EXISTS replstore_row_{event}_{_digest(member)} ON {qualified(member)}"
            yield (
                f"CREATE OR REPLACE TRIGGER replstore_moving BEFORE UPDATE ON {qualified(member)} FOR EACH STATEMENT "
                f"EXECUTE FUNCTION {capture_function(table)}()"
            )
    rows = {"insert": ("NEW",), "update": ("OLD", "NEW"), "delete": ("OLD",)}
    for event, names in rows.items():
        unknown = " OR ".join(f"{row}.tableoid <> ALL (%1$L::oid[])" for row in names)
        if event != "update":
            unknown += f" OR current_setting({text(_moving(table))}, true) > '0'"
        trigger = (
            f"CREATE TRIGGER replstore_row_{event}_{_digest(table)} AFTER {event.upper()} ON {_format(qualified(table))} FOR EACH ROW "
            f"WHEN ({unknown}) EXECUTE FUNCTION {capture_function(table)}()"
        )
        # numbers: a name in the condition would keep its partition from being dropped
        known = ", ".join(f"{text(qualified(member))}::regclass::oid" for member in table.members)
        yield f"DO {text(f'BEGIN EXECUTE format({text(trigger)}, ARRAY[{known}]); END')}"


def _format(name: str) -> str:
    return name.replace("%", "%%")


def journal_rows(table: Table, partition: Table) -> str:
    """The statement that journals every row of a partition."""
    return (
        f"INSERT INTO replstore.journal (tbl, keys) SELECT {text(table.id)}, jsonb_agg(r.k) FROM (SELECT {_keys(table, 't')} AS k, "
        f"(row_number() OVER () - 1) / {CHUNK} AS chunk FROM {qualified(partition)} t) r GROUP BY r.chunk"
    )


_TRIGGERS = """coalesce((SELECT string_agg(t.tgname || ':' || t.tgenabled::text || ':' || t.tgtype || ':' || t.tgfoid, ',' ORDER BY t.tgname)
        FROM pg_trigger t WHERE t.tgrelid = {0}.oid AND t.tgname LIKE 'replstore\\_%'), 'none')"""
#: What is computed doesn't travel: each node has its expression.
_COMPUTED = """CASE WHEN a.attgenerated <> '' THEN ':' || a.attgenerated::text
        || (SELECT md5(d.adbin::text) FROM pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum) ELSE '' END"""
_NOT_ORDINARY = """CASE WHEN {0}.relpersistence <> 'p' OR EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = {0}.oid)
        OR EXISTS (SELECT FROM pg_subscription_rel s WHERE s.srrelid = {0}.oid) THEN ' not ordinary' ELSE '' END"""
#: What stands between the table's own print and those of its partitions.
PARTITION = "\n"

#: One row per table: what must not change unnoticed while it is replicated (HAZARDS 8).  {tables}: VALUES of id, schema, name.
#: Whatever is read here must also be among the rows whose changes ``definitions.py`` notices.
#: Partitions are read from the catalog, which is in the snapshot: the functions that list them wait for whoever attaches one.
FINGERPRINTS = f"""
SELECT w.id,
    c.oid || ' ' || (SELECT string_agg(a.attnum || ':' || replace(a.attname, E'\\n', ' ') || ':' || a.atttypid || ':' || a.atttypmod
                        || {_COMPUTED}, ',' ORDER BY a.attnum)
                     FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
    || {_NOT_ORDINARY.format("c")}
    || CASE WHEN c.relispartition OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid OR c.relkind = 'r' AND i.inhparent = c.oid)
        THEN ' inherits' ELSE '' END
    || ' ' || {_TRIGGERS.format("c")}
    || CASE WHEN c.relkind = 'p' THEN coalesce((
        WITH RECURSIVE m(parent, oid, detaching) AS (
            SELECT i.inhparent, i.inhrelid, i.inhdetachpending FROM pg_inherits i WHERE i.inhparent = c.oid
            UNION ALL SELECT i.inhparent, i.inhrelid, i.inhdetachpending FROM m JOIN pg_inherits i ON i.inhparent = m.oid)
        SELECT string_agg(E'\\n' || encode(convert_to(pn.nspname || '.' || p.relname, 'UTF8'), 'hex')
            || ' ' || p.oid || ' of ' || m.parent || ' ' || p.relkind::text || m.detaching || md5(p.relpartbound::text)
            || {_NOT_ORDINARY.format("p")} || ' ' || {_TRIGGERS.format("p")}, '' ORDER BY p.oid)
        FROM m JOIN pg_class p ON p.oid = m.oid JOIN pg_namespace pn ON pn.oid = p.relnamespace), '') ELSE '' END
FROM (VALUES {{tables}}) w(id, schema, name) JOIN pg_namespace n ON n.nspname = w.schema
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind IN ('r', 'p')
"""


def select_fingerprints(tables: Iterable[Table]) -> str:
    """The SELECT of id and fingerprint of those tables that exist."""
    return FINGERPRINTS.format(tables=_values(tables))


def oids(print: str) -> list[str]:
    """The oids in a fingerprint: the table's own, and those of its partitions."""
    own, *parts = print.split(PARTITION)
    return [own.split(" ", 1)[0], *(part.split(" ", 2)[1] for part in parts)]


def joined(table: Table, before: str, now: str) -> set[str] | None:
    """Ids of the partitions that came between two fingerprints of a table; None: more than which partitions it has is different."""
    (own, *parts), (own_now, *parts_now) = before.split(PARTITION), now.split(PARTITION)
    old, new = ({part.split(" ", 1)[0]: part for part in each} for each in (parts, parts_now))
    if own != own_now or any(old[name] != new[name] for name in old.keys() & new.keys()):
        return None
    return {member.id for member in table.partitions if f"{member.schema}.{member.name}".encode().hex() not in old}


def select_storage(tables: Iterable[Table]) -> str:
    """The SELECT of id and file of those tables and partitions that exist: ALTER TABLE writes another file when it rewrites rows."""
    return (
        f"SELECT w.id, c.relfilenode::text FROM (VALUES {_values(member for table in tables for member in table.members)}) w(id, schema, name) "
        "JOIN pg_namespace n ON n.nspname = w.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name"
    )


def _values(tables: Iterable[Table]) -> str:
    return ", ".join(f"({text(table.id)}, {text(table.schema or 'public')}, {text(table.name)})" for table in tables) or "(NULL, NULL, NULL)"
