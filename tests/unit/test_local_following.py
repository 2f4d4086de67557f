"""A data directory becomes a follower: what is refused leaves it as it was, what can't be rewound is copied, its own configuration stays."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from replstore import local
from replstore.errors import ConfigError, ReplstoreError
from replstore.local import programs
from replstore.local.data_directory import DataDirectory
from replstore.local.following import _without_password, follow
from replstore.local.process import PostgresServer


def files(node: DataDirectory) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(node.path.glob("*")) if file.is_file()}


def outrun(pair: local.StreamingPair) -> None:
    """The standby is away while the primary drops the log that it would need."""
    pair.stop("standby")
    pair.primary.execute("ALTER SYSTEM SET wal_keep_size = 0")
    pair.primary.execute("SELECT pg_reload_conf()")
    for _ in range(3):
        pair.primary.execute("SELECT pg_switch_wal() FROM pg_logical_emit_message(false, '', 'x')")
        pair.primary.execute("CHECKPOINT")
    pair.primary.execute("ALTER SYSTEM RESET wal_keep_size")
    pair.primary.execute("SELECT pg_reload_conf()")


def test_a_standby_that_was_away_for_too_long_is_copied(streaming_pair: local.StreamingPair):
    outrun(streaming_pair)
    assert streaming_pair.follow("standby") == "copied"
    streaming_pair.catch_up()


def test_a_standby_that_was_killed_needs_no_copy(streaming_pair: local.StreamingPair):
    streaming_pair.kill("standby")
    assert streaming_pair.follow("standby") == "rewound"
    streaming_pair.catch_up()


def test_a_directory_that_is_copied_anew_is_kept_aside(streaming_pair: local.StreamingPair):
    pair, node = streaming_pair, streaming_pair.data("standby")
    outrun(pair)
    assert follow(node, pair.conninfo("primary"), name="standby", server=pair.standby, sync=False) == "copied"
    (aside,) = node.path.parent.glob("data.before-*")
    assert (aside / "PG_VERSION").exists()
    pair.catch_up()


def test_a_node_keeps_its_own_configuration(streaming_pair: local.StreamingPair):
    pair = streaming_pair
    for node in ("primary", "standby"):
        pair.server(node).execute(f"ALTER SYSTEM SET cluster_name = 'I am the {node}'")
    pair.kill("primary")
    pair.promote("standby")
    pair.follow("primary")
    assert pair.primary.execute("SHOW cluster_name") == [("I am the primary",)]
    pair.primary.execute("ALTER SYSTEM RESET cluster_name")
    pair.standby.execute("ALTER SYSTEM RESET cluster_name")


def test_nothing_is_changed_for_a_leader_that_cannot_be_followed(streaming_pair: local.StreamingPair, postgresql_servers: local.PostgresPair):
    pair, node = streaming_pair, streaming_pair.data("primary")
    stranger = f"host=127.0.0.1 port={postgresql_servers.primary.port} user=postgres dbname=postgres"
    nobody = f"host=127.0.0.1 port={local.free_port()} user=replicator password=s3cret dbname=postgres"
    before = files(node)
    for leader, why in ((stranger, "another cluster"), (nobody, "refused"), (pair.conninfo("standby"), "in recovery: promote it first")):
        with pytest.raises(ReplstoreError, match=why) as refused:
            follow(node, leader, name="primary", server=pair.primary)
        assert "s3cret" not in str(refused.value)
    assert files(node) == before
    assert pair.primary.running


def test_a_directory_follows_without_the_object_that_began_its_server(streaming_pair: local.StreamingPair):
    """What `rejoin` does on a machine where the server belongs to nobody's program."""
    pair, node = streaming_pair, streaming_pair.data("primary")
    pair.kill("primary")
    pair.promote("standby")
    assert node.pid is None
    assert follow(node, pair.conninfo("standby"), name="primary", sync=False) == "rewound"
    try:
        assert node.pid
        assert node.follows
        assert node.control().state == "in archive recovery"
    finally:
        node.stop()
    assert node.control().state == "shut down in recovery"


def test_a_password_is_on_no_command_line_and_readable_by_the_server_alone(streaming_pair: local.StreamingPair):
    assert _without_password("host=a password=s3cret") == ("host=a", {"PGPASSWORD": "s3cret"})
    pair = streaming_pair
    pair.kill("primary")
    pair.promote("standby")
    leader = pair.conninfo("standby") + r" password='it''s \\ s3cret'".replace("''", r"\'")
    follow(pair.data("primary"), leader, name="primary", server=pair.primary, sync=False)
    ((known,),) = pair.primary.execute("SHOW primary_conninfo")
    assert r"password='it\'s \\ s3cret'" in known
    assert "application_name=primary" in known
    automatic = pair.primary.data / "postgresql.auto.conf"
    assert stat.S_IMODE(automatic.stat().st_mode) == 0o600
    pair.follow("primary")
    assert automatic.read_text().count("primary_conninfo") == 1
    assert "s3cret" not in automatic.read_text()


def test_another_process_under_a_dead_servers_number_is_left_alone():
    with PostgresServer("wheel", fsync=False) as server:
        node = DataDirectory(server.data, server.bindir)
        assert node.pid == server.pid
        server.kill()
        note = server.data / "postmaster.pid"
        note.write_text("\n".join([str(os.getpid()), *note.read_text().splitlines()[1:]]))
        assert node.pid is None
        node.stop()
        with pytest.raises(ReplstoreError, match=r"no server runs in .*: start it, then promote it"):
            node.promote()
        note.unlink()


def test_a_server_that_cannot_start_says_why():
    with PostgresServer("wheel", fsync=False, start=False) as server:
        (server.data / "local.conf").write_text("no_such_setting = 1\n")
        with pytest.raises(ReplstoreError, match=r"did not start within 5 s.*no_such_setting"):
            DataDirectory(server.data, server.bindir).start(5)


def test_what_is_no_data_directory_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="can't be used as a PostgreSQL data directory"):
        DataDirectory(tmp_path)
    (tmp_path / "PG_VERSION").write_text("99\n")
    os.chown(tmp_path, 65534 if os.geteuid() == 0 else -1, -1)
    with pytest.raises(ConfigError, match="no programs of PostgreSQL 99"):
        DataDirectory(tmp_path)


def test_the_programs_are_those_of_the_directorys_version():
    with PostgresServer("wheel", fsync=False, start=False) as server:
        node = DataDirectory(server.data)
        assert f" {(server.data / 'PG_VERSION').read_text().strip()}." in str(programs._version(node.bindir))


def test_a_directory_of_root_is_refused(tmp_path: Path):
    if os.geteuid() != 0:
        pytest.skip("only root may act on a directory of root's")
    (tmp_path / "PG_VERSION").write_text("18\n")
    with pytest.raises(ConfigError, match="belongs to root, whom PostgreSQL refuses"):
        DataDirectory(tmp_path)
