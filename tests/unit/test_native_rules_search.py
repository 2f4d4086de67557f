"""`native_rules.decide` in every situation that two servers and two programs get into, up to a bound; `search` looks at all of them.

What happens by itself: servers crash and start again as what they were, links are cut, other programs write, the standby receives, a person promotes or lets a
server follow the other one.  A program reads one server, then the other, decides by the real function, and acts; between any two of these steps it may stand
still for as long as it likes.  Its promotion makes the comparisons that the statement in `databases/native/terms.py` makes.

What must never happen (`FAULTS`); and each rule taken out makes one of them happen, so that the first claim is not empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import pytest

from replstore.databases.base import Stream
from replstore.pair.native_rules import decide
from replstore.pair.view import Action, Decision, NodeView, Policy, Reach, Role, Term, View
from tests.unit.search import Result, Step, search

NAMES = ("primary", "standby")
POLICY = Policy(durability="server", promote=True)
Timeline = tuple[int, int]  # its number, and which history it is

FAULTS = {
    "without what it had seen": "a program promotes a standby that lacks what this program had seen on the primary",
    "beside a primary that works": "a program promotes a standby that receives from a primary, or has received since it was looked at",
    "of an older history": "a program writes on another history than the newest that it has seen",
    "although both write": "a program writes although it has just seen both servers write",
    "on a former primary": "a program that sees both writes on the former primary, though no network was cut and whoever promoted was in time",
}


class Server(NamedTuple):
    writes: bool
    history: tuple[Timeline, ...] = ((1, 0),)
    recorded: bool = True
    data: int = 0
    up: bool = True
    boot: int = 0


class Act(NamedTuple):
    """What a program is in the midst of, with what it saw.  ``moved``: the standby has received something since; ``late``: the primary has come back since it
    was asked once more, which the statement can't know."""

    kind: str
    node: int
    seen: Server
    moved: bool = False
    refused: bool = False
    asked: bool = False
    late: bool = False


class Program(NamedTuple):
    links: tuple[bool, bool] = (True, True)
    highest: Timeline = (0, 0)
    written: int | None = None
    lead: tuple[int, int, Timeline, bool] | None = None
    act: Act | None = None
    boots: tuple[int, int] = (0, 0)


class State(NamedTuple):
    servers: tuple[Server, Server] = (Server(True), Server(False))
    programs: tuple[Program, Program] = (Program(), Program())
    wire: bool = True
    histories: int = 1
    crashes: int = 0
    cuts: int = 0
    persons: int = 0
    others: int = 0
    late: bool = False


def place(server: Server) -> int:
    return server.data.bit_count() + len(server.history)


