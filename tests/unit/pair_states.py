"""The states of the model in `pair_model`, and the views that the real functions get of them."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from replstore.pair.decide import Contact, Decision, NodeView, Policy, Reach, Role, Term, View, WitnessView, decide, may_acknowledge

A, B = 0, 1
NAMES = ("primary", "standby")
POLICY = Policy()
D = POLICY.detection_time
NONE = -1


RULES = {
    "contact with this boot": "solo only if the writer has not restarted since the last contact",
    "recent contact": "solo only if the last contact is younger than the detection time",
    "verdict last": "the follower is found refused after the writer was read, not before",
    "req compared for solo": "going solo compares the writer's count of 'follower required'",
    "boot as seen": "solo is recorded for the boot that the decision saw, not for the one that runs when it is written",
    "eligible boot": "a follower that restarted since it was in sync may not take over",
    "heartbeat stands still": "takeover on silence only if the follower's heartbeat stood still for the detection time",
    "heartbeat compared": "the takeover compares the heartbeat with the one seen before the writer was found lost, refused or silent",
    "term compared at takeover": "the takeover compares the follower's term",
    "follower required first": "leaving solo: 'follower required' is committed before the snapshot of the first batch",
    "boot compared by the batch": "a batch compares the follower's boot identity with the one read before the writer was read",
    "position compared by the batch": "a batch compares the follower's position with the one that it began from",
    "rejoined is not eligible": "a former writer is eligible only after its first whole batch, not when it becomes a follower",
    "acknowledged under its own term": "an acknowledgement counts only under the term of the commit",
    "solo read after the commit": "the solo state that an acknowledgement relies on is read after the commit",
}
WITNESS_RULES = {
    "witness before solo": "with a witness: its row is changed before the writer is solo",
    "in sync at the witness": "with a witness: a takeover is open only to a node that is in sync there",
    "req compared for solo": RULES["req compared for solo"],
    "req compared at the witness": "with a witness: a resync counts only if 'follower required' is newer than the solo that it ends",
    "req stored at the witness": "with a witness: going solo stores req there, also if the other node is out of sync already",
    "follower required first": RULES["follower required first"],
}


class Node(NamedTuple):
    up: bool = True
    boot: int = 0
    role: Role = Role.FOLLOWER
    term: int = 1
    fenced_by: int = NONE
    data: int = 0  # a bit for each write
    solo_boot: int = NONE  # the boot for which it acknowledges alone
    req: int = 0
    eligible_boot: int = NONE


class Met(NamedTuple):
    """A process's last answered heartbeat."""

    writer: int
    boot: int
    term: int
    young: bool = True


class Act(NamedTuple):
    """What a process is about to do, with everything that the act will compare."""

    kind: str  # look, or an Action
    step: int
    node: int  # looked at, or acted upon
    seen: Node | None = None  # look: what was read of it
    term: int = 0
    boot: int = 0
    req: int = 0
    data: int = 0
    other_term: int = 0
    fenced_by: int = NONE
    heartbeat_moved: bool = False
    position_moved: bool = False


class Process(NamedTuple):
    links: tuple[bool, bool] = (True, True)
    pending: tuple[int, int, int] | None = None  # a committed write: bit, node, term
    met: Met | None = None
    act: Act | None = None
    lost: int = NONE  # a node once found refused (only without 'verdict last')
    saw_solo: int = NONE  # a node once found solo (only without 'solo read after the commit')


class Witness(NamedTuple):
    term: int = 1
    writer: int = A
    in_sync: tuple[bool, bool] = (True, True)
    req: int = -1


class State(NamedTuple):
    nodes: tuple[Node, Node] = (Node(role=Role.WRITER), Node(eligible_boot=0))
    processes: tuple[Process, Process] = (Process(), Process())
    witness: Witness | None = None
    acknowledged: int = 0
    writes: int = 0
    crashes: int = 2
    cuts: int = 1
    switchovers: int = 0


def put(pair: tuple, index: int, value: object) -> tuple:
    return (value, pair[1]) if index == 0 else (pair[0], value)


# -------------------------------------------------------------------- states


def change(s: State, n: int, **fields: object) -> State:
    return put_node(s, n, s.nodes[n]._replace(**fields))


def put_node(s: State, n: int, node: Node) -> State:
    return State._make((put(s.nodes, n, node), *s[1:]))


def put_process(s: State, p: int, **fields: object) -> State:
    return State._make((s.nodes, put(s.processes, p, s.processes[p]._replace(**fields)), *s[2:]))


