"""``replstore ship``: looks after a pair as a process of its own."""

from __future__ import annotations

import logging
import signal
import sys
import threading

from replstore.cli.common import Options
from replstore.cli.opening import opened


def command(options: Options) -> None:
    """Keep the follower up to date, as a process of its own, until Ctrl-C.

    For a pair whose programs come and go, or write without replstore: it ships, counts the heartbeat, takes over from a lost writer and lets it rejoin, as
    the background threads of every Store do. What happens is logged on stderr, a sentence each.
    """
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with opened(options, background=True) as store:
        _log()
        status = store.status()
        logging.getLogger("replstore").info("looking after the pair: %s", status.reason)
        ended.wait()
    logging.getLogger("replstore").info("stopped")


def _log() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("replstore")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
