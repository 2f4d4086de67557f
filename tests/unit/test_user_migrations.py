"""What a user's own files do wrong is told in one line, with the file and the line; nothing of it looks like a mistake of replstore's."""

from __future__ import annotations

from pathlib import Path

import pytest

from replstore.cli.migrate import load_metadata
from replstore.errors import ConfigError, MigrationFailed
from replstore.local import SqlitePair
from replstore.store import Store
from replstore.user_migrations import UserMigration
from tests.fix_alembic import FROM_ATTRIBUTES, Environment


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
