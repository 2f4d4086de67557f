"""Hazard 13: under row level security the shipper would take rows that it can't see for deleted ones."""

from __future__ import annotations

from contextlib import closing

import pytest

from replstore import local
from replstore.errors import CannotReplicate
from tests.fix_stores import Lab, insert, put

SECURED = (
    "ALTER TABLE account ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE account FORCE ROW LEVEL SECURITY",
    "CREATE POLICY small ON account USING (amount < 10) WITH CHECK (true)",
)


def test_a_table_of_which_the_role_sees_some_rows_only_is_refused_by_name(ordinary_postgresql_pair: local.PostgresPair) -> None:
    with closing(Lab(ordinary_postgresql_pair)) as lab:
        lab.sql("primary", "CREATE TABLE account (id int PRIMARY KEY, owner text UNIQUE, amount int)", *SECURED)
        with pytest.raises(CannotReplicate, match=r"account.*BYPASSRLS"):
            lab.store(background=False).migrate()


def test_a_policy_that_comes_later_stops_the_shipping_and_deletes_nothing(ordinary_postgresql_pair: local.PostgresPair) -> None:
    with closing(Lab(ordinary_postgresql_pair)) as lab:
        store = lab.migrated(background=False)
        store.run(put(1, 100))
        lab.sql("primary", *SECURED, insert(2, 200), "UPDATE account SET amount = 100 WHERE id = 1")
        assert lab.accounts("primary") == {}  # as this role sees it
        with pytest.raises(Exception, match="row-level security"):
            lab.ship()
        assert lab.accounts("standby") == {1: 100}
        lab.sql("primary", "ALTER TABLE account NO FORCE ROW LEVEL SECURITY")
        lab.ship()
        assert lab.accounts("standby") == {1: 100, 2: 200}


def test_a_role_that_bypasses_policies_ships_every_row(postgresql_lab: Lab) -> None:
    lab = postgresql_lab
    lab.migrated(background=False)
    lab.sql("primary", *SECURED, insert(1, 5), insert(2, 500))
    lab.ship()
    assert lab.accounts("standby") == {1: 5, 2: 500}
