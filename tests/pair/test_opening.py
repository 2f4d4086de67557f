"""Before a pair is there, and when what it needs can't be used: one sentence that names the node or the witness, at once, and nothing half-made."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from replstore.cli.common import Options
from replstore.cli.failures import report
from replstore.cli.opening import opened
from replstore.errors import ConfigError, NotAPair
from replstore.store import Store
from replstore.urls import parse
from tests.fix_ordinary import ordinary


def refused(place: Path, **settings: str) -> str:
    urls = {"primary": f"sqlite:///{place}/a.db", "standby": f"sqlite:///{place}/b.db"} | settings
    with pytest.raises(ConfigError) as caught:
        Store(background=False, **urls)
    return str(caught.value)


def test_a_directory_that_is_not_there_or_cannot_be_written_is_named_once(place: Path) -> None:
    (place / "ro").mkdir(mode=0o555)
    assert refused(place, primary=f"sqlite:///{place}/none/a.db") == f"primary: the directory {place}/none isn't there"
    assert refused(place, standby="sqlite:////proc/b.db") == "standby: the directory /proc can't be written (No such file or directory)"
    with ordinary():
        assert refused(place, standby=f"sqlite:///{place}/ro/b.db") == f"standby: the directory {place}/ro can't be written"
    assert sorted(path.name for path in place.iterdir()) == ["ro"]


def test_a_file_that_cannot_be_written_makes_no_pair(place: Path) -> None:
    sqlite3.connect(place / "a.db").execute("CREATE TABLE t (id INTEGER PRIMARY KEY)").connection.close()
    (place / "a.db").chmod(0o444)
    with ordinary():
        assert refused(place) == f"primary: the file {place}/a.db can't be written"
    assert sorted(path.name for path in place.iterdir()) == ["a.db"]


def test_a_witness_that_cannot_be_opened_leaves_no_half_of_a_pair(place: Path) -> None:
    (place / "text.db").write_text("This is a letter and no database. " * 100)
    for url, sentence in (
        (f"sqlite:///{place}/none/w.db", f"witness sqlite:///{place}/none/w.db can't be opened: the directory {place}/none isn't there"),
        (f"sqlite:///{place}/text.db", f"witness sqlite:///{place}/text.db can't be opened: file is not a database"),
        ("postgresql://u:s3cret@127.0.0.1:1/w", "witness postgresql+psycopg://u:***@127.0.0.1:1/w can't be opened: connection failed"),
    ):
        assert refused(place, witness=url).startswith(sentence)
    assert sorted(path.name for path in place.iterdir()) == ["text.db"]


def test_a_witness_that_is_only_looked_for_is_not_made(place: Path) -> None:
    urls = {"primary": f"sqlite:///{place}/a.db", "standby": f"sqlite:///{place}/b.db"}
    with Store(background=False, **urls) as store:
        store.migrate()
    with Store(background=False, **urls, witness=f"sqlite:///{place}/mistyped.db") as store:
        status = store.status()
    assert status.witness == "silent: its file isn't there"
    assert "the witness isn't reached (its file isn't there): nobody goes on alone by it" in status.warnings
    assert not (place / "mistyped.db").exists()


def test_a_driver_error_names_the_node_that_it_comes_from(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The standby's file became read-only after the pair was made."""
    urls = {"primary": f"sqlite:///{place}/a.db", "standby": f"sqlite:///{place}/b.db"}
    with ordinary():
        with Store(background=False, **urls) as store:
            store.migrate()
        (place / "b.db").chmod(0o444)
        with pytest.raises(OperationalError) as caught, opened(Options(**urls)) as store, store.pair.standby.begin() as connection:
            connection.exec_driver_sql("UPDATE replstore_heartbeat SET no = no + 1")
    assert report(caught.value, 1) == 2
    assert capsys.readouterr().err == f"replstore: standby sqlite:///{place}/b.db answers: attempt to write a readonly database\n"


def test_an_error_of_a_session_with_both_nodes_names_both(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    urls = {"primary": f"sqlite:///{place}/a.db", "standby": f"sqlite:///{place}/b.db"}
    with Store(background=False, **urls) as store:
        store.migrate()
    with pytest.raises(sqlite3.OperationalError) as caught, opened(Options(**urls)):
        sqlite3.connect(place / "a.db").execute("SELECT * FROM nowhere")
    report(caught.value, 1)
    assert capsys.readouterr().err.startswith(f"replstore: primary sqlite:///{place}/a.db or standby sqlite:///{place}/b.db answers: no such table")


def test_two_databases_that_were_never_a_pair_are_told_at_once(place: Path) -> None:
    """Not after takeover_timeout: an hour would let this test fail."""
    urls = {"primary": f"sqlite:///{place}/a.db", "standby": f"sqlite:///{place}/b.db"}
    with Store(**urls, takeover_timeout=3600) as store:
        for call in (lambda: store.run(lambda session: None), lambda: store.sync(timeout=3600)):
            with pytest.raises(NotAPair, match=r"these two databases are no pair yet: store.migrate\(…\) or `replstore migrate` makes one of them"):
                call()
        store.migrate()
        store.run(lambda session: None)


@pytest.mark.parametrize("query", ["sslmode=bogus", "target_session_attrs=x", "channel_binding=x"])
def test_a_parameter_that_the_client_refuses_is_a_setting_and_contacts_nobody(query: str) -> None:
    with pytest.raises(ConfigError, match=r"the URL's parameters: invalid \w+ value") as caught:
        parse(f"postgresql://u:s3cret@db.invalid/d?{query}")
    assert "s3cret" not in str(caught.value)
    assert parse("postgresql://u@db.invalid/d?sslmode=require&application_name=shop").query["sslmode"] == "require"
