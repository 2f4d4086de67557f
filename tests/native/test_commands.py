"""The commands on a pair of native replication: with the two URLs alone, and with what only makes sense over a journal refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.fix_command import Run, forks, run
from tests.fix_native import NativeLab
from tests.fix_stores import insert, until

__all__ = ["forks", "run"]


def test_commands_need_no_more_than_the_two_urls(native_lab: NativeLab, run: Run, tmp_path: Path) -> None:
    urls = ("--primary", native_lab.pair.primary_url, "--standby", native_lab.pair.standby_url)
    made = run("migrate", "--replication", "native", *urls)
    assert made.returncode == 0, made.stderr
    native_lab.sql("primary", "CREATE TABLE account (id int PRIMARY KEY, owner text, amount int)", insert(1))
    for command in ("sync", "status", "check"):
        done = run(command, "--format", "json", *urls)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    compared = json.loads(run("check", native_lab.pair.primary_url, native_lab.pair.standby_url, "--format", "json").stdout)
    assert (compared["pair"], compared["exact"]) == (True, True)
    for arguments, sentence in {
        ("solo",): "with native replication the server acknowledges",
        ("repair",): "a standby of native replication is a physical copy",
        ("check", "--since", "last"): "every row is compared",
        ("orphans", "list"): "native replication records no orphans",
        ("orphans", "export", "there.json"): "there.json is there already",
        ("status", "--replication", "journal"): "replication is journal here and native in the pair's control tables",
        ("status", "--durability", "async"): "durability is async here and server in the pair's control tables",
    }.items():
        (tmp_path / "there.json").touch()
        refused = run(*arguments, *urls)
        assert (refused.returncode, refused.stdout) == (2, ""), (arguments, refused.stdout, refused.stderr)
        assert sentence in refused.stderr, arguments
        assert refused.stderr.count("\n") == 1, refused.stderr


def test_orphans_are_exported_to_a_file_and_the_former_primary_follows(native_lab: NativeLab, run: Run, tmp_path: Path) -> None:
    settings = {f"REPLSTORE_{name.upper()}": value for name, value in native_lab.here().items()}
    urls = ("--primary", native_lab.pair.primary_url, "--standby", native_lab.pair.standby_url)
    native_lab.migrated(background=False).close()
    native_lab.kill("standby")
    native_lab.sql("primary", insert(7, amount=70))
    native_lab.kill("primary")
    native_lab.start("standby")
    assert run("takeover", "--force", *urls).returncode == 0
    refused = run("rejoin", *urls, **settings)
    assert (refused.returncode, "primary has 1 transaction that standby lacks" in refused.stderr) == (2, True), refused.stderr
    exported = run("orphans", "export", "lost.json", *urls, **settings)
    assert exported.returncode == 0, exported.stderr
    file = tmp_path / "lost.json"
    assert file.stat().st_mode & 0o077 == 0
    ((table,), (transaction,)) = (json.loads(file.read_text())[name] for name in ("tables", "transactions"))
    assert table == {
        "name": "public.account",
        "rows": [
            {
                "key": {"id": 7},
                "kind": "only_on_former",
                "transaction": transaction["transaction"],
                "former": {"id": 7, "owner": "owner 7", "amount": "70"},
                "writer": None,
            }
        ],
    }
    rejoined = run("rejoin", *urls, **settings)
    assert (rejoined.returncode, rejoined.stdout) == (0, "The primary follows again; 1 transaction that only it had is gone from it.\n"), (
        rejoined.stderr
    )


@pytest.mark.slow
def test_a_primary_conninfo_that_cannot_be_read_is_shown_by_no_command(native_lab: NativeLab, run: Run) -> None:
    """Its text may be a password: whoever wrote it has forgotten the quotes."""
    settings = {f"REPLSTORE_{name.upper()}": value for name, value in native_lab.here().items()}
    urls = ("--primary", native_lab.pair.primary_url, "--standby", native_lab.pair.standby_url)
    native_lab.migrated(background=False).close()
    standby = native_lab.pair.standby
    ((way,),) = standby.execute("SHOW primary_conninfo")
    standby.execute("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 password=very s3cret'")
    standby.execute("SELECT pg_reload_conf()")
    try:
        until(lambda: "s3cret" in standby.logs, "the server's own log quotes it")
        for command in (("status",), ("check",), ("switchover",), ("rejoin",), ("orphans", "export", "x.json"), ("takeover", "standby")):
            done = run(*command, *urls, **settings, REPLSTORE_DEBUG="1")  # says all that it says without, and how that came about
            assert "s3cret" not in done.stdout + done.stderr, (command, done.stdout, done.stderr)
            assert "very" not in done.stdout + done.stderr, command
            assert "mistake in replstore" not in done.stderr, done.stderr
        refused = run("rejoin", *urls, **settings)
        assert refused.returncode == 2
        assert "the primary_conninfo of" in refused.stderr
        assert "can't be read as a connection string; it isn't shown" in refused.stderr
    finally:
        if not standby.running:
            standby.start()
        standby.execute(f"ALTER SYSTEM SET primary_conninfo = '{way}'")
        standby.execute("SELECT pg_reload_conf()")


def test_a_rejoin_says_that_nothing_was_to_be_done(native_lab: NativeLab, run: Run) -> None:
    urls = ("--primary", native_lab.pair.primary_url, "--standby", native_lab.pair.standby_url)
    native_lab.migrated(background=False).close()
    done = run("rejoin", *urls)
    assert (done.returncode, done.stdout) == (0, "The standby follows already.\n"), done.stderr


def test_whoever_wants_to_keep_what_only_a_former_primary_has_is_not_told_to_rewind_it(native_lab: NativeLab, run: Run) -> None:
    urls = ("--primary", native_lab.pair.primary_url, "--standby", native_lab.pair.standby_url)
    native_lab.migrated(background=False).close()
    native_lab.kill("primary")
    assert run("takeover", "--force", *urls).returncode == 0
    export = run("orphans", "export", "lost.json", *urls).stderr
    assert "no pg_rewind before that, which throws away what only it has" in export
    assert "pg_basebackup" not in export
    rejoin = run("rejoin", *urls).stderr
    assert "run it where the directory is; or, by hand," in rejoin
    assert "which throws away what only primary has" in rejoin


def test_a_switchover_that_sql_cannot_do_names_the_easiest_way_first(native_lab: NativeLab, run: Run) -> None:
    urls = ("--primary", native_lab.pair.primary_url, "--standby", native_lab.pair.standby_url)
    native_lab.migrated(background=False).close()
    said = run("switchover", *urls).stderr
    assert "where both data directories are on this machine, name them by primary_data and standby_data; with a provider" in said
