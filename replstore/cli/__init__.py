"""The command ``replstore``: one module a command, imported only when that command runs.

To add a command, write ``replstore/cli/NAME.py`` with a function ``command`` and give it a line in :data:`replstore.cli.app.COMMANDS`::

    def command(options: Options, force: Annotated[bool, typer.Option("--force", help="Don't ask.")] = False) -> int | None:
        \"\"\"What it does, in a sentence.  The rest of the docstring is the rest of its help.\"\"\"
        from replstore.store import Store        # heavy things are imported here, so that --help stays quick

- A parameter ``options: Options`` gives it the options that every command has (:mod:`replstore.cli.common`); the others are typer's.
- What it returns is the exit code; None is 0.  It raises :class:`~replstore.errors.ReplstoreError` and never prints an error itself: ``main`` makes one
  sentence and the exit code of it (:mod:`replstore.cli.failures`).
- A command with subcommands is a ``typer.Typer`` named ``command``; decorate each of its functions with ``with_options``.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: without the program's name; None: those of the process.

    Returns:
        The exit code.
    """
    try:
        from replstore.cli.quick import importing

        with importing():
            from replstore.cli.app import run

        return run(arguments)
    except KeyboardInterrupt:  # while that was being imported
        return 130
