"""What a caller wants of a check."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from replstore.errors import ConfigError
from replstore.reconcile.reading import Progress

#: Sessions of a node at most: its engine has a few more, for everything else.
WORKERS = 8


@dataclass(frozen=True)
class Wishes:
    """What to compare, and how; ``Store.check`` says it of each.

    Raises:
        ConfigError: it can't be done.
    """

    tables: Collection[str] | None = None
    exclude: Collection[str] = ()
    where: str = ""
    sample: float = 1.0
    limit: int = 1000
    settle: float = 1.0
    workers: int = 2
    max_load: float = 1.0
    progress: Progress | None = None
    expected: Progress | None = None
    resume: str = ""
    since: str | None = None

    def notes(self) -> Iterator[str]:
        """What a reader of the report must know of it, a sentence each."""
        if self.where:
            yield f"only rows were compared for which {' '.join(self.where.split())}"
        if self.sample < 1:
            yield f"only {self.sample * 100:g} % of the rows were compared, in ranges of keys chosen by chance"

    @property
    def whole(self) -> bool:
        """Whether all rows of the chosen tables are compared, now."""
        return not self.where and self.sample >= 1 and not self.resume

    def identity(self, *of: str) -> dict[str, Any]:
        """What a check that goes on must have in common with the one that broke off.

        Args:
            of: what names the two databases.
        """
        return {"of": of, "where": self.where, "sample": self.sample, "limit": self.limit}

    def __post_init__(self) -> None:
        if self.tables is not None and not self.tables:
            raise ConfigError("tables names no table: give at least one, or leave it out to compare all")
        if self.limit < 0:
            raise ConfigError(f"limit: {self.limit} is no number of differences")
        if not 1 <= self.workers <= WORKERS:
            raise ConfigError(f"workers: {self.workers} is no number of sessions; 1 to {WORKERS} of each node read")
        for name in ("sample", "max_load"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name}: {getattr(self, name):g} is no share above 0 and up to 1")
        if self.since not in (None, "last"):
            raise ConfigError(f"since: {self.since} is no check to go on from; only last is")
        if self.since and (given := [name for name, value in (("where", self.where), ("sample", self.sample < 1), ("resume", self.resume)) if value]):
            raise ConfigError(f"{given[0]} doesn't go together with since: only rows that have changed are compared, and all of them")
        if not self.settle >= 0:
            raise ConfigError(f"settle: {self.settle:g} is no number of seconds")
