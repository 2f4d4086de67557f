"""Shipping doesn't hold a batch's rows: a large transaction passes through a process that stays small."""

from __future__ import annotations

import pytest

from tests.fix_check import adopted
from tests.fix_mixed import MixedLab
from tests.fix_stores import Lab

#: Rows, and bytes in each: 80 MB.
ROWS, WIDTH = 40_000, 2000
#: MB that the process may grow by.
MOST = 15
#: Ships what there is, and says how much more memory that took than a small batch before.
PROGRAM = """
import resource, sys
from sqlalchemy import make_url
from replstore.node import Node
from replstore.replication.journal.ship import Shipper
urls = [make_url(url) for url in sys.argv[1:]]
shipper = Shipper(*(Node(name, url, seconds=2.0, beside=other) for name, url, other in zip(("primary", "standby"), urls, reversed(urls))))
most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
for line in sys.stdin:
    before = most()
    shipper.ship()
    print(most() - before, flush=True)
"""


def growth(lab: Lab, fill: str) -> int:
    """MB by which a program grows that ships a large transaction."""
    adopted(lab, "CREATE TABLE wide (id integer PRIMARY KEY, text text)").sync()
    lab.sql("primary", "INSERT INTO wide VALUES (0, 'x')")
    program = lab.program(PROGRAM, lab.pair.primary_url, lab.pair.standby_url)
    program.ask("the small one")
    lab.sql("primary", fill)
    found = int(program.ask("the large one"))
    assert lab.sql("standby", "SELECT count(*) FROM wide") == [(ROWS + 1,)]
    return found


def statement(*, postgresql: bool) -> str:
    if postgresql:
        return f"INSERT INTO wide SELECT n, repeat('x', {WIDTH}) || n FROM generate_series(1, {ROWS}) n"
    return (
        f"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {ROWS}) "
        f"INSERT INTO wide SELECT n, printf('%.*c', {WIDTH}, 'x') || n FROM c"
    )


def test_a_large_transaction_passes_through_a_small_process(lab: Lab) -> None:
    assert growth(lab, statement(postgresql=lab.postgresql)) < MOST


@pytest.mark.parametrize("primary", ["sqlite", "postgresql"])
def test_the_same_between_the_two_kinds(primary: str, request: pytest.FixtureRequest) -> None:
    lab: MixedLab = request.getfixturevalue("file_first" if primary == "sqlite" else "server_first")
    assert growth(lab, statement(postgresql=primary == "postgresql")) < MOST
