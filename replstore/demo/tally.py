"""What the processes say was acknowledged, and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from replstore.demo.worker import Event


@dataclass(frozen=True)
class Pause:
    """How long nothing was acknowledged while the writer changed.

    Attributes:
        overall: ms between two acknowledged orders, of whichever processes.
        longest: ms between two acknowledged orders of the process that waited longest.
    """

    overall: float
    longest: float


@dataclass
class Log:
    """One process's log, as far as it was read.

    Attributes:
        acknowledged: in their order.
        troubles: calls that ended in an error.
    """

    path: Path
    acknowledged: list[Event] = field(default_factory=list)
    troubles: list[Event] = field(default_factory=list)
    _offset: int = 0

    def read(self) -> None:
        """Reads what is new; a line that isn't finished is left for the next time."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        self._offset += len(data)
        for line in data.splitlines():
            event = Event.from_json(line)
            (self.acknowledged if event.acknowledged else self.troubles).append(event)


class Tally:
    """All logs together.

    Args:
        paths: a log for each process; it need not exist yet.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.logs = [Log(path) for path in paths]

    def read(self) -> None:
        """Reads what is new."""
        for log in self.logs:
            log.read()

    @property
    def events(self) -> list[Event]:
        """Everything acknowledged, by time."""
        return sorted((event for log in self.logs for event in log.acknowledged), key=lambda event: event.at)

    @property
    def acknowledged(self) -> list[str]:
        """The numbers of the acknowledged orders."""
        return [event.number for log in self.logs for event in log.acknowledged]

    @property
    def last(self) -> Event | None:
        """The order acknowledged last."""
        return max((log.acknowledged[-1] for log in self.logs if log.acknowledged), key=lambda event: event.at, default=None)

    @property
    def troubles(self) -> Counter[str]:
        """How often calls ended in which error."""
        return Counter(event.outcome for log in self.logs for event in log.troubles)

    def trouble_notes(self) -> dict[str, str]:
        """An example of each."""
        return {event.outcome: event.note for log in self.logs for event in log.troubles}

    def since(self, at: float) -> list[Event]:
        """What was acknowledged after a moment, in no particular order; looks from the end."""
        found = []
        for log in self.logs:
            for event in reversed(log.acknowledged):
                if event.at <= at:
                    break
                found.append(event)
        return found

    def pause(self, at: float, term: int) -> Pause | None:
        """The pause around a moment.

        Args:
            at: when it began, on the monotonic clock.
            term: of the writer that came after it.

        Returns:
            None: not every process has written under the new term.
        """
        gaps = [longest_gap(log.acknowledged, at, term) for log in self.logs]
        overall = longest_gap(self.events, at, term)
        known = [gap for gap in gaps if gap is not None]
        if overall is None or len(known) < len(gaps):
            return None
        return Pause(overall * 1000, max(known) * 1000)


def longest_gap(events: Sequence[Event], at: float, term: int) -> float | None:
    """The longest time, in s, between two neighbours among events in the order of time: from the last one before ``at`` to the first under ``term``."""
    first = next((index for index, event in enumerate(events) if event.at > at and event.term >= term), None)
    if first is None:
        return None
    last = max((index for index, event in enumerate(events) if event.at <= at), default=0)
    times = [event.at for event in events[last : first + 1]]
    return max((later - earlier for earlier, later in pairwise(times)), default=0.0)
