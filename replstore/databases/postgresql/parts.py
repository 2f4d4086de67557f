"""Queries over PostgreSQL's catalog for the parts of a table that only ``ddl.py`` needs, most of them as finished statements."""

from __future__ import annotations

#: ``t``: the relations whose names are asked for, by schema.
COMMON = """t AS MATERIALIZED (
  SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relowner, c.relacl, c.relkind
  FROM unnest(%(schemas)s::text[], %(names)s::text[]) w(schema, name)
    JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
)"""

_SEQUENCE = """s.seqstart AS start, s.seqincrement AS increment, s.seqmin AS lowest, s.seqmax AS highest, s.seqcache AS cache, s.seqcycle AS cycle"""

_NOT_AN_EXTENSIONS = "NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = '{0}'::regclass AND e.objid = {1} AND e.deptype = 'e')"

QUERIES: dict[str, str] = {}

QUERIES["columns"] = f"""
SELECT t.schema, t.name AS "table", a.attname AS name, {_SEQUENCE}, sn.nspname AS sequence_schema, sc.relname AS sequence,
  CASE WHEN k.convalidated THEN k.conname END AS not_null,
  CASE WHEN k.convalidated AND k.connoinherit THEN ' NO INHERIT' ELSE '' END AS not_null_suffix,
  CASE WHEN NOT k.convalidated AND k.coninhcount = 0 THEN format('CONSTRAINT %%I %%s', k.conname, pg_get_constraintdef(k.oid)) END AS unchecked,
  CASE WHEN a.attstorage <> y.typstorage THEN
    CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' WHEN 'x' THEN 'EXTENDED' END END AS storage,
  CASE a.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END AS compression,
  CASE WHEN a.attstattarget >= 0 THEN a.attstattarget END AS statistics
FROM t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped JOIN pg_type y ON y.oid = a.atttypid
  LEFT JOIN pg_constraint k ON k.conrelid = t.oid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum]
  LEFT JOIN pg_depend d ON a.attidentity <> '' AND d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid AND d.refobjsubid = a.attnum
    AND d.classid = 'pg_class'::regclass AND d.deptype = 'i'
  LEFT JOIN pg_sequence s ON s.seqrelid = d.objid LEFT JOIN pg_class sc ON sc.oid = s.seqrelid LEFT JOIN pg_namespace sn ON sn.oid = sc.relnamespace
ORDER BY t.schema, t.name, a.attnum"""

QUERIES["sequences"] = f"""
SELECT sn.nspname AS schema, sc.relname AS name, format_type(s.seqtypid, NULL) AS type, {_SEQUENCE},
  o.schema AS owner_schema, o.name AS owner, o.column AS owner_column
FROM (
    SELECT d.objid FROM t JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid
    WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'a'
    UNION SELECT d.refobjid FROM t JOIN pg_attrdef a ON a.adrelid = t.oid JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid
    WHERE d.refclassid = 'pg_class'::regclass AND d.deptype = 'n'
  ) u JOIN pg_sequence s ON s.seqrelid = u.objid JOIN pg_class sc ON sc.oid = s.seqrelid JOIN pg_namespace sn ON sn.oid = sc.relnamespace
  LEFT JOIN LATERAL (
    SELECT n.nspname AS schema, c.relname AS name, a.attname AS column
    FROM pg_depend d JOIN pg_class c ON c.oid = d.refobjid JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
    WHERE d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'a'
  ) o ON true
ORDER BY 1, 2"""

