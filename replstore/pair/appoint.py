"""Which witness is the pair's: its identity stands among the pair's settings, on both nodes, and whatever acts by a witness, or without one, compares it.

A program that knew no witness, or another one, could otherwise let one node go on while the others' witness gives the pair to the other.
"""

from __future__ import annotations

import logging

from sqlalchemy import Connection

from replstore.databases.base import NodeState
from replstore.errors import ConfigError, NotTheWriter, TakeoverRefused
from replstore.node import Node
from replstore.pair.decide import Reach, Term
from replstore.pair.flip import under_role_lock
from replstore.pair.witness import Witness

log = logging.getLogger("replstore.pair")
#: Name of the setting; its value is the witness's identity, empty where the pair has none.
APPOINTED = "witness"


def appointed(node: Node, connection: Connection) -> str:
    """Identity of the pair's witness; empty: it has none."""
    return node.database.control.held(connection, APPOINTED) or ""


def _appointed(node: Node) -> str:
    with node.snapshot() as connection:
        return appointed(node, connection)


def refuse_other_witness(node: Node, connection: Connection, witness: Witness | None) -> None:
    """Raises TakeoverRefused unless the witness that this program asked is the pair's; in the transaction of the act itself."""
    known, asked = appointed(node, connection), witness.identity if witness is not None else ""
    if known != asked:
        raise TakeoverRefused(strange_witness(known, asked))


def strange_witness(known: str, asked: str) -> str:
    """Says that a program's witness isn't the pair's.

    Args:
        known: identity of the pair's, empty: it has none.
        asked: of the program's.
    """
    if not asked:
        return "the pair has a witness, which this program doesn't know or has never reached: set `witness` to its URL"
    if not known:
        return "the pair has no witness, and this program names one: run `replstore migrate`, which makes it the pair's, or leave it out"
    return "the pair has another witness than this program names: set `witness` to its URL"


def appoint(nodes: dict[str, Node], states: dict[str, NodeState], witness: Witness, *, anew: bool = False) -> None:
    """Makes a witness the pair's if the pair has none, or in place of one that was lost; tells it of a takeover that was forced without it.

    Its row is there before it counts, which it does from the moment when both nodes name it: a program that knows no witness can't act any more then.

    Args:
        nodes: both, by name.
        states: both nodes' states, just read.
        witness: it may be empty, or not yet made.
        anew: it takes the place of the pair's.

    Raises:
        ConfigError: the nodes aren't a writer and its follower of one term, or the witness doesn't answer.
        NotAPair: the witness is another pair's.
    """
    named = {_appointed(node) for node in nodes.values()}
    known = named - {""}
    seen = witness.view(next(iter(states.values())).pair)
    if known and not anew and (seen.reach is not Reach.UP or known != {witness.identity}):
        log.warning(
            "the witness %s isn't the pair's (%s): name the pair's, or run `replstore migrate --replace witness` to make this one the pair's",
            witness.shown,
            witness.error or "it is another one",
        )
        return
    writer = next((state for state in states.values() if state.role == "writer"), None)
    follows = {state.role for state in states.values()} == {"writer", "follower"} and len({state.term_uuid for state in states.values()}) == 1
    if writer is None or not follows:
        if known and not anew:
            return
        raise ConfigError("a witness is made while both nodes are there and one follows the other: see `replstore status`, and repeat")
    term = Term(writer.term_no, writer.term_uuid)
    if named == {witness.identity} and not anew and not term.outranks(seen.term):
        return
    identity = witness.create(writer.pair, term, writer.name)
    witness.force(term, writer.name)  # the row may be older, of a time when it counted; the next batch puts the follower in sync
    _set(nodes, term, identity)
    log.info("the witness of the pair is %s", witness.shown)


def dismiss(nodes: dict[str, Node], states: dict[str, NodeState]) -> None:
    """Lets the pair have no witness from now on; programs that name it don't act until they leave it out.

    Raises:
        ConfigError: a node isn't reached: it would still know the witness.
    """
    if len(states) < len(nodes):
        raise ConfigError("a witness is dismissed while both nodes are there: bring the other one back, and repeat")
    for name, state in states.items():
        _set({name: nodes[name]}, Term(state.term_no, state.term_uuid), "")
    log.warning("the pair has no witness any more: leave `witness` out of every program's settings")


def _set(nodes: dict[str, Node], term: Term, identity: str) -> None:
    for node in nodes.values():

        def change(connection: Connection, state: NodeState, node: Node = node) -> None:
            if (state.term_no, state.term_uuid) != (term.number, term.uuid):
                raise NotTheWriter(f"{node.name} is of another term by now: look at `replstore status` and repeat")
            node.database.control.hold(connection, APPOINTED, identity)

        under_role_lock(node, change, seconds=5.0)
