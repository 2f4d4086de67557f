"""The control tables as migrations make them: equal to ``replstore.control``, whole or not at all, and clear about what stands in the way."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, inspect, text
from sqlalchemy.engine import make_url

from replstore import local
from replstore.control import LAYOUT, Control
from replstore.control_migrations import current, head, upgrade
from replstore.databases.database import Database
from replstore.databases.registry import database_for
from replstore.errors import ConfigError
from replstore.urls import parse


class Empty:
    """A node's database without control tables."""

    def __init__(self, url: str) -> None:
        self.url = parse(url)
        self.database: Database = database_for(self.url)
        self.control: Control = self.database.control
        self.engine: Engine = self.database.service_engine(self.url, seconds=5)

    def upgrade(self, connection: Connection) -> str:
        return upgrade(connection, self.control, self.database.control_statements)


@pytest.fixture
def empty(any_pair: local.Pair) -> Iterator[Empty]:
    node = Empty(any_pair.primary_url)
    if node.database.may_create(node.url):
        node.database.create(node.url)
    yield node
    node.engine.dispose()


def layout(connection: Connection, control: Control) -> dict[str, Any]:
    """What the database itself says of the control tables that are in the metadata."""
    inspector = inspect(connection)
    found = {}
    for table in control.metadata.tables.values():
        columns = [{**column, "type": repr(column["type"])} for column in inspector.get_columns(table.name, table.schema)]
        found[table.name] = (
            columns,
            inspector.get_pk_constraint(table.name, table.schema),
            inspector.get_check_constraints(table.name, table.schema),
            inspector.get_unique_constraints(table.name, table.schema),
            inspector.get_indexes(table.name, table.schema),
        )
    return found


def names(connection: Connection, control: Control) -> list[str]:
    return sorted(inspect(connection).get_table_names(control.schema))


def test_the_tables_equal_the_metadata(empty: Empty) -> None:
    control = empty.control
    with empty.engine.begin() as connection:
        assert empty.upgrade(connection) == head()
    own = {table.name for table in control.metadata.tables.values()}

    def is_of_the_metadata(name: str | None, kind: str, parents: Any) -> bool:
        return name == control.schema if kind == "schema" else kind != "table" or name in own

    options = {
        "include_schemas": control.schema is not None,
        "include_name": is_of_the_metadata,
        "compare_type": True,
    }
    with empty.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts=options), control.metadata) == []
        assert own < set(names(connection, control))


def test_the_tables_equal_those_that_the_metadata_creates(any_pair: local.Pair, empty: Empty, tmp_path: Path) -> None:
    """Down to check constraints and defaults, which Alembic doesn't compare."""
    with empty.engine.begin() as connection:
        empty.upgrade(connection)
        migrated = layout(connection, empty.control)
    other = Empty(any_pair.standby_url)
    if other.database.may_create(other.url):
        other.database.create(other.url)
    with other.engine.begin() as connection:
        if other.control.schema:
            connection.execute(text(f"CREATE SCHEMA {other.control.schema}"))
        other.control.metadata.create_all(connection)
        created = layout(connection, other.control)
    other.engine.dispose()
    assert migrated == created
    assert [check["sqltext"] for check in migrated[empty.control.role.name][2]] == ["id = 1"]


def test_a_node_has_the_whole_layout_or_none_of_it(empty: Empty) -> None:
    def broken(revision: str) -> Sequence[str]:
        return [*empty.database.control_statements(revision), "SELECT no_such_column"]

    with pytest.raises(Exception, match="no_such_column"), empty.engine.begin() as connection:
        upgrade(connection, empty.control, broken)
    with empty.engine.connect() as connection:
        assert current(connection, empty.control) is None
        assert names(connection, empty.control) == []


def test_the_databases_own_statements_belong_to_the_revision(empty: Empty) -> None:
    with empty.engine.begin() as connection:
        empty.upgrade(connection)
        marker = empty.control.name("marker")
        connection.execute(text(f"SELECT {', '.join(column.name for column in empty.control.marker.columns)} FROM {marker}"))
        connection.execute(text(f"SELECT count(*) FROM {empty.control.name('journal')}"))


def test_it_can_be_repeated(empty: Empty) -> None:
    for before in (None, head()):
        with empty.engine.begin() as connection:
            assert current(connection, empty.control) == before
            assert empty.upgrade(connection) == head()


