"""The file to which orphans are exported: known to be writable before anything is read, readable by its owner only, and never in another one's place."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from replstore.errors import ConfigError


class OrphanFile:
    """One file, written once.

    Args:
        given: its path; None: a name is made here.

    Raises:
        ConfigError: it can't be written, or is there already.
    """

    def __init__(self, given: str | None) -> None:
        self._given = given
        self.path = Path(given or ".").absolute()
        if given is not None and self.path.exists():
            raise ConfigError(f"{self.path} is there already: name another file")
        directory = self.path.parent if given is not None else self.path
        if not os.access(directory, os.W_OK | os.X_OK):
            raise ConfigError(f"{directory} can't be written: name a file elsewhere")

    def write(self, facts: dict[str, Any], node: str) -> None:
        """Writes it.

        Args:
            facts: as JSON takes them.
            node: whose orphans they are, for a name that is made.
        """
        if self._given is None:
            self.path /= f"orphans-{node}-{datetime.now(UTC):%Y%m%dT%H%M%S}.json"
        with os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as writing:
            json.dump(facts, writing, indent=2, ensure_ascii=False, default=str)
            writing.flush()
            os.fsync(writing.fileno())