# Functions that defaults, checks, indexes and policies use must be there before the tables; those of triggers come after them.
QUERIES["functions"] = f"""
SELECT p.oid::bigint AS oid, n.nspname AS schema, pg_get_functiondef(p.oid) AS definition, bool_or(u.before) AS before
FROM (
    SELECT d.refobjid, true AS before FROM (
        SELECT 'pg_attrdef'::regclass AS classid, a.oid AS objid FROM t JOIN pg_attrdef a ON a.adrelid = t.oid
        UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM t JOIN pg_constraint k ON k.conrelid = t.oid
        UNION ALL SELECT 'pg_class'::regclass, i.indexrelid FROM t JOIN pg_index i ON i.indrelid = t.oid
        UNION ALL SELECT 'pg_policy'::regclass, y.oid FROM t JOIN pg_policy y ON y.polrelid = t.oid
      ) o JOIN pg_depend d ON d.classid = o.classid AND d.objid = o.objid AND d.refclassid = 'pg_proc'::regclass
    UNION ALL SELECT d.refobjid, false FROM t JOIN pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal AND NOT starts_with(g.tgname, %(prefix)s)
      JOIN pg_depend d ON d.classid = 'pg_trigger'::regclass AND d.objid = g.oid AND d.refclassid = 'pg_proc'::regclass
  ) u JOIN pg_proc p ON p.oid = u.refobjid AND p.prokind IN ('f', 'p', 'w') JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND {_NOT_AN_EXTENSIONS.format("pg_proc", "p.oid")}
GROUP BY p.oid, n.nspname ORDER BY p.oid"""

QUERIES["indexes"] = """
SELECT CASE c.relkind WHEN 'I' THEN p.prefix || ' ON ' || substr(d.definition, length(p.prefix || ' ON ONLY ') + 1) ELSE d.definition END AS statement
FROM t JOIN pg_index i ON i.indrelid = t.oid JOIN pg_class c ON c.oid = i.indexrelid AND NOT c.relispartition
  CROSS JOIN LATERAL (SELECT pg_get_indexdef(i.indexrelid) AS definition OFFSET 0) d
  CROSS JOIN LATERAL (SELECT format('CREATE %%sINDEX %%I', CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END, c.relname) AS prefix) p
WHERE i.indisvalid AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
ORDER BY t.schema, t.name, c.relname"""

# What can only be set when the indexes are there: parameters of a constraint's index, the replica identity, clustering, statistics.
QUERIES["settings"] = """
SELECT format('ALTER INDEX %%I.%%I SET (%%s)', t.schema, c.relname,
  (SELECT string_agg(format('%%I = %%L', split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)), ', ') FROM unnest(c.reloptions) o)) AS statement
FROM t JOIN pg_index i ON i.indrelid = t.oid JOIN pg_class c ON c.oid = i.indexrelid AND c.reloptions IS NOT NULL
    AND c.relkind = 'i' AND NOT c.relispartition
  JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x') AND k.conrelid = t.oid
UNION ALL SELECT format('ALTER TABLE %%I.%%I REPLICA IDENTITY %%s', t.schema, t.name, CASE c.relreplident
  WHEN 'n' THEN 'NOTHING' WHEN 'f' THEN 'FULL' ELSE (SELECT format('USING INDEX %%I', x.relname)
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = t.oid AND i.indisreplident) END)
FROM t JOIN pg_class c ON c.oid = t.oid AND (c.relreplident IN ('n', 'f') OR c.relreplident = 'i' AND EXISTS (
  SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid AND NOT x.relispartition WHERE i.indrelid = t.oid AND i.indisreplident))
UNION ALL SELECT format('ALTER TABLE %%I.%%I CLUSTER ON %%I', t.schema, t.name, x.relname)
FROM t JOIN pg_index i ON i.indrelid = t.oid AND i.indisclustered JOIN pg_class x ON x.oid = i.indexrelid AND NOT x.relispartition
UNION ALL SELECT pg_get_statisticsobjdef(e.oid) FROM t JOIN pg_statistic_ext e ON e.stxrelid = t.oid"""

QUERIES["triggers"] = """
SELECT format('ALTER TABLE %%I.%%I %%s TRIGGER %%I', t.schema, t.name,
  CASE g.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE' END, g.tgname) AS statement
FROM t JOIN pg_trigger g ON g.tgrelid = t.oid LEFT JOIN pg_trigger p ON p.oid = g.tgparentid
WHERE NOT g.tgisinternal AND NOT starts_with(g.tgname, %(prefix)s) AND g.tgenabled <> coalesce(p.tgenabled, 'O')
ORDER BY g.tgparentid <> 0, t.schema, t.name, g.tgname"""

