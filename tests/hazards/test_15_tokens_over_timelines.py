"""Hazard 15: a place in the log means something on its own timeline only; what a token stands for is there, or it is said to be lost."""

from __future__ import annotations

import time

import pytest

from replstore import CommittedNotReplicated, StaleRead, Store, Token, TokenLost
from replstore.local.following import point_at
from tests.fix_native import NativeLab
from tests.fix_stores import Account, put
from tests.fix_streaming import on_an_installed_server_too
from tests.native.standby import served_by, stop_sending, walwriter_stopped


def sees(store: Store, token: Token, id: int, node: str = "writer") -> bool:
    """Whether a read after a token shows an account."""
    with store.read(node=node, after=token) as session:  # type: ignore[arg-type]
        return session.get(Account, id) is not None


def committed(store: Store, id: int) -> Token:
    """A token of a new account."""
    store.run(put(id))
    return store.token()


@on_an_installed_server_too
def test_a_token_is_good_up_to_the_end_of_its_timeline_whatever_comes_after(native_lab: NativeLab) -> None:
    first = native_lab.migrated(promote=False)
    kept = committed(first, 1)
    native_lab.pair.catch_up()
    stop_sending(native_lab)
    lost = committed(first, 2)
    first.close()
    native_lab.kill("primary")
    native_lab.pair.promote("standby")

    store = native_lab.store(background=False)
    assert sees(store, Token.parse(str(kept)), 1)  # as another process is given it
    with pytest.raises(TokenLost, match="ended before it"):
        sees(store, lost, 2)
    later = committed(store, 3)

    native_lab.pair.follow("primary")
    native_lab.pair.switch_over()
    store.run(put(4))
    for node in ("writer", "follower"):
        assert sees(store, kept, 1, node)
        assert sees(store, later, 3, node)
        with pytest.raises(TokenLost, match=f"timeline {kept.term_no}, which ended before it"):
            sees(store, lost, 2, node)
    assert store.token().term_no == kept.term_no + 2


def test_an_end_that_nobody_has_seen_isnt_guessed(native_lab: NativeLab) -> None:
    """After a crash the server tells the end of its own recovery, which is further: the token of a commit that is lost would be good."""
    first = native_lab.migrated(promote=False)
    native_lab.pair.catch_up()
    stop_sending(native_lab)
    lost = committed(first, 1)
    first.close()
    native_lab.kill("primary")
    native_lab.pair.promote("standby")
    native_lab.pair.standby.execute("SELECT pg_logical_emit_message(true, 'more than was lost', repeat('x', 100000))")
    native_lab.crash("standby")
    with pytest.raises(TokenLost, match="nobody has recorded"):
        sees(native_lab.store(background=False), lost, 1)


def test_a_timeline_without_a_record_hides_where_the_one_before_it_ended(native_lab: NativeLab) -> None:
    first = native_lab.migrated(promote=False)
    native_lab.pair.catch_up()
    stop_sending(native_lab)
    lost = committed(first, 1)
    first.close()
    native_lab.kill("primary")
    native_lab.pair.promote("standby")  # timeline 2, which no Store meets
    native_lab.pair.standby.execute("SELECT pg_logical_emit_message(true, 'more than was lost', repeat('x', 100000))")
    native_lab.pair.follow("primary")
    native_lab.pair.switch_over()
    with pytest.raises(TokenLost, match="nobody has recorded"):
        sees(native_lab.store(background=False), lost, 1)


def test_a_standby_that_is_further_on_an_older_timeline_has_nothing(native_lab: NativeLab) -> None:
    """A former primary that was made a standby without being rewound."""
    first = native_lab.migrated(promote=False)
    native_lab.pair.catch_up()
    stop_sending(native_lab)
    native_lab.pair.primary.execute("SELECT pg_logical_emit_message(true, 'alone', repeat('x', 1000000))")
    lost = first.token()
    first.close()
    native_lab.kill("primary")
    native_lab.pair.promote("standby")
    point_at(native_lab.pair.data("primary"), native_lab.pair.conninfo("standby"), "primary")
    native_lab.start("primary")

    store = native_lab.store(background=False)
    with pytest.raises(CommittedNotReplicated, match="timeline"):
        store.run(put(1), durability="replicated")
    token = store.token()
    behind = native_lab.state("primary")
    assert behind.role == "follower"
    assert native_lab.nodes["primary"].database.covers(behind.position or "", token.position)  # by its number it has all that
    assert not store.pair.link.has(store.pair.primary, behind, token)
    assert (store.pair.shipping.age(behind), store.pair.shipping.behind(behind, 60.0)) == (float("inf"), float("inf"))
    assert served_by(native_lab, store, node="follower", after=token) == "standby"
    with pytest.raises(TokenLost):
        sees(store, lost, 1)


@on_an_installed_server_too
def test_a_crash_takes_back_nothing_that_a_token_stands_for(native_lab: NativeLab) -> None:
    native_lab.migrated().close()
    store = native_lab.store(background=False, promote=False)
    with walwriter_stopped(native_lab.pair.primary):
        store.run(put(1), durability="off")
        token = store.token()
        native_lab.crash("primary")
    assert sees(store, token, 1)


def test_a_token_beyond_the_end_of_the_log_is_lost(native_lab: NativeLab) -> None:
    """A server that was made anew from a copy of its files writes on the same timeline."""
    store = native_lab.migrated(background=False)
    token = store.token()
    number = int(token.position.split("/")[1], 16) + 10_000_000
    beyond = Token(token.term_no, token.term_uuid, token.node, f"{token.position.split('/')[0]}/{number:X}")
    with pytest.raises(TokenLost, match="has come to"):
        sees(store, beyond, 1)


def test_a_token_of_a_later_timeline_tells_that_this_is_a_former_primary(native_lab: NativeLab) -> None:
    store = native_lab.migrated(background=False)
    token = store.token()
    began = time.monotonic()
    with pytest.raises(StaleRead, match="and primary writes on"):
        sees(store, Token(token.term_no + 1, "another", token.node, token.position), 1)
    with pytest.raises(TokenLost, match="another pair"):
        sees(store, Token(token.term_no, token.term_uuid, "another", token.position), 1)
    assert time.monotonic() - began < 2.0