def test_the_applications_own_alembic_is_left_alone(empty: Empty) -> None:
    with empty.engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE {'public.' if empty.control.schema else ''}alembic_version (version_num varchar(32) NOT NULL)"))
        connection.execute(text(f"INSERT INTO {'public.' if empty.control.schema else ''}alembic_version VALUES ('theirs')"))
        assert current(connection, empty.control) is None
        empty.upgrade(connection)
        assert connection.execute(text(f"SELECT version_num FROM {'public.' if empty.control.schema else ''}alembic_version")).scalars().all() == [
            "theirs"
        ]


def test_a_layout_of_a_newer_version_is_refused_and_left_alone(empty: Empty) -> None:
    with empty.engine.begin() as connection:
        empty.upgrade(connection)
        connection.execute(text(f"UPDATE {empty.control.name('alembic_version')} SET version_num = '0099'"))
    sentence = rf"written by a newer replstore \(revision 0099, this version knows up to {head()}\)"
    with pytest.raises(ConfigError, match=sentence), empty.engine.begin() as connection:
        empty.upgrade(connection)
    with empty.engine.connect() as connection:
        assert current(connection, empty.control) == "0099"


def test_it_needs_the_callers_transaction(empty: Empty) -> None:
    with empty.engine.connect() as connection, pytest.raises(ValueError, match="transaction"):
        empty.upgrade(connection)


def test_the_layouts_number_is_the_newest_revision() -> None:
    assert int(head()) == LAYOUT


def test_the_migrations_are_a_frozen_copy() -> None:
    versions = Path(__file__).parents[2] / "migrations" / "versions"
    sources = [path.read_text() for path in versions.glob("*.py")]
    assert len(sources) == LAYOUT
    assert not [source for source in sources if re.search(r"^(from|import) replstore|create_all|\.metadata", source, re.MULTILINE)]


class TestMissingRights:
    """On PostgreSQL, where a role may lack them."""

    @pytest.fixture
    def visitor(self, postgresql_pair: local.PostgresPair) -> Iterator[Empty]:
        """The primary, as a role that may only connect."""
        admin = create_engine(parse(postgresql_pair.primary_url))
        with admin.begin() as connection:
            connection.execute(text('DROP ROLE IF EXISTS "a visitor"'))
            connection.execute(text('CREATE ROLE "a visitor" LOGIN'))
        node = Empty(make_url(postgresql_pair.primary_url).set(username="a visitor").render_as_string(hide_password=False))
        yield node
        node.engine.dispose()
        with admin.begin() as connection:
            connection.execute(text('DROP OWNED BY "a visitor"'))
            connection.execute(text('DROP ROLE "a visitor"'))
        admin.dispose()

    def test_to_create_the_schema(self, visitor: Empty) -> None:
        database = visitor.url.database
        with pytest.raises(ConfigError) as caught, visitor.engine.begin() as connection:
            visitor.upgrade(connection)
        remedy = f'GRANT CREATE ON DATABASE {database} TO "a visitor"'
        assert str(caught.value) == f"role a visitor may not create a schema in database {database}: {remedy}"

    def test_the_remedy_that_is_named_helps(self, visitor: Empty, postgresql_pair: local.PostgresPair) -> None:
        admin = create_engine(parse(postgresql_pair.primary_url), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text("CREATE SCHEMA replstore"))
            for _ in range(3):
                try:
                    with visitor.engine.begin() as visiting:
                        assert visitor.upgrade(visiting) == head()
                    break
                except ConfigError as error:
                    connection.execute(text(str(error).split(": ", 1)[1]))
            with visitor.engine.connect() as visiting:
                assert current(visiting, visitor.control) == head()
        admin.dispose()


@pytest.mark.parametrize("inside", [True, False], ids=["wheel", "source tree"])
def test_the_environment_is_found(inside: bool, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    copytree(root / "replstore", tmp_path / "replstore", ignore=ignore_patterns("__pycache__"))
    migrations = tmp_path / "replstore" / "migrations" if inside else tmp_path / "migrations"
    copytree(root / "migrations", migrations, ignore=ignore_patterns("__pycache__"))
    code = "import replstore.control_migrations as m; print(m._config().get_main_option('script_location'), m.head())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path).stdout.split()
    assert found == [str(migrations), head()]
