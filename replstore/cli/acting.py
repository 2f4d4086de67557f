"""What the commands that change the pair have in common: how they say what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replstore.cli.common import Options, console, print_json
from replstore.cli.status import next_step

if TYPE_CHECKING:
    from replstore.store import Store


def tell(options: Options, store: Store, sentence: str, **facts: Any) -> None:
    """Prints what was done and how the pair is now.

    Args:
        sentence: for people; the pair's state follows.
        facts: for programs, beside the fields of ``Status``.
    """
    status = store.status()
    if options.json:
        print_json({**facts, **status.as_dict()})
        return
    screen = console()
    screen.print(sentence, markup=False)
    if not status.healthy:
        screen.print(f"Now: {status.reason}.", markup=False)
        if step := next_step(status):
            screen.print(f"Next: {step}.", markup=False)