def promote(s: State, n: int, term: int) -> State:
    return change(s, n, role=Role.WRITER, term=term, solo_boot=s.nodes[n].boot, req=0, eligible_boot=NONE)


def moved(s: State, n: int, **flags: bool) -> State:
    """Tells every act that has read node ``n``'s counter that it has moved."""
    processes = tuple(
        process._replace(act=process.act._replace(**flags)) if process.act and process.act.node == n else process for process in s.processes
    )
    return s._replace(processes=processes)


def lacks(s: State, n: int, what: str, acknowledged: int) -> str | None:
    missing = acknowledged & ~s.nodes[n].data
    return f"{NAMES[n]} {what} without write {missing.bit_length()}, which was acknowledged" if missing else None


def overwrites(s: State, n: int, data: int) -> str | None:
    lost = s.acknowledged & s.nodes[n].data & ~data
    return f"write {lost.bit_length()}, which was acknowledged, is overwritten on {NAMES[n]}" if lost else None


def key(s: State) -> State:
    """Equal for states in which the two processes have changed places."""
    one, two = s.processes
    return State._make((s.nodes, (two, one), *s[2:])) if hash(two) < hash(one) else s


def forget(s: State) -> State:
    """Leaves out the writes that nobody waits for and nobody was told of."""
    known = s.acknowledged
    for process in s.processes:
        known |= process.pending[0] if process.pending else 0
    if known == (1 << s.writes) - 1:
        return s
    return s._replace(
        nodes=tuple(node._replace(data=node.data & known) if node.data & ~known else node for node in s.nodes),
        processes=tuple(
            process._replace(act=process.act._replace(data=process.act.data & known)) if process.act and process.act.data & ~known else process
            for process in s.processes
        ),
    )


def renumbered(s: State) -> State:
    """``req`` from 0 (with a witness: from -1) upwards without gaps."""
    if not s.witness and not s.nodes[A].req and not s.nodes[B].req:
        return s
    acts = [process.act for process in s.processes if process.act]
    counts = {node.req for node in s.nodes} | {act.seen.req if act.seen else act.req for act in acts} | ({s.witness.req} if s.witness else set())
    lowest = -1 if s.witness else 0
    if max(counts) - lowest < len(counts):
        return s
    rank = {count: number for number, count in enumerate(sorted(counts), lowest)}

    def renumber(act: Act | None) -> Act | None:
        return act and act._replace(req=rank.get(act.req, 0), seen=act.seen and act.seen._replace(req=rank[act.seen.req]))

    return s._replace(
        nodes=tuple(node._replace(req=rank[node.req]) for node in s.nodes),
        processes=tuple(process._replace(act=renumber(process.act)) for process in s.processes),
        witness=s.witness and s.witness._replace(req=rank[s.witness.req]),
    )


# -------------------------------------------------------------------- views, remembered: there are few different ones


@cache
def node_view(n: int, node: Node | None, refused: bool, still: bool) -> NodeView:
    if node is None:
        return NodeView(NAMES[n], reach=Reach.REFUSED if refused else Reach.SILENT, silent_for=D)
    return NodeView(
        name=NAMES[n],
        node=NAMES[n],
        role=node.role,
        term=term(node.term),
        boot=str(node.boot),
        solo=node.solo_boot != NONE,
        solo_boot=str(node.solo_boot) if node.solo_boot != NONE else "",
        req=node.req,
        fenced_by=term(node.fenced_by) if node.fenced_by != NONE else None,
        stream_term=term(node.term),
        eligible_boot=str(node.eligible_boot) if node.eligible_boot != NONE else None,
        still_for=D if still else 0.0,
    )


@cache
def term(number: int) -> Term:
    return Term(number, f"uuid of term {number}")


@cache
def verdict(primary: Node | None, standby: Node | None, refused: bool, met: Met | None, still: bool, witness: Witness | None) -> Decision:
    contact = Contact(0.0 if met.young else D, term(met.term), NAMES[met.writer], str(met.boot)) if met else None
    row = (
        WitnessView(Reach.UP, term(witness.term), NAMES[witness.writer], frozenset(NAMES[n] for n in (A, B) if witness.in_sync[n]), witness.req)
        if witness
        else None
    )
    return decide(View(node_view(A, primary, refused, still), node_view(B, standby, refused, still), POLICY, contact, row))


@cache
def acknowledges(node: Node, commit_term: int, held: bool) -> bool:
    return may_acknowledge(durability="replicated", commit_term=term(commit_term), writer=node_view(A, node, False, False), held_by_follower=held)
