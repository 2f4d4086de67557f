"""Decisions of a person or of a witness, and what a keeper does by itself."""

from __future__ import annotations

from typing import Any, ClassVar

from operations import Backlog, Operation, Place, Switchover, Takeover, add

from replstore.replication.journal import retain
from replstore.replication.journal.retain import Retention
from replstore.store import Store


class SwitchoverWithABacklog(Backlog, Switchover):
    """Writer and follower change places; what was committed without waiting comes along."""

    def operate(self, place: Place) -> None:
        Switchover.operate(self, place)

    def again(self, place: Place, store: Store) -> None:
        store.run(add(3, 33), key="once")

    def expected(self) -> dict[int, int]:
        return {1: 101, 3: 333}


class ForcedTakeover(Backlog):
    """A person makes the follower the writer although it may lack something, which is recorded when the former writer is back."""

    settings: ClassVar[dict[str, Any]] = {"durability": "async", "rejoin": "manual"}

    def prepare(self, place: Place) -> None:
        super().prepare(place)
        place.pair.kill("primary")

    def operate(self, place: Place) -> None:
        with place.store() as store:
            store.takeover("standby", force=True)

    def again(self, place: Place, store: Store) -> None:
        self.operate(place)
        with place.store() as other:
            other.run(add(6, 600))
            place.pair.start("primary")
            other.rejoin()

    def expected(self) -> dict[int, int]:
        return {1: 100, 2: 200, 6: 600}

    def verify(self, place: Place) -> None:
        for node in ("primary", "standby"):
            assert place.rows(node, "SELECT key FROM replstore_orphan ORDER BY key") == [("[1]",), ("[2]",), ("[3]",)]  # type: ignore[arg-type]


class Solo(Operation):
    """A person lets the writer go on alone; then the follower is back."""

    def prepare(self, place: Place) -> None:
        super().prepare(place)
        place.pair.kill("standby")

    def operate(self, place: Place) -> None:
        with place.store() as store:
            store.solo()
            store.run(add(1, 11), key="once")
            place.acknowledge()

    def acknowledged(self, place: Place) -> None:
        assert {id: amount for id, _, amount in place.rows("primary")}[1] == 111

    def again(self, place: Place, store: Store) -> None:
        self.operate(place)
        place.pair.start("standby")

    def expected(self) -> dict[int, int]:
        return {1: 111, 2: 200}


class WitnessedTakeover(Takeover):
    """The witness, a third file, grants the takeover; then it is done."""

    def everywhere(self, place: Place) -> dict[str, Any]:
        return {"witness": f"sqlite:///{place.directory}/witness.db"}


class WitnessedSolo(Solo):
    """The witness lets the writer go on alone, and the follower in again."""

    def everywhere(self, place: Place) -> dict[str, Any]:
        return {"witness": f"sqlite:///{place.directory}/witness.db"}


class Pruning(Operation):
    """What both nodes have goes: journal, old markers, ticks."""

    settings: ClassVar[dict[str, Any]] = {"durability": "async"}

    def prepare(self, place: Place) -> None:
        super().prepare(place)
        with place.store() as store:
            store.run(add(1, 11), key="once")
            store.sync()
            store.run(add(3, 300))  # not shipped

    def operate(self, place: Place) -> None:
        for name in ("CONFIRMED", "SETTLED", "WALK"):
            setattr(retain, name, 0.0)
        retain.PIECE, retain.SPELL = 2, 60.0
        with place.store() as store:
            lead, retention = store.pair.current(0.0), Retention(0.0)
            for _ in range(2):
                states = [node.observe(1.0).state for node in (lead.node, lead.follower)]
                retention.work(lead.node, lead.follower, *states)  # type: ignore[arg-type]

    def again(self, place: Place, store: Store) -> None:
        assert store.run(add(1, 11), key="once") == 111
        self.operate(place)

    def expected(self) -> dict[int, int]:
        return {1: 111, 2: 200, 3: 300}

    def verify(self, place: Place) -> None:
        markers = "SELECT id, key FROM replstore_marker ORDER BY id"
        assert place.rows("primary", markers) == place.rows("standby", markers)
        assert "once" in {key for _, key in place.rows("primary", markers)}


OPERATIONS: dict[str, type[Operation]] = {
    "switchover with a backlog": SwitchoverWithABacklog,
    "forced takeover": ForcedTakeover,
    "solo": Solo,
    "takeover with a witness": WitnessedTakeover,
    "solo with a witness": WitnessedSolo,
    "pruning": Pruning,
}
