"""Reads say what they are; what a Store tells about its pair."""

from __future__ import annotations

import json
import sqlite3
import threading

import pytest
from sqlalchemy import exc, select, text

from replstore import (
    ConfigError,
    NoWriter,
    StaleRead,
    Store,
    Token,
    TokenLost,
    local,
)
from tests.fix_shop import COUNT, Order, add, new_store, on_both, open_store, sql, wait_until

# --- reading


def test_reads_see_committed_rows_on_either_node_and_their_objects_stay_loaded(store: Store) -> None:
    store.run(add)
    for node in ("writer", "follower", "any"):
        with store.read(node=node) as session:
            order = session.scalars(select(Order)).one()
        assert order.item == "tea"


def test_a_read_names_a_node_that_exists(store: Store) -> None:
    with pytest.raises(ValueError, match="writer"), store.read(node="standby"):
        pass


@pytest.mark.parametrize("node", ["writer", "follower"])
def test_a_read_changes_nothing(store: Store, node: str) -> None:
    with pytest.raises(exc.DBAPIError), store.read(node=node) as session:
        add(session)
    with pytest.raises(exc.DBAPIError), store.read(node=node) as session:
        add(session)
        session.commit()
    store.run(add)  # on the same connection of the pool
    assert on_both(store) == (1, 1)


def test_a_follower_read_is_served_by_the_follower(pg: Store) -> None:
    ports = {name: int(node.url.port or 0) for name, node in pg.pair.nodes.items()}
    for node, expected in (("writer", "primary"), ("follower", "standby"), ("any", "standby")):
        with pg.read(node=node, max_lag=5.0) as session:
            assert session.scalar(text("SELECT inet_server_port()")) == ports[expected]


def test_max_lag_ships_what_is_missing_before_it_reads(shop: local.Pair) -> None:
    with new_store(shop, background=False, durability="async") as store:
        store.run(add)
        with store.read(node="follower") as session:
            assert session.scalar(text(COUNT)) == 0  # no bound was asked for
        with store.read(node="follower", max_lag=0.0) as session:
            assert session.scalar(text(COUNT)) == 1


def test_a_token_makes_a_read_see_its_commits_on_the_follower_or_go_to_the_writer(shop: local.Pair) -> None:
    with new_store(shop, background=False, durability="async") as store:
        store.run(add)
        token = store.token()
        with store.read(node="follower", after=token) as session:  # the follower doesn't have it, so the writer serves
            assert session.scalar(text(COUNT)) == 1
        store.sync()
        shop.kill("primary")
        with store.read(node="follower", after=token) as session:
            assert session.scalar(text(COUNT)) == 1


def test_a_token_travels_as_text(store: Store) -> None:
    store.run(add)
    token = store.token()
    assert Token.parse(str(token)) == token
    with store.read(node="follower", after=Token.parse(str(token))) as session:
        assert session.scalar(text(COUNT)) == 1
    for bad in ("", "[]", "nonsense", "[1, 2]"):
        with pytest.raises(ValueError, match="token"):
            Token.parse(bad)


def test_a_token_of_commits_that_went_down_with_their_writer_is_lost(shop: local.Pair) -> None:
    with new_store(shop, background=False, durability="async") as store:
        store.run(add)
        store.sync()
        kept = store.token()
        store.run(add)
        lost = store.token()
        shop.kill("primary")
        with store.read(after=kept) as session:
            assert session.scalar(text(COUNT)) == 1
        with pytest.raises(TokenLost), store.read(after=lost):
            pass


def test_a_token_still_holds_after_a_switchover(shop: local.Pair) -> None:
    with new_store(shop) as store:
        store.run(add)
        token = store.token()
        store.switchover()
        for node in ("writer", "follower"):
            with store.read(node=node, after=token) as session:
                assert session.scalar(text(COUNT)) == 1


def test_a_token_is_not_taken_for_granted_when_its_node_writes_again(shop: local.Pair) -> None:
    with new_store(shop, background=False, durability="async") as store:
        store.sync()
        store.run(add)
        lost = store.token()
        shop.kill("primary")
        store.run(add)
        shop.start("primary")
        store.rejoin()
        store.sync()
        store.switchover()
        assert store.status().writer == "primary"
        with pytest.raises(TokenLost), store.read(after=lost):
            pass


