"""The demo: nothing is lost or doubled, it says so when something is, and it leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replstore.demo.crew import Crew
from replstore.demo.screen import BARS, STEP, bars
from replstore.demo.tally import Tally, longest_gap
from replstore.demo.verdict import Rows, judge
from replstore.demo.worker import Event, Job
from tests.cli.fix_command import ROOT, Run

SERVERS = os.environ.get("REPLSTORE_LOCAL", "wheel")
#: Enough for every step to come about, and no more.
SHORT = ("--seconds", "3", "--workers", "2")


def line(output: str, label: str) -> str:
    """The value of one line of the table."""
    (found,) = (text for text in output.splitlines() if text.startswith(label + " "))
    return found.removeprefix(label).split()[0]


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """A directory for temporary files, to see what is left there."""
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


@pytest.fixture
def demo(tmp_path: Path, temporary: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the demo, to interfere with it."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1", "REPLSTORE_LOCAL": SERVERS}
        process = subprocess.Popen(
            [sys.executable, "-m", "replstore", "demo", *arguments],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=30)


def read_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for said in process.stdout:
        if text in said:
            return
    pytest.fail(f"the demo ended before it said {text!r}: {process.communicate()[1]}")


def test_two_files_lose_nothing(run: Run, temporary: Path) -> None:
    done = run("demo", *SHORT, TMPDIR=str(temporary))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert int(line(done.stdout, "writes acknowledged")) == int(line(done.stdout, "found")) > 0
    assert [line(done.stdout, label) for label in ("lost", "doubled", "half written", "divergences")] == ["0"] * 4
    assert "The standby writes, term 2" in done.stdout
    assert "The primary writes, term 3" in done.stdout
    assert float(line(done.stdout, "pause in ms")) > 0
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_two_servers_lose_nothing(run: Run) -> None:
    done = run("demo", "--database", "postgresql", *SHORT, "--format", "json", REPLSTORE_LOCAL=SERVERS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    facts = json.loads(done.stdout)
    assert facts["good"] is True
    assert facts["acknowledged"] == facts["found"] > 0
    assert facts["lost"] == facts["doubled"] == facts["torn"] == facts["divergences"] == facts["faults"] == []
    assert 0 < facts["pause_ms"]["overall"] <= facts["pause_ms"]["longest_of_one_process"]
    assert 0 < facts["switchover_pause_ms"]["overall"] <= facts["switchover_pause_ms"]["longest_of_one_process"]


@pytest.mark.slow
def test_a_primary_and_its_streaming_standby_lose_nothing(run: Run, temporary: Path) -> None:
    done = run("demo", "--native", *SHORT, TMPDIR=str(temporary), REPLSTORE_LOCAL=SERVERS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert int(line(done.stdout, "writes acknowledged")) == int(line(done.stdout, "found")) > 0
    assert [line(done.stdout, label) for label in ("lost", "doubled", "half written", "divergences")] == ["0"] * 4
    steps = (
        "The standby is promoted",
        "The former primary is rewound",
        "The primary follows",
        "The standby writes, timeline 2",
        "The primary writes, timeline 3",
    )
    places = [done.stdout.index(step) for step in steps]
    assert places == sorted(places)
    assert line(done.stdout, "pause in ms") != "–"
    assert working_in(temporary, b"postgres") == []


def test_lost_and_doubled_orders_are_found(demo: Callable[..., subprocess.Popen[str]], temporary: Path) -> None:
    """Another program takes one order away and writes one again, on the writer, so that the nodes stay equal."""
    process = demo(*SHORT, "--format", "table")
    read_until(process, "processes write orders")
    (file,) = temporary.glob("replstore-*/primary.db")
    with contextlib.closing(sqlite3.connect(file, timeout=20)) as other, other:
        other.execute("BEGIN IMMEDIATE")
        (lost,) = other.execute("SELECT number FROM orders ORDER BY id LIMIT 1").fetchone()
        (doubled,) = other.execute("SELECT number FROM orders ORDER BY id LIMIT 1 OFFSET 1").fetchone()
        other.execute("DELETE FROM orders WHERE number = ?", (lost,))
        other.execute("INSERT INTO orders (number, customer_id, line_count) SELECT number, customer_id, 0 FROM orders WHERE number = ?", (doubled,))
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1, output + errors
    assert errors == ""
    assert line(output, "lost") == "1"
    assert lost in next(text for text in output.splitlines() if text.startswith("lost "))
    assert line(output, "doubled") == "1"
    assert doubled in next(text for text in output.splitlines() if text.startswith("doubled "))
    assert line(output, "divergences") == "0"
    assert "This must not be" in output


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(demo: Callable[..., subprocess.Popen[str]], temporary: Path, number: signal.Signals) -> None:
    process = demo(*SHORT)
    read_until(process, "processes write orders")
    workers = working_in(temporary)
    assert len(workers) == 2
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == ""
    assert working_in(temporary) == []
    assert list(temporary.iterdir()) == []


def working_in(temporary: Path, program: bytes = b"replstore.demo.worker") -> list[int]:
    """The demo's writing processes, or other ones, with this directory for temporary files."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if program in (entry / "cmdline").read_bytes() and f"TMPDIR={temporary}".encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def test_a_process_that_dies_is_named(tmp_path: Path) -> None:
    nowhere = f"sqlite:///{tmp_path}/nowhere/a.db"
    crew = Crew([Job(1, nowhere, f"sqlite:///{tmp_path}/b.db", str(tmp_path / "log"), seed=1, customers=1)], tmp_path)
    try:
        deadline = time.monotonic() + 30
        while not (dead := crew.dead()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        crew.kill()
    assert len(dead) == 1
    assert dead[0].startswith("process 1 ended with code 1: ")
    assert "nowhere" in dead[0]


@pytest.mark.parametrize("arguments", [["--workers", "0"], ["--seconds", "0"], ["--database", "oracle"], ["--seed", "x"]])
def test_bad_options_are_refused(run: Run, arguments: list[str]) -> None:
    done = run("demo", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert arguments[0] in done.stderr


def test_sqlite_has_no_replication_of_its_own(run: Run) -> None:
    done = run("demo", "--native", "--database", "sqlite")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "replstore: --native is PostgreSQL's own replication, which SQLite has not: leave --database sqlite out\n"


# -- the verdict

GOOD: Rows = {
    "customers": [(1, "Ann", 1), (2, "Bob", 1)],
    "orders": [(1, "1-1", 1, 2), (2, "2-1", 2, 1)],
    "order_lines": [(1, 1, "cup", 2, 100), (2, 1, "tray", 1, 900), (3, 2, "spoon", 6, 50)],
}


def without(rows: Rows, table: str, key: int) -> Rows:
    return {**rows, table: [row for row in rows[table] if row[0] != key]}


def with_row(rows: Rows, table: str, *row: object) -> Rows:
    return {**rows, table: [*rows[table], row]}


def test_equal_nodes_with_every_order_are_good() -> None:
    verdict = judge(["1-1", "2-1"], {"primary": GOOD, "standby": GOOD})
    assert verdict.good
    assert (verdict.acknowledged, verdict.found) == (2, 2)


def test_an_order_that_was_not_acknowledged_may_be_there() -> None:
    assert judge(["1-1"], {"primary": GOOD, "standby": GOOD}).good


def test_a_lost_order_is_found() -> None:
    verdict = judge(["1-1", "2-1", "1-2"], {"primary": GOOD, "standby": GOOD})
    assert not verdict.good
    assert verdict.lost == ("1-2",)
    assert (verdict.acknowledged, verdict.found) == (3, 2)


def test_an_order_that_one_node_lacks_is_lost_and_a_divergence() -> None:
    verdict = judge(["1-1", "2-1"], {"primary": GOOD, "standby": without(GOOD, "orders", 2)})
    assert not verdict.good
    assert verdict.lost == ("2-1",)
    assert verdict.divergences == ("orders 2",)


def test_a_doubled_order_is_found_even_if_it_was_not_acknowledged() -> None:
    twice = with_row(GOOD, "orders", 3, "2-1", 2, 0)
    verdict = judge(["1-1"], {"primary": twice, "standby": twice})
    assert not verdict.good
    assert verdict.doubled == ("2-1",)


@pytest.mark.parametrize(
    ("rows", "torn"),
    [
        (without(GOOD, "order_lines", 2), "1-1"),
        ({**GOOD, "customers": [(1, "Ann", 1), (2, "Bob", 2)]}, "Bob"),
    ],
)
def test_a_half_written_order_is_found(rows: Rows, torn: str) -> None:
    verdict = judge(["1-1", "2-1"], {"primary": rows, "standby": rows})
    assert not verdict.good
    assert verdict.torn == (torn,)


def test_rows_that_differ_are_found_once() -> None:
    other = {**GOOD, "customers": [(1, "Ann", 1), (2, "Rob", 1)]}
    verdict = judge(["1-1", "2-1"], {"primary": GOOD, "standby": other}, divergences=["customers 2", "orders: a column is missing"])
    assert not verdict.good
    assert verdict.divergences == ("customers 2", "orders: a column is missing")


def test_a_fault_or_no_order_at_all_is_not_good() -> None:
    assert not judge(["1-1"], {"primary": GOOD, "standby": GOOD}, faults=["a process died"]).good
    assert not judge([], {"primary": GOOD, "standby": GOOD}).good


# -- the tally


def events(*times: tuple[float, int]) -> list[Event]:
    return [Event("acknowledged", at, f"1-{index}", "primary", term) for index, (at, term) in enumerate(times)]


def test_the_pause_is_the_longest_gap_from_the_last_before_to_the_first_under_the_new_term() -> None:
    written = events((1.0, 1), (3.0, 1), (3.5, 1), (3.6, 1), (4.4, 2), (9.0, 2))
    assert longest_gap(written, at=3.2, term=2) == pytest.approx(0.8)


def test_an_old_commit_that_is_acknowledged_late_does_not_hide_the_pause() -> None:
    written = events((3.0, 1), (3.3, 1), (5.0, 2), (5.1, 2))
    assert longest_gap(written, at=3.1, term=2) == pytest.approx(1.7)


def test_without_a_write_under_the_new_term_the_pause_is_not_known() -> None:
    assert longest_gap(events((1.0, 1), (2.0, 1)), at=1.5, term=2) is None


def test_the_pause_waits_for_every_process(tmp_path: Path) -> None:
    tally = Tally([tmp_path / "1", tmp_path / "2"])
    (tmp_path / "1").write_text("".join(event.to_json() + "\n" for event in events((1.0, 1), (2.0, 2))))
    (tmp_path / "2").write_text("".join(event.to_json() + "\n" for event in events((1.1, 1))))
    tally.read()
    assert tally.pause(1.5, 2) is None
    with (tmp_path / "2").open("a") as log:
        log.write(events((3.5, 2))[0].to_json())
    tally.read()
    assert tally.pause(1.5, 2) is None  # a line that isn't finished doesn't count
    with (tmp_path / "2").open("a") as log:
        log.write("\n")
    tally.read()
    pause = tally.pause(1.5, 2)
    assert pause is not None
    assert pause.overall == pytest.approx(900)
    assert pause.longest == pytest.approx(2400)


def test_a_call_that_ended_in_an_error_is_not_acknowledged(tmp_path: Path) -> None:
    (tmp_path / "1").write_text(Event("CommittedNotReplicated", 1.0, "1-1", "primary", 1, "too late").to_json() + "\n")
    tally = Tally([tmp_path / "1"])
    tally.read()
    assert tally.acknowledged == []
    assert tally.troubles == {"CommittedNotReplicated": 1}


def test_a_gap_is_seen_among_the_bars() -> None:
    now = 100.0
    times = [now - 0.05 - step * STEP for step in (0, 1, 4, 4)]
    assert bars(times, now, 6).count(BARS[0]) == 3
    assert bars(times, now, 6)[-6:].strip()[0] == BARS[-1]
