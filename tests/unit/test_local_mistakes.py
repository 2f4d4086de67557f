"""A local pair under a user's mistakes: a misspelt node is refused, a pair that can't be made leaves no server."""

from __future__ import annotations

from typing import Any

import pytest

from replstore.local import PostgresPair, PostgresServer, SqlitePair, pairs


@pytest.mark.parametrize("act", ["kill", "stop", "start", "url"])
def test_a_misspelt_node_is_refused(sqlite_pair: SqlitePair, act: str) -> None:
    """A test that kills "standbye" would pass without its fault."""
    servers: Any = PostgresPair.__new__(PostgresPair)  # the name is looked at first: no server is needed
    servers.primary = servers.standby = None
    for pair in (sqlite_pair, servers):
        with pytest.raises(ValueError, match="'third' is no node: there are primary and standby"):
            getattr(pair, act)("third")


def test_a_pair_whose_database_cannot_be_made_leaves_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[PostgresServer] = []

    class Recorded(PostgresServer):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(pairs, "PostgresServer", Recorded)
    with pytest.raises(Exception, match='database "postgres" already exists'):
        pairs.postgresql_pair("wheel", database="postgres", fsync=False)
    assert len(made) == 2
    assert not any(server.running or server.directory.exists() for server in made)
