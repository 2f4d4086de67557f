"""Where a writer's log was at which moments: what a follower's age and distance are measured by, without asking anybody (HAZARDS 22)."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

#: s between two samples that are both kept; how many there may be, and how many of the last ones are kept undiluted.
SPACING, KEPT, LAST = 0.05, 128, 32
#: Of two neighbours one goes if they are closer to each other than this share of their age.
SHARE = 0.2


@dataclass(frozen=True)
class Sample:
    """At ``at``, on this process's monotonic clock, everything committed was below ``place`` of the term's log."""

    at: float
    place: int
    term_uuid: str


class Samples:
    """The last moments densely, older ones ever more sparsely: a follower may lag by milliseconds or by hours."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[Sample] = []

    def add(self, sample: Sample) -> None:
        """Keeps a sample, unless a later one is there."""
        with self._lock:
            kept = self._kept
            if kept and sample.at <= kept[-1].at:
                return
            if len(kept) > 1 and sample.at - kept[-2].at < SPACING:
                kept[-1] = sample
                return
            kept.append(sample)
            if len(kept) > KEPT:
                self._dilute(sample.at)

    def _dilute(self, now: float) -> None:
        found = self._kept[:1]  # the oldest stays: whoever lags by more isn't known
        for sample in self._kept[1:-LAST]:
            if sample.at - found[-1].at >= SHARE * (now - sample.at):
                found.append(sample)
        self._kept = found + self._kept[-LAST:]

    def had_all_at(self, place: int, term_uuid: str) -> float:
        """The last moment of which it is known that a follower at this place has everything; minus infinity: none."""
        with self._lock:
            had = (sample.at for sample in reversed(self._kept) if sample.term_uuid == term_uuid and sample.place <= place)
            return next(had, -math.inf)

    def behind(self, place: int, term_uuid: str, since: float) -> float:
        """Bytes of the log that a follower at this place lacks, by the last sample; infinite: there is none since that moment, or of another term."""
        with self._lock:
            last = self._kept[-1] if self._kept else None
        if last is None or last.at < since or last.term_uuid != term_uuid:
            return math.inf
        return max(0, last.place - place)
