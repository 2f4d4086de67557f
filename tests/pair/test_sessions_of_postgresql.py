"""replstore's own sessions: what the pipeline has prepared stays prepared, whatever the driver does on the same connection."""

from __future__ import annotations

import contextlib

from replstore.databases.postgresql.sessions import Session
from tests.fix_stores import Lab


def test_a_prepared_statement_outlives_what_the_driver_does_on_the_same_connection(postgresql_lab: Lab) -> None:
    with contextlib.closing(Session(postgresql_lab.nodes["primary"].service)) as session:
        session.begin("BEGIN")
        assert session.ask("SELECT 1 + $1::int", 1).rows == [(2,)]
        for _ in range(10):  # as often as the driver needs before it prepares by itself
            session.execute("SELECT %s::int", (1,))
        session.rollback()
        session.begin("BEGIN")
        session.execute("SELECT %s::int", (1,))
        assert session.ask("SELECT 1 + $1::int", 2).rows == [(3,)]
