"""Before a Store opens: are these two databases one pair, and are its settings those of the pair?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from replstore.config import Settings
from replstore.control import LAYOUT
from replstore.databases.base import Fault, NodeState
from replstore.databases.native.base import Identity, Native
from replstore.errors import ConfigError, NotAPair, SettingsDiffer
from replstore.node import Node, Observation
from replstore.pair.appoint import APPOINTED, strange_witness
from replstore.pair.witness import Witness
from replstore.urls import obstacle, shown


def admit(settings: Settings) -> Settings:
    """Compares settings and databases; settings that the user left open become the pair's.

    Args:
        settings: as loaded.

    Returns:
        The settings to work with.

    Raises:
        NotAPair: the databases are one and the same, or belong to different pairs.
        SettingsDiffer: a setting was given that the pair doesn't have.
        ConfigError: neither node can be reached, or one isn't what it should be.
    """
    while True:
        held = _held(settings)
        adopted = settings.adopt(held)
        if adopted.replication == settings.replication:
            return adopted
        settings = adopted  # the nodes are asked again, as those of the kind of pair that they are


def _held(settings: Settings) -> Mapping[str, str]:
    """What the pair's control tables say of its settings; nothing: there is no pair yet."""
    nodes = [Node(name, url, seconds=settings.probe_timeout, native=settings.replication == "native") for name, url in settings.urls.items()]
    try:
        with ThreadPoolExecutor(len(nodes), thread_name_prefix="replstore admit") as askers:
            seen = list(askers.map(lambda node: node.observe(settings.probe_timeout + 1.0), nodes))
        states = {node.name: answer.state for node, answer in zip(nodes, seen, strict=True) if answer.state is not None}
        if not states:
            if other := _of_another_kind(nodes, seen):
                return other
            _refuse_unusable(nodes, seen)
            _refuse_witness(settings)
        for node in nodes:
            if node.name in states:
                _refuse_newer(node)
        held = _held_settings(next(node for node in nodes if node.name in states)) if states else {}
        if held.get("replication", settings.replication) == settings.replication:
            if settings.replication == "native" and states:
                _refuse_uncopied(nodes, seen)
            COMPARED[settings.replication](states)
            _refuse_no_witness(settings, held)
        return held
    finally:
        for node in nodes:
            node.close()


def _of_another_kind(nodes: list[Node], seen: list[Observation]) -> Mapping[str, str]:
    """The settings of a pair that was asked as if it were one of another kind of replication; empty: it isn't."""
    for node, answer in zip(nodes, seen, strict=True):
        if answer.fault is Fault.CALLER:  # it answers, and hasn't all the control tables that were asked for
            with suppress(DBAPIError):
                return _held_settings(node)
    return {}


def is_no_pair(nodes: Iterable[Node], seen: Mapping[str, Observation]) -> bool:
    """Whether the two databases surely have never been a pair: each answered that it has no control tables, or is a file yet to be made.

    Args:
        nodes: both.
        seen: what they answered, by name.
    """
    return all(
        (answer := seen.get(node.name)) is not None and answer.state is None and (answer.fault is None or node.database.may_create(node.url))
        for node in nodes
    )


def _refuse_unusable(nodes: list[Node], seen: list[Observation]) -> None:
    """Two databases without control tables: each must be there, or be a file that can be made."""
    faults = []
    for node, answer in zip(nodes, seen, strict=True):
        if reason := obstacle(node.url):
            faults.append(f"{node.name}: {reason}")
        elif answer.fault is not None and not node.database.may_create(node.url):
            faults.append(f"{node.name} {shown(node.url)}: {answer.error}")
    if faults:
        raise ConfigError("; ".join(faults))


def _refuse_witness(settings: Settings) -> None:
    """The witness of a pair that is yet to be made must be there: afterwards nobody would miss it before it is needed."""
    if settings.witness_url is not None:
        witness = Witness(settings.witness_url, seconds=settings.probe_timeout)
        try:
            witness.open()
        finally:
            witness.close()


