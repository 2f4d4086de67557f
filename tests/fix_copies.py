"""A filled writer whose tables are copied to a follower in parts, by a program that may die between two of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from replstore.databases.carrier import Keys, Landing
from replstore.replication.journal import copying
from replstore.store import Store
from tests.fix_stores import Base, Lab

#: Of a part, under ``small_parts``.
ROWS = 10


class Broken(Exception):
    """The program that copies dies."""


def filled(lab: Lab, rows: int = 45) -> None:
    """A database that has rows before it becomes a pair."""
    key = "serial PRIMARY KEY" if lab.postgresql else "INTEGER NOT NULL PRIMARY KEY"
    lab.sql("primary", f"CREATE TABLE account (id {key}, owner varchar NOT NULL UNIQUE, amount integer NOT NULL)")
    lab.sql("primary", "INSERT INTO account VALUES " + ", ".join(f"({id}, 'owner {id}', {id})" for id in range(rows)))


def watched(store: Store, monkeypatch: pytest.MonkeyPatch, before: Callable[[int], None]) -> list[dict[str, Keys]]:
    """Lets something happen before each batch's rows are written; returns what each batch carries."""
    batches: list[dict[str, Keys]] = []
    carrier = type(store.pair.primary.database.carrier(store.pair.primary.service, store.pair.standby.service))
    apply = carrier.apply

    def spy(self: Any, rows: Any, landing: Landing) -> int:
        before(len(batches))
        batches.append(dict(rows))
        return apply(self, rows, landing)

    monkeypatch.setattr(carrier, "apply", spy)
    return batches


def die_at(number: int) -> Callable[[int], None]:
    def die(batch: int) -> None:
        if batch == number:
            raise Broken

    return die


def parts(batches: list[dict[str, Keys]]) -> list[tuple[str | None, str | None]]:
    """The bounds of the parts that were copied."""
    return [(keys.part.after, keys.part.upto) for batch in batches for keys in batch.values() if keys.part is not None]


def half_copied(lab: Lab, monkeypatch: pytest.MonkeyPatch, *, at: int = 3, **settings: Any) -> Store:
    """A filled pair whose copy breaks off before a part; under ``small_parts`` the follower has the first 30 accounts of 45.

    Args:
        at: the part's number, from 0.

    Returns:
        The Store that copied, as it is after that.
    """
    filled(lab)
    store = lab.store(background=False, **settings)
    with monkeypatch.context() as patch, pytest.raises(Broken):
        watched(store, patch, die_at(at))
        store.migrate(Base)
    return store


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of more than ten rows is copied in parts."""
    monkeypatch.setattr(copying, "ROWS", ROWS)
