"""A call under a key: it takes effect once, whoever repeats it, from whatever process, after a takeover or years later.

The key's marker is the first statement of the transaction.  A second transaction with the same key waits for the first one's end; it then finds the
marker and returns the stored result.  The result is serialised before COMMIT, and the first caller gets what later callers get (HAZARDS 10).
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from replstore.control import MARKER_COLUMNS
from replstore.errors import KeyReused, ResultNotSerializable
from replstore.transaction.attempt import Attempt

INSERT: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


@dataclass(frozen=True)
class Done:
    """The key was used before.

    Attributes:
        id: the first transaction's marker.
        result: what it returned.
    """

    id: str
    result: Any


def function_name(fn: Callable[..., Any]) -> str:
    """What names a function across processes: module and qualified name; of a partial or a bound method, those of the function in it.

    Raises:
        ValueError: it has no name of its own, as a lambda.
    """
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__qualname__", type(fn).__qualname__)
    if "<lambda>" in name:
        raise ValueError("a call under a key needs a function with a name: all lambdas look alike to the next process")
    module = getattr(fn, "__module__", None) or type(fn).__module__
    return f"{_main_name() if module == '__main__' else module}.{name}"


def _main_name() -> str:
    """The module that was started as the program, under the name by which others import it."""
    main = sys.modules["__main__"]
    if main.__spec__ is not None:
        return main.__spec__.name
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else "__main__"


def claim(session: Session, attempt: Attempt, key: str, fn: Callable[..., Any]) -> Done | None:
    """Writes the key's marker as the transaction's first statement.

    Returns:
        None: the key is ours.  Else what the first call left.

    Raises:
        KeyReused: another function has used the key.
    """
    marker = attempt.lead.node.database.control.marker
    name = function_name(fn)
    values = dict(zip(MARKER_COLUMNS, attempt.marker_values(key, name), strict=False))
    insert = INSERT[attempt.lead.node.database.name]
    once = insert(marker).values(values).on_conflict_do_nothing(index_elements=["key"], index_where=marker.c.key.is_not(None))
    ours = session.execute(once.returning(marker.c.id)).scalar()
    if ours is not None:
        return None
    found = session.execute(select(marker.c.id, marker.c.fn, marker.c.result).where(marker.c.key == key)).one()
    if found.fn != name:
        raise KeyReused(f"key {key!r} was used by {found.fn}, and now by {name}: a key belongs to one function")
    attempt.id = found.id  # what this transaction has read is what its caller waits for: it has no marker of its own
    return Done(found.id, json.loads(found.result) if found.result is not None else None)


def store_result(session: Session, attempt: Attempt, result: Any) -> Any:
    """Writes the result into the marker, and returns it as later callers will get it.

    Raises:
        ResultNotSerializable: JSON can't hold it; nothing is committed.
    """
    try:
        text = json.dumps(result, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ResultNotSerializable(f"a keyed call's result must fit into JSON, and {type(result).__name__} doesn't: {error}") from error
    marker = attempt.lead.node.database.control.marker
    session.flush()
    session.execute(update(marker).where(marker.c.id == attempt.id).values(result=text))
    return json.loads(text)
