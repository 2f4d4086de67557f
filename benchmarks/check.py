"""Measures the check and writes ``benchmarks/results/check.json`` and ``docs/benchmarks-check.md``.

::

    python -m benchmarks.check                       # a million rows, in about twelve minutes on two processors
    python -m benchmarks.check --only large          # ten million, in about half an hour, with some 8 GB on the disk
    python -m benchmarks.check --quick               # to see that it runs
    python -m benchmarks.check --only sqlite         # the other cases keep what they had

reladiff is installed into an environment of its own, which is removed afterwards.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import psycopg
from sqlalchemy import make_url, text

from benchmarks.command import Command
from benchmarks.ground import KINDS
from benchmarks.measure import Rounds, Section, Variant, interleave, timed
from benchmarks.plan import Plan
from replstore import Report, Store
from replstore.reconcile import Wishes, check_databases

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "check.json"
DOCUMENT = ROOT / "docs" / "benchmarks-check.md"
RELADIFF = "reladiff[postgresql]==0.6.0"
#: How many rows differ, and in what: a third of them are changed, a third is on one node only, a third on the other.
DIFFERENCES = 90
#: How many rows change before the next check.
CHANGES = 1000
COLUMNS = "n int NOT NULL, name text, price numeric(12, 2), at timestamp with time zone, doc jsonb"
#: What the server can do at most: every row's hash, added up.
SCAN = "SELECT count(*), bit_xor(hash_record_extended(t.*, 0)) FROM item t"
HEAD = """# Measurements of the check

Made by `make bench-check`, from `benchmarks/results/check.json`; don't edit.

