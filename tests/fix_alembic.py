"""A user's Alembic environment."""

from __future__ import annotations

import re
from pathlib import Path

from alembic import command
from alembic.config import Config

USUAL, FROM_ATTRIBUTES = "as it is generated", "with the connection in config.attributes"


class Environment:
    """A user's Alembic environment, made by ``alembic init``.

    Args:
        directory: where it goes.
        kind: ``USUAL``, ``FROM_ATTRIBUTES``, or a URL that its env.py insists on.
    """

    def __init__(self, directory: Path, kind: str = USUAL) -> None:
        self.ini = directory / "alembic.ini"
        self._directory = directory / "migrations"
        self._revisions: list[str] = []
        command.init(Config(str(self.ini)), str(self._directory))
        env = self._directory / "env.py"
        (engine,) = re.findall(r"    connectable = engine_from_config\(.*?\n    \)\n", env.read_text(), re.DOTALL)
        if kind == FROM_ATTRIBUTES:
            body = '    context.configure(connection=config.attributes["connection"])\n    with context.begin_transaction():\n        context.run_migrations()\n'
            env.write_text(
                re.sub(
                    r"(def run_migrations_online.*?\"\"\"\n.*?\"\"\"\n).*?\nif ", lambda m: f"{m[1]}{body}\n\nif ", env.read_text(), flags=re.DOTALL
                )
            )
        elif kind != USUAL:
            env.write_text(env.read_text().replace(engine, f"    from sqlalchemy import create_engine\n    connectable = create_engine({kind!r})\n"))

    def revision(self, *upgrade: str) -> None:
        """Adds a revision: lines of Python with ``op`` and ``sa``."""
        name, before = f"r{len(self._revisions) + 1}", self._revisions[-1] if self._revisions else None
        self._revisions.append(name)
        body = "\n    ".join(upgrade)
        (self._directory / "versions" / f"{name}.py").write_text(
            f"import sqlalchemy as sa\nfrom alembic import op\nrevision, down_revision = {name!r}, {before!r}\n\n\ndef upgrade():\n    {body}\n"
        )

    def correct(self, *upgrade: str) -> None:
        """Replaces the last revision."""
        self._revisions.pop()
        self.revision(*upgrade)
