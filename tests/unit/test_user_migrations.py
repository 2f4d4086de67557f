"""What a user's own files do wrong is told in one line, with the file and the line; nothing of it looks like a mistake of replstore's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from replstore.cli import main
from replstore.cli.migrate import load_metadata
from replstore.errors import CannotReplicate, ConfigError, MigrationFailed
from replstore.local import SqlitePair
from replstore.store import Store
from replstore.user_migrations import UserMigration
from tests.fix_alembic import FROM_ATTRIBUTES, Environment
from tests.fix_stores import Base


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("def upgrade(:\n", "SyntaxError: "),
        ("revision = 'a1'\nimport nowhere\n", "ModuleNotFoundError: No module named 'nowhere' (zz.py, line 2)"),
        ("revision = 'a1'\n1 / 0\n", "ZeroDivisionError: division by zero (zz.py, line 2)"),
        ("raise SystemExit(3)\n", "it ended the program (exit 3)"),
    ],
)
def test_a_version_file_that_cannot_be_imported(tmp_path: Path, content: str, sentence: str) -> None:
    environment = Environment(tmp_path)
    (tmp_path / "migrations" / "versions" / "zz.py").write_text(content)
    with pytest.raises(ConfigError) as caught:
        UserMigration(None, environment.ini)
    message = str(caught.value)
    assert message.startswith(f"the Alembic environment {environment.ini} can't be used: ")
    assert sentence in message
    assert "\n" not in message
    if "SyntaxError" in sentence:
        assert message.endswith("(zz.py, line 1)")


def test_an_ini_without_sections(tmp_path: Path) -> None:
    ini = tmp_path / "bad.ini"
    ini.write_text("script_location = migrations\n")
    with pytest.raises(ConfigError) as caught:
        UserMigration(None, ini)
    assert f"the Alembic environment {ini} can't be used: MissingSectionHeaderError: File contains no section headers." in str(caught.value)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("raise SystemExit(4)", "the migration failed on primary: it ended the program (exit 4); correct it and run it again"),
        ("{}['missing']", "the migration failed on primary: KeyError: 'missing' (r1.py, line 7); correct it and run it again"),
        ("op.execute('NONSENSE')", 'the migration failed on primary: near "NONSENSE": syntax error; correct it and run it again'),
    ],
)
def test_a_migration_that_fails(tmp_path: Path, sqlite_pair: SqlitePair, line: str, sentence: str) -> None:
    environment = Environment(tmp_path, FROM_ATTRIBUTES)
    environment.revision(line)
    with Store(primary=sqlite_pair.primary_url, standby=sqlite_pair.standby_url, background=False) as store:
        with pytest.raises(MigrationFailed) as caught:
            store.migrate(alembic_config=environment.ini)
        assert str(caught.value) == sentence


def test_a_module_that_ends_the_program_or_holds_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ends_3.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "ends_0.py").write_text("raise SystemExit\n")
    (tmp_path / "fails.py").write_text("\n\n1 / 0\n")
    (tmp_path / "holds.py").write_text("number, text = 7, ''\n")
    for name, sentence in (
        ("ends_3:Base", "--metadata ends_3:Base can't be imported: it ended the program (exit 3)"),
        ("ends_0:Base", "--metadata ends_0:Base can't be imported: it ended the program (exit 0)"),
        ("fails:Base", "--metadata fails:Base can't be imported: ZeroDivisionError: division by zero (fails.py, line 3)"),
        ("holds:number", "--metadata holds:number is an int: it must be a MetaData, or a declarative base"),
        ("holds:text", "--metadata holds:text is a str: it must be a MetaData, or a declarative base"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_metadata(name)
        assert str(caught.value) == sentence


def test_a_table_without_key_that_an_environment_has_made_is_told_together_with_what_comes_next(tmp_path: Path, sqlite_pair: SqlitePair) -> None:
    environment = Environment(tmp_path, FROM_ATTRIBUTES)
    environment.revision("op.create_table('bare', sa.Column('x', sa.Integer))")
    with Store(primary=sqlite_pair.primary_url, standby=sqlite_pair.standby_url, background=False) as store:
        with pytest.raises(CannotReplicate) as caught:
            store.migrate(alembic_config=environment.ini)
        assert str(caught.value).startswith("table bare has no primary key")
        assert str(caught.value).endswith(
            "; your migration has run on primary already: add a revision that gives it a key and run `replstore migrate` again"
        )
        environment.revision("op.drop_table('bare')", "op.create_table('bare', sa.Column('x', sa.Integer, primary_key=True))")
        assert "bare" in store.migrate(alembic_config=environment.ini).tables  # what the sentence says is enough


def test_a_store_takes_a_declarative_base_as_the_command_does(sqlite_pair: SqlitePair) -> None:
    with Store(primary=sqlite_pair.primary_url, standby=sqlite_pair.standby_url, background=False) as store:
        assert store.migrate(Base).tables == ("account",)
        with pytest.raises(ConfigError, match="metadata is an int: it must be a MetaData, or a declarative base"):
            store.migrate(7)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="'third' is no node: there are primary and standby"):
            store.takeover("third")  # type: ignore[arg-type]
        assert repr(store) == f"Store(primary={sqlite_pair.primary_url!r}, standby={sqlite_pair.standby_url!r})"


def test_what_the_users_module_prints_is_no_json(
    tmp_path: Path, sqlite_pair: SqlitePair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "talks.py").write_text("import sqlalchemy as sa\nprint('loading')\nmetadata = sa.MetaData()\n")
    code = main(
        ["migrate", "--primary", sqlite_pair.primary_url, "--standby", sqlite_pair.standby_url, "--metadata", "talks:metadata", "--format", "json"]
    )
    said = capsys.readouterr()
    assert code == 0
    assert json.loads(said.out)["tables"] == []
    assert said.err == "loading\n"
