"""A URL that names the wrong thing changes nothing: no takeover from a writer that others reach, no database replaced by another."""

from __future__ import annotations

import pytest
from sqlalchemy import make_url

from replstore.cli.common import Options
from replstore.cli.opening import opened
from replstore.errors import NotAPair, NoWriter
from replstore.store import Store
from tests.fix_stores import FAST, Base, Lab, insert, put


def mistyped(lab: Lab) -> str:
    """The primary's URL, but for a letter or a digit: nothing is there."""
    url = make_url(lab.pair.primary_url)
    if lab.postgresql:
        return url.set(port=1).render_as_string(hide_password=False)
    return url.set(database=str(url.database).replace("primary", "primery")).render_as_string(hide_password=False)


def test_a_program_that_has_never_met_the_writer_takes_nothing_over_while_another_reaches_it(lab: Lab) -> None:
    running = lab.migrated()
    running.run(put(1))
    wrong = lab.store(primary=mistyped(lab), takeover_timeout=1.5)
    with pytest.raises(NoWriter, match="its URL may be wrong"):
        wrong.run(put(2))
    running.run(put(3))
    assert lab.state("primary").term_no == lab.state("standby").term_no == 1
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 3: 0}


def test_a_program_that_has_never_met_the_writer_takes_over_when_nobody_else_reaches_it(lab: Lab) -> None:
    lab.migrated(background=False).close()
    lab.kill("primary")
    lab.store(background=False).run(put(1))
    assert lab.state("standby").term_no == 2


def test_a_command_takes_nothing_over_by_itself(lab: Lab) -> None:
    lab.migrated(background=False).close()
    options = Options(primary=mistyped(lab), standby=lab.pair.standby_url)
    with opened(options) as store, pytest.raises(NoWriter, match=r"if primary's URL is right and it is lost, run `replstore takeover`"):
        store.sync()
    assert lab.state("standby").role == "follower"


def test_a_database_that_holds_rows_is_not_made_the_follower(lab: Lab) -> None:
    for node in ("primary", "standby"):
        lab.sql(node, "CREATE TABLE account (id integer NOT NULL PRIMARY KEY, owner varchar NOT NULL UNIQUE, amount integer NOT NULL)")
    lab.sql("standby", insert(1, 100))
    store = lab.store(background=False)
    with pytest.raises(NotAPair, match=r"standby isn't empty: its table \S*account holds rows.*exchanged"):
        store.migrate(Base.metadata)
    assert lab.accounts("standby") == {1: 100}
    assert not tables_of_ours(lab, "primary")
    assert not tables_of_ours(lab, "standby")
    lab.sql("standby", "DELETE FROM account")
    store.migrate(Base.metadata)
    store.run(put(2))
    assert lab.accounts("standby") == {2: 0}


def tables_of_ours(lab: Lab, node: str) -> bool:
    """Whether replstore has made something there."""
    if lab.postgresql:
        return bool(lab.sql(node, "SELECT 1 FROM pg_namespace WHERE nspname = 'replstore'"))
    return bool(lab.sql(node, "SELECT 1 FROM sqlite_master WHERE name LIKE 'replstore%'"))


def test_exchanged_urls_of_a_pair_are_refused(lab: Lab) -> None:
    lab.migrated(background=False).close()
    with pytest.raises(Exception, match="primary"):
        Store(primary=lab.pair.standby_url, standby=lab.pair.primary_url, background=False, **FAST)
