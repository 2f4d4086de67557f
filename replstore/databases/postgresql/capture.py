"""What runs inside PostgreSQL: journal, marker, guard and the triggers that capture which keys a statement changed.

- The **journal** has one row per statement and table: the keys as a JSON array of arrays (null: the whole table, after TRUNCATE) and the
  transaction's xid8.  JSON text of a value casts back to the very value for every key type, whatever the session's settings.
- The **guard** is a shared advisory lock plus a sequence's value, which is not under MVCC: a snapshot older than a switchover can't slip past it
  (HAZARDS 3).  Its value is ``2 * term + 1`` on the writer and even elsewhere.  It sits on the marker too, so it is a transaction's first act.
- Any role may set the mark ``replstore.mark``: it is a mark, not a right.  replstore sets it with SET LOCAL only.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from replstore.databases.catalog import Table

#: Classid of replstore's advisory locks ('repl' in ASCII); 1 is the guard, 2 the shipper's turn, 3 a migration's transaction, 4 a whole migration.
LOCK_CLASS = 0x7265706C
GUARD, TURN, MIGRATION, ONE_MIGRATION = 1, 2, 3, 4
NOT_THE_WRITER = "RS001"
EVENTS = {
    "insert": "NEW TABLE AS new_rows",
    "update": "OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "delete": "OLD TABLE AS old_rows",
    "truncate": "",
}

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
        IF coalesce(current_setting('replstore.mark', true), '') <> '' THEN RETURN NULL; END IF;
        PERFORM pg_advisory_xact_lock_shared({LOCK_CLASS}, {GUARD});
        IF (SELECT last_value FROM replstore.guard) % 2 = 0 THEN
            RAISE EXCEPTION 'replstore: this node is not the writer, table %.% can''t be changed here', TG_TABLE_SCHEMA, TG_TABLE_NAME
                USING ERRCODE = '{NOT_THE_WRITER}', HINT = 'Ask `replstore status` which node is the writer.';
        END IF;
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
    return "replstore.capture_" + sha256(table.id.encode()).hexdigest()[:16]


def install_statements(table: Table) -> list[str]:
    """The statements that put guard and capture on a table, replacing older ones."""

    def keys(alias: str) -> str:
        return f"jsonb_build_array({', '.join(f'{alias}.{quote(column)}' for column in table.key)}) AS k"

    def record(rows: str) -> str:
        return f"INSERT INTO replstore.journal (tbl, keys) SELECT {text(table.id)}, jsonb_agg(r.k) FROM ({rows}) r HAVING count(*) > 0;"

    changed = f"SELECT {keys('n')} FROM new_rows n UNION SELECT {keys('o')} FROM old_rows o"
    name, function = qualified(table), capture_function(table)
    # a session may have asked for rounded floats, and a rounded key names another row
    exact = " SET extra_float_digits = 3" if any("double" in table.column(key).type or "real" in table.column(key).type for key in table.key) else ""
    statements = [
        f"""CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp{exact} AS $$
        BEGIN
            IF current_setting('replstore.mark', true) = 'apply' THEN RETURN NULL; END IF;
            IF TG_OP = 'INSERT' THEN {record(f"SELECT {keys('n')} FROM new_rows n")}
            ELSIF TG_OP = 'UPDATE' THEN {record(changed)}
            ELSIF TG_OP = 'DELETE' THEN {record(f"SELECT {keys('o')} FROM old_rows o")}
            ELSE INSERT INTO replstore.journal (tbl, keys) VALUES ({text(table.id)}, NULL);
            END IF;
            RETURN NULL;
        END $$""",
        f"CREATE OR REPLACE TRIGGER replstore_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {name} FOR EACH STATEMENT EXECUTE FUNCTION replstore.guard()",
    ]
    for event, rows in EVENTS.items():
        referencing = f"REFERENCING {rows} " if rows else ""
        statements.append(
            f"CREATE OR REPLACE TRIGGER replstore_capture_{event} AFTER {event.upper()} ON {name} {referencing}FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        )
    return statements


#: One row per table: what must not change unnoticed while it is replicated (HAZARDS 8).  {tables}: VALUES of id, schema, name.
FINGERPRINTS = """
SELECT w.id,
    c.oid || ' ' || (SELECT string_agg(a.attnum || ':' || a.attname || ':' || a.atttypid || ':' || a.atttypmod, ',' ORDER BY a.attnum)
                     FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
    || CASE WHEN c.relpersistence <> 'p' OR c.relispartition OR EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent))
        OR EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid) THEN ' not ordinary' ELSE '' END
    || ' ' || coalesce((SELECT string_agg(t.tgname || ':' || t.tgenabled::text || ':' || t.tgtype || ':' || t.tgfoid, ',' ORDER BY t.tgname)
                        FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname LIKE 'replstore\\_%'), 'none')
FROM (VALUES {tables}) w(id, schema, name) JOIN pg_namespace n ON n.nspname = w.schema
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind = 'r'
"""


def select_fingerprints(tables: Iterable[Table]) -> str:
    """The SELECT of id and fingerprint of those tables that exist."""
    return FINGERPRINTS.format(tables=_values(tables))


def select_storage(tables: Iterable[Table]) -> str:
    """The SELECT of id and file of those tables that exist: ALTER TABLE writes another file when it rewrites rows."""
    return (
        f"SELECT w.id, c.relfilenode::text FROM (VALUES {_values(tables)}) w(id, schema, name) "
        "JOIN pg_namespace n ON n.nspname = w.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name"
    )


def _values(tables: Iterable[Table]) -> str:
    return ", ".join(f"({text(table.id)}, {text(table.schema or 'public')}, {text(table.name)})" for table in tables) or "(NULL, NULL, NULL)"
