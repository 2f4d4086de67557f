"""``replstore migrate``: makes a pair of two databases, and brings both to the same revision."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from replstore.cli.common import Options, console, print_json
from replstore.cli.opening import opened
from replstore.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy import MetaData

    from replstore.migrate import Migrated
    from replstore.pair.pair import Pair


@dataclass(frozen=True)
class Left:
    """What the command found besides.

    Attributes:
        writer, follower: names of the nodes.
        left_out: what hangs on the tables of the writer and is not on the follower, a sentence each.
    """

    writer: str
    follower: str
    left_out: list[str]


def command(
    options: Options,
    alembic_config: Annotated[
        Path | None, typer.Option("--alembic-config", help="Your alembic.ini: its environment is brought to its head on both nodes.", metavar="FILE")
    ] = None,
    metadata: Annotated[
        str | None, typer.Option("--metadata", help="SQLAlchemy metadata whose missing tables are created: app.models:Base.", metavar="MODULE:NAME")
    ] = None,
    replace: Annotated[
        Literal["primary", "standby", "witness"] | None,
        typer.Option(
            "--replace", help="primary or standby, or the witness: it was lost for good; make a new one of its empty database.", metavar="NODE"
        ),
    ] = None,
    drop_witness: Annotated[
        bool, typer.Option("--drop-witness", help="The pair has no witness from now on. Then leave it out of every program's settings.")
    ] = False,
) -> None:
    """Bring the tables of both nodes to the same revision; makes a pair of two databases.

    With neither --alembic-config nor --metadata the tables that the primary has are taken as they are: made on the standby, and copied. A SQLite file that
    isn't there yet is made. A table of the metadata, or of the primary, that can't be replicated is named, and nothing is changed; what an Alembic
    environment has made by then stays.
    """
    from replstore.migrate import migrate

    with redirect_stdout(sys.stderr) if options.json else nullcontext():  # what the user's module or env.py prints is no JSON
        tables = load_metadata(metadata) if metadata else None
        with opened(options, made=False) as store:
            done = migrate(store.pair, tables, alembic_config=alembic_config, replace=replace, drop_witness=drop_witness)
            left = _left(store.pair)
    if options.json:
        print_json({**asdict(done), "left_out": left.left_out})
    else:
        for sentence in sentences(done, left):
            console().print(sentence, markup=False)


def load_metadata(name: str) -> MetaData:
    """The metadata that ``MODULE:NAME`` names: a MetaData, or something with an attribute ``metadata``.

    Raises:
        ConfigError: there is no such thing.
    """
    from replstore.user_migrations import as_metadata, what_went_wrong

    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(f"--metadata {name}: write MODULE:NAME, such as app.models:Base")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a program's modules are found where it is started, as with `python -m`
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # whatever the user's module does
        raise ConfigError(f"--metadata {name} can't be imported: {what_went_wrong(error)}") from error
    return as_metadata(found, f"--metadata {name}")


def _left(pair: Pair) -> Left:
    """What the follower doesn't have; nothing where it isn't reached."""
    lead = pair.lead
    if lead is None:
        return Left("primary", "standby", [])
    left: list[list[str]] = []
    for node in (lead.node, lead.follower):
        if node.observe(pair.settings.probe_timeout).state is None:
            return Left(lead.node.name, lead.follower.name, [])
        with node.snapshot() as connection:
            left.append(node.database.left_out(connection, node.database.tables(connection)))
    return Left(lead.node.name, lead.follower.name, [sentence for sentence in left[0] if sentence not in left[1]])


def sentences(done: Migrated, left: Left) -> list[str]:
    """What was done, for people."""
    count = len(done.tables)
    number = "1 table is" if count == 1 else f"{count} tables are"
    what = f"{number} replicated: {', '.join(done.tables)}" if count else "there is no table of yours yet"
    copied = [table for table in done.copied if table in done.tables]
    said = [f"The {left.writer} writes, the {left.follower} follows; {what}."]
    said += [f"Your Alembic environment is at revision {done.user_revision}."] if done.user_revision else []
    said += [f"Copied to the {left.follower}: {', '.join(copied)}."] if copied else []
    later = "the next `replstore migrate`, or any running Store, brings it to the same revision"
    said += [f"The {done.behind} wasn't reached: {later}."] if done.behind else []
    said += [f"Not on the {left.follower}: {sentence}." for sentence in left.left_out]
    return [*said, f"replstore's own tables are at revision {done.revision}."]
