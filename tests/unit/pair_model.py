"""A model of two nodes and two processes around the real ``decide`` and ``may_acknowledge``.

What happens by itself: nodes crash and restart, links between a process and a node are cut and heal, time passes, commits arrive.
What a process does is decided by the real functions, on a view built from what the process can see; what follows is one model step for each
transaction that the actor runs, with the comparisons that this transaction makes (`Acts`).  Between any two steps a process may freeze for as long
as it likes: between reading the one node and the other, between deciding and acting, between reading a batch and applying it.

Five simplifications keep the space small; none hides a behaviour.

* No clock.  A contact turns old whenever it likes; a heartbeat has stood still for the detection time only if no process has a young contact
  through that follower, because a contact's age counts from its sending and the watch began later.
* Counters that are compared for equality only (heartbeat, position) are kept as "has it moved since this process read it".
  ``req``, which is compared by order at the witness, is a number, renumbered so that equal situations are equal states.
* Any node whose role row says writer takes commits, from anybody: that is all that the guard in the database knows.
* With a witness nobody sends heartbeats: they could only hold a takeover back.
* The two processes are interchangeable.

The property: whoever takes over, goes on alone, acknowledges or overwrites the other node has every acknowledged write.

``without`` takes rules out, by name (`RULES`).  A rule that lives in an act's comparison is left out of that comparison.  A rule that lives inside
``decide`` is neutralised by the view: the one fact that it asks for is pretended to hold, and nothing else is changed.
"""

from __future__ import annotations

from collections.abc import Iterator

from replstore.pair.decide import Action, Decision, Role
from tests.unit.pair_states import (
    NAMES,
    NONE,
    A,
    Act,
    B,
    Met,
    Node,
    Process,
    State,
    Witness,
    acknowledges,
    change,
    forget,
    lacks,
    moved,
    overwrites,
    promote,
    put,
    put_node,
    put_process,
    renumbered,
    verdict,
)
from tests.unit.search import Step


