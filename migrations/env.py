"""Alembic environment of replstore's own control tables; :mod:`replstore.control_migrations` runs it, on a connection of the caller's.

It never meets the application's Alembic: the version table carries replstore's prefix or lies in its schema.
"""

from alembic import context

attributes = context.config.attributes
control = attributes["control"]

context.configure(
    connection=attributes["connection"],
    target_metadata=control.metadata,
    version_table=control.prefix + "alembic_version",
    version_table_schema=control.schema,
    transactional_ddl=True,  # the transaction is the caller's, on SQLite too
)
context.run_migrations()
