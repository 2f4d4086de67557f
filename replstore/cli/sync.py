"""``replstore sync``: waits until the follower has everything."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from replstore.cli.acting import tell
from replstore.cli.common import Options
from replstore.cli.opening import opened
from replstore.errors import ReplstoreError


def command(
    options: Options,
    timeout: Annotated[float, typer.Option("--timeout", help="How long to wait at most.", min=0.0, metavar="S")] = 60.0,
) -> None:
    """Wait until the follower has everything that was committed before."""
    began = time.monotonic()
    with opened(options) as store:
        # a writer is there within takeover_timeout, or a person is needed: no need to wait in silence for the rest
        store.pair.settle(began + min(timeout, store.settings.takeover_timeout))
        try:
            store.sync(timeout=timeout)
        except TimeoutError as error:
            raise ReplstoreError(f"the follower doesn't have everything yet after {timeout:g} s: {error}") from error
        seconds = time.monotonic() - began
        tell(options, store, f"The follower has everything that was committed before ({seconds:.2f} s).", seconds=round(seconds, 3))