All of a section's variants ran in turns in one run, and ratios are formed within a turn. A value is the median, in brackets the quartiles of all rounds.
"""


def postgresql(rows: int, plan: Plan, key: str) -> Section:
    """Two tables on two servers."""
    with KINDS["postgresql"]() as ground, tempfile.TemporaryDirectory(prefix="replstore-reladiff-") as place:
        urls = {name: ground.pair_urls(name) for name in ("equal", "different")}
        for pair in urls.values():
            for url in pair:
                _fill_postgresql(url, rows, key)
        _differ(urls["different"][1], rows)
        reladiff = _reladiff(Path(place))
        variants: list[Variant] = [lambda: {"hash scans": _scans(urls["equal"])}]
        for name, pair in urls.items():
            variants.append(_check(name, pair))
            if reladiff is not None:
                variants.append(_other(name, reladiff, pair))
        rounds = interleave(variants, seconds=plan.seconds(60), least=plan.rounds)
    section = Section(
        f"{rows:,} rows on two PostgreSQL servers, key of type {key}",
        "s. `check`: `check_databases` in a program that runs already; `command`: `replstore check URL URL`, its start included. "
        f"`hash scans`: `{SCAN}` on both servers at once, in sessions that are open already: less can't be read. "
        f"`different`: {DIFFERENCES} scattered rows differ. `memory`: the most that the command's own process had.",
        [*rounds.figures("s", [each for each in rounds.values if not each.startswith("memory")]), *rounds.figures("MB", _memory(rounds))],
    )
    for name, most, least in (("equal", 1.3, 4.0), ("different", 2.0, 10.0)):
        section.ratios.append(rounds.ratio(f"{name}: check to hash scans", f"check, {name}", "hash scans", target=most, at_most=True))
        if reladiff is not None:
            section.ratios.append(rounds.ratio(f"{name}: reladiff to the command", f"reladiff, {name}", f"command, {name}", target=least))
    return section


def incremental(rows: int, plan: Plan) -> Section:
    """A pair that was found equal, and a thousand rows changed since then."""
    with KINDS["postgresql"]() as ground:
        urls = ground.pair_urls("incremental")
        _fill_postgresql(urls[0], rows, "bigint")
        with Store(primary=urls[0], standby=urls[1], background=False) as store:
            store.migrate()

            def turn() -> dict[str, float]:
                whole = timed(lambda: _equal(store.check(settle=0)))
                store.run(lambda session: session.execute(text(f"UPDATE item SET price = price + 1 WHERE id % {rows // CHANGES} = 1")) and None)
                store.sync(timeout=600)
                return {"check": whole, "check --since last": timed(lambda: _equal(store.check(since="last", settle=0)))}

            rounds = interleave([turn], seconds=plan.seconds(30), least=plan.rounds)
    return Section(
        f"{CHANGES:,} changes in {rows:,} rows of a pair of PostgreSQL servers",
        f"s. `check`: the whole table, by `store.check()`. `check --since last`: after {CHANGES:,} of its rows were changed by one statement and shipped.",
        rounds.figures("s"),
        [rounds.ratio("a whole check to one since the last", "check", "check --since last", target=100.0)],
    )


def _equal(report: Report) -> None:
    assert report.equal, report


def sqlite(rows: int, plan: Plan) -> Section:
    """Two files."""
    with KINDS["sqlite"]() as ground:
        urls = {name: ground.pair_urls(name) for name in ("equal", "different")}
        for pair in urls.values():
            for url in pair:
                _fill_sqlite(url, rows)
        _differ(urls["different"][1], rows)
        variants: list[Variant] = [lambda: {"reading": _reading(urls["equal"])}, *(_check(name, pair) for name, pair in urls.items())]
        rounds = interleave(variants, seconds=plan.seconds(30), least=plan.rounds)
    section = Section(
        f"{rows:,} rows in two SQLite files",
        "s. `check`: `check_databases`; `command`: `replstore check URL URL`, its start included. "
        f"`reading`: Python's driver reads every row of both files, and nothing is done with them. `different`: {DIFFERENCES} scattered "
        "rows differ.",
        [*rounds.figures("s", [each for each in rounds.values if not each.startswith("memory")]), *rounds.figures("MB", _memory(rounds))],
    )
    section.ratios += [rounds.ratio(f"{name}: check to reading", f"check, {name}", "reading") for name in urls]
    return section


def _memory(rounds: Rounds) -> list[str]:
    return [name for name in rounds.values if name.startswith("memory")]


def _fill_postgresql(url: str, rows: int, key: str) -> None:
    value = "i" if key == "bigint" else "md5(i::text)::uuid" if key == "uuid" else "'key ' || i"
    with psycopg.connect(_plain(url), autocommit=True) as connection:
        connection.execute(f"CREATE TABLE item (id {key} PRIMARY KEY, {COLUMNS})")
        connection.execute(
            f"INSERT INTO item SELECT {value}, i::bigint * 7919 % 100000, 'name ' || md5(i::text), i % 100000 / 100.0, "
            "'2024-01-01Z'::timestamptz + i * interval '1 second', jsonb_build_object('a', i, 'b', 'x' || i % 100) "
            f"FROM generate_series(1, {rows}) i"
        )
        connection.execute("VACUUM ANALYZE item")
        connection.execute("CHECKPOINT")


def _fill_sqlite(url: str, rows: int) -> None:
    with closing(sqlite3.connect(str(make_url(url).database))) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, n INTEGER NOT NULL, name TEXT, price NUMERIC(12, 2), at DATETIME, doc JSON)")
        connection.execute(
            f"WITH RECURSIVE g(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM g WHERE i < {rows}) INSERT INTO item SELECT i, i * 7919 % 100000, "
            "'name ' || hex(i * 2654435761), i % 100000 / 100.0, datetime(1704067200 + i, 'unixepoch') || '.000000', json_object('a', i, 'b', 'x' || i % 100) FROM g"
        )
        connection.commit()


def _differ(url: str, rows: int) -> None:
    """Rows all over the table are changed, removed and added."""
    step = rows * 3 // DIFFERENCES
    ids = f"SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM item) r WHERE place % {step} = {{0}} ORDER BY id LIMIT {DIFFERENCES // 3}"
    for statement in (
        f"UPDATE item SET price = price + 1 WHERE id IN ({ids.format(step // 3)})",
        f"DELETE FROM item WHERE id IN ({ids.format(step // 2)})",
        f"UPDATE item SET name = 'another' WHERE id IN ({ids.format(step // 5)})",
    ):
        if make_url(url).get_backend_name() == "sqlite":
            with closing(sqlite3.connect(str(make_url(url).database))) as file:
                file.execute(statement)
                file.commit()
        else:
            with psycopg.connect(_plain(url)) as connection:
                connection.execute(statement)


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def _scans(urls: tuple[str, str]) -> float:
    with psycopg.connect(_plain(urls[0])) as one, psycopg.connect(_plain(urls[1])) as other, ThreadPoolExecutor(2) as pool:
        return timed(lambda: list(pool.map(lambda connection: connection.execute(SCAN).fetchall(), (one, other))))


def _reading(urls: tuple[str, str]) -> float:
    def read(url: str) -> None:
        with closing(sqlite3.connect(str(make_url(url).database))) as connection:
            for _ in connection.execute("SELECT * FROM item"):
                pass

    with ThreadPoolExecutor(2) as pool:
        return timed(lambda: list(pool.map(read, urls)))


def _check(name: str, urls: tuple[str, str]) -> Variant:
    def turn() -> dict[str, float]:
        seconds, megabytes, output = _run([sys.executable, "-m", "replstore", "check", *urls, "--settle", "0"])
        whole = f"{DIFFERENCES} rows" if name == "different" else "Equal"
        assert whole in output, output
        itself = timed(lambda: check_databases(*urls, Wishes(settle=0)))
        return {f"check, {name}": itself, f"command, {name}": seconds, f"memory of command, {name}": megabytes}

    return turn


def _other(name: str, reladiff: Path, urls: tuple[str, str]) -> Variant:
    one, other = map(_plain, urls)

    def turn() -> dict[str, float]:
        seconds, megabytes, output = _run([str(reladiff), one, "item", other, "item", "-k", "id", "-c", "%"])
        lines = sum(line[:1] in "+-" for line in output.splitlines())  # a changed row is two of them
        assert lines == (DIFFERENCES // 3 * 5 if name == "different" else 0), output
        return {f"reladiff, {name}": seconds, f"memory of reladiff, {name}": megabytes}

    return turn


def _run(command: Sequence[str]) -> tuple[float, float, str]:
    """How long a command took, the most memory it had in MB, and what it printed."""
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL, cwd=ROOT)
        most = 0.0
        while process.poll() is None:
            most = max(most, _memory_of(process.pid))
            time.sleep(0.005)
        seconds = time.perf_counter() - began
        output.seek(0)
        return seconds, most, output.read()


def _memory_of(pid: int) -> float:
    """The most memory that a process has had, in MB; what its system says of one that ended counts its parent's."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def _reladiff(place: Path) -> Path | None:
    """reladiff in an environment of its own; None where it can't be installed, which is said."""
    try:
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True, capture_output=True)
        subprocess.run([str(place / "bin" / "pip"), "install", "-q", RELADIFF], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"reladiff can't be installed ({error}): measured without it", file=sys.stderr)
        return None
    return place / "bin" / "reladiff"


CASES: dict[str, Callable[[int, Plan], Section]] = {
    "bigint": lambda rows, plan: postgresql(rows, plan, "bigint"),
    "uuid": lambda rows, plan: postgresql(rows, plan, "uuid"),
    "sqlite": sqlite,
    "incremental": lambda rows, plan: incremental(10 * rows, plan),
    "large": lambda rows, plan: postgresql(10 * rows, replace(plan, quick=True), "bigint"),
}
#: Takes too long for every run.
APART = ("large",)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    command = Command("benchmarks.check", "Measures the check.", "one round with fewer rows", list(CASES), RESULTS, DOCUMENT, apart=APART)
    command.parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="rows of a table")
    options = command.parse(arguments)
    plan = Plan(quick=options.quick)
    rows = min(options.rows, 20_000) if options.quick else options.rows
    command.measure(options, {name: partial(case, rows, plan) for name, case in CASES.items()}, HEAD)


if __name__ == "__main__":
    main()