def test_reads_fall_back_to_the_node_that_is_left(shop: local.Pair) -> None:
    with new_store(shop) as store:
        store.run(add)
        shop.kill("standby")
        for node in ("writer", "follower", "any"):
            with store.read(node=node) as session:
                assert session.scalar(text(COUNT)) == 1
        shop.start("standby")
        wait_until(lambda: store.status().healthy)
        shop.kill("primary")
        for node in ("writer", "follower", "any"):
            with store.read(node=node) as session:
                assert session.scalar(text(COUNT)) == 1


def test_a_read_that_no_node_can_serve_within_its_terms_is_stale(shop: local.Pair) -> None:
    with new_store(shop, background=False, durability="async", takeover="manual", takeover_timeout=0.3) as store:
        store.run(add)
        token = store.token()
        shop.kill("primary")
        with pytest.raises(StaleRead), store.read(node="writer"):
            pass
        with pytest.raises(StaleRead), store.read(node="follower", after=token):
            pass
        with pytest.raises(StaleRead), store.read(node="any", max_lag=0.0):
            pass
        with store.read(node="follower") as session:  # no terms: the follower is what it says it is
            assert session.scalar(text(COUNT)) == 0


# --- sync, status, settings


def test_sync_ships_everything_that_was_committed_before(shop: local.Pair) -> None:
    with new_store(shop, background=False, durability="async") as store:
        for _ in range(3):
            store.run(add)
        sql(shop.primary_url, "INSERT INTO orders (item) VALUES ('by another program')")
        assert on_both(store) == (4, 0)
        assert store.status().nodes["standby"].waiting == 4
        store.sync()
        assert on_both(store) == (4, 4)
        assert store.status().nodes["standby"].waiting == 0


def test_the_background_ships_what_other_programs_write(shop: local.Pair) -> None:
    with new_store(shop) as store:
        sql(shop.primary_url, "INSERT INTO orders (item) VALUES ('by another program')")
        wait_until(lambda: on_both(store) == (1, 1))


def test_status_says_who_writes_and_how_each_node_is(shop: local.Pair) -> None:
    with new_store(shop) as store:
        wait_until(lambda: store.status().healthy)
        status = store.status()
        assert (status.writer, status.term, status.acknowledge, status.durability, status.stopped) == ("primary", 1, "replicated", "replicated", "")
        assert {name: node.role for name, node in status.nodes.items()} == {"primary": "writer", "standby": "follower"}
        assert {node.health for node in status.nodes.values()} == {"up"}
        assert json.loads(json.dumps(status.as_dict()))["nodes"]["standby"]["waiting"] == 0
        shop.kill("standby")
        store.run(add)
        status = wait_until(lambda: found if (found := store.status()).acknowledge == "solo" else None)
        assert status.nodes["standby"].health.startswith("refused")
        assert "standby" in status.next_step
        assert not status.healthy


def test_status_shows_no_password(postgresql_shop: local.PostgresPair) -> None:
    secret = postgresql_shop.standby_url.replace("postgres@", "postgres:geheim@")
    new_store(postgresql_shop).close()
    with open_store((postgresql_shop.primary_url, secret)) as store:
        assert "geheim" not in json.dumps(store.status().as_dict())
        assert "geheim" not in repr(store.pair.nodes)


def test_a_store_on_databases_that_are_no_pair_says_migrate(any_pair: local.Pair) -> None:
    if isinstance(any_pair, local.SqlitePair):
        for name in ("primary", "standby"):
            sqlite3.connect(any_pair.path(name)).close()
    with open_store(any_pair, takeover_timeout=0.3) as store, pytest.raises((NoWriter, ConfigError), match="replstore migrate"):
        store.run(add)


def test_close_ends_the_threads_and_leaves_nothing_open(shop: local.Pair) -> None:
    before = threading.active_count()
    store = new_store(shop)
    store.run(add)
    store.close()
    wait_until(lambda: threading.active_count() <= before, 2.0)
    if isinstance(shop, local.PostgresPair):
        for url in (shop.primary_url, shop.standby_url):
            others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
            wait_until(lambda url=url, others=others: sql(url, others) == [(0,)], 2.0)  # type: ignore[misc]
