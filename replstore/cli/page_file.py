"""The file of ``replstore check --html``: refused before the check if it can't be written, or holds something that is no such page."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from replstore.errors import ConfigError

if TYPE_CHECKING:
    from replstore.reconcile.report import Report

BEGINNING = b"<!doctype html>"


class PageFile:
    """The file, or none.

    Args:
        path: of the file; empty: none is wanted.

    Raises:
        ConfigError: it can't be written, or would overwrite something else.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        if not path:
            return
        folder = os.path.dirname(path) or "."
        if not os.path.isdir(folder):
            raise ConfigError(f"--html: there is no directory {folder}")
        if not os.access(folder, os.W_OK):
            raise ConfigError(f"--html: directory {folder} can't be written to")
        if os.path.exists(path) and not _is_page(path):
            raise ConfigError(f"--html: {path} is there and is no page of HTML: give another file, or remove it")

    def write(self, report: Report) -> None:
        """Writes the page at once or not at all."""
        if not self.path:
            return
        from replstore.reconcile.page import page

        part = f"{self.path}.part"
        try:
            with open(part, "w", encoding="utf-8") as file:
                file.write(page(report))
            os.replace(part, self.path)
        except OSError as error:
            with suppress(OSError):
                os.unlink(part)
            raise ConfigError(f"--html: {self.path} can't be written: {error.strerror}") from error


def _is_page(path: str) -> bool:
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(len(BEGINNING)).lower() in (BEGINNING, b"")
    except OSError:
        return False