def _refuse_newer(node: Node) -> None:
    with node.snapshot() as connection:
        revision = connection.exec_driver_sql(f"SELECT version_num FROM {node.database.control.name('alembic_version')}").scalar()
    if revision is not None and int(revision) > LAYOUT:
        raise ConfigError(
            f"{node.name}'s control tables were written by a newer replstore (layout {revision}, this version knows up to {LAYOUT}): install that version"
        )


def compare_nodes(states: Mapping[str, NodeState]) -> None:
    """Raises NotAPair unless the nodes' uuids and names are those of one pair."""
    for name, state in states.items():
        if state.name != name:
            raise NotAPair(f"the database given as {name} is the pair's {state.name}: are the two URLs exchanged?")
    if len(states) == 2:
        primary, standby = states["primary"], states["standby"]
        if primary.pair != standby.pair:
            raise NotAPair(f"primary belongs to pair {primary.pair} and standby to pair {standby.pair}: they are nodes of different pairs")
        if primary.node == standby.node:
            raise NotAPair("primary and standby are copies of one node: a standby is made by `replstore migrate`, not by copying files")


def compare_copies(states: Mapping[str, NodeState]) -> None:
    """Raises NotAPair unless the nodes are one cluster and its copy."""
    refuse_clusters({name: state.stream.system for name, state in states.items() if state.stream is not None})
    if len({state.pair for state in states.values()}) == 2:
        raise NotAPair("primary and standby hold the control tables of different pairs")


def _refuse_uncopied(nodes: list[Node], seen: list[Observation]) -> None:
    """Raises NotAPair where one node has the control tables, and the other one answers without: it is no copy, or a copy that hasn't got them yet."""
    found = {}
    for node, answer in zip(nodes, seen, strict=True):
        if answer.fault is None and isinstance(node.database, Native):
            with node.snapshot() as connection:
                found[node.name] = node.database.identity(connection)
    refuse_strangers(found)


def refuse_strangers(found: Mapping[str, Identity]) -> None:
    """Raises NotAPair where two nodes, by name, are not one database of one cluster."""
    refuse_clusters({name: identity.system for name, identity in found.items()})
    if len(databases := {identity.database for identity in found.values()}) == 2:
        raise NotAPair(
            f"primary and standby name two databases of one cluster, {' and '.join(sorted(databases))}: a standby has the primary's under the same name"
        )


def refuse_clusters(systems: Mapping[str, str]) -> None:
    """Raises NotAPair where two nodes, by name, have different system identifiers."""
    if len(set(systems.values())) == 2:
        raise NotAPair(
            f"primary and standby are two clusters, not one and its copy (system identifiers {systems['primary']} and {systems['standby']}): "
            "a standby of native replication is made from the primary, with pg_basebackup"
        )


#: By the setting ``replication``, what compares the nodes.
COMPARED: Mapping[str, Callable[[Mapping[str, NodeState]], None]] = {"journal": compare_nodes, "native": compare_copies}


def agree(settings: Settings, node: Node) -> None:
    """Compares once more, when the pair is met: another program may have made it, with its own settings, since ``admit``.

    Raises:
        SettingsDiffer: it has other settings than this program works with.
    """
    held = _held_settings(node)
    _refuse_no_witness(settings, held)
    for name, value in settings.adopt(held).pair_values().items():
        if value != settings.pair_values()[name]:
            raise SettingsDiffer(f"the pair has been made by another program, with {name} {value}: open the Store anew")


def _refuse_no_witness(settings: Settings, held: Mapping[str, str]) -> None:
    if held.get(APPOINTED) and settings.witness_url is None:
        raise SettingsDiffer(f"no witness is named here, and {strange_witness(held[APPOINTED], '')}")


def _held_settings(node: Node) -> dict[str, str]:
    setting = node.database.control.setting
    with node.snapshot() as connection:
        return {row.name: row.value for row in connection.execute(select(setting))}
