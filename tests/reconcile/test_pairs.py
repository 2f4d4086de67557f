"""What the check can do with any two databases it can do with a pair, where it also knows what is on its way."""

from __future__ import annotations

from pathlib import Path

import pytest

from replstore.errors import CannotCheck
from replstore.reconcile import compare, reading, rows
from tests.fix_check import behind_the_guard, fill, found, table
from tests.fix_stores import Lab, put, until
from tests.pair.test_check import load


@pytest.mark.parametrize("few", [0, 100_000], ids=["streamed", "listed"])
def test_a_large_table_is_read_in_pieces_while_programs_write(postgresql_lab: Lab, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIECE", 1 << 13)
    monkeypatch.setattr(rows, "FEW", few)
    store = postgresql_lab.migrated(durability="async")
    fill(store, range(1000, 3000))
    store.sync()
    with load(store, range(100)) as done:
        until(lambda: min(done) > 5, "both threads write")
        for _ in range(5):
            report = store.check(workers=3)
            assert (report.equal, report.exact) == (True, True), report.as_dict()
        behind_the_guard(postgresql_lab, "standby", "UPDATE account SET amount = -5 WHERE id = 1500", "DELETE FROM account WHERE id = 2999")
        for _ in range(3):
            assert found(store.check(workers=3), "account") == [((1500,), "changed", ("amount",)), ((2999,), "missing_on_standby", ())]


def test_rows_on_their_way_are_counted_among_those_that_are_looked_at(lab: Lab) -> None:
    store = lab.migrated(background=False, durability="async")
    fill(store, range(20))
    lab.ship()
    for id in range(20, 25):
        store.run(put(id))
    behind_the_guard(lab, "standby", "DELETE FROM account WHERE id IN (1, 15)")
    report = store.check(where="id < 10 OR id > 22")
    assert found(report, "account") == [((1,), "missing_on_standby", ())]
    assert (table(report, "account").waiting, table(report, "account").primary) == (2, 12)
    assert store.check(exclude=["account"]).equal


def test_a_check_of_a_pair_goes_on_after_a_break(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "found"
    store = lab.migrated(background=False)
    fill(store, range(20))
    behind_the_guard(lab, "standby", "DELETE FROM account WHERE id = 7")
    real, calls = compare.compare_rows, list[str]()

    def breaking_off(*given: object) -> object:
        calls.append(str(given[2]))
        if len(calls) == 2:
            raise CannotCheck("broken off")
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(compare, "compare_rows", breaking_off)
    with pytest.raises(CannotCheck, match="broken off"):
        store.check(resume=str(file))
    report = store.check(resume=str(file))
    assert found(report, "account") == [((7,), "missing_on_standby", ())]
    assert (len(calls), calls[1]) == (3, calls[2])
    assert any("taken over from" in note for note in report.notes)
    assert not file.exists()
