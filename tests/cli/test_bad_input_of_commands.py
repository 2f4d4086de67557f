"""Bad input to the commands that touch databases: one sentence, exit code 2, no traceback, no password, and nothing changed."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replstore.local import PostgresServer
from replstore.store import Store
from tests.cli.fix_command import Run

PASSWORD = "s3cret-Pa55"
Place = Callable[[Path], tuple[list[str], str]]
"""Prepares files; returns the arguments, and what the sentence must contain."""


def make(path: Path, script: str = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)") -> str:
    """A SQLite database; returns its URL."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return f"sqlite:///{path}"


def pair(place: Path, primary: str = "a.db", standby: str = "b.db") -> list[str]:
    """A pair; returns the arguments that name it."""
    urls = [make(place / primary), f"sqlite:///{place / standby}"]
    with Store(primary=urls[0], standby=urls[1], background=False) as store:
        store.migrate()
    return given(*urls)


def given(primary: object, standby: object) -> list[str]:
    return ["--primary", str(primary), "--standby", str(standby)]


def digest(place: Path) -> dict[str, str]:
    """Every file's content."""
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(place.rglob("*")) if path.is_file()}


def one_sentence(run: Run, *arguments: str) -> str:
    """The only line that a command prints; it must fail with exit code 2."""
    done = run(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stderr
    return done.stderr


def unmigrated(command: str) -> Place:
    return lambda place: ([command, *given(make(place / "a.db"), make(place / "b.db"))], "are no pair yet: `replstore migrate` makes one of them")


def missing(command: str) -> Place:
    return lambda place: ([command, *given(f"sqlite:///{place}/a.db", f"sqlite:///{place}/b.db")], "are no pair yet")


def exchanged(place: Path) -> tuple[list[str], str]:
    _, a, _, b = pair(place)
    return ["status", *given(b, a)], "are the two URLs exchanged?"


def different_pairs(place: Path) -> tuple[list[str], str]:
    (_, a, _, _), (_, _, _, d) = pair(place), pair(place, "c.db", "d.db")
    return ["status", *given(a, d)], "nodes of different pairs"


def copied(place: Path) -> tuple[list[str], str]:
    _, a, _, _ = pair(place)
    with contextlib.closing(sqlite3.connect(place / "a.db")) as connection:
        connection.execute("VACUUM INTO ?", (str(place / "copy.db"),))
    with contextlib.closing(sqlite3.connect(place / "copy.db")) as connection, connection:
        connection.execute("UPDATE replstore_node SET name = 'standby'")
    return ["status", *given(a, f"sqlite:///{place}/copy.db")], "primary and standby are copies of one node"


def no_key(place: Path) -> tuple[list[str], str]:
    urls = given(make(place / "a.db", "CREATE TABLE bare (x INTEGER)"), f"sqlite:///{place}/b.db")
    return ["migrate", *urls], "table bare has no primary key"


def strangers(place: Path) -> tuple[list[str], str]:
    urls = given(make(place / "a.db"), make(place / "b.db", "CREATE TABLE other (id INTEGER PRIMARY KEY)"))
    return ["migrate", *urls], "standby has tables that primary doesn't have (other): give an empty database"


def no_database(place: Path) -> tuple[list[str], str]:
    (place / "a.db").write_text("This is a letter and no database. " * 100)
    return ["migrate", *given(f"sqlite:///{place}/a.db", f"sqlite:///{place}/b.db")], "file is not a database"


def metadata(name: str, sentence: str) -> Place:
    def prepare(place: Path) -> tuple[list[str], str]:
        (place / "models.py").write_text(
            "import sqlalchemy as sa\nnumber = 7\nbare = sa.MetaData()\nsa.Table('bare', bare, sa.Column('x', sa.Integer))\n"
        )
        (place / "broken.py").write_text("1 / 0\n")
        return ["migrate", *pair(place), "--metadata", name], sentence

    return prepare


def alembic(place: Path) -> tuple[list[str], str]:
    return ["migrate", *pair(place), "--alembic-config", "nowhere/alembic.ini"], "there is no Alembic configuration nowhere/alembic.ini"


def alembic_without_scripts(place: Path) -> tuple[list[str], str]:
    (place / "alembic.ini").write_text("[alembic]\nscript_location = nowhere\n")
    return ["migrate", *pair(place), "--alembic-config", "alembic.ini"], "the Alembic environment alembic.ini can't be used"


CASES: dict[str, Place] = {
    "one database twice": lambda place: (["status", *given(make(place / "a.db"), f"sqlite:///{place}/./a.db")], "name the same database"),
    "one database twice, by a link": lambda place: (
        (place / "link.db").symlink_to(make(place / "a.db").removeprefix("sqlite:///"))
        or ["migrate", *given(f"sqlite:///{place}/a.db", f"sqlite:///{place}/link.db")],
        "name the same database",
    ),
    "exchanged URLs": exchanged,
    "nodes of different pairs": different_pairs,
    "a copied node": copied,
    "another durability than the pair's": lambda place: (
        ["status", *pair(place), "--durability", "async"],
        "durability is async here and replicated in the pair's control tables",
    ),
    "status of two databases that are no pair": unmigrated("status"),
    "sync of two databases that are no pair": unmigrated("sync"),
    "switchover of two databases that are no pair": unmigrated("switchover"),
    "takeover of two databases that are no pair": unmigrated("takeover"),
    "rejoin of two databases that are no pair": unmigrated("rejoin"),
    "solo of two databases that are no pair": unmigrated("solo"),
    "ship of two databases that are no pair": unmigrated("ship"),
    "status of two files that don't exist": missing("status"),
    "orphans of two files that don't exist": lambda place: (["orphans", "list", *missing("x")(place)[0][1:]], "are no pair yet"),
    "a table without a primary key": no_key,
    "a standby with other tables": strangers,
    "a file that is no database": no_database,
    "a directory that doesn't exist": lambda place: (
        ["migrate", *given(f"sqlite:///{place}/nowhere/a.db", f"sqlite:///{place}/b.db")],
        f"primary: the directory {place}/nowhere isn't there",
    ),
    "a directory that can't be written": lambda place: (
        ["migrate", *given("sqlite:////proc/a.db", f"sqlite:///{place}/b.db")],
        "primary: the directory /proc can't be written",
    ),
    "a standby's directory that can't be written": lambda place: (
        ["migrate", *given(make(place / "a.db"), "sqlite:////proc/b.db")],
        "standby: the directory /proc can't be written",
    ),
    "a missing Alembic configuration": alembic,
    "an Alembic configuration without scripts": alembic_without_scripts,
    "metadata without a colon": metadata("models", "write MODULE:NAME"),
    "metadata of no module": metadata("nowhere:Base", "No module named 'nowhere'"),
    "metadata that isn't there": metadata("models:Base", "has no attribute 'Base'"),
    "metadata that is something else": metadata("models:number", "is an int: it must be a MetaData"),
    "metadata of a module that fails": metadata("broken:Base", "ZeroDivisionError"),
    "metadata with a table without a primary key": metadata("models:bare", "table bare has no primary key"),
    "metadata and Alembic": lambda place: ([*metadata("models:bare", "")(place)[0], "--alembic-config", "alembic.ini"], "not both"),
    "a node to replace that is there": lambda place: (
        ["migrate", *pair(place), "--replace", "standby"],
        "standby is there and belongs to the pair: only a node that was lost is replaced",
    ),
    "a node that doesn't exist": lambda place: (["takeover", *pair(place), "third"], "'third' is not one of 'primary', 'standby'"),
    "a negative time": lambda place: (["sync", *pair(place), "--timeout", "-1"], "--timeout"),
    "a record that doesn't exist": lambda place: (["orphans", "show", "1234", *pair(place)], "no record begins with that"),
    "native replication": lambda place: (["status", *pair(place), "--replication", "native"], "is PostgreSQL's own"),
}


@pytest.mark.parametrize("name", CASES)
def test_one_sentence_and_nothing_changed(run: Run, tmp_path: Path, name: str) -> None:
    place = tmp_path / "place"
    place.mkdir()
    arguments, sentence = CASES[name](place)
    before = digest(place)
    # relative paths and modules are looked for where the command runs
    for helper in (*place.glob("*.py"), *place.glob("*.ini")):
        (tmp_path / helper.name).write_text(helper.read_text())
    assert sentence in one_sentence(run, *arguments)
    assert digest(place) == before


# -- PostgreSQL


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server with two databases, and a role that needs its password."""
    with PostgresServer(fsync=False) as server:
        hba = server.data / "pg_hba.conf"
        hba.write_text("host all secretive all scram-sha-256\n" + hba.read_text())
        server.execute("SELECT pg_reload_conf()")
        server.execute(f"CREATE ROLE secretive LOGIN PASSWORD '{PASSWORD}'")
        for name in ("one", "two", "views"):
            server.create_database(name)
        server.execute("CREATE TABLE bare (x int)", "views")
        yield server


def control_tables(server: PostgresServer, database: str) -> int:
    return int(server.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'replstore'", database)[0][0])


def url(server: PostgresServer, database: str, *, user: str = "postgres", password: str = "", port: int | None = None) -> str:
    return f"postgresql://{user}{':' + password if password else ''}@127.0.0.1:{port or server.port}/{database}"


@pytest.mark.parametrize("command", ["status", "migrate"])
def test_a_wrong_password(run: Run, server: PostgresServer, command: str) -> None:
    wrong = url(server, "two", user="secretive", password="wrong-" + PASSWORD)
    sentence = one_sentence(run, command, *given(url(server, "one"), wrong))
    assert "standby" in sentence
    assert 'password authentication failed for user "secretive"' in sentence
    assert "wrong-" not in sentence
    assert control_tables(server, "one") == control_tables(server, "two") == 0


@pytest.mark.parametrize("command", ["status", "migrate", "sync"])
def test_an_unreachable_host(run: Run, server: PostgresServer, command: str) -> None:
    with PostgresServer(fsync=False, start=False) as down:
        away = url(server, "one", user="secretive", password=PASSWORD, port=down.port)
        sentence = one_sentence(run, command, *given(url(server, "one"), away))
    assert "standby" in sentence
    assert f"port {down.port} failed: Connection refused" in sentence
    assert control_tables(server, "one") == 0


def test_an_unknown_database(run: Run, server: PostgresServer) -> None:
    sentence = one_sentence(run, "migrate", *given(url(server, "one"), url(server, "nowhere")))
    assert 'database "nowhere" does not exist' in sentence
    assert control_tables(server, "one") == 0


def test_one_server_database_under_two_names(run: Run, server: PostgresServer) -> None:
    """The names of the host differ, so only the databases themselves can tell."""
    other = url(server, "one").replace("127.0.0.1", "db.example.org") + "?hostaddr=127.0.0.1"
    sentence = one_sentence(run, "migrate", *given(url(server, "one"), other))
    assert "one and the same database under two names" in sentence
    assert control_tables(server, "one") == 0


def test_databases_that_are_no_pair(run: Run, server: PostgresServer) -> None:
    secret = url(server, "two", user="secretive", password=PASSWORD)
    assert "are no pair yet: `replstore migrate` makes one of them" in one_sentence(run, "status", *given(url(server, "one"), secret))


def test_a_server_table_without_a_primary_key(run: Run, server: PostgresServer) -> None:
    assert "bare" in one_sentence(run, "migrate", *given(url(server, "views"), url(server, "two")))
    assert control_tables(server, "views") == control_tables(server, "two") == 0
