"""Data directories of a pair's nodes on this machine, as far as the settings name them, and where a server is for those that replicate from it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import URL

from replstore.errors import ConfigError, ReplstoreError
from replstore.local.conninfo import parsed
from replstore.local.data_directory import DataDirectory

if TYPE_CHECKING:
    from replstore.node import Node
    from replstore.pair.pair import Pair

#: URL parameters that say how a server is reached; the others are the program's own.
REACHED = ("host", "hostaddr", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslnegotiation", "channel_binding", "gssencmode", "passfile")
#: What Patroni keeps in the data directory of every server that it runs.
PATRONI = "patroni.dynamic.json"


def directory_of(pair: Pair, name: str) -> DataDirectory | None:
    """The data directory of a node; None: the settings name none.

    Raises:
        ConfigError: it can't be used, or Patroni runs the server in it.
    """
    given = {"primary": pair.settings.primary_data, "standby": pair.settings.standby_data}[name]
    if given is None:
        return None
    bindir = Path(pair.settings.postgresql_bin) if pair.settings.postgresql_bin else None
    found = DataDirectory(given, bindir)
    if (found.path / PATRONI).exists():
        raise ConfigError(f"{name}_data: Patroni runs the server in {found.path}, and would undo what is done behind its back: use patronictl")
    return found


def leader_of(pair: Pair, leader: Node, *directories: DataDirectory | None) -> str:
    """Where a writer is, for the role that replicates from it and rewinds: libpq's connection string, perhaps with a password.

    Args:
        pair: the pair.
        leader: the writer.
        directories: those of either node, whose configuration may say which role that is.
    """
    from psycopg.conninfo import make_conninfo

    url = leader.url
    known: dict[str, Any] = {name: value for name, value in url.query.items() if name in REACHED}
    known |= {name: value for name, value in (("host", url.host), ("port", url.port)) if value is not None}
    configured = [found for each in directories if each is not None and (found := primary_conninfo(each)).get("user")]
    user = pair.settings.replication_user
    role = next((each for each in configured if user in (None, each["user"])), {"user": user or url.username})
    if "password" not in role and role.get("user") == url.username and url.password:
        role = {**role, "password": str(url.password)}
    known |= {name: role[name] for name in ("user", "password", "passfile") if role.get(name)}
    return make_conninfo(**{"user": "postgres", **known, "dbname": url.database or "postgres"})


def primary_conninfo(directory: DataDirectory) -> dict[str, Any]:
    """Whom a directory's server follows, or would follow, by its configuration; empty: nobody.

    Raises:
        ConfigError: it can't be read.
    """
    options = ["-c", f"config_file={directory.config_file}"] if directory.config_file else []
    try:
        said = directory.run("postgres", "-C", "primary_conninfo", "-D", str(directory.path), *options)
    except ReplstoreError:  # a configuration that the server wouldn't start with either
        return {}
    return parsed(said.splitlines()[-1], f"the primary_conninfo of {directory.path}") if said else {}


def name_of(directory: DataDirectory, node: str) -> str:
    """The name under which a node follows, by which ``synchronous_standby_names`` knows it: its configuration's, else the node's own."""
    return str(primary_conninfo(directory).get("application_name") or node)


def place(url: URL) -> str:
    """Host and port, for commands that a person runs."""
    return f"-h {shlex.quote(str(url.query.get('host') or url.host or 'localhost'))} -p {url.port or url.query.get('port') or 5432}"
