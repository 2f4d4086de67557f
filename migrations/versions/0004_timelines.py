"""Native replication: a row for each timeline, written as the first commit on it."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    control = op.get_context().config.attributes["control"]
    op.create_table(
        control.prefix + "timeline",
        sa.Column("no", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("uuid", sa.String(36), nullable=False, unique=True),
        sa.Column("previous_uuid", sa.String(36)),
        sa.Column("switched_at", sa.BigInteger()),
        sa.Column("since", sa.Text(), nullable=False),
        schema=control.schema,
    )
    for statement in op.get_context().config.attributes["database_statements"](revision):
        op.get_bind().exec_driver_sql(statement, execution_options={"no_parameters": True})


def downgrade() -> None:
    raise NotImplementedError("the control tables only go forward; an older replstore refuses a newer layout")
