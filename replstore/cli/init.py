"""``replstore init``: writes a commented settings file."""

from __future__ import annotations

import os
import shlex
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from replstore.cli.common import Options, print_json
from replstore.errors import ConfigError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from replstore.config import Settings

NAME = "replstore.toml"
LOCAL_PAIR = {"primary": "sqlite:///replstore-primary.db", "standby": "sqlite:///replstore-standby.db"}
LOCAL_WITNESS = "sqlite:///replstore-witness.db"
REMOTE_WITNESS = "postgresql://user@third-host:5432/witness"
#: What a witness is for where both nodes are files on one machine.
WHY_LOCAL = (
    "For two files on one machine a third file will do, on a disk that goes away with neither. A file that was unmounted and mounted again, or copied "
    "back, can't know whether the other node went on without it; the witness knows, so that nobody has to be asked."
)
HEAD = """\
# Settings of replstore.  A line that stays commented takes the default that it shows.
# The same names work as keywords, Store(ack_timeout=5), and in the environment, REPLSTORE_ACK_TIMEOUT=5.
# A keyword wins over the environment, the environment over this file.  It is found where the program starts,
# or by --config; its content may also stand in pyproject.toml, as [tool.replstore].
# Seconds may carry a unit: "500ms", "10s", "24h".
"""
RULE = "# " + "-" * 108
PAIR = "The pair. Kept in its control tables, equal in every program; one that leaves a setting out takes the pair's."


def command(
    options: Options,
    config: Annotated[Path, typer.Option("--path", "--config", help="The file to write.", metavar="FILE")] = Path(NAME),
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a commented settings file: every setting with its unit, its default and the reason.

    It describes a pair of two SQLite files, or what --primary, --standby and --durability say. No database is touched: `replstore migrate` makes the pair.
    """
    from replstore.config import Settings
    from replstore.config_faults import PREFIX, URLS
    from replstore.urls import shown

    if not force:
        _refuse_shadow(config)
    given = options.overrides
    if not {"primary", "standby"} & given.keys():
        given = LOCAL_PAIR | given
    settings = Settings(**given)
    secret = any(url.password for url in (settings.primary_url, settings.standby_url))
    _write(config, render(settings, given), force=force, mode=0o600 if secret else 0o666)
    primary, standby = shown(settings.primary_url), shown(settings.standby_url)
    ruled = [variable for name in URLS if (variable := f"{PREFIX}{name.upper()}") in os.environ]
    if options.json:
        print_json({"path": str(config), "primary": primary, "standby": standby, "overruled_by": ruled})
        return
    option = "" if config == Path(NAME) else f" --config {shlex.quote(str(config))}"
    print(f"Wrote {config}{', for your eyes only because it holds a password' if secret else ''}.")
    print(f"  primary  {primary}\n  standby  {standby}")
    if ruled:
        print(f"Note: {' and '.join(ruled)} in your environment {'wins' if len(ruled) == 1 else 'win'} over what the file says.")
    print(f"Next: look through it, then `replstore migrate{option}` makes the pair and `replstore status{option}` shows it.")


def _refuse_shadow(path: Path) -> None:
    """Where programs start in this directory, the file would hide the settings that they take now.

    Raises:
        ConfigError: there are such settings.
    """
    from replstore import config_file

    other = path.parent / "pyproject.toml"
    if path.name == NAME and not path.exists() and other.is_file() and config_file.read(other, optional=True)[0]:
        raise ConfigError(f"{other} has settings already, [tool.replstore], and {path} would hide them: --force writes it all the same")


def render(settings: Settings, given: Mapping[str, Any]) -> str:
    """The content of the file.

    Args:
        settings: validated; their defaults are shown.
        given: by name, what stands uncommented.
    """
    from replstore.config import PAIR_SETTINGS, Settings
    from replstore.config_faults import URLS

    fields = Settings.model_fields
    local = settings.primary_url.get_backend_name() == "sqlite"
    witness = LOCAL_WITNESS if local else REMOTE_WITNESS
    text = HEAD + _section("The nodes.")
    for name in URLS:
        more = WHY_LOCAL if name == "witness" and local else ""
        text += _setting(name, fields[name], given.get(name, witness), commented=name not in given, more=more)
    text += _section(PAIR)
    for name in PAIR_SETTINGS:
        text += _setting(name, fields[name], given.get(name, fields[name].default), commented=name not in given)
    text += _section("Each program for itself.")
    for name, field in fields.items():
        if name not in (*URLS, *PAIR_SETTINGS):
            text += _setting(name, field, given.get(name, _otherwise(field)), commented=name not in given)
    return text


def _otherwise(field: FieldInfo) -> Any:
    """What stands commented: the default, or an example of what has none."""
    return field.examples[0] if field.default is None and field.examples else field.default


def _section(title: str) -> str:
    return f"\n\n{RULE}\n{textwrap.fill(title, 110, initial_indent='# ', subsequent_indent='# ')}\n{RULE}\n"


def _setting(name: str, field: FieldInfo, value: Any, *, commented: bool, more: str = "") -> str:
    text = f"{field.description} {more}".strip()
    comment = textwrap.fill(text, 110, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False)
    return f"\n{comment}\n{'#' if commented else ''}{name} = {_toml(value)}\n"


def _toml(value: Any) -> str:
    """A value as TOML; whole hours as text, because nobody reads 86400."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f'"{value / 3600:g}h"' if value and value % 3600 == 0 else f"{value:g}"
    if isinstance(value, int):
        return str(value)
    escaped = "".join(f"\\u{ord(sign):04x}" if ord(sign) < 32 or ord(sign) == 127 or sign in '"\\' else sign for sign in str(value))
    return f'"{escaped}"'


def _write(path: Path, content: str, *, force: bool, mode: int) -> None:
    """Writes the file, and leaves none behind if it can't be written whole.

    Raises:
        ConfigError: it exists and may not be replaced, or can't be written.
    """
    try:
        with open(path, "w" if force else "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            if mode == 0o600:
                os.fchmod(file.fileno(), mode)  # one that is replaced keeps its own mode otherwise
            file.write(content)
    except FileExistsError:
        raise ConfigError(f"{path} exists already: --force replaces it, --path writes another one") from None
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror or error}") from error
