"""The table of commands, and the program that finds, runs and explains them without importing more than it needs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from replstore.cli.common import with_options
from replstore.cli.failures import report
from replstore.cli.help import CONTEXT, SectionedCommand, SectionedGroup
from replstore.cli.quick import importing

SET_UP, LOOK, ACT = "Set up", "Look", "Act"


@dataclass(frozen=True)
class Entry:
    """One command.

    Attributes:
        panel: the heading under which ``--help`` lists it.
        summary: what it does, in a sentence.
        failure: exit code where it failed for another reason than its settings.
    """

    panel: str
    summary: str
    failure: int = 1


COMMANDS = {
    "init": Entry(SET_UP, "Write a commented settings file."),
    "demo": Entry(SET_UP, "Watch a pair lose its primary in the middle of the work, and go on."),
    "migrate": Entry(SET_UP, "Bring the tables of both nodes to the same revision; makes a pair of two databases."),
    "status": Entry(LOOK, "Show who writes, what state each node is in, and what to do next."),
    "check": Entry(LOOK, "Compare both nodes: schema, sequences, every row. Exit code 1 if they differ.", failure=2),
    "orphans": Entry(LOOK, "Show what a lost writer had committed alone."),
    "repair": Entry(ACT, "Make rows that differ equal: a plan first, then with --apply; --undo brings them back.", failure=2),
    "sync": Entry(ACT, "Wait until the follower has everything committed before."),
    "ship": Entry(ACT, "Keep the follower up to date, as a process of its own."),
    "switchover": Entry(ACT, "Let the nodes change roles; no transaction fails."),
    "takeover": Entry(ACT, "Make the follower the writer, because the writer is lost."),
    "solo": Entry(ACT, "Let the writer acknowledge alone, because the follower is lost."),
    "rejoin": Entry(ACT, "Bring a former writer back as the follower."),
}


class Later(SectionedCommand):
    """A command as ``--help`` lists it; its module is imported when it runs."""

    def make_context(self, *arguments: Any, **extra: Any) -> Any:
        assert self.name is not None
        with importing():  # typer imports what checks options when it has some to check
            return load(self.name).make_context(*arguments, **extra)


class Commands(SectionedGroup):
    """The commands of :data:`COMMANDS` whose module is there."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, entry in COMMANDS.items():
            if find_spec(f"replstore.cli.{name}") is not None:
                self.add_command(Later(name, help=entry.summary, rich_help_panel=entry.panel))


def load(name: str) -> Any:
    """Imports a command and makes typer's object of it."""
    command = import_module(f"replstore.cli.{name}").command
    if not isinstance(command, typer.Typer):
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(name, cls=SectionedCommand, context_settings=CONTEXT)(with_options(command))
        command = app
    made = typer.main.get_command(command)
    made.name = name
    return made


def program() -> Any:
    """The whole command line."""
    app = typer.Typer(cls=Commands, add_completion=False, invoke_without_command=True, rich_markup_mode=None, context_settings=CONTEXT)

    @app.callback(epilog="REPLSTORE_DEBUG=1 shows where an error came from, without the passwords in URLs.")
    def replstore(
        context: typer.Context,
        version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
    ) -> None:
        """Keep one SQL database on two nodes, and survive the loss of either."""
        if version:
            from importlib.metadata import version as installed

            print(f"replstore {installed('replstore')}")
            raise typer.Exit
        if context.invoked_subcommand is None:
            print(context.get_help())

    return typer.main.get_command(app)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; see :func:`replstore.cli.main`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = next((argument for argument in given if not argument.startswith("-")), "")
    failure = COMMANDS[name].failure if name in COMMANDS else 1
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without "–" or "é" still gets the rest
    try:
        code = program().main(given, prog_name="replstore", standalone_mode=False)
    except Exception as error:
        return report(error, failure)
    return code if isinstance(code, int) else 0
