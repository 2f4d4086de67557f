"""The control tables of a node, and the database's own journal, marker, guard and functions.

A frozen copy of the layout: it names tables and columns itself and never imports them from ``replstore.control``.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    attributes = op.get_context().config.attributes
    schema, prefix = attributes["control"].schema, attributes["control"].prefix

    def create(name: str, *columns: Any) -> None:
        op.create_table(prefix + name, *columns, schema=schema)

    def create_one_row(name: str, *columns: Any) -> None:
        only_one = sa.CheckConstraint("id = 1", name=f"{prefix}{name}_one_row")
        create(name, sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False), *columns, only_one)

    identity_and_roles(create, create_one_row)
    replication_state(create, create_one_row)
    tables_and_orphans(create, create_one_row)
    for statement in attributes["database_statements"](revision):
        op.get_bind().exec_driver_sql(statement, execution_options={"no_parameters": True})  # a % in it is a %


def identity_and_roles(create: Any, create_one_row: Any) -> None:
    create_one_row(
        "node",
        sa.Column("pair", sa.String(36), nullable=False),
        sa.Column("node", sa.String(36), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
    )
    create("setting", sa.Column("name", sa.String(64), primary_key=True), sa.Column("value", sa.Text(), nullable=False))
    create_one_row(
        "role",
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("term_no", sa.BigInteger(), nullable=False),
        sa.Column("term_uuid", sa.String(36), nullable=False),
        sa.Column("basis", sa.Text()),
        sa.Column("former_node", sa.String(36)),
        sa.Column("former_position", sa.Text()),
        sa.Column("former_tick", sa.String(36)),
        sa.Column("fenced_by_no", sa.BigInteger()),
        sa.Column("fenced_by_uuid", sa.String(36)),
        sa.Column("reason", sa.Text(), nullable=False, server_default=""),
        sa.Column("since", sa.Text(), nullable=False),
    )
    create_one_row(
        "acknowledge",
        sa.Column("solo", sa.Boolean(), nullable=False),
        sa.Column("boot", sa.Text(), nullable=False),
        sa.Column("req", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False, server_default=""),
        sa.Column("since", sa.Text(), nullable=False),
    )


def replication_state(create: Any, create_one_row: Any) -> None:
    create_one_row(
        "position",
        sa.Column("source", sa.String(36), nullable=False),
        sa.Column("term_no", sa.BigInteger(), nullable=False),
        sa.Column("term_uuid", sa.String(36), nullable=False),
        sa.Column("position", sa.Text(), nullable=False),
        sa.Column("tick", sa.String(36), nullable=False),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.Column("eligible_boot", sa.Text()),
        sa.Column("copying", sa.Boolean(), nullable=False),
        sa.Column("schema_no", sa.BigInteger(), nullable=False),
        sa.Column("shipped_at", sa.Text(), nullable=False),
    )
    create_one_row("heartbeat", sa.Column("no", sa.BigInteger(), nullable=False))
    create(
        "tick",
        sa.Column("tick", sa.String(36), primary_key=True),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
    )
    create_one_row("retention", sa.Column("pruned_through", sa.Text()))


def tables_and_orphans(create: Any, create_one_row: Any) -> None:
    create(
        "orphan",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("term_no", sa.BigInteger(), nullable=False),
        sa.Column("tx", sa.String(64)),
        sa.Column("tx_at", sa.Text()),
        sa.Column("tx_known", sa.Text()),
        sa.Column("maybe_acknowledged", sa.Boolean(), nullable=False),
        sa.Column("tbl", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("former_row", sa.Text()),
        sa.Column("writer_row", sa.Text()),
        sa.Column("recorded_at", sa.Text(), nullable=False),
    )
    create(
        "replicated",
        sa.Column("tbl", sa.Text(), primary_key=True),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
    )
    create_one_row("schema_no", sa.Column("no", sa.BigInteger(), nullable=False))
    create(
        "suspended",
        sa.Column("seq", sa.Integer(), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("tbl", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("restore", sa.Text(), nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("the control tables only go forward; an older replstore refuses a newer layout")