class Model:
    """The steps that are possible in a state.

    Args:
        without: names of rules taken out.
        writes: how many writes there are.
        terms: the highest term; no takeover beyond it.
        both_freeze: both processes may be in the midst of something; else, while one is, the other does things in one go.
    """

    def __init__(self, *, without: frozenset[str] = frozenset(), writes: int = 2, terms: int = 3, both_freeze: bool = False) -> None:
        self.without, self.writes, self.terms, self.both_freeze = without, writes, terms, both_freeze
        required_first = "follower required first" not in without
        self.resync_order = ("require", "read", "apply", "witness") if required_first else ("read", "apply", "require", "witness")

    def rule(self, name: str) -> bool:
        return name not in self.without

    # ---------------------------------------------------------------- the world

    def steps(self, s: State) -> Iterator[Step]:
        yield from self.world(s)
        for p, process in enumerate(s.processes):
            yield from self.client(s, p, process, f"P{p + 1}")
            busy = s.processes[1 - p].act is not None
            if process.act is None and busy and not self.both_freeze:
                yield from self.in_one_go(s, p)
            else:
                yield from self.process(s, p)
            if process.act is not None:
                yield Step(f"P{p + 1} begins again", self.idle(s, p))

    def process(self, s: State, p: int) -> Iterator[Step]:
        """The next thing that a process does about the pair."""
        process, me = s.processes[p], f"P{p + 1}"
        if process.act is None:
            yield from self.look(s, p, process, me)
        elif process.act.kind == "look":
            yield from self.look_at_the_other(s, p, process, me, process.act)
        else:
            yield from Acts[process.act.kind](self, s, p, process.act, me)

    def in_one_go(self, s: State, p: int, before: str = "") -> Iterator[Step]:
        """Everything that a process can do without freezing; it may stop after any step."""
        for event, after, fault in self.process(s, p):
            act = after.processes[p].act
            if fault or act is None:
                yield Step(before + event, after, fault)
                continue
            if after.nodes != s.nodes or after.witness != s.witness:
                yield Step(before + event, self.idle(after, p))
            if act.kind != "look" or act.node == self.read_first(s, p):  # at one moment, the order of reading makes no difference
                yield from self.in_one_go(after, p, f"{before}{event}; ")

    def read_first(self, s: State, p: int) -> int:
        readable = [n for n in (A, B) if self.reaches(s, p, n) and s.processes[p].lost != n]
        return max(readable, key=lambda n: (s.nodes[n].role is Role.WRITER, s.nodes[n].term), default=NONE)

    def world(self, s: State) -> Iterator[Step]:
        for n, node in enumerate(s.nodes):
            if node.up and s.crashes:
                yield Step(f"{NAMES[n]} crashes", change(s, n, up=False)._replace(crashes=s.crashes - 1))
            if not node.up:
                yield Step(f"{NAMES[n]} restarts", change(s, n, up=True, boot=node.boot + 1))
            other = s.nodes[1 - n]
            if s.switchovers and node.up and node.role is Role.WRITER and other.up and other.eligible_boot == other.boot and node.solo_boot == NONE:
                yield Step(f"a person begins a switchover from {NAMES[n]}", change(s, n, role=Role.FENCED)._replace(switchovers=s.switchovers - 1))
        for p, process in enumerate(s.processes):
            for n, link in enumerate(process.links):
                if not link or s.cuts:
                    links = put(process.links, n, not link)
                    yield Step(
                        f"P{p + 1} {'is cut off from' if link else 'reaches'} {NAMES[n]}" + ("" if link else " again"),
                        put_process(s, p, links=links)._replace(cuts=s.cuts - link),
                    )
            if process.met and process.met.young:
                old = None if self.rule("recent contact") else process.met._replace(young=False)
                yield Step(f"P{p + 1}'s contact is older than the detection time", put_process(s, p, met=old))
            for n, node in enumerate(s.nodes):
                if (
                    not self.rule("solo read after the commit")
                    and node.up
                    and process.links[n]
                    and node.solo_boot == node.boot
                    and process.saw_solo != n
                ):
                    yield Step(f"P{p + 1} reads that {NAMES[n]} is solo", put_process(s, p, saw_solo=n))
            if not self.rule("verdict last"):
                for n, node in enumerate(s.nodes):
                    if not node.up and process.links[n] and process.lost != n:
                        yield Step(f"P{p + 1} finds {NAMES[n]} refused", put_process(s, p, lost=n))

    # ---------------------------------------------------------------- commits and acknowledgements

    def client(self, s: State, p: int, process: Process, me: str) -> Iterator[Step]:
        if process.pending is None:
            for n, node in enumerate(s.nodes):
                if s.writes < self.writes and node.up and process.links[n] and node.role is Role.WRITER:
                    bit = 1 << s.writes
                    after = put_process(change(s, n, data=node.data | bit), p, pending=(bit, n, node.term))
                    yield Step(f"{me} commits write {s.writes + 1} on {NAMES[n]}", after._replace(writes=s.writes + 1))
            return
        bit, n, term = process.pending
        node, other = s.nodes[n], s.nodes[1 - n]
        if not (node.up and process.links[n]):
            return
        held = process.links[1 - n] and other.up and other.role is Role.FOLLOWER and other.term == term and bool(other.data & bit)
        if acknowledges(node, term if self.rule("acknowledged under its own term") else node.term, held) or process.saw_solo == n:
            fault = lacks(s, n, "acknowledges", s.acknowledged | bit)
            how = "replicated" if held else "solo"
            yield Step(
                f"{me} acknowledges write {bit.bit_length()} ({how}, on {NAMES[n]})",
                put_process(s, p, pending=None)._replace(acknowledged=s.acknowledged | bit),
                fault,
            )

    # ---------------------------------------------------------------- seeing and deciding

    def look(self, s: State, p: int, process: Process, me: str) -> Iterator[Step]:
        """Reads one node that answers."""
        for n, node in enumerate(s.nodes):
            if not (node.up and process.links[n]):
                continue
            yield Step(f"{me} reads {NAMES[n]}", put_process(s, p, act=Act("look", 0, n, seen=node._replace(data=0))))

    def look_at_the_other(self, s: State, p: int, process: Process, me: str, look: Act) -> Iterator[Step]:
        """Asks the other node too, then decides; or sends it a heartbeat."""
        one, two = look.node, 1 - look.node
        seen: list[Node | None] = [None, None]
        seen[one] = look.seen
        asked = s.nodes[two]
        seen[two] = asked._replace(data=0) if asked.up and process.links[two] and process.lost != two else None
        refused = (process.links[two] and not asked.up) or process.lost == two
        if look.seen is not None and seen[two] is not None and s.witness is None:
            yield from self.heartbeat(s, p, me, look)
        decision = self.decide(s, process, seen, refused)
        for act in self.plan(s, decision, seen, look):
            yield Step(f"{me} decides: {decision.action} {decision.node or ''} ({decision.reason})", put_process(s, p, act=act, lost=NONE))

    def heartbeat(self, s: State, p: int, me: str, look: Act) -> Iterator[Step]:
        writer, n = look.seen, 1 - look.node
        if writer and writer.role is Role.WRITER and s.nodes[n].role is Role.FOLLOWER and s.nodes[n].term == writer.term:
            met = Met(look.node, writer.boot, writer.term)
            if s.processes[p].met != met or self.matters(s, n):
                yield Step(
                    f"{me}'s heartbeat for {NAMES[look.node]} arrives at {NAMES[n]}",
                    put_process(moved(s, n, heartbeat_moved=True), p, met=met, act=None),
                )

    def matters(self, s: State, n: int) -> bool:
        return any(process.act and process.act.node == n and not process.act.heartbeat_moved for process in s.processes)

    def decide(self, s: State, process: Process, seen: list[Node | None], refused: bool) -> Decision:
        views = tuple(None if node is None else self.pretend(node) for node in seen)
        met = process.met
        lost = next((n for n in (A, B) if seen[n] is None), NONE)
        if met and lost != NONE and (writer := seen[1 - lost]):
            if not self.rule("contact with this boot"):
                met = met._replace(boot=writer.boot)
            if not self.rule("recent contact"):
                met = met._replace(young=True)
        still = not any(other.met and other.met.young and other.met.writer == lost for other in s.processes) or not self.rule(
            "heartbeat stands still"
        )
        witness = s.witness
        if witness and not self.rule("in sync at the witness"):
            witness = witness._replace(in_sync=(True, True))
        return verdict(views[A], views[B], refused, met, still, witness)

    def pretend(self, node: Node) -> Node:
        """The node as a view shows it: the fact that a missing rule asks for is pretended to hold."""
        if not self.rule("eligible boot") and node.eligible_boot != NONE:
            node = node._replace(eligible_boot=node.boot)
        return node

    def plan(self, s: State, decision: Decision, seen: list[Node | None], look: Act) -> Iterator[Act]:
        """What the actor will do, with the values that it will compare."""
        action = decision.action
        if action is Action.WRITE and None not in seen and s.nodes[A].data != s.nodes[B].data:
            writer = NAMES.index(decision.writer or "")
            n = 1 - writer
        elif action in Acts and decision.node:
            n = NAMES.index(decision.node)
        else:
            return
        node, other = seen[n], seen[1 - n]
        assert node is not None
        if action in (Action.TAKE_OVER, Action.FINISH) and node.term >= self.terms:
            return
        read_first = look.node == n  # what has moved since then has moved
        act = Act(action, 0, n, term=node.term, other_term=other.term if other else 0)
        if action is Action.GO_SOLO:
            act = act._replace(boot=node.boot, req=node.req)
        elif action is Action.TAKE_OVER:
            act = act._replace(heartbeat_moved=read_first and look.heartbeat_moved)
        elif action is Action.REJOIN:
            act = act._replace(fenced_by=node.fenced_by)
        elif action in BATCHES:
            act = act._replace(boot=node.boot, position_moved=read_first and look.position_moved)
        yield act

    # ---------------------------------------------------------------- acts: one step for each transaction

    def idle(self, s: State, p: int) -> State:
        return put_process(s, p, act=None)

    def reaches(self, s: State, p: int, n: int) -> Node | None:
        return s.nodes[n] if s.nodes[n].up and s.processes[p].links[n] else None

    def go_solo(self, s: State, p: int, act: Act, me: str) -> Iterator[Step]:
        w = act.node
        if s.witness and act.step == 0 and self.rule("witness before solo"):
            row = s.witness
            if row.writer == w and row.term == act.term:
                alone = (w == A, w == B)
                req = act.req if self.rule("req stored at the witness") or row.in_sync != alone else row.req
                yield Step(
                    f"the witness takes {NAMES[1 - w]} out of sync for {me}",
                    put_process(s._replace(witness=row._replace(in_sync=alone, req=req)), p, act=act._replace(step=1)),
                )
            return
        node = self.reaches(s, p, w)
        if node and node.role is Role.WRITER and node.term == act.term and self.may_go_solo(node, act):
            yield Step(f"{me} puts {NAMES[w]} solo", change(self.idle(s, p), w, solo_boot=node.boot), lacks(s, w, "goes on alone", s.acknowledged))

    def may_go_solo(self, node: Node, act: Act) -> bool:
        same_req = node.req == act.req or not self.rule("req compared for solo")
        return same_req and (node.boot == act.boot or not self.rule("boot as seen"))

    def take_over(self, s: State, p: int, act: Act, me: str) -> Iterator[Step]:
        f = act.node
        if s.witness and act.step == 0:
            row = s.witness
            if row.term == act.term and row.writer != f and (row.in_sync[f] or not self.rule("in sync at the witness")):
                granted = Witness(act.term + 1, f, (f == A, f == B), -1)
                yield Step(f"the witness gives {NAMES[f]} the pair for {me}", put_process(s._replace(witness=granted), p, act=act._replace(step=1)))
            return
        node = self.reaches(s, p, f)
        if (
            node
            and node.role is Role.FOLLOWER
            and (node.term == act.term or not self.rule("term compared at takeover"))
            and (node.eligible_boot == node.boot or not self.rule("eligible boot"))
            and (not act.heartbeat_moved or not self.rule("heartbeat compared"))
        ):
            yield Step(f"{me} makes {NAMES[f]} the writer", promote(self.idle(s, p), f, act.term + 1), lacks(s, f, "takes over", s.acknowledged))

    def finish(self, s: State, p: int, act: Act, me: str) -> Iterator[Step]:
        f = act.node
        if s.witness and s.witness.writer == f and s.witness.term > act.term:  # a takeover that the witness has granted
            node = self.reaches(s, p, f)
            if node and node.role is Role.FOLLOWER and node.term == act.term:
                yield Step(
                    f"{me} makes {NAMES[f]} the writer", promote(self.idle(s, p), f, s.witness.term), lacks(s, f, "takes over", s.acknowledged)
                )
        elif act.step == 0:  # a switchover: ship the rest, then promote
            former = self.reaches(s, p, 1 - f)
            if former and former.role is Role.FENCED and former.fenced_by == NONE and former.term == act.term:
                yield Step(f"{me} reads the last batch on {NAMES[1 - f]}", put_process(s, p, act=act._replace(step=1, data=former.data)))
        else:
            node = self.reaches(s, p, f)
            if node and node.role is Role.FOLLOWER and node.term == act.term and node.boot == act.boot and not act.position_moved:
                shipped = change(self.idle(s, p), f, data=act.data)
                yield Step(
                    f"{me} applies it and makes {NAMES[f]} the writer",
                    promote(shipped, f, act.term + 1),
                    lacks(shipped, f, "takes over", s.acknowledged),
                )

    def resync(self, s: State, p: int, act: Act, me: str) -> Iterator[Step]:
        f, w = act.node, 1 - act.node
        now = self.resync_order[act.step]
        onward = act._replace(step=act.step + 1)
        if now == "require" and (writer := self.reaches(s, p, w)) and writer.role is Role.WRITER and writer.term == act.other_term:
            yield Step(
                f"{me} writes 'follower required' on {NAMES[w]}",
                self.proceed(change(s, w, solo_boot=NONE, req=writer.req + 1), p, onward._replace(req=writer.req + 1 if s.witness else 0)),
            )
        elif now == "read" and (writer := self.reaches(s, p, w)) and writer.role is Role.WRITER and writer.term == act.other_term:
            yield Step(f"{me} reads a whole batch on {NAMES[w]}", self.proceed(s, p, onward._replace(data=writer.data)))
        elif now == "apply" and (node := self.applies(s, p, act)):
            applied = change(
                moved(self.proceed(s, p, onward), f, position_moved=True), f, data=act.data, term=act.other_term, eligible_boot=node.boot
            )
            yield Step(f"{me} applies it on {NAMES[f]}, which is eligible now", applied, overwrites(s, f, act.data))
        elif now == "witness" and (row := s.witness) and (row.term, row.writer) == (act.other_term, w) and self.is_newer(act, row):
            in_sync = row._replace(in_sync=(True, True), req=act.req)
            yield Step(f"the witness takes {NAMES[f]} for in sync again for {me}", self.idle(s, p)._replace(witness=in_sync))

    def is_newer(self, act: Act, row: Witness) -> bool:
        return row.req < act.req or not self.rule("req compared at the witness")

    def proceed(self, s: State, p: int, act: Act) -> State:
        """The act's next step, or its end."""
        return put_process(s, p, act=act if act.step < (4 if s.witness else 3) else None)

    def ship(self, s: State, p: int, act: Act, me: str) -> Iterator[Step]:
        f, w = act.node, 1 - act.node
        if act.step == 0:
            if (writer := self.reaches(s, p, w)) and writer.role is Role.WRITER and writer.term == act.other_term:
                yield Step(f"{me} reads a batch on {NAMES[w]}", put_process(s, p, act=act._replace(step=1, data=writer.data)))
        elif (node := self.applies(s, p, act)) and node.term == act.other_term:
            yield Step(
                f"{me} applies it on {NAMES[f]}", change(moved(self.idle(s, p), f, position_moved=True), f, data=act.data), overwrites(s, f, act.data)
            )

    def applies(self, s: State, p: int, act: Act) -> Node | None:
        """The follower, if a batch may be applied there."""
        node = self.reaches(s, p, act.node)
        if node is None or node.role is not Role.FOLLOWER or node.term > act.other_term:
            return None
        if node.boot != act.boot and self.rule("boot compared by the batch"):
            return None
        return None if act.position_moved and self.rule("position compared by the batch") else node

    def fence(self, s: State, p: int, act: Act, me: str) -> Iterator[Step]:
        node = self.reaches(s, p, act.node)
        if node and node.role is Role.WRITER and node.term == act.term < act.other_term:
            yield Step(f"{me} fences {NAMES[act.node]}", change(self.idle(s, p), act.node, role=Role.FENCED, fenced_by=act.other_term, req=0))

    def rejoin(self, s: State, p: int, act: Act, me: str) -> Iterator[Step]:
        o, w = act.node, 1 - act.node
        writer, node = self.reaches(s, p, w), self.reaches(s, p, o)
        if act.step == 0:
            if writer and writer.role is Role.WRITER and writer.term == act.other_term:
                yield Step(f"{me} records {NAMES[o]}'s orphans on {NAMES[w]}", put_process(s, p, act=act._replace(step=1, data=writer.data)))
        elif node and node.role is Role.FENCED and node.term == act.term and node.fenced_by == act.fenced_by:
            eligible = NONE if self.rule("rejoined is not eligible") else node.boot
            joined = node._replace(
                role=Role.FOLLOWER, term=act.other_term, fenced_by=NONE, data=node.data & act.data, solo_boot=NONE, req=0, eligible_boot=eligible
            )
            yield Step(
                f"{me} makes {NAMES[o]} a follower", moved(put_node(self.idle(s, p), o, joined), o, position_moved=True), overwrites(s, o, act.data)
            )

    # ---------------------------------------------------------------- states that are the same

    def normal(self, s: State) -> State:
        """One state for all that differ by nothing that matters: what can only fail, what nobody waits for, how high ``req`` is."""
        processes = tuple([self.without_dead_ends(s, process) for process in s.processes])
        return forget(renumbered(s if processes == s.processes else s._replace(processes=processes)))

    def without_dead_ends(self, s: State, process: Process) -> Process:
        act, met, pending = process.act, process.met, process.pending
        if act and self.hopeless(s, act):
            process = process._replace(act=None)
        if pending and s.nodes[pending[1]].term > pending[2] and self.rule("acknowledged under its own term"):
            process = process._replace(pending=None)
        if met and s.nodes[met.writer].boot > met.boot and self.rule("contact with this boot"):
            process = process._replace(met=None)
        return process

    def hopeless(self, s: State, act: Act) -> bool:
        """Whether what the act compares can never be equal again: boots and terms only grow, what moved has moved."""
        node, other = s.nodes[act.node], s.nodes[1 - act.node]
        at_witness = s.witness is not None and act.step == 0 and act.kind in (Action.GO_SOLO, Action.TAKE_OVER)
        if act.kind == "look":
            return False
        if at_witness:
            return s.witness.term > act.term
        if act.kind is Action.GO_SOLO:
            return node.role is not Role.WRITER or node.term != act.term or not self.may_go_solo(node, act)
        if act.kind is Action.TAKE_OVER:
            outrun = node.role is Role.WRITER or node.term != act.term
            return (outrun and self.rule("term compared at takeover")) or (act.heartbeat_moved and self.rule("heartbeat compared"))
        if act.kind is Action.FENCE:
            return node.role is not Role.WRITER or node.term != act.term
        if act.kind is Action.REJOIN:
            return node.role is not Role.FENCED or node.term != act.term or node.fenced_by != act.fenced_by
        if act.kind is Action.RESYNC and (self.resync_order[act.step] == "require" or act.step > self.resync_order.index("apply")):
            return other.term != act.other_term
        batch_fails = (act.boot != node.boot and self.rule("boot compared by the batch")) or (
            act.position_moved and self.rule("position compared by the batch")
        )
        return batch_fails or node.role is not Role.FOLLOWER or node.term > act.other_term


Acts = {
    Action.GO_SOLO: Model.go_solo,
    Action.TAKE_OVER: Model.take_over,
    Action.FINISH: Model.finish,
    Action.RESYNC: Model.resync,
    Action.WRITE: Model.ship,
    Action.FENCE: Model.fence,
    Action.REJOIN: Model.rejoin,
}


#: Acts that end in a batch on the follower.
BATCHES = (Action.WRITE, Action.RESYNC, Action.FINISH)