# Without its policies a table would show, after a takeover, what it hid before: a role that is missing there must be an error.
QUERIES["policies"] = """
SELECT format('ALTER TABLE %%I.%%I ENABLE ROW LEVEL SECURITY', t.schema, t.name) AS statement
FROM t JOIN pg_class c ON c.oid = t.oid AND c.relrowsecurity
UNION ALL SELECT format('ALTER TABLE %%I.%%I FORCE ROW LEVEL SECURITY', t.schema, t.name)
FROM t JOIN pg_class c ON c.oid = t.oid AND c.relforcerowsecurity
UNION ALL SELECT format('CREATE POLICY %%I ON %%I.%%I AS %%s FOR %%s TO %%s', p.polname, t.schema, t.name,
    CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
    CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
    (SELECT string_agg(CASE WHEN r = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ') FROM unnest(p.polroles) r))
  || coalesce(' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')', '')
  || coalesce(' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')', '')
FROM t JOIN pg_policy p ON p.polrelid = t.oid"""

QUERIES["comments"] = """
SELECT format('COMMENT ON %%s IS %%s', target, quote_literal(description)) AS statement
FROM (
    SELECT CASE WHEN d.objsubid = 0 THEN format('TABLE %%I.%%I', t.schema, t.name)
      ELSE format('COLUMN %%I.%%I.%%I', t.schema, t.name, a.attname) END AS target, d.description
    FROM t JOIN pg_description d ON d.classoid = 'pg_class'::regclass AND d.objoid = t.oid
      LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.objsubid
    UNION ALL SELECT format('INDEX %%I.%%I', t.schema, c.relname), d.description
    FROM t JOIN pg_index i ON i.indrelid = t.oid AND i.indisvalid JOIN pg_class c ON c.oid = i.indexrelid AND NOT c.relispartition
      JOIN pg_description d ON d.classoid = 'pg_class'::regclass AND d.objoid = c.oid
    UNION ALL SELECT format('CONSTRAINT %%I ON %%I.%%I', k.conname, t.schema, t.name), d.description
    FROM t JOIN pg_constraint k ON k.conrelid = t.oid AND k.conparentid = 0 JOIN pg_description d ON d.classoid = 'pg_constraint'::regclass AND d.objoid = k.oid
    UNION ALL SELECT format('TRIGGER %%I ON %%I.%%I', g.tgname, t.schema, t.name), d.description
    FROM t JOIN pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal AND g.tgparentid = 0 AND NOT starts_with(g.tgname, %(prefix)s)
      JOIN pg_description d ON d.classoid = 'pg_trigger'::regclass AND d.objoid = g.oid
    UNION ALL SELECT format('POLICY %%I ON %%I.%%I', p.polname, t.schema, t.name), d.description
    FROM t JOIN pg_policy p ON p.polrelid = t.oid JOIN pg_description d ON d.classoid = 'pg_policy'::regclass AND d.objoid = p.oid
  ) c ORDER BY target"""

#: What ``left_out`` names, as sentences.
LEFT_OUT = {
    "views": """
SELECT DISTINCT format('%%s %%I.%%I is not made', CASE v.relkind WHEN 'm' THEN 'materialized view' ELSE 'view' END, n.nspname, v.relname) AS sentence
FROM t JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid AND d.classid = 'pg_rewrite'::regclass
  JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm') JOIN pg_namespace n ON n.oid = v.relnamespace
ORDER BY 1""",
    "rights": """
SELECT format('a right is not granted: GRANT %%s ON %%I.%%I TO %%s%%s', string_agg(privilege_type || columns, ', ' ORDER BY privilege_type, columns),
  schema, name, CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
  CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) AS sentence
FROM (
    SELECT t.schema, t.name, t.relowner, a.grantee, a.privilege_type, a.is_grantable, '' AS columns FROM t, aclexplode(t.relacl) a
    UNION ALL SELECT t.schema, t.name, t.relowner, a.grantee, a.privilege_type, a.is_grantable, format(' (%%I)', c.attname)
    FROM t JOIN pg_attribute c ON c.attrelid = t.oid AND NOT c.attisdropped, aclexplode(c.attacl) a
  ) g WHERE grantee <> relowner GROUP BY schema, name, grantee, is_grantable ORDER BY schema, name, grantee""",
    "publications": """
SELECT format('table %%I.%%I is not added to publication %%I', t.schema, t.name, p.pubname) AS sentence
FROM t JOIN pg_publication_rel r ON r.prrelid = t.oid JOIN pg_publication p ON p.oid = r.prpubid ORDER BY 1""",
}