class Model:
    """The steps that are possible in a state.

    Args:
        without: names of rules taken out.
        crashes_only: no network is cut, and no person promotes beside a primary that runs: only then "on a former primary" is promised.
    """

    def __init__(self, without: frozenset[str] = frozenset(), *, crashes_only: bool = True) -> None:
        self.without, self.crashes_only = without, crashes_only

    def rule(self, name: str) -> bool:
        return name not in self.without

    def steps(self, s: State) -> Iterator[Step]:
        yield from self.world(s)
        for p, program in enumerate(s.programs):
            yield from self.write(s, p, program)
            if program.act is None:
                yield from self.look(s, p)
            elif program.act.kind == "look":
                yield from self.look_at_the_other(s, p, program, program.act)
            else:
                yield from self.carry_out(s, p, program.act)

    # -- the world

    def world(self, s: State) -> Iterator[Step]:
        for n, server in enumerate(s.servers):
            other = s.servers[1 - n]
            if server.up and s.crashes:
                yield Step(f"{NAMES[n]} crashes", put(s, n, server._replace(up=False))._replace(crashes=s.crashes - 1))
            if not server.up:
                yield Step(f"{NAMES[n]} starts again", self.late(put(s, n, server._replace(up=True, boot=server.boot + 1)), n))
            if server.up and server.writes and s.others:
                written = server._replace(data=server.data | 1 << (s.others - 1))
                yield Step(f"somebody writes on {NAMES[n]}", put(s, n, written)._replace(others=s.others - 1))
            if self.streams(s, n) and (received := self.received(server, other)) != server:
                yield Step(f"{NAMES[n]} receives", self.moved(put(s, n, received), n))
            elif self.streams(s, n) and any(program.links[1 - n] for program in s.programs):
                yield Step(f"a heartbeat arrives at {NAMES[n]}", self.moved(s, n))
            if s.persons and server.up and not server.writes:
                yield Step(f"a person promotes {NAMES[n]}", promoted(s, n, recorded=False)._replace(persons=s.persons - 1))
            if s.persons and other.up and other.writes:
                follows = Server(False, other.history if other.recorded else other.history[:-1], data=other.data, boot=server.boot + 1)
                yield Step(f"a person makes {NAMES[n]} the standby", self.moved(put(s, n, follows)._replace(persons=s.persons - 1), n))
        if s.cuts and s.wire:
            yield Step("the servers are cut off from one another", s._replace(wire=False, cuts=s.cuts - 1))
        for p, program in enumerate(s.programs):
            for n in (0, 1):
                if s.cuts and program.links[n]:
                    links = (program.links[0] and n != 0, program.links[1] and n != 1)
                    yield Step(f"P{p + 1} is cut off from {NAMES[n]}", put_program(s, p, links=links)._replace(cuts=s.cuts - 1))

    def streams(self, s: State, n: int) -> bool:
        """Whether a standby is connected to a primary whose history is the continuation of its own."""
        standby, primary = s.servers[n], s.servers[1 - n]
        follows = primary.history[: len(standby.history)] == standby.history and standby.data & ~primary.data == 0
        return s.wire and standby.up and primary.up and primary.writes and not standby.writes and follows

    def received(self, standby: Server, primary: Server) -> Server:
        return standby._replace(history=primary.history if primary.recorded else primary.history[:-1], data=primary.data)

    def late(self, s: State, n: int) -> State:
        for p, program in enumerate(s.programs):
            if program.act is not None and program.act.asked and program.act.node != n:
                s = put_program(s, p, act=program.act._replace(late=True))
        return s

    def moved(self, s: State, n: int) -> State:
        for p, program in enumerate(s.programs):
            act = program.act
            if act is not None and not act.moved and (act.kind == "look" or act.node == n):
                s = put_program(s, p, act=act._replace(moved=True))
        return s

    # -- programs

    def write(self, s: State, p: int, program: Program) -> Iterator[Step]:
        if program.lead is None:
            return
        n, boot, timeline, saw_both = program.lead
        server, other = s.servers[n], s.servers[1 - n]
        if not (server.up and program.links[n] and server.writes):
            return
        if server.boot != boot and self.rule("the very server"):
            yield Step(f"P{p + 1} finds {NAMES[n]} started again", put_program(s, p, lead=None))
            return
        fault = ""
        if program.highest != timeline:
            fault = "of an older history"
        elif self.crashes_only and saw_both and not s.late and other.up and other.writes and other.history[-1] > server.history[-1]:
            fault = "on a former primary"
        if fault:
            yield Step(f"P{p + 1} writes on {NAMES[n]}", s, f"a write {fault}")

    def look(self, s: State, p: int) -> Iterator[Step]:
        for n, server in enumerate(s.servers):
            if server.up and s.programs[p].links[n]:
                yield Step(f"P{p + 1} reads {NAMES[n]}", put_program(s, p, act=Act("look", n, server), boots=boots(s.programs[p], n, server)))

    def look_at_the_other(self, s: State, p: int, program: Program, look: Act) -> Iterator[Step]:
        one, two = look.node, 1 - look.node
        asked = s.servers[two] if s.servers[two].up and program.links[two] else None
        refused = program.links[two]
        if asked is not None and asked.writes and asked.boot != program.boots[two] and self.rule("a restarted writer first"):
            yield Step(
                f"P{p + 1} reads {NAMES[two]}, started again", put_program(s, p, act=Act("look", two, asked), boots=boots(program, two, asked))
            )
            return
        seen = {one: look.seen, two: asked}
        highest, written = program.highest, program.written
        for server in (look.seen, asked):
            if server is not None:
                highest = max(highest, server.history[-1], key=lambda each: each[0])
        for server in (look.seen, asked):
            if server is not None and server.writes and server.recorded and server.history[-1] == highest:
                written = max(place(server), written or 0) if highest == program.highest else place(server)
        if highest != program.highest and not any(each and each.writes and each.recorded and each.history[-1] == highest for each in seen.values()):
            written = None
        still = not (self.streams(s, one) and any(each.links[two] for each in s.programs))
        known = highest if self.rule("the newest history") else None
        decision = decided(seen[0], seen[1], refused, still, known, written if self.rule("what is missing") or written is None else 0)
        both = asked is not None and asked.writes and look.seen.writes
        lead, act = None, None
        if decision.writer is not None and decision.action is Action.WRITE:
            n = NAMES.index(decision.writer)
            server = seen[n]
            assert server is not None
            lead = (n, server.boot, server.history[-1], asked is not None)
        if decision.action is Action.TAKE_OVER:
            act = Act("promote", one, look.seen, look.moved, refused)
        elif decision.action is Action.FINISH:
            act = Act("record", NAMES.index(decision.node or ""), look.seen)
        after = put_program(s, p, highest=highest, written=written, lead=lead, act=act)
        fault = "a write although both write" if both and decision.writer is not None else None
        yield Step(f"P{p + 1} decides: {decision.action} {decision.node or decision.writer or ''} ({decision.reason})", after, fault)

    def carry_out(self, s: State, p: int, act: Act) -> Iterator[Step]:
        idle = put_program(s, p, act=None)
        n, program = act.node, s.programs[p]
        yield Step(f"P{p + 1} gives up", idle)
        server, lost = s.servers[n], s.servers[1 - n]
        if not (server.up and program.links[n]):
            return
        if act.kind == "record":
            if server.writes:
                yield Step(f"P{p + 1} records the timeline of {NAMES[n]}", put(idle, n, server._replace(recorded=True)))
            return
        if not act.asked:
            if lost.up and program.links[1 - n]:
                yield Step(f"P{p + 1} asks {NAMES[1 - n]} once more, which answers", idle)
            else:
                yield Step(f"P{p + 1} asks {NAMES[1 - n]} once more", put_program(s, p, act=act._replace(asked=True, refused=program.links[1 - n])))
            return
        if server.writes or server.boot != act.seen.boot or server.history != act.seen.history:
            return
        if act.moved and self.rule("received compared"):
            return
        if act.refused and self.streams(s, n) and self.rule("not receiving"):
            return
        fault = None
        if program.written is not None and place(server) < program.written:
            fault = "a promotion without what it had seen"
        elif act.moved or (act.refused and self.streams(s, n)):
            fault = "a promotion beside a primary that works"
        after = promoted(idle, n, recorded=True)._replace(late=s.late or act.late)
        timeline = after.servers[n].history[-1]
        yield Step(
            f"P{p + 1} promotes {NAMES[n]}", put_program(after, p, highest=timeline, written=None, lead=(n, server.boot, timeline, False)), fault
        )


