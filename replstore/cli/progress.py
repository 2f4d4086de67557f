"""How far a check is, where somebody watches: the table, rows compared, rows a second, and about how long it will take."""

from __future__ import annotations

import sys
from typing import Any, Self

from replstore.cli.common import console


class Bar:
    """Shows the progress of a check on a terminal's standard error; nowhere else."""

    def __init__(self) -> None:
        self._shown: Any = None
        self._task: Any = None
        self._table = ""

    @property
    def callbacks(self) -> dict[str, Any]:
        """What the check calls; nothing where nobody watches."""
        return {"progress": self._progress, "expected": self._expected} if self._shown is not None else {}

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._shown = _shown()
            self._shown.start()
            self._task = self._shown.add_task("reading both databases", total=None)
        return self

    def __exit__(self, *error: object) -> None:
        if self._shown is not None:
            self._shown.stop()

    def _expected(self, table: str, rows: int) -> None:
        self._begin(table)
        self._shown.update(self._task, total=max(rows, 1))

    def _progress(self, table: str, rows: int) -> None:
        self._begin(table)
        self._shown.update(self._task, completed=rows)

    def _begin(self, table: str) -> None:
        if table != self._table:
            self._table = table
            self._shown.reset(self._task, total=None, description=f"comparing {table}")


def _shown() -> Any:
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            rate = f", {task.speed:,.0f} rows/s" if task.speed else ""
            return Text(f"{task.completed:,.0f} rows{rate}", no_wrap=True)

    name = TextColumn("{task.description}", table_column=Column(overflow="ellipsis", no_wrap=True, ratio=1))
    columns = (SpinnerColumn(), name, BarColumn(10), Rate(table_column=Column(no_wrap=True)), TimeRemainingColumn(compact=True))
    return Progress(*columns, console=console(stderr=True), transient=True, expand=True)
