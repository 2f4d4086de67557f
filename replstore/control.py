"""The control tables: what replstore keeps inside both databases, as SQLAlchemy Core.

On PostgreSQL they live in a schema of their own (``replstore.marker``), elsewhere they carry a prefix (``replstore_marker``).
``migrations/`` creates them; this module is the one place that names their columns.  A table of "one row" holds a single row with id 1.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    TableClause,
    Text,
    column,
    delete,
    insert,
    select,
    table,
)

#: Version of the layout below; migrations/versions/ has one file for each.
LAYOUT = 4

#: Columns of the marker table that travel to the follower.  ``outcome`` is 'committed' (written in the transaction itself) or 'lost' (a tombstone).
MARKER_COLUMNS = ("id", "key", "fn", "outcome", "result", "durability", "term_no", "at")


class Control:
    """The control tables under the names that they have in one kind of database.

    Args:
        schema: schema that holds them, or None where the database has none.
        prefix: what their names begin with.
    """

    def __init__(self, schema: str | None, prefix: str) -> None:
        self.schema = schema
        self.prefix = prefix
        self.metadata = MetaData(schema=schema)

        #: One row: which pair, which node.  Written once; compared on every connect.
        self.node = self._one_row(
            "node",
            Column("pair", String(36), nullable=False),
            Column("node", String(36), nullable=False),
            Column("name", Text, nullable=False),
            Column("created_at", Text, nullable=False),
        )
        #: The pair's settings that must be equal for every Store (durability, takeover policy, …), by name.
        self.setting = self._table("setting", Column("name", String(64), primary_key=True), Column("value", Text, nullable=False))
        #: One row, written at flips only (HAZARDS 3): role and term; ``basis`` is this node's own position when it became the writer,
        #: ``former_*`` what it held then of the writer before it, ``fenced_by_*`` the term that fenced it.
        self.role = self._one_row(
            "role",
            Column("role", String(16), nullable=False),
            Column("term_no", BigInteger, nullable=False),
            Column("term_uuid", String(36), nullable=False),
            Column("basis", Text),
            Column("former_node", String(36)),
            Column("former_position", Text),
            Column("former_tick", String(36)),
            Column("fenced_by_no", BigInteger),
            Column("fenced_by_uuid", String(36)),
            Column("reason", Text, nullable=False, server_default=""),
            Column("since", Text, nullable=False),
        )
        #: One row, on a writer: may it acknowledge alone?  ``boot`` is the writer's boot identity for which that holds, ``req`` counts
        #: how often the follower became required again (HAZARDS 2, 24).
        self.acknowledge = self._one_row(
            "acknowledge",
            Column("solo", Boolean, nullable=False),
            Column("boot", Text, nullable=False),
            Column("req", BigInteger, nullable=False),
            Column("reason", Text, nullable=False, server_default=""),
            Column("since", Text, nullable=False),
        )
        #: One row, on a follower: how far it has got, and whether it may take over.
        self.position = self._one_row(
            "position",
            Column("source", String(36), nullable=False),
            Column("term_no", BigInteger, nullable=False),
            Column("term_uuid", String(36), nullable=False),
            Column("position", Text, nullable=False),
            Column("tick", String(36), nullable=False),
            Column("batch", BigInteger, nullable=False),
            Column("eligible_boot", Text),
            Column("copying", Boolean, nullable=False),
            Column("schema_no", BigInteger, nullable=False),
            Column("shipped_at", Text, nullable=False),
        )
        #: One row, on a follower: only counts up, no clock.
        self.heartbeat = self._one_row("heartbeat", Column("no", BigInteger, nullable=False))
        #: Proofs of durability (HAZARDS 23): committed on the writer after a batch's snapshot.
        self.tick = self._table(
            "tick", Column("tick", String(36), primary_key=True), Column("batch", BigInteger, nullable=False), Column("at", Text, nullable=False)
        )
        #: One row: the journal is pruned through this position (null: never pruned).
        self.retention = self._one_row("retention", Column("pruned_through", Text))
        #: What happened to orphans at rejoin; replicated like the user's tables.
        self.orphan = self._table(
            "orphan",
            Column("id", String(36), primary_key=True),
            Column("node", Text, nullable=False),
            Column("term_no", BigInteger, nullable=False),
            Column("tx", String(64)),
            Column("tx_at", Text),
            Column("tx_known", Text),  # null, or how the new writer knows it: 'committed', 'lost', 'key'
            Column("maybe_acknowledged", Boolean, nullable=False),
            Column("tbl", Text, nullable=False),
            Column("key", Text, nullable=False),
            Column("former_row", Text),
            Column("writer_row", Text),
            Column("recorded_at", Text, nullable=False),
            Column("place", BigInteger),  # of the last transaction that changed the row, in the former writer's commit order; null: not known
            Column("changed_by", Text),  # every transaction that changed it, as JSON (``journal.groups.Change``)
            Column("common", Text),  # the last position of the recording writer that both nodes had in common; null: not known
            Column("common_term", String(36)),  # the term in which that writer's journal begins there
            Column("touched", Boolean),  # the writer had changed the row between that position and the record
            Column("shape", String(64)),  # digest of the table's columns then; null: what would have to be written isn't all on record
            Column("state", String(16), nullable=False, server_default="open"),  # 'open', 'replayed' or 'discarded': a person's decision
            Column("decided_at", Text),
            Column("decided_tx", String(64)),
            Column("reason", Text),
        )
        #: Rows as they were before a repair changed them, on the node where they were, written in the transaction that changed them; each node's own.
        self.repair = self._table(
            "repair",
            Column("id", String(36), primary_key=True),
            Column("no", Integer, primary_key=True, autoincrement=False),
            Column("at", Text, nullable=False),
            Column("source", Text, nullable=False),  # what the repair took for right
            Column("tbl", Text, nullable=False),
            Column("key", Text, nullable=False),
            Column("before", Text),  # the row as it was; null: there was none
            Column("after", Text),  # the row that it became
            Column("undone_at", Text),
        )
        #: One row per replicated table, on each node by itself: its definition and the capture fingerprint (HAZARDS 8).
        self.replicated = self._table(
            "replicated",
            Column("tbl", Text, primary_key=True),
            Column("definition", Text, nullable=False),
            Column("fingerprint", Text, nullable=False),
        )
        #: Native replication: a row for each timeline, with which uuid tells two histories under one number apart; ``switched_at`` is where the timeline before
        #: it ended, as a number of bytes (null: not known).
        self.timeline = self._table(
            "timeline",
            Column("no", BigInteger, primary_key=True, autoincrement=False),
            Column("uuid", String(36), nullable=False, unique=True),
            Column("previous_uuid", String(36)),
            Column("switched_at", BigInteger),
            Column("since", Text, nullable=False),
        )
        #: One row, on each node by itself: counts the migrations that changed the schema of replicated tables.
        self.schema_no = self._one_row("schema_no", Column("no", BigInteger, nullable=False))
        #: User triggers and foreign keys that were taken off a follower, with the statement that brings them back (HAZARDS 7).
        self.suspended = self._table(
            "suspended",
            Column("seq", Integer, primary_key=True),
            Column("kind", String(16), nullable=False),
            Column("tbl", Text, nullable=False),
            Column("name", Text, nullable=False),
            Column("restore", Text, nullable=False),
        )

        #: Commit markers and tombstones.  The journal and the marker are created by each database's own statements (they differ in
        #: more than names), hence not part of ``metadata``.
        self.marker: TableClause = table(prefix + "marker", *(column(name) for name in MARKER_COLUMNS), schema=schema)

    def name(self, table: str) -> str:
        """The SQL name of a control table or function, for statements written by hand: ``replstore.marker``, ``replstore_marker``."""
        return f"{self.schema}.{self.prefix}{table}" if self.schema else f"{self.prefix}{table}"

    def held(self, connection: Connection, name: str) -> str | None:
        """The value of a node's setting; None: it has none."""
        return connection.execute(select(self.setting.c.value).where(self.setting.c.name == name)).scalar()

    def hold(self, connection: Connection, name: str, value: str) -> None:
        """Writes a node's setting, in place of what it was."""
        connection.execute(delete(self.setting).where(self.setting.c.name == name))
        connection.execute(insert(self.setting).values(name=name, value=value))

    def _table(self, name: str, *columns: Any) -> Table:
        return Table(self.prefix + name, self.metadata, *columns)

    def _one_row(self, name: str, *columns: Any) -> Table:
        return self._table(
            name,
            Column("id", Integer, primary_key=True, autoincrement=False),
            *columns,
            CheckConstraint("id = 1", name=f"{self.prefix}{name}_one_row"),
        )
