"""How much time a run may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """What was asked for.

    Attributes:
        quick: a few rounds of everything, within a minute: to see that it runs, not to be quoted.
        large: memory with a transaction of 5 million rows instead of 1 million.
        faults: how often each fault is made.
    """

    quick: bool = False
    large: bool = False
    faults: int = 30

    def seconds(self, full: float) -> float:
        """For how long a case's rounds go on."""
        return 0.0 if self.quick else full

    @property
    def rounds(self) -> int:
        """The least number of rounds of cases whose turns are long."""
        return 1 if self.quick else 3
