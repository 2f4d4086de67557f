"""${message}

A frozen copy of the layout: it names tables and columns itself and never imports them from ``replstore.control``.
"""

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    attributes = op.get_context().config.attributes
    schema, prefix = attributes["control"].schema, attributes["control"].prefix
    ${upgrades if upgrades else "pass"}
    for statement in attributes["database_statements"](revision):
        op.get_bind().exec_driver_sql(statement, execution_options={"no_parameters": True})


def downgrade() -> None:
    raise NotImplementedError("the control tables only go forward; an older replstore refuses a newer layout")
