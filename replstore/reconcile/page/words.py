"""The words of the page."""

from __future__ import annotations

from replstore.reconcile.report import Report, TableReport

KINDS = {"changed": "changed", "missing_on_standby": "only on primary", "missing_on_primary": "only on standby"}
CAUSES = {
    "orphan": "orphan, committed on a former writer and not copied",
    "conversion": "a value that the other kind of database can't hold",
    "capture_missing": "its changes weren't captured",
    "behind_guard": "written past the triggers since an earlier check",
    "restored": "since a node went back in time (a backup, older files, a dump), or written past the triggers",
}


def cause(name: str) -> str:
    """A cause in a few words."""
    return CAUSES.get(name, name.replace("_", " "))


def count(number: int, one: str, many: str) -> str:
    """A number of things."""
    return f"{number:,} {one if number == 1 else many}"


def rows_of(table: TableReport) -> int:
    """Rows that a table has on either node."""
    kinds = table.map.kinds if table.map else {}
    return max((table.primary or 0) + kinds.get("missing_on_primary", 0), (table.standby or 0) + kinds.get("missing_on_standby", 0))


def late(report: Report, table: TableReport) -> int:
    """Rows that differ and don't count: on their way, or late."""
    return table.waiting if report.pair else table.settled


def seconds(number: float) -> str:
    """How long something took."""
    if number < 60:
        return f"{number:.1f} s" if number >= 0.1 else f"{number * 1000:.0f} ms"
    minutes, left = divmod(round(number), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s"
