"""The writer's tables, their guards and captures, and its sequences: read in full only when a stamp over the catalog has changed.

What a fingerprint is made of stands in rows of the catalog (HAZARDS 8).  Each change of such a row gives it a newer ``xmin``, and a row that goes is one
fewer.  So the count of these rows, the sum and the latest of their ``xmin``, read in the batch's own snapshot, tell whether anything has changed, at a
fraction of the price of the fingerprints.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from replstore.databases.carrier import capture_faults
from replstore.databases.catalog import Table
from replstore.databases.postgresql import capture
from replstore.databases.postgresql.sessions import Session

_RELATIONS, _SEQUENCES = "$2::oid[]", "$3::oid[]"
_SOURCES = (
    "replstore.replicated",
    "pg_namespace",
    "pg_sequence",
    f"pg_class WHERE oid = ANY({_RELATIONS}) OR oid = ANY({_SEQUENCES})",
    f"pg_attribute WHERE attrelid = ANY({_RELATIONS})",
    f"pg_attrdef WHERE adrelid = ANY({_RELATIONS})",
    f"pg_trigger WHERE tgrelid = ANY({_RELATIONS})",
    f"pg_inherits WHERE inhrelid = ANY({_RELATIONS})",
    f"pg_inherits WHERE inhparent = ANY({_RELATIONS})",
    f"pg_rewrite WHERE ev_class = ANY({_RELATIONS})",
    f"pg_subscription_rel WHERE srrelid = ANY({_RELATIONS})",
)
_ROWS = " UNION ALL ".join(f"SELECT {number} AS source, xmin FROM {source}" for number, source in enumerate(_SOURCES))
#: Two expressions: the stamp, and where the sequences stand.  $2: oids of the tables and their partitions; $3: oids of the sequences.
LOOK = (
    "(SELECT string_agg(s.source || ' ' || s.number || ' ' || s.total || ' ' || s.latest, ';' ORDER BY s.source) FROM (SELECT source, count(*) AS number, "
    f"sum(xmin::text::bigint) AS total, max(xmin::text::bigint) AS latest FROM ({_ROWS}) r GROUP BY source) s), "
    "(SELECT string_agg(q.seqrelid || '=' || pg_sequence_last_value(q.seqrelid), ' ' ORDER BY q.seqrelid) FROM pg_sequence q "
    f"WHERE q.seqrelid = ANY({_SEQUENCES}) AND has_sequence_privilege(q.seqrelid, 'SELECT, USAGE'))"
)
SELECT_REPLICATED = "SELECT tbl, definition, fingerprint FROM replstore.replicated"
SELECT_SEQUENCES = """
SELECT q.seqrelid::text, format('%I.%I', n.nspname, c.relname), q.seqincrement FROM pg_sequence q JOIN pg_class c ON c.oid = q.seqrelid
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relpersistence <> 't' AND n.nspname NOT IN ('replstore', 'pg_catalog', 'information_schema')
"""


class Definitions:
    """What one session knows of the writer's definitions.

    Attributes:
        tables: the replicated tables, by id.
        faults: by table id, what is wrong with its capture.
    """

    def __init__(self) -> None:
        self.tables: Mapping[str, Table] = {}
        self.faults: Mapping[str, str] = {}
        self.stamp: str | None = None
        self._connection: Any = None
        self._relations: Collection[str] = ()
        self._sequences: Mapping[str, tuple[str, int]] = {}

    def oids(self, session: Session) -> tuple[str, str]:
        """The values of $2 and $3; a new connection may be to another server, of which nothing is known."""
        if session.connection is not self._connection:
            self.stamp, self._connection = None, session.connection
        return _array(self._relations), _array(self._sequences)

    def load(self, session: Session) -> None:
        """Reads all of it in the session's transaction; whoever calls must look again, in the same one, for the stamp."""
        found = session.ask(SELECT_REPLICATED).rows
        self.tables = {row[0]: Table.from_json(row[1]) for row in found}
        prints = dict(session.ask(capture.select_fingerprints(self.tables.values())).rows) if self.tables else {}
        self.faults = capture_faults({row[0]: row[2] for row in found}, prints)
        self._relations = [oid for print in prints.values() for oid in capture.oids(print)]
        self._sequences = {oid: (name, increment) for oid, name, increment in session.ask(SELECT_SEQUENCES).rows}

    def sequences(self, standing: str | None) -> str:
        """Where the sequences stand, as JSON: of each that has given a value its name, the value and its step."""
        values = [each.split("=") for each in (standing or "").split()]
        return json.dumps([[self._sequences[oid][0], int(value), self._sequences[oid][1]] for oid, value in values])


def _array(oids: Collection[str]) -> str:
    return "{" + ",".join(oids) + "}"
