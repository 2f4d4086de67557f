"""What an ordinary user may not do: tests often run as root, before whom no file is read-only."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65534


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may use."""
    directory = Path(tempfile.mkdtemp(prefix="replstore-test-"))
    directory.chmod(0o777)
    yield directory
    shutil.rmtree(directory)


@contextlib.contextmanager
def ordinary() -> Iterator[None]:
    """Without root's rights."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
