"""The Store of a command: opened quietly, on a pair that is there, closed afterwards."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from replstore.cli.common import Options
from replstore.cli.failures import NODE
from replstore.cli.quick import importing
from replstore.errors import NotAPair, ReplstoreError

if TYPE_CHECKING:
    from replstore.pair.pair import Pair
    from replstore.store import Store


@contextmanager
def opened(options: Options, *, background: bool = False, made: bool = True) -> Iterator[Store]:
    """A Store with the command's settings.

    Args:
        options: the command's.
        background: with the threads that look after the pair.
        made: the two databases must be a pair already.

    Raises:
        NotAPair: they aren't, and ``made`` says that they must be.
        ConfigError: the settings, or the databases, can't be used.
    """
    with importing():
        from replstore.databases.carrier import CompareFailed
        from replstore.store import Store
        from replstore.urls import shown

    # what happened is what the command prints; without a handler Python would print log lines besides
    logging.getLogger("replstore").addHandler(logging.NullHandler())
    with Store(options.config, background=background, **options.overrides) as store:
        store.pair.acts = background
        if made:
            require_pair(store.pair)
        try:
            yield store
        except CompareFailed as error:
            raise ReplstoreError(f"{error}: others changed the pair meanwhile, so nothing was done; repeat it") from error
        except Exception as error:
            if not hasattr(error, NODE):  # a driver's error that comes from a session with both
                setattr(error, NODE, " or ".join(f"{node.name} {shown(node.url)}" for node in store.pair.nodes.values()))
            raise


def require_pair(pair: Pair) -> None:
    """Raises NotAPair if both nodes have answered, and neither has control tables."""
    from replstore.pair.admission import is_no_pair

    pair.look()
    if is_no_pair(pair.nodes.values(), pair.watch.states):
        from replstore.urls import shown

        urls = " and ".join(shown(node.url) for node in pair.nodes.values())
        raise NotAPair(f"{urls} are no pair yet: `replstore migrate` makes one of them")
