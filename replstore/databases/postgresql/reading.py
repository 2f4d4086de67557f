"""One statement that reads many parts of PostgreSQL's catalog under settings of its own.

The server prints types, expressions and definitions as the session's settings make it (a type without its schema when the search path
has it, a timestamp in the session's time zone), so two nodes are comparable only under the same settings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from psycopg import sql
from sqlalchemy import Connection

from replstore.databases.catalog import quote

#: What decides how definitions are printed.
SETTINGS = {
    "search_path": "pg_catalog",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "quote_all_identifiers": "off",
}

#: True for a namespace ``n`` that may hold what users made.
USER_SCHEMA = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"

# Each level needs a value of the one below it, and OFFSET 0 keeps the planner from merging them: settings are read, then set, then
# the catalog is read, then they are set back.  One statement holds in autocommit too, and costs one round trip.
_READ = """
WITH {common} SELECT result.data,
  (SELECT count(set_config(s.name, s.value, true)) FROM unnest(pinned.names, pinned.before) s(name, value))
FROM (SELECT array_agg(name) AS names, array_agg(before) AS before, count(set_config(name, value, true)) AS pinned
      FROM (SELECT name, value, current_setting(name) AS before FROM unnest(%(setting_names)s::text[], %(setting_values)s::text[]) s(name, value)
            OFFSET 0) settings
      OFFSET 0) pinned,
  LATERAL (SELECT json_build_object({parts})::text AS data OFFSET 0) result
"""
_PART = "{name}, (SELECT json_agg(to_json(q)) FROM ({query}) q WHERE pinned.pinned > 0)"


def read(connection: Connection, queries: Mapping[str, str], parameters: Mapping[str, Any] | None = None, common: str = "") -> dict[str, list[Any]]:
    """Runs queries over the catalog under pinned settings, in one statement.

    Args:
        connection: of the node to read.
        queries: by the name under which their rows come back; percent signs doubled, parameters as ``%(name)s``.
        parameters: values of the parameters.
        common: common table expressions that the queries share, without WITH.

    Returns:
        For each query its rows as dictionaries.
    """
    parts = ", ".join(_PART.format(name=literal(name), query=query) for name, query in queries.items())
    statement = _READ.format(common=common or "nothing AS (SELECT)", parts=parts)
    values = {"setting_names": list(SETTINGS), "setting_values": list(SETTINGS.values()), **(parameters or {})}
    row = connection.exec_driver_sql(statement, values).one()
    return {name: rows or [] for name, rows in json.loads(row[0]).items()}


def literal(value: str) -> str:
    """A text as an SQL literal."""
    return sql.Literal(value).as_string(None).strip()


def qualified(schema: str | None, name: str) -> str:
    """A name with its schema, quoted."""
    return f"{quote(schema)}.{quote(name)}" if schema is not None else quote(name)
