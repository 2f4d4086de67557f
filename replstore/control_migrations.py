"""Brings a node's control tables to this version's layout, by the Alembic environment in ``migrations/``.

It runs on the caller's connection and in the caller's transaction: a node has the whole layout or none of it.  It knows nothing of the
application's own Alembic environment and never meets its version table.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, inspect, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateSchema

from replstore.control import Control
from replstore.errors import ConfigError

INSUFFICIENT_PRIVILEGE = "42501"
#: Alembic keeps the running environment in module globals.
one_at_a_time = threading.Lock()


def upgrade(connection: Connection, control: Control, database_statements: Callable[[str], Sequence[str]]) -> str:
    """Brings the control tables to the newest revision that this version knows.

    Two programs must not do it at once on one node: the caller sees to that.

    Args:
        connection: in a transaction, which the caller commits.
        control: the tables, under the names of this kind of database.
        database_statements: by revision, the database's own statements (``Database.control_statements``), executed as they are.

    Returns:
        The revision that the node has now.

    Raises:
        ConfigError: the node's tables were written by a newer version, or the role may not create them; roll back.
        ValueError: the connection isn't in a transaction.
    """
    if not connection.in_transaction():
        raise ValueError("the control tables are migrated in the caller's transaction, and there is none")
    refuse_newer(connection, control)
    allowed = _remedies(connection, control.schema)
    config = _config()
    config.attributes.update(connection=connection, control=control, database_statements=database_statements)
    if control.schema and not inspect(connection).has_schema(control.schema):
        with allowed("create a schema in database {database}: GRANT CREATE ON DATABASE {database} TO {role}"):
            connection.execute(CreateSchema(control.schema, if_not_exists=True))
    with one_at_a_time, allowed("create tables in schema {schema} of database {database}: ALTER SCHEMA {schema} OWNER TO {role}"):
        command.upgrade(config, "head")
    return head()


def current(connection: Connection, control: Control) -> str | None:
    """The revision of a node's control tables; None: it has none."""
    options = {"version_table": control.prefix + "alembic_version", "version_table_schema": control.schema}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def head() -> str:
    """The newest revision that this version knows."""
    return _revisions()[0]


def refuse_newer(connection: Connection, control: Control) -> None:
    """Refuses control tables whose layout this version doesn't know.

    Raises:
        ConfigError: they were written by a newer replstore.
    """
    revision = current(connection, control)
    if revision is not None and revision not in _revisions():
        raise ConfigError(
            f"the control tables were written by a newer replstore (revision {revision}, this version knows up to {head()}): "
            "install the version that wrote them, or a later one"
        )


def _remedies(connection: Connection, schema: str | None) -> Callable[[str], AbstractContextManager[None]]:
    """Makes what turns a missing right into a sentence with the remedy; asked now, because afterwards the transaction is broken."""
    if schema is None:
        return lambda _: nullcontext()
    quote = connection.dialect.identifier_preparer.quote
    role = connection.execute(select(func.current_user())).scalar_one()
    names = {"role": quote(role), "database": quote(connection.engine.url.database or role), "schema": quote(schema)}

    @contextmanager
    def allowed(remedy: str) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != INSUFFICIENT_PRIVILEGE:
                raise
            raise ConfigError(f"role {role} may not {remedy.format(**names)}") from error

    return allowed


@cache
def _revisions() -> tuple[str, ...]:
    return tuple(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def _config() -> Config:
    """The wheel holds the environment inside the package, the source tree beside it."""
    here = Path(__file__).parent
    inside = here / "migrations"
    config = Config()
    config.set_main_option("script_location", str(inside if inside.is_dir() else here.parent / "migrations").replace("%", "%%"))
    return config
