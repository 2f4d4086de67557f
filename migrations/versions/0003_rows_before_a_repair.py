"""What a repair has changed on a node, row by row, as it was before."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    control = op.get_context().config.attributes["control"]
    op.create_table(
        control.prefix + "repair",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("no", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("tbl", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("before", sa.Text()),
        sa.Column("after", sa.Text()),
        sa.Column("undone_at", sa.Text()),
        schema=control.schema,
    )
    for statement in op.get_context().config.attributes["database_statements"](revision):
        op.get_bind().exec_driver_sql(statement, execution_options={"no_parameters": True})


def downgrade() -> None:
    raise NotImplementedError("the control tables only go forward; an older replstore refuses a newer layout")
