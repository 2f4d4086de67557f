"""Types whose values don't travel exactly, so that a table which has one is refused by name.

Rows travel in their types' binary form and are compared by their text.  A type is refused if a value of it has no such form, arrives as another value, or
isn't taken by the other server at all (which would stop the pair at the row that has it), wherever in a column's type it is: in an array, a domain, a
composite or a range.
"""

from __future__ import annotations

from sqlalchemy import Connection

from replstore.databases.catalog import Table
from replstore.databases.postgresql.usertypes import USES

#: By what the query says of a type: why it is refused, and what to do.
REASONS = {
    "number": "which is stored as a number that means something else on the other node; store the name as text, and cast it where it is used",
    "no form": "which has no binary form, in which rows travel; store it as text",
    "read only": "which no program can write, so the other node couldn't either; leave the column out, or store it as text",
    "vector": "of which the other node can't take an empty one; make it an array",
    "query": "of which the other node can't take an empty one, and whose text doesn't tell two of them apart; store it as text, and cast it where it is used",
    "document": "of which the other node gets another one than was stored (its encoding is declared anew); store it as text",
}
_REFUSED = f"""
WITH RECURSIVE {USES}, found AS (
  SELECT u.number, u.name, u.type, format_type(y.oid, NULL) AS refused, CASE
      WHEN y.typsend = 0 OR y.typreceive = 0 THEN 'no form'
      WHEN y.typnamespace <> 'pg_catalog'::regnamespace THEN NULL
      WHEN starts_with(y.typname, 'reg') THEN 'number'
      WHEN y.typcategory = 'Z' AND y.typname <> 'char' THEN 'read only'
      WHEN y.typname IN ('int2vector', 'oidvector') THEN 'vector'
      WHEN y.typname = 'tsquery' THEN 'query'
      WHEN y.typname = 'xml' THEN 'document' END AS reason
  FROM uses u JOIN pg_type y ON y.oid = u.oid
)
SELECT name, type, refused, reason FROM found WHERE reason IS NOT NULL ORDER BY number, refused LIMIT 1"""


def refused_type(connection: Connection, table: Table) -> str | None:
    """Why a table can't be replicated because of what its columns hold, in a sentence that says what to change; None: they all travel."""
    found = connection.exec_driver_sql(_REFUSED, {"schema": table.schema or "", "name": table.name}).first()
    if found is None:
        return None
    name, type, refused, reason = found
    within = "is" if type == refused else f"is {type}, which has parts"
    return f"table {table.id} can't be replicated: its column {name} {within} of type {refused}, {REASONS[reason]}"
