"""x"""
from __future__ import annotations

from typing import Annotated

import typer

from replstore.cli.common import Options


def command(options: Options, path: Annotated[str, typer.Option("--path", help="Where to write the file.")]="replstore.toml", force: Annotated[bool, typer.Option("--force", help="Replace it.")]=False) -> None:
    """Write a commented settings file, replstore.toml, with every setting, its unit, its default and the reason.

    Nothing else is touched: the databases are made by `replstore migrate`.
    """
