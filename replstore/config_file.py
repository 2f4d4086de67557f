"""The settings file: ``replstore.toml``, or ``[tool.replstore]`` in ``pyproject.toml``."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from replstore.errors import ConfigError

#: How a URL begins, also after ``Path`` has made one slash of two.
_URL = re.compile(r"[A-Za-z][\w+.-]+:/")


def find() -> tuple[Mapping[str, Any], str]:
    """The settings file of the current directory, if there is one."""
    for path in (Path("replstore.toml"), Path("pyproject.toml")):
        if path.is_file():
            content, name = read(path, optional=True)
            if content:
                return content, name
    return {}, ""


def read(given: str | os.PathLike[str], optional: bool = False) -> tuple[Mapping[str, Any], str]:
    """Content and name of a settings file; of a ``pyproject.toml`` only ``[tool.replstore]``, which may be missing if it is ``optional``.

    Raises:
        ConfigError: it is no such file; a URL, which may hold a password, isn't repeated.
    """
    if isinstance(given, URL) or _URL.match(os.fspath(given)):
        raise ConfigError('this is a database URL (not shown), and a settings file was expected: write Store(primary="…", standby="…")')
    if not os.fspath(given):
        raise ConfigError("the name of the settings file is empty: give a file, or leave it out")
    path = Path(given)
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} isn't a text file in UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} isn't valid TOML: {error}") from None  # some versions' error holds the whole file
    if path.name != "pyproject.toml":
        for name in ("replstore", "tool"):
            if isinstance(content.get(name), dict):
                raise ConfigError(f"{path}: settings stand at the top of the file, without the table [{name}]")
        return content, str(path)
    tool = content.get("tool")
    table = tool.get("replstore") if isinstance(tool, dict) else None
    if table is None and optional:
        return {}, str(path)
    if not isinstance(table, dict):
        raise ConfigError(f"{path} has no table [tool.replstore]")
    return table, f"{path} [tool.replstore]"