@cache
def decided(primary: Server | None, standby: Server | None, refused: bool, still: bool, highest: Timeline | None, written: int | None) -> Decision:
    """What the real function says."""
    views = [node_view(n, server, refused, still) for n, server in enumerate((primary, standby))]
    known = Term(highest[0], str(highest[1])) if highest else None
    return decide(View(views[0], views[1], POLICY, highest=known, written=written))


def node_view(n: int, server: Server | None, refused: bool, still: bool) -> NodeView:
    if server is None:
        return NodeView(NAMES[n], reach=Reach.REFUSED if refused else Reach.SILENT, silent_for=9.0)
    number, history = server.history[-1]
    role = Role.WRITER if server.writes else Role.FOLLOWER
    stream = Stream(number if server.writes else None, place(server), place(server), system="s", may_promote=True)
    term = Term(number, str(history)) if server.recorded else None
    return NodeView(NAMES[n], role=role, term=term, boot=f"{n} {server.boot}", still_for=9.0 if still else 0.0, stream=stream)


def boots(program: Program, n: int, server: Server) -> tuple[int, int]:
    """What the program knows of the servers' starts once it has read one of them as the writer."""
    if not server.writes:
        return program.boots
    return (server.boot, program.boots[1]) if n == 0 else (program.boots[0], server.boot)


def put(s: State, n: int, server: Server) -> State:
    return s._replace(servers=(server, s.servers[1]) if n == 0 else (s.servers[0], server))


def put_program(s: State, p: int, **changes: object) -> State:
    program = s.programs[p]._replace(**changes)  # type: ignore[arg-type]
    return s._replace(programs=(program, s.programs[1]) if p == 0 else (s.programs[0], program))


def promoted(s: State, n: int, *, recorded: bool) -> State:
    server = s.servers[n]
    timeline = (server.history[-1][0] + 1, s.histories)
    return put(s, n, server._replace(writes=True, history=(*server.history, timeline), recorded=recorded))._replace(histories=s.histories + 1)


def same(s: State) -> State:
    return s._replace(programs=tuple(sorted(s.programs, key=hash)))  # type: ignore[arg-type]


START = State()
CRASHES = State(crashes=2)
WRITES = State(crashes=1, others=1)
PERSON = State(persons=2)
CUTS = State(crashes=1, cuts=1)
#: Slower: python -m tests.unit.test_native_rules_search
LARGE = [State(crashes=2, others=1), State(crashes=1, persons=2), State(crashes=1, cuts=1, others=1)]


def run(start: State, without: str = "") -> Result:
    model = Model(frozenset(without.split(", ")) - {""}, crashes_only=not start.cuts and not start.persons)
    return search(start, model.steps, normal=lambda s: s, key=same)


@pytest.mark.parametrize("start", [CRASHES, WRITES, PERSON, CUTS], ids=["crashes", "writes", "a person", "cuts"])
def test_nothing_of_that_happens(start: State) -> None:
    result = run(start)
    assert result.exhausted, f"\n{result}"
    assert result.states > 1000


@pytest.mark.parametrize(
    ("rule", "start", "fault"),
    [
        ("the newest history", CRASHES, "of an older history"),
        ("a restarted writer first", CRASHES, "on a former primary"),
        ("the very server", CRASHES, "on a former primary"),
        ("what is missing", WRITES, "without what it had seen"),
        ("received compared", CUTS, "beside a primary that works"),
        ("received compared, not receiving", CRASHES, "beside a primary that works"),
    ],
)
def test_each_rule_is_needed(rule: str, start: State, fault: str) -> None:
    result = run(start, rule)
    print(f"without {rule!r}:\n{result}")
    assert result.trace, f"nothing happens without the rule {rule!r}: {result}"
    assert fault in FAULTS
    assert fault in result.trace[-1], result


if __name__ == "__main__":
    for begin in (CRASHES, WRITES, PERSON, CUTS, *LARGE):
        print(run(begin), flush=True)
