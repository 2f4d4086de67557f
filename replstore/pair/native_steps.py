"""The commands of a person who runs the servers, for what SQL can't do: hosts, ports and directories filled in, and no password."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from replstore.databases.native.base import Native
from replstore.pair.directories import place

if TYPE_CHECKING:
    from replstore.node import Node
    from replstore.pair.pair import Pair


def cluster_of(node: Node) -> str | None:
    """The name of the cluster where the server looks as if Patroni ran it; None: it doesn't, or doesn't answer."""
    assert isinstance(node.database, Native)
    try:
        with node.snapshot() as connection:
            return node.database.patroni(connection)
    except Exception:  # whoever asks has something to say without it
        return None


def switching_over(pair: Pair, writer: Node, follower: Node) -> str:
    """What lets two nodes change places."""
    if cluster := cluster_of(writer):
        return f"Patroni runs {writer.name} as a member of {cluster}: run `patronictl switchover {shlex.quote(cluster)}`"
    return (
        f"with a provider use its own command; else, on {_machine(writer)}, `pg_ctl stop -m fast -D {_data(pair, writer)}`, then "
        f"`replstore takeover {follower.name}`, then {following(pair, writer, follower)}"
    )


def following(pair: Pair, node: Node, leader: Node, *, copy: bool = False) -> str:
    """What makes a node the follower of another one."""
    if cluster := cluster_of(leader):
        name = shlex.quote(cluster)
        return f"Patroni runs {leader.name} as a member of {name}: `patronictl list {name}` shows the other member, `patronictl reinit {name} MEMBER` makes it anew"
    data, user = _data(pair, node), shlex.quote(pair.settings.replication_user or "REPLICATOR")
    start = f"`pg_ctl start -D {data} -l {data}/server.log`"
    backup = f"`pg_basebackup {place(leader.url)} -U {user} -R -D {data}` into the emptied directory"
    if copy:
        return f"on {_machine(node)}, its server stopped, {backup}, and {start}"
    source = f"host={leader.url.query.get('host') or leader.url.host or 'localhost'} port={leader.url.port or 5432} user={user} dbname={leader.url.database}"
    return f"on {_machine(node)}, its server stopped, `pg_rewind -R --source-server={shlex.quote(source)} -D {data}` (or {backup}), and {start}"


def _machine(node: Node) -> str:
    return f"{node.name}'s machine ({node.url.query.get('host') or node.url.host or 'localhost'})"


def _data(pair: Pair, node: Node) -> str:
    given = {"primary": pair.settings.primary_data, "standby": pair.settings.standby_data}[node.name]
    return shlex.quote(given) if given else '"$PGDATA"'
