"""Where a difference comes from, as values; ``causes.py`` finds it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

#: What is proved of a difference's origin (``causes.py``).
Cause = Literal["orphan", "conversion", "capture_missing", "behind_guard", "restored"]


@dataclass(frozen=True)
class Change:
    """A change of a row, as far as it is known.

    Attributes:
        tx: id of the transaction's marker; None: it was written without a Store, or that isn't known.
        at: when, by the node's clock.
        node: on which node.
    """

    tx: str | None
    at: str | None
    node: str | None

    def __str__(self) -> str:
        """In a few words."""
        parts = (f"transaction {self.tx}" if self.tx else "", f"at {self.at}" if self.at else "", f"on {self.node}" if self.node else "")
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Batch:
    """A batch of rows that was shipped.

    Attributes:
        number: they count up.
        at: when, in UTC, by the clock of the program that shipped it.
    """

    number: int
    at: str

    def __str__(self) -> str:
        """In a few words."""
        return f"batch {self.number:,} of {self.at[:19].replace('T', ' ')} UTC"


@dataclass(frozen=True)
class Restored:
    """A node that went back in time (``restored.py``).

    Attributes:
        node: which one.
        common: the last batch that it knows of, and so the last one that both nodes have in common; None: none.
        other: the last one that the other node knows of; None: not known.
    """

    node: str
    common: Batch | None
    other: Batch | None

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {"node": self.node, "common": self.common and _batch(self.common), "other": self.other and _batch(self.other)}

    def __str__(self) -> str:
        """What is the matter, and what proves it."""
        other = "standby" if self.node == "primary" else "primary"
        knows = f"the last one that it knows of is {self.common}" if self.common else "it knows of no batch"
        more = f", and {other} has {self.other}" if self.other else f", and {other} has a later one"
        return (
            f"{self.node} went back in time (a backup was brought back, its files were replaced by older ones, or a dump was loaded): {knows}{more}"
        )

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Restored:
        """From what ``dataclasses.asdict`` made of it."""
        return cls(kept["node"], *(kept[name] and Batch(**kept[name]) for name in ("common", "other")))


def _batch(batch: Batch) -> dict[str, Any]:
    return {"batch": batch.number, "at": batch.at}


@dataclass(frozen=True)
class Origin:
    """Where a difference comes from, as far as it is known.

    Attributes:
        cause: None: nothing is proved.
        change: what made the row differ; None: not known.
        after: when the check began that had found the row equal.
        reason: of ``conversion``: which column can't be held, and why.
        last: the last change of the row that a journal still names, whatever it has to do with the difference.
        restored: of ``restored``: the node that has the row as it was in a backup.
    """

    cause: Cause | None = None
    change: Change | None = None
    after: str | None = None
    reason: str | None = None
    last: Change | None = None
    restored: Restored | None = None

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        change, last = self.change or Change(None, None, None), self.last
        return {
            "cause": self.cause,
            "tx": change.tx,
            "at": change.at,
            "node": change.node,
            "after": self.after,
            "reason": self.reason,
            "common": _batch(self.restored.common) if self.restored and self.restored.common else None,
            "last_change": None if last is None else {"tx": last.tx, "at": last.at, "node": last.node},
        }

    def __str__(self) -> str:
        """What is proved, in a few words."""
        change = self.change or Change(None, None, None)
        if self.cause == "orphan":
            return ", ".join(filter(None, ("orphan", str(change))))
        if self.cause == "behind_guard":
            return f"written past the triggers{f' on {change.node}' if change.node else ''}, after the check of {self.after}"
        if self.cause == "restored" and self.restored:
            then = f"as of {self.restored.common}" if self.restored.common else "from before the first batch"
            return f"{self.restored.node} went back in time, {then}, and no journal has named the row since"
        if self.cause == "conversion":
            return self.reason or ""
        return "its changes weren't captured" if self.cause else "not known"

    @property
    def sentence(self) -> str:
        """The same with the last change that a journal names."""
        return f"{self}; last captured change: {self.last}" if self.last and str(self.last) else str(self)

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Origin:
        """From what ``dataclasses.asdict`` made of it."""
        changes = {name: kept[name] and Change(**kept[name]) for name in ("change", "last")}
        return cls(**{**kept, **changes, "restored": Restored.of(kept["restored"]) if kept.get("restored") else None})
