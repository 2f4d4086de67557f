"""A former primary of native replication whose data directory is here: what only it has, and whether that was exported."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from replstore.errors import ConfigError, NodeLost, ReplstoreError
from replstore.local.data_directory import DataDirectory
from replstore.local.following import timelines_of
from replstore.local.lost_log import Lost, fork, lost_transactions
from replstore.pair.directories import directory_of, leader_of
from replstore.pair.native_steps import following
from replstore.pair.view import NodeView, Reach, Role, View, named

if TYPE_CHECKING:
    from replstore.node import Node
    from replstore.pair.pair import Pair

#: Where a data directory keeps how far it was exported; a rewind takes it away.
EXPORTED = "replstore.exported"
#: What is wanted of a former primary whose rows are to be kept.
EXPORT = "an export"


@dataclass(frozen=True)
class Former:
    """A former primary, or another node that doesn't follow.

    Attributes:
        node: the node.
        directory: its data directory.
        writer: who writes now.
        at: where that is, for the role that replicates.
        timelines: of the writer; see ``local.following.timelines_of``.
    """

    node: Node
    directory: DataDirectory
    writer: Node
    at: str = field(repr=False)  # perhaps with a password
    timelines: dict[int, int | None]

    @cached_property
    def lost(self) -> list[Lost]:
        """What only it has; its server must be stopped.

        Raises:
            ReplstoreError: that can't be told.
        """
        place = fork(self.directory, self.timelines)
        return [] if place is None else lost_transactions(self.directory, *place)

    def exported(self) -> int | None:
        """How far its log was exported, as a number of bytes; None: it wasn't."""
        try:
            return int(json.loads((self.directory.path / EXPORTED).read_text())["through"])
        except (OSError, ValueError, KeyError):
            return None

    def remember(self, file: str, through: int) -> None:
        """It was exported so far, to a file."""
        path = self.directory.path / EXPORTED
        path.write_text(json.dumps({"file": file, "through": through}))
        os.chown(path, *self.directory.owner)


def former_of(pair: Pair, *, what: str, copy: bool = False) -> Former:
    """Finds out who writes, and who is to follow.

    Args:
        pair: the pair.
        what: what is wanted, as a noun, for messages.
        copy: the node is to be made anew.

    Raises:
        NodeLost: nobody can be followed, or the node's data directory isn't here; the message says what to run.
        ConfigError: both write, and neither is newer; or the directory can't be used.
    """
    view, decision = pair.look()
    writer = _writer(view)
    if writer is None:
        raise NodeLost(f"{what} needs a node that writes: {decision.reason}; {decision.next_step or 'bring it back'}")
    node, leader = pair.other(pair.nodes[writer.name]), pair.nodes[writer.name]
    directory = directory_of(pair, node.name)
    if directory is None:
        by_hand = f"; or, by hand, {following(pair, node, leader, copy=copy)}, which throws away what only {node.name} has" if what != EXPORT else ""
        raise NodeLost(
            f"{what} needs {node.name}'s data directory, and {node.name}_data doesn't name it: run it where the directory is{by_hand}"
            + ("; no pg_rewind before that, which throws away what only it has" if what == EXPORT else "")
        )
    at = leader_of(pair, leader, directory, directory_of(pair, leader.name))
    try:
        return Former(node, directory, leader, at, timelines_of(at))
    except ReplstoreError as error:
        raise NodeLost(f"{what} has to ask {leader.name} as a follower does: {error}; replication_user names the role") from error


def _writer(view: View) -> NodeView | None:
    found = [seen for seen in (view.primary, view.standby) if seen.reach is Reach.UP and seen.role is Role.WRITER]
    if len(found) < 2:
        return found[0] if found else None
    one, other = sorted(found, key=lambda seen: (seen.stream.timeline or 0) if seen.stream else 0)
    if one.stream is None or other.stream is None or one.stream.timeline == other.stream.timeline:
        raise ConfigError("both nodes write on one timeline of two histories: decide which one is right, stop the other one's server, and repeat it")
    return other


def follows_already(pair: Pair, node: Node) -> bool:
    """Whether a node streams from the writer as it should."""
    view, decision = pair.look()
    seen, lead = named(view, node.name), pair.lead
    return (
        lead is not None
        and decision.writer == lead.node.name
        and seen.reach is Reach.UP
        and seen.role is Role.FOLLOWER
        and seen.term == lead.term
        and seen.stream is not None
        and seen.stream.receiving
    )
