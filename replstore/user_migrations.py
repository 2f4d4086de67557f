"""The user's own migration: plain metadata, an Alembic environment, or nothing."""

from __future__ import annotations

import io
import logging
import os
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine, MetaData, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import NullPool

from replstore.control_migrations import one_at_a_time
from replstore.errors import CannotReplicate, ConfigError, MigrationFailed, ReplstoreError
from replstore.node import Node, one_line

INSTALLED = (*(os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platlib", "purelib")), os.path.dirname(os.path.realpath(__file__)))


class UserMigration:
    """What brings one node's user tables up to date.

    Args:
        metadata: tables to create where they are missing, or a declarative base.
        alembic_config: path of an ``alembic.ini``.

    Raises:
        ConfigError: both were given, or the Alembic environment can't be read, or it is no metadata.
    """

    def __init__(self, metadata: MetaData | type[DeclarativeBase] | None, alembic_config: str | Path | None) -> None:
        if metadata is not None and alembic_config is not None:
            raise ConfigError("give metadata or an Alembic environment, not both: the environment creates the tables")
        self._metadata = None if metadata is None else as_metadata(metadata)
        self._path = Path(alembic_config) if alembic_config is not None else None
        self.revision: str | None = None
        if self._path is not None:
            if not self._path.is_file():
                raise ConfigError(f"there is no Alembic configuration {self._path}")
            try:
                self.revision = ",".join(sorted(ScriptDirectory.from_config(self._config()).get_heads())) or None
            except (Exception, SystemExit) as error:  # whatever the user's files do
                raise ConfigError(f"the Alembic environment {self._path} can't be used: {what_went_wrong(error)}") from error

    def refuse_tables_without_key(self) -> None:
        """Raises CannotReplicate for tables of the metadata that have no primary key, before anything is created."""
        nameless = [
            table.fullname for table in (self._metadata.tables.values() if self._metadata is not None else ()) if not table.primary_key.columns
        ]
        if nameless:
            raise CannotReplicate("; ".join(f"table {name} has no primary key: add one, or it can't be replicated" for name in sorted(nameless)))

    def how_to_go_on(self, node: Node) -> str:
        """The rest of a sentence that names a table which can't be replicated: an environment has made it by now, and isn't undone."""
        if self._path is None:
            return ""
        return f"; your migration has run on {node.name} already: add a revision that gives it a key and run `replstore migrate` again"

    def _config(self) -> Config:
        return Config(str(self._path), stdout=io.StringIO())

    def run(self, node: Node, *, follower: bool) -> None:
        """Brings a node up to date.

        Raises:
            MigrationFailed: it failed; the message names the node and the revision it has.
        """
        if self._metadata is None and self._path is None:
            return
        url = node.database.migration_url(node.url, mark=follower)
        engine = create_engine(url, poolclass=NullPool)
        try:
            with self._mark(node, follower):
                if self._metadata is not None:
                    with engine.begin() as connection:
                        self._metadata.create_all(connection)
                else:
                    self._upgrade(node, engine)
        except ReplstoreError:
            raise
        except (Exception, SystemExit) as error:
            raise MigrationFailed(f"the migration failed on {node.name}: {what_went_wrong(error)}; correct it and run it again") from error
        finally:
            engine.dispose()

    @contextmanager
    def _mark(self, node: Node, follower: bool) -> Iterator[None]:
        """Lets the migration pass a follower's guard where its URL can't say so."""
        if not follower:
            yield
            return
        with node.begin() as connection:
            node.database.hold_mark(connection, "migrate")
        try:
            yield
        finally:
            with node.begin() as connection:
                node.database.hold_mark(connection, None)

    def _upgrade(self, node: Node, engine: Engine) -> None:
        """Runs the environment as it is: its ``env.py`` gets the node's URL, and an open connection in ``config.attributes``."""
        config = self._config()
        config.set_main_option("sqlalchemy.url", engine.url.render_as_string(hide_password=False).replace("%", "%%"))
        with engine.connect() as connection, one_at_a_time, _logging_as_it_is():
            config.attributes["connection"] = connection
            command.upgrade(config, "heads")
        with engine.connect() as connection:
            heads = set(MigrationContext.configure(connection).get_current_heads())
        wanted = set(ScriptDirectory.from_config(config).get_heads())
        if heads != wanted:
            raise MigrationFailed(
                f"after the upgrade {node.name} is at {', '.join(sorted(heads)) or 'no revision'}, not at {', '.join(sorted(wanted))}: does env.py take its "
                "URL from sqlalchemy.url or config.attributes['connection'], and keep its version table under the usual name?"
            )


def as_metadata(given: object, name: str = "metadata") -> MetaData:
    """The MetaData itself, or the one of a declarative base.

    Raises:
        ConfigError: it is something else.
    """
    found = getattr(given, "metadata", given)
    if not isinstance(found, MetaData):
        kind = type(found).__name__
        raise ConfigError(f"{name} is {'an' if kind[0] in 'aeiou' else 'a'} {kind}: it must be a MetaData, or a declarative base")
    return found


def what_went_wrong(error: BaseException) -> str:
    """An error of the user's own code in one line: what it is, and in which line of which file."""
    if isinstance(error, SystemExit):
        return f"it ended the program (exit {0 if error.code is None else error.code})"
    if isinstance(error, CommandError | SQLAlchemyError):
        return one_line(error)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if os.path.isfile(frame.filename) and not _is_installed(frame.filename)]
    named = isinstance(error, SyntaxError) or not frames  # a SyntaxError names its line itself
    where = "" if named else f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})"
    return f"{type(error).__name__}: {one_line(error)}{where}"


def _is_installed(file: str) -> bool:
    """Whether it is no file of the user's: of Python, of a package, or of replstore."""
    return any(file.startswith(place + os.sep) for place in INSTALLED)


@contextmanager
def _logging_as_it_is() -> Iterator[None]:
    """The ``env.py`` that Alembic generates configures logging, which silences every logger of the program that migrates."""
    root, loggers = logging.getLogger(), logging.Logger.manager.loggerDict
    before = {name: logger.disabled for name, logger in loggers.items() if isinstance(logger, logging.Logger)}
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for name, disabled in before.items():
            logging.getLogger(name).disabled = disabled
