"""What a person orders of a pair of native replication by SQL: a promotion.  What needs more is in ``native_switchover`` and ``native_rejoin``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from replstore.errors import ConfigError, TakeoverRefused
from replstore.pair.by_hand import alone
from replstore.pair.native_rules import why_not_promoted
from replstore.pair.promotion import promote
from replstore.pair.view import Reach, Role, View, named

if TYPE_CHECKING:
    from replstore.node import Node
    from replstore.pair.pair import Pair


def takeover(pair: Pair, name: str | None, *, force: bool) -> None:
    """Promotes the standby by a person's order; see ``Store.takeover``."""
    if name is not None and name not in pair.nodes:
        raise ConfigError(f"{name!r} is no node: there are primary and standby")
    with alone(pair, "a takeover", time.monotonic() + pair.settings.takeover_timeout):
        view, decision = pair.look()
        node = pair.nodes[name] if name else _standby(pair, view)
        if node is None:
            raise TakeoverRefused(f"no node is a standby, so none can be promoted: {decision.reason}")
        seen, other = named(view, node.name), named(view, pair.other(node).name)
        if seen.reach is not Reach.UP:
            raise TakeoverRefused(f"{node.name} can't be promoted: {seen.error or seen.reach}")
        if seen.role is not Role.FOLLOWER:
            raise TakeoverRefused(f"{node.name} is no standby: it writes already")
        if not force:
            if other.reach is Reach.UP and other.role is Role.WRITER:
                raise TakeoverRefused(f"{other.name} is alive and writes: use `replstore switchover`, or `--force` if you are sure that it must not")
            if reason := why_not_promoted(view, seen, other):
                raise TakeoverRefused(f"{node.name} isn't promoted: {reason}; `--force` promotes it all the same")
        promote(node, seen, refused=other.reach is Reach.REFUSED, force=force)
        pair.look()


def _standby(pair: Pair, view: View) -> Node | None:
    found = [seen.name for seen in (view.primary, view.standby) if seen.role is Role.FOLLOWER and seen.reach is Reach.UP]
    return pair.nodes[found[0]] if len(found) == 1 else None


def solo(pair: Pair) -> None:
    """There is no such state: see ``Store.solo``.

    Raises:
        ConfigError: always.
    """
    raise ConfigError('with native replication the server acknowledges, by its own synchronous_standby_names: durability="server" leaves it to that')
