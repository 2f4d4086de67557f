"""Rows of a standby changed in its data files, behind everybody's back: what a disk, or a bug, does to a physical copy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fix_native import NativeLab

#: Where a tuple's header has its xmax, and its flags.
XMAX, FLAGS = 4, 20
#: Flags to take away and to set: its transaction was rolled back instead of committed; and so was the one that deleted it.
NEVER_COMMITTED, NEVER_DELETED = (0x0100, 0x0200), (0x0400, 0x0800)


class Pages:
    """The first page of a table of a stopped server.

    Args:
        file: of the table.
    """

    def __init__(self, file: Path) -> None:
        self._file, self.bytes = file, bytearray(file.read_bytes())

    def tuples(self) -> Iterator[int]:
        """Where each tuple of the first page begins."""
        end = int.from_bytes(self.bytes[12:14], "little")
        for at in range(24, end, 4):
            line = int.from_bytes(self.bytes[at : at + 4], "little")
            if line >> 15 & 3 == 1:  # a tuple
                yield line & 0x7FFF

    def replace(self, old: bytes, new: bytes) -> None:
        """Other bytes in place of the same number."""
        assert len(old) == len(new)
        at = self.bytes.index(old)
        self.bytes[at : at + len(old)] = new

    def hide(self, value: bytes) -> None:
        """The row that holds this counts as never committed."""
        self._flag(value, *NEVER_COMMITTED)

    def bring_back(self, value: bytes) -> None:
        """The row that holds this counts as never deleted."""
        at = self._flag(value, *NEVER_DELETED)
        self.bytes[at + XMAX : at + XMAX + 4] = bytes(4)

    def _flag(self, value: bytes, without: int, having: int) -> int:
        place = self.bytes.index(value)
        at = max(start for start in self.tuples() if start < place)
        flags = int.from_bytes(self.bytes[at + FLAGS : at + FLAGS + 2], "little")
        self.bytes[at + FLAGS : at + FLAGS + 2] = (flags & ~without | having).to_bytes(2, "little")
        return at

    def write(self) -> None:
        self._file.write_bytes(self.bytes)


@contextmanager
def pages_of(lab: NativeLab, table: str) -> Iterator[Pages]:
    """A table's file on the standby, whose server is stopped meanwhile, without checksums.

    A page that is written again on the primary comes whole to the standby, and heals it: so nobody may write to the table any more.
    """
    _, ((path,),) = (
        lab.sql("primary", f"TABLE {table}"),
        lab.sql("primary", f"SELECT pg_relation_filepath('{table}')"),
    )  # the first reading writes, too
    lab.pair.primary.execute("CHECKPOINT")
    lab.pair.catch_up()
    ((checksums,),) = lab.pair.standby.execute("SHOW data_checksums")  # initdb's default since PostgreSQL 18
    lab.pair.standby.stop()  # writes all its pages, since it has replayed a checkpoint
    data = lab.pair.data("standby")
    if checksums == "on":
        data.run("pg_checksums", "--disable", "--no-sync", "-D", str(data.path))
    pages = Pages(data.path / path)
    yield pages
    pages.write()
    if checksums == "on":
        data.run("pg_checksums", "--enable", "--no-sync", "-D", str(data.path))
    lab.start("standby")
