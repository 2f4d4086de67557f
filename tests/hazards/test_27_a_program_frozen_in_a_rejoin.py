"""Hazards 27 and 9 together: a program is frozen in the middle of a rejoin, another one does it, and the first one wakes up."""

from __future__ import annotations

import pytest

from tests.fix_stores import Lab, insert, put
from tests.hazards.test_09_a_frozen_client_never_stops_the_pair import end_of, frozen

#: A process that stops itself right after or before a call within its rejoin, and then says how that ended.
PROGRAM = """
from replstore.replication.journal import recording
from replstore.pair import rejoin

def freeze_at(owner, name, *, after):
    real = getattr(owner, name)
    def call(*arguments, **options):
        setattr(owner, name, real)
        if after:
            found = real(*arguments, **options)
            freeze()
            return found
        freeze()
        return real(*arguments, **options)
    setattr(owner, name, call)

store = Store(primary=sys.argv[1], standby=sys.argv[2], background=False, detection_time=0.4, probe_interval=0.1, ack_timeout=2.0)
store.pair.current(0.0)
carrier = type(store.pair.standby.database.carrier(store.pair.standby.service, store.pair.primary.service))
{freeze}
try:
    store.rejoin()
except Exception as error:
    print(type(error).__name__, flush=True)
else:
    print("done", flush=True)
"""
#: Without a lock of the former writer's file, which nobody can take from a frozen program (it is named: hazard 9).
PLACES = {
    "after reading the orphans": "freeze_at(rejoin, 'record', after=False)",
    "before the overwrite": "freeze_at(rejoin, '_overwrite', after=False)",
    "with the snapshot of the overwrite": "freeze_at(carrier, 'snapshot', after=True)",
}
IN_TRANSACTIONS = {
    "while it records them": "freeze_at(recording._Recorder, '_in_transaction', after=True)",
    "with everything written and nothing committed": "freeze_at(carrier, 'land', after=False)",
}


@pytest.mark.parametrize("place", PLACES)
def test_a_program_frozen_in_a_rejoin_stops_no_other_and_changes_nothing_when_it_wakes_up(lab: Lab, place: str) -> None:
    another_one_lets_it_rejoin(lab, PLACES[place])


@pytest.mark.parametrize("place", IN_TRANSACTIONS)
def test_nor_does_one_that_is_frozen_in_a_transaction_of_either_server(postgresql_lab: Lab, place: str) -> None:
    another_one_lets_it_rejoin(postgresql_lab, IN_TRANSACTIONS[place])


def another_one_lets_it_rejoin(lab: Lab, freeze: str) -> None:
    store = lab.migrated(background=False, rejoin="manual", takeover_timeout=15.0, ack_timeout=15.0)
    store.run(put(1))
    lab.sql("primary", insert(2))
    lab.kill("primary")
    store.run(put(3))
    lab.start("primary")
    program = frozen(lab, PROGRAM.replace("{freeze}", freeze))
    store.run(put(4))
    store.rejoin()
    store.sync()
    store.switchover()
    store.run(put(5))
    store.run(put(2, 99))  # the orphan's key, on the node that was the former writer
    assert end_of(program) not in ("done", "")
    store.sync()
    assert lab.state("primary").role == "writer"
    assert lab.accounts("primary") == lab.accounts("standby") == {1: 0, 2: 99, 3: 0, 4: 0, 5: 0}
    for node in ("primary", "standby"):
        assert lab.sql(node, f"SELECT key FROM {lab.name('orphan')} WHERE tbl LIKE '%account'") == [("[2]",)]
    assert store.check().equal
