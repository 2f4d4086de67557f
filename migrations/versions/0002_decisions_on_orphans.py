"""What replay needs to know of an orphan, and what a person decided."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    control = op.get_context().config.attributes["control"]
    for column in (
        sa.Column("place", sa.BigInteger()),
        sa.Column("changed_by", sa.Text()),
        sa.Column("common", sa.Text()),
        sa.Column("common_term", sa.String(36)),
        sa.Column("touched", sa.Boolean()),
        sa.Column("shape", sa.String(64)),
        sa.Column("state", sa.String(16), nullable=False, server_default="open"),
        sa.Column("decided_at", sa.Text()),
        sa.Column("decided_tx", sa.String(64)),
        sa.Column("reason", sa.Text()),
    ):
        op.add_column(control.prefix + "orphan", column, schema=control.schema)
    for statement in op.get_context().config.attributes["database_statements"](revision):
        op.get_bind().exec_driver_sql(statement, execution_options={"no_parameters": True})


def downgrade() -> None:
    raise NotImplementedError("the control tables only go forward; an older replstore refuses a newer layout")
